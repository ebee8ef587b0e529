//! A new program that cannot serve: the old one serves on, and says why.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::weir::plain;
use crate::support::{Origin, until};
use crate::upgrade_process::{Load, Staged, echo};

fn put(staged: &Staged, script: &str) {
    fs::remove_file(&staged.program).unwrap();
    fs::write(&staged.program, script).unwrap();
    fs::set_permissions(&staged.program, fs::Permissions::from_mode(0o755)).unwrap();
}

#[track_caller]
fn fails(staged: &Staged, why: &str) {
    let (before, output): (u32, Output) = (staged.weir.serving(), staged.upgrade());
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains(why), "{told}");
    assert_eq!(staged.weir.serving(), before, "it serves on");
    let status = staged.weir.status();
    let error = status["failed_upgrade"]["error"].as_str().unwrap();
    assert!(error.contains(why), "{error}");
    until("the line", || {
        let line = "upgrade: failed, this process serves on: ";
        staged.weir.stderr().contains(line).then_some(())
    });
    assert_eq!(staged.weir.get("/").status(), 200);
}

#[test]
fn a_program_that_ends_is_missing_or_is_none_changes_nothing() {
    let origins = ["a", "b"].map(echo);
    let staged = Staged::start(&plain(&[&origins[0], &origins[1]], ""));
    let load = Load::on(&staged.weir, 4);
    put(&staged, "#!/bin/sh\nexit 3\n");
    fails(&staged, "ended before it served: exit status: 3");
    put(&staged, "#!/bin/sh\nkill -9 $$\n");
    fails(&staged, "ended before it served: signal: 9");
    put(&staged, "#!/bin/sh\nexec <&-\nexec sleep 600\n");
    fails(&staged, "was killed: it closed the channel");
    put(
        &staged,
        "#!/bin/sh\necho 'no word of ours' >&0\nexec sleep 600\n",
    );
    fails(&staged, "was killed: ");
    put(&staged, "no program");
    fs::set_permissions(&staged.program, fs::Permissions::from_mode(0o644)).unwrap();
    fails(&staged, "Permission denied");
    fs::remove_file(&staged.program).unwrap();
    fails(&staged, "No such file");
    let (_, failures) = load.end();
    assert_eq!(failures, [""; 0]);
    // And then one that is good.
    std::os::unix::fs::symlink(crate::support::weir::binary(), &staged.program).unwrap();
    staged.upgraded();
    assert_eq!(
        staged.weir.status()["failed_upgrade"],
        serde_json::Value::Null
    );
}

#[test]
fn a_program_that_says_nothing_is_waited_for_and_killed() {
    let origin = echo("a");
    let staged = Staged::start(&plain(&[&origin], ""));
    put(&staged, "#!/bin/sh\nexec sleep 600\n");
    let begun = Instant::now();
    fails(&staged, "nothing was heard of it");
    assert!(begun.elapsed() >= Duration::from_secs(10));
}

#[test]
fn a_file_that_the_new_program_refuses_is_told_with_its_problems() {
    let origin = Origin::named("a");
    let staged = Staged::start(&plain(&[&origin], "watch = \"off\""));
    staged.weir.write(&plain(&[&origin], "workerz = 3"));
    fails(&staged, "unknown key `workerz`");
    let more = plain(&[&origin], "watch = \"off\"").replace("\"$web\"", "\"$web\", \"$taken\"");
    staged.weir.write(&more);
    let taken = std::net::TcpListener::bind(staged.weir.address("taken")).unwrap();
    fails(&staged, "another process listens there");
    drop(taken);
    // A child of another test has it too, until it has become another program.
    until("nobody to listen there", || {
        let asked = std::net::TcpStream::connect(staged.weir.address("taken"));
        asked.is_err().then_some(())
    });
    staged.upgraded();
}
