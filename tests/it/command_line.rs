//! What an operator types, and what weir says at its start.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::weir::{binary, plain};
use crate::support::{Origin, Weir, until};

fn command(name: &str, file: &Path) -> Output {
    let mut command = Command::new(binary());
    command.arg(name).arg("-c").arg(file);
    command.env_remove("WEIR_ADMIN").output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_running_weir_is_found_through_a_broken_file() {
    let origin = Origin::named("a");
    let weir = Weir::start(&plain(&[&origin], "watch = \"off\""));
    let good = weir.filled(&plain(&[&origin], ""));
    for (bad, code) in [
        (good.replace("[[routes]]", "[[routes]"), "error[E0005]"),
        (
            good.replace("pool = \"was\"", "pool = \"no\""),
            "error[E0102]",
        ),
        (good.replace("bind = [", "bind = 5 # ["), "error[E0203]"),
    ] {
        fs::write(&weir.file, bad).unwrap();
        let status = command("status", &weir.file);
        assert!(status.status.success(), "{}", stderr(&status));
        assert!(stdout(&status).contains("generation 1"));
        let reload = command("reload", &weir.file);
        assert!(!reload.status.success());
        assert!(stderr(&reload).contains(code), "{}", stderr(&reload));
    }
}

#[test]
fn without_an_admin_address_the_default_is_asked_and_said() {
    let output = command("status", Path::new("/nonexistent/weir.toml"));
    let said = stderr(&output);
    assert!(said.contains("note: "), "{said}");
    assert!(said.contains("127.0.0.1:9900"), "{said}");
    assert!(said.contains("--admin"), "{said}");
}

#[test]
fn the_first_line_names_the_admin_address() {
    let origin = Origin::named("a");
    let weir = Weir::before(&[&origin]);
    let wanted = format!("admin {}", weir.address("admin"));
    until("the line", || {
        let said = weir.stderr();
        let line = said.lines().find(|line| line.contains("start: weir"))?;
        assert!(line.contains(&wanted), "{line}");
        Some(())
    });
}

#[test]
fn an_admin_address_in_use_is_told_with_the_way_to_find_its_user() {
    let origin = Origin::named("a");
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = squatter.local_addr().unwrap();
    let admin = format!("[admin]\nbind = \"{taken}\"\n");
    let weir = Weir::launch(&(plain(&[&origin], "") + &admin), |_| {});
    let status = until("the end", || weir.exited());
    assert!(!status.success());
    let port = taken.port();
    until("the reason", || {
        let said = weir.stderr();
        let hint = format!("ss -ltunp 'sport = :{port}'");
        (said.contains(&taken.to_string()) && said.contains(&hint)).then_some(())
    });
}

fn said(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    stdout(&output)
}

#[test]
fn every_command_has_a_page_and_completes() {
    let page = said(&["man"]);
    let bash = said(&["completions", "bash"]);
    let commands = page.lines().filter_map(|line| {
        let name = line.strip_suffix("(1)")?;
        name.strip_prefix("weir\\-")
    });
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() >= 12, "{page}");
    for command in commands {
        let own = said(&["man", command]);
        assert!(own.contains(&format!(".TH weir-{command} 1")), "{own}");
        assert!(bash.contains(&format!("weir,{command})")), "{command}");
    }
    for section in ["FILES", "ENVIRONMENT", "SIGNALS", "\"EXIT STATUS\""] {
        assert!(page.contains(&format!("\n.SH {section}\n")), "{page}");
    }
    assert!(said(&["man", "status"]).contains("REUSED"));
    assert!(said(&["status", "--help"]).contains("REUSED"));
    assert!(said(&["man", "drain"]).contains("\\-\\-deadline"));
    assert!(said(&["completions", "zsh"]).starts_with("#compdef weir"));
    assert!(said(&["completions", "fish"]).contains("complete -c weir"));
    let output = Command::new(binary()).args(["man", "nope"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no command `nope`"));
}

#[test]
fn a_file_that_stands_alone_is_told_its_option() {
    let output = Command::new(binary()).args(["check", "a.toml"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("write -c a.toml"), "{said}");
}

#[test]
fn readiness_is_an_exit_code() {
    let origin = Origin::named("a");
    let weir = Weir::start(&plain(&[&origin], "drain_delay = \"30s\""));
    let ask = || {
        let mut command = Command::new(binary());
        command.args(["status", "--ready", "-c"]).arg(&weir.file);
        command.env_remove("WEIR_ADMIN").output().unwrap()
    };
    let output = ask();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "ready\n");
    weir.signal(libc::SIGTERM);
    until("weir drains", || {
        let output = ask();
        (output.status.code() == Some(1) && stderr(&output) == "draining\n").then_some(())
    });
}
