//! Drain of a listener and of weir as a whole: what goes on, what ends, who did it, and how long that holds.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::weir::{binary, get, plain};
use crate::support::{Client, Origin, Weir, until};
use crate::upgrade_process::{Staged, echo, says_back, switched};

fn command(weir: &Weir, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).arg("-c").arg(&weir.file);
    command
        .env_remove("WEIR_ADMIN")
        .env("USER", "anna")
        .env_remove("SUDO_USER");
    command
}

#[track_caller]
fn done(weir: &Weir, arguments: &[&str]) -> String {
    let output: Output = command(weir, arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}{wrong}");
    told
}

fn listener(weir: &Weir, name: &str) -> Value {
    let status = weir.status();
    let listeners = status["listeners"].as_array().unwrap();
    let mut found = listeners.iter().filter(|it| it["name"] == name);
    found.next().expect("the listener").clone()
}

fn refuses(weir: &Weir, name: &str) -> bool {
    Client::try_connect(weir.address(name)).is_err()
}

/// Two listeners before one origin.
fn two(origin: &Origin) -> String {
    plain(&[origin], "watch = \"off\"") + "[listeners.other]\nbind = [\"$other\"]\n"
}

#[test]
fn a_listener_that_drains_is_closed_and_what_is_open_ends_by_itself() {
    let origin = echo("a");
    let weir = Weir::start(&two(&origin));
    let mut socket = switched(&weir);
    let mut kept = weir.client();
    assert_eq!(kept.ask(get("/")).text(), "a");
    let told = done(&weir, &["drain", "--listener", "web"]);
    assert_eq!(told, "listener web drains, 2 connections open\n");
    until("the listener to close", || {
        refuses(&weir, "web").then_some(())
    });
    assert_eq!(
        Client::connect(weir.address("other")).ask(get("/")).text(),
        "a"
    );
    let shown = listener(&weir, "web");
    assert_eq!(shown["state"], "drain");
    assert_eq!(shown["set_by"], "api");
    assert_eq!(shown["set_who"], "anna, 127.0.0.1");
    assert!(shown["set_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(shown["addresses"][0], weir.address("web").to_string());
    assert!(done(&weir, &["status"]).contains("web: drain was set by api (anna, 127.0.0.1) at "));
    assert_eq!(listener(&weir, "other")["state"], "ready");
    assert!(
        done(&weir, &["drain", "--listener", "web"]).starts_with("listener web drains already")
    );

    // Who has a connection is told to close it after the next answer; a WebSocket lasts.
    let answer = kept.ask(get("/"));
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    kept.expect_close();
    drop(kept);
    says_back(&mut socket);
    let mut waiting = command(&weir, &["drain", "--listener", "web", "--wait"]);
    let mut waiting = waiting.stdout(Stdio::null()).spawn().unwrap();
    until("one connection", || {
        (listener(&weir, "web")["connections"] == 1).then_some(())
    });
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "it waits for the WebSocket"
    );
    let missed = command(
        &weir,
        &["drain", "--listener", "web", "--wait", "--deadline", "50ms"],
    );
    let missed = { missed }.output().unwrap();
    assert_eq!(missed.status.code(), Some(1));
    socket.finish();
    let ended = until("the end of the wait", || waiting.try_wait().unwrap());
    assert!(ended.success());

    assert_eq!(
        done(&weir, &["ready", "--listener", "web"]),
        "listener web is ready, 0 connections open\n"
    );
    assert_eq!(weir.get("/").text(), "a");
    assert_eq!(listener(&weir, "web")["set_by"], "file");
}

#[test]
fn a_drained_listener_stays_so_over_reloads_restarts_and_upgrades() {
    let origin = echo("a");
    let directory = std::env::temp_dir().join(format!("weir-it-levels-{}", std::process::id()));
    let head = format!("state_dir = \"{}\"\n", directory.display());
    let config = head + &two(&origin);
    let staged = Staged::start(&config);
    let weir = &staged.weir;
    assert_eq!(weir.post("/api/v1/listeners/web/drain").status(), 200);
    until("the listener to close", || {
        refuses(weir, "web").then_some(())
    });

    weir.write(&(config.clone() + "[listeners.third]\nbind = [\"$third\"]\n"));
    assert_eq!(weir.post("/api/v1/reload").status(), 200);
    assert_eq!(
        Client::connect(weir.address("third")).ask(get("/")).text(),
        "a"
    );
    assert!(refuses(weir, "web"));

    staged.upgraded();
    assert!(refuses(weir, "web"));
    assert_eq!(listener(weir, "web")["state"], "drain");
    let set_at = listener(weir, "web")["set_at"].clone();
    drop(staged);

    let weir = Weir::start(&config);
    let address = weir.address("web");
    assert_eq!(listener(&weir, "web")["set_at"], set_at);
    assert!(Client::try_connect(address).is_err());
    // Somebody else has the address meanwhile: that is told, and nothing changes.
    let taken = std::net::TcpListener::bind(address).unwrap();
    let refused = weir.post("/api/v1/listeners/web/ready");
    assert_eq!(refused.status(), 422);
    assert!(
        refused.text().contains("listener web cannot bind"),
        "{}",
        refused.text()
    );
    assert_eq!(listener(&weir, "web")["state"], "drain");
    drop(taken);
    // A connection of another test may have the port for a moment.
    until("the listener to be ready", || {
        (weir.post("/api/v1/listeners/web/ready").status() == 200).then_some(())
    });
    assert_eq!(Client::connect(address).ask(get("/")).text(), "a");
    let unknown = weir.post("/api/v1/listeners/wbe/drain");
    assert_eq!(unknown.status(), 404);
    assert!(
        unknown.text().contains("did you mean web?"),
        "{}",
        unknown.text()
    );
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_process_that_drains_is_not_ready_and_serves_whoever_comes() {
    let origin = echo("a");
    let staged = Staged::start(&plain(&[&origin], "watch = \"off\""));
    let weir = &staged.weir;
    let mut kept = weir.client();
    assert_eq!(kept.ask(get("/")).text(), "a");
    let mut socket = switched(weir);
    assert_eq!(
        done(weir, &["drain", "--process"]),
        "weir drains, 2 connections open\n"
    );
    assert_eq!(weir.status()["lifecycle"], "draining");
    let ready = weir.admin("/readyz");
    assert_eq!(ready.status(), 503);
    assert!(
        ready
            .text()
            .contains("draining, set by api (anna, 127.0.0.1) at"),
        "{}",
        ready.text()
    );
    let answer = kept.ask(get("/"));
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    let answer = weir.get("/");
    assert_eq!(
        (answer.status(), answer.value("connection").as_deref()),
        (200, Some("close"))
    );
    // A reload does not change that, nor does an upgrade.
    weir.write(&plain(
        &[&origin],
        "watch = \"off\"\ndrain_delay = \"10ms\"",
    ));
    assert_eq!(weir.post("/api/v1/reload").status(), 200);
    assert_eq!(weir.admin("/readyz").status(), 503);
    says_back(&mut socket);
    staged.upgraded();
    assert_eq!(weir.admin("/readyz").status(), 503);
    assert_eq!(weir.get("/").value("connection").as_deref(), Some("close"));
    assert_eq!(weir.status()["process"]["set_who"], "anna, 127.0.0.1");
    assert!(done(weir, &["ready", "--process"]).starts_with("weir is ready"));
    assert_eq!(weir.admin("/readyz").status(), 200);
    assert_eq!(weir.get("/").value("connection"), None);
}

#[test]
fn one_thing_drains_at_a_time() {
    let origin = echo("a");
    let weir = Weir::start(&plain(&[&origin], ""));
    for arguments in [
        &["drain"][..],
        &["drain", "was/a", "--process"],
        &["drain", "--listener", "web", "--process"],
        &["maint", "--process"],
    ] {
        let output = command(&weir, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_websocket_outlives_every_reload_of_what_did_not_change() {
    let (origin, other) = (echo("a"), echo("b"));
    let config = |round: usize| {
        let head = format!("watch = \"off\"\ndrain_timeout = \"{}ms\"", 100 + round);
        let more = format!(
            "[listeners.l{round}]\nbind = [\"$l{round}\"]\n[[routes]]\npath = \"/{round}\"\npool = \"p{round}\"\n\
             [pools.p{round}]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
            other.address
        );
        plain(&[&origin], &head) + &more
    };
    let weir = Weir::start(&config(0));
    let (mut socket, mut kept) = (switched(&weir), weir.client());
    let rounds = if std::env::var_os("WEIR_FULL").is_some() {
        300
    } else {
        30
    };
    for round in 1..=rounds {
        weir.write(&config(round % 7));
        assert_eq!(weir.post("/api/v1/reload").status(), 200);
        says_back(&mut socket);
        let answer = kept.ask(get("/"));
        assert_eq!(answer.value("connection"), None, "kept, too");
    }
    assert!(weir.generation() > rounds as u64);
    assert_eq!(weir.status()["pools"][0]["backends"][0]["upgraded"], 1);
    assert_eq!(
        origin.connections(),
        2,
        "one for the WebSocket, one for requests"
    );
}
