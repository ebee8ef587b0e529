//! The Debian package and its unit: built over the binary of this run by the script that operators use, unpacked, and run from there.
//! It must neither compile weir again nor install anything.
//! Here the walk ends.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, wait};
use crate::process::{run, said, there};
use crate::root;

pub fn missing() -> Option<String> {
    for (program, package) in [("dpkg-deb", "dpkg"), ("dpkg-shlibdeps", "dpkg-dev")] {
        if !there(program) {
            return Some(format!("Debian's package {package} is not installed"));
        }
    }
    let found = tools().join("cargo-deb").exists() || there("cargo-deb");
    (!found).then(|| "cargo-deb is not installed".to_owned())
}

/// Where `tests/run` installs cargo-deb.
fn tools() -> PathBuf {
    root().join("target/tools/bin")
}

/// What is in the package is what an operator needs, and works.
pub fn package(directory: &Path) {
    let archive = directory.join("weir.deb");
    let path = format!(
        "{}:{}",
        tools().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    run(Command::new(root().join("docker/deb"))
        .args(["--no-build", "--profile", "dev", "--fast", "--output"])
        .arg(&archive)
        .env("PATH", path));
    let tree = directory.join("tree");
    run(Command::new("dpkg-deb").arg("-R").arg(&archive).arg(&tree));

    let text = |file: &str| {
        fs::read_to_string(tree.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    assert!(text("DEBIAN/control").starts_with("Package: weir\n"));
    assert_eq!(text("DEBIAN/conffiles").trim(), "/etc/weir/weir.toml");
    let after = text("DEBIAN/postinst");
    assert!(after.contains("systemd-sysusers weir.conf"), "{after}");
    assert!(!after.contains("#DEBHELPER#"), "{after}");
    assert!(
        !after.contains("deb-systemd-invoke start"),
        "it starts by itself: {after}"
    );
    let mode = fs::metadata(tree.join("DEBIAN/postinst")).expect("it is there");
    assert_eq!(mode.permissions().mode() & 0o777, 0o755);
    assert_eq!(text("etc/weir/weir.toml"), source("config/weir.toml"));
    assert_eq!(
        text("usr/lib/systemd/system/weir.service"),
        source("docker/weir.service")
    );
    assert!(text("usr/share/bash-completion/completions/weir").contains("complete -F _weir"));
    assert!(text("usr/share/zsh/vendor-completions/_weir").starts_with("#compdef weir"));
    assert!(text("usr/share/fish/vendor_completions.d/weir.fish").contains("complete -c weir"));

    for file in [
        "keepalived/keepalived.conf",
        "bird/bird.conf",
        "transparent/weir.nft",
    ] {
        let own = text(&format!("usr/share/doc/weir/examples/{file}"));
        assert_eq!(own, source(&format!("config/{file}")));
    }

    let weir = tree.join("usr/bin/weir");
    pages(&tree, &weir);
    serves(&weir, &tree.join("etc/weir/weir.toml"), directory);
}

fn source(file: &str) -> String {
    fs::read_to_string(root().join(file)).expect("it is there")
}

/// Every command has its page, and `man` finds nothing odd in any.
fn pages(tree: &Path, weir: &Path) {
    let help = run(Command::new(weir).arg("--help"));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.contains(&"run"), "{help}");
    let folder = tree.join("usr/share/man/man1");
    for name in names.into_iter().filter(|name| *name != "help") {
        let page = folder.join(format!("weir-{name}.1.gz"));
        assert!(page.exists(), "no page for {name}");
    }
    if there("man") {
        let page = folder.join("weir.1.gz");
        let mut man = Command::new("man");
        let output = man
            .args(["--warnings", "-l"])
            .arg(page)
            .env("MANWIDTH", "100")
            .output();
        let output = output.expect("man runs");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert!(said(&output).contains("weir-drain(1)"));
    }
}

/// The program of the package takes the configuration of the package, on other ports.
fn serves(weir: &Path, config: &Path, directory: &Path) {
    run(Command::new(weir).args(["check", "-c"]).arg(config));
    let [web, admin] = [free(), free()];
    let text = fs::read_to_string(config).expect("it is there");
    let moved = text
        .replace("0.0.0.0:8080", &web.to_string())
        .replace("127.0.0.1:9900", &admin.to_string());
    let state = directory.join("state");
    let file = directory.join("weir.toml");
    fs::write(
        &file,
        format!("state_dir = \"{}\"\n{moved}", state.display()),
    )
    .expect("a file can be written");
    let arguments = [
        "run".to_owned(),
        "-c".to_owned(),
        file.display().to_string(),
    ];
    let mut process = Process::start(
        &weir.display().to_string(),
        &arguments,
        &directory.join("log"),
    );
    wait(
        "weir of the package is ready",
        Duration::from_secs(20),
        || {
            assert!(process.ended().is_none(), "{}", process.tail(20));
            let mut ask = Command::new(weir);
            let output = ask.args(["status", "--ready", "-c"]).arg(&file).output();
            output
                .is_ok_and(|output| output.status.success())
                .then_some(())
        },
    );
    assert!(
        process
            .terminate(Duration::from_secs(20))
            .is_some_and(|status| status.success())
    );
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address")
}

pub fn missing_systemd() -> Option<String> {
    (!there("systemd-analyze")).then(|| "no systemd-analyze".to_owned())
}

/// systemd understands every line of the unit, and finds little that the service might do to its machine.
pub fn unit(directory: &Path) {
    let text = source("docker/weir.service");
    // Its programs are not installed here, and neither is its user.
    let here = text.replace("/usr/bin/weir", env!("CARGO_BIN_EXE_weir"));
    let file = directory.join("weir.service");
    fs::write(&file, here).expect("a file can be written");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output();
    let output = output.expect("systemd-analyze runs");
    let complaints = said(&output);
    // Units of the system may be odd: what counts is what is said of this one.
    let own: Vec<&str> = complaints
        .lines()
        .filter(|line| line.contains("weir.service"))
        .collect();
    assert!(own.is_empty(), "{own:#?}");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(&file)
        .output()
        .expect("systemd-analyze runs");
    let judged = said(&output);
    if judged.contains("unrecognized option") {
        println!("  this systemd cannot judge a unit that is not loaded");
        return;
    }
    let verdict = judged
        .lines()
        .find(|line| line.contains("Overall exposure"));
    assert!(output.status.success(), "more than 2.0: {verdict:?}");
}
