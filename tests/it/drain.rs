//! Drain, ready and maintenance of a backend, by API and by command: who is served where, and for how long that holds.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::origin::ok;
use crate::support::weir::{binary, get};
use crate::support::{Client, Message, Origin, Weir, until};

/// Backends named a, b, ..., sticky for whoever shows a cookie; `state` stands at the first one.
fn config(origins: &[&Origin], state: &str) -> String {
    let names = "abcdef".chars();
    let backends = origins.iter().zip(names).map(|(origin, name)| {
        let state = if name == 'a' { state } else { "" };
        format!(
            "{{ name = \"{name}\", address = \"{}\"{state} }}",
            origin.address
        )
    });
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = {{ mode = \"cookie-hash\" }}\n\
         [pools.was]\nbackends = [{}]\nhealth.type = \"none\"\n",
        backends.collect::<Vec<_>>().join(", ")
    )
}

fn named() -> [Origin; 2] {
    ["a", "b"].map(Origin::named)
}

/// Runs a command of the same program against this weir.
fn command(weir: &Weir, arguments: &[&str]) -> Output {
    prepared(weir, arguments).output().unwrap()
}

fn prepared(weir: &Weir, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).arg("-c").arg(&weir.file);
    command.env_remove("WEIR_ADMIN");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn set(weir: &Weir, backend: &str, state: &str) -> Value {
    let answer = weir.post(&format!("/api/v1/pools/was/backends/{backend}/{state}"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

fn backend(weir: &Weir, ordinal: usize) -> Value {
    weir.status()["pools"][0]["backends"][ordinal].clone()
}

/// A new client whose home is this origin: its cookie.
#[track_caller]
fn client_of(weir: &Weir, name: &str) -> String {
    until("a client at that backend", || {
        let answer = weir.get("/");
        let line = answer.value("set-cookie").expect("a cookie is set");
        (answer.text() == name).then(|| line.split(';').next().unwrap().to_owned())
    })
}

fn with_cookie(weir: &Weir, cookie: &str) -> Message {
    weir.client().ask(format!(
        "GET / HTTP/1.1\r\nHost: shop.example.com\r\nCookie: {cookie}\r\n\r\n"
    ))
}

/// Where eight new clients go.
fn new_clients(weir: &Weir) -> Vec<String> {
    let homes: BTreeSet<String> = (0..8).map(|_| weir.get("/").text()).collect();
    homes.into_iter().collect()
}

#[test]
fn a_drained_backend_keeps_its_clients_and_gets_no_new_ones() {
    let [a, b] = named();
    let weir = Weir::start(&config(&[&a, &b], ""));
    let cookie = client_of(&weir, "a");
    let outcome = set(&weir, "a", "drain");
    assert_eq!(outcome["state"], "drain");
    assert_eq!(
        (&outcome["changed"], &outcome["kept"]),
        (&true.into(), &true.into())
    );
    assert_eq!(set(&weir, "a", "drain")["changed"], false);
    // At once, without a generation.
    assert_eq!(new_clients(&weir), ["b"]);
    assert_eq!(with_cookie(&weir, &cookie).text(), "a");
    assert_eq!(weir.generation(), 1);

    let shown = backend(&weir, 0);
    assert_eq!(
        (&shown["state"], &shown["effective"]),
        (&"drain".into(), &"drain".into())
    );
    assert_eq!(shown["set_by"], "api");
    assert!(shown["set_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(backend(&weir, 1)["set_by"], "file");
    assert_eq!(backend(&weir, 1)["set_at"], Value::Null);
    let drains = [("backend", "a"), ("state", "drain")];
    assert_eq!(weir.metric("weir_backend_state", &drains), 1.0);
    let wanted = "admin: was/a set to drain by api (127.0.0.1)";
    weir.tells(wanted);

    set(&weir, "a", "ready");
    assert_eq!(new_clients(&weir), ["a", "b"]);
    assert_eq!(backend(&weir, 0)["set_by"], "file");
}

#[test]
fn a_backend_in_maintenance_gets_nothing() {
    let [a, b] = named();
    let weir = Weir::start(&config(&[&a, &b], ""));
    let cookie = client_of(&weir, "a");
    set(&weir, "a", "maint");
    let before = a.hits();
    assert_eq!(with_cookie(&weir, &cookie).text(), "b");
    assert_eq!(new_clients(&weir), ["b"]);
    assert_eq!(a.hits(), before);
    until("its idle connections to close", || {
        (a.open() == 0).then_some(())
    });
    set(&weir, "a", "ready");
    assert_eq!(with_cookie(&weir, &cookie).text(), "a", "home again");
}

#[test]
fn what_was_set_survives_reloads_and_restarts() {
    let [a, b] = named();
    let directory = std::env::temp_dir().join(format!("weir-it-drain-{}", std::process::id()));
    let head = format!("state_dir = \"{}\"\n", directory.display());
    let text = head + &config(&[&a, &b], "");
    let weir = Weir::start(&text);
    set(&weir, "a", "drain");
    // The name goes, and comes back.
    for text in [text.replace("name = \"a\"", "name = \"z\""), text.clone()] {
        let generation = weir.generation();
        weir.write(&text);
        weir.await_generation_after(generation);
        let is_back = text.contains("name = \"a\"");
        assert_eq!(
            backend(&weir, 0)["state"],
            if is_back { "drain" } else { "ready" }
        );
    }
    assert_eq!(new_clients(&weir), ["b"]);
    let wanted = "reload: was/a is drain, set by api at ";
    weir.tells(wanted);
    let mode = fs::metadata(directory.join("admin.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(weir);

    let weir = Weir::start(&text);
    assert_eq!(new_clients(&weir), ["b"]);
    assert_eq!(backend(&weir, 0)["set_by"], "api");
    weir.tells("start: was/a is drain, set by api at ");
    drop(weir);

    fs::write(directory.join("admin.json"), "{ damaged").unwrap();
    let weir = Weir::start(&text);
    assert_eq!(new_clients(&weir), ["a", "b"]);
    weir.tells("admin.json is ignored");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn ready_overrides_a_file_that_drains_until_the_file_says_ready() {
    let [a, b] = named();
    let drains = config(&[&a, &b], ", state = \"drain\"");
    let weir = Weir::start(&drains);
    assert_eq!(new_clients(&weir), ["b"]);
    set(&weir, "a", "ready");
    assert_eq!(new_clients(&weir), ["a", "b"]);
    for (text, homes) in [
        (
            drains.replace("\"cookie-hash\"", "\"cookie-hash\", cookie = \"w\""),
            &["a", "b"][..],
        ),
        (config(&[&a, &b], ""), &["a", "b"]),
        (drains, &["b"]),
    ] {
        let generation = weir.generation();
        weir.write(&text);
        weir.await_generation_after(generation);
        assert_eq!(new_clients(&weir), homes);
    }
}

#[test]
fn where_nothing_can_be_kept_it_holds_in_memory() {
    let [a, b] = named();
    let weir = Weir::start(&format!(
        "state_dir = \"/proc/nowhere\"\n{}",
        config(&[&a, &b], "")
    ));
    assert_eq!(set(&weir, "a", "drain")["kept"], false);
    assert_eq!(new_clients(&weir), ["b"]);
    weir.tells("cannot be written");
    let output = command(&weir, &["maint", "was/a"]);
    assert!(
        stdout(&output).contains("note: state_dir"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn names_may_need_encoding() {
    let [a, b] = named();
    let text = config(&[&a, &b], "").replace("name = \"a\"", "name = \"a%:[x]?#\"");
    let weir = Weir::start(&text);
    set(&weir, "a%25%3a%5Bx%5D%3F%23", "drain");
    assert_eq!(new_clients(&weir), ["b"]);
    let output = command(&weir, &["ready", "was/a%:[x]?#"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(new_clients(&weir), ["a", "b"]);
}

#[test]
fn what_is_not_there_is_refused_with_what_there_is() {
    let [a, b] = named();
    let weir = Weir::start(&config(&[&a, &b], ""));
    for (path, status, says) in [
        (
            "pools/wsa/backends/a/drain",
            404,
            "did you mean was? there are: was",
        ),
        ("pools/was/backends/c/drain", 404, "there are: a, b"),
        ("pools/was/backends/%zz/drain", 400, "bad %"),
        ("pools/was/backends/a/up", 404, "no such resource"),
        ("pools/was/backends/a/", 404, "no such resource"),
    ] {
        let answer = weir.post(&format!("/api/v1/{path}"));
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(
            answer.value("content-type").as_deref(),
            Some("application/problem+json")
        );
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    const PATH: &str = "/api/v1/pools/was/backends/a/drain";
    let ask = |request: String| Client::connect(weir.address("admin")).ask(request).status();
    assert_eq!(weir.admin(PATH).status(), 405);
    assert_eq!(
        ask(format!(
            "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        )),
        415
    );
    let json = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(
        ask(format!(
            "POST {PATH} HTTP/1.1\r\nHost: evil.example\r\n{json}"
        )),
        403
    );
    assert_eq!(backend(&weir, 0)["state"], "ready");

    for (target, says) in [
        ("wsa/a", "did you mean was?"),
        ("was/aa", "did you mean a?"),
        ("was", "write the pool, a slash and the backend"),
    ] {
        let output = command(&weir, &["drain", target]);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    let output = command(&weir, &["drain", "was/a", "--wait", "--deadline", "5"]);
    assert!(
        stderr(&output).contains("the unit is missing"),
        "{}",
        stderr(&output)
    );
}

/// What another weir noted before this one is not known, and would be lost all the same: with insert, a client that rests comes back to its
/// home with a session that this weir never saw.
#[test]
fn after_a_restart_sessions_that_nobody_saw_are_waited_for() {
    let [a, b] = named();
    let directory = std::env::temp_dir().join(format!("weir-it-unseen-{}", std::process::id()));
    let head = format!("state_dir = \"{}\"\n", directory.display());
    let sticky = |time: &str| {
        format!(
            "mode = \"insert\", sessions = \"local\", session_cookie = \"sid\", idle_timeout = \"{time}\""
        )
    };
    let text = |time: &str| {
        head.clone() + &config(&[&a, &b], "").replace("mode = \"cookie-hash\"", &sticky(time))
    };
    let arguments = ["drain", "was/a", "--wait", "--deadline", "600ms"];
    let weir = Weir::start(&text("1h"));
    let output = command(&weir, &arguments);
    assert!(stdout(&output).contains("is drained: no live session, nothing in flight"));
    set(&weir, "a", "ready");
    drop(weir);

    let weir = Weir::start(&text("1h"));
    let output = command(&weir, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let says = "no live session is known, but weir was started since, and clients that rest may have some for 59m";
    assert!(stderr(&output).contains(says), "{}", stderr(&output));
    drop(weir);

    let weir = Weir::start(&text("4s"));
    let output = command(&weir, &arguments[..3]);
    assert!(output.status.success(), "{}", stderr(&output));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn waiting_ends_with_the_last_request() {
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let slow = Origin::start(move |visit| {
        while visit.request().is_ok() {
            until("the gate", || opened.load(Ordering::SeqCst).then_some(()));
            visit.send(ok("slow"));
        }
    });
    let weir = Weir::start(&config(&[&slow], ""));
    let mut client = weir.client();
    client.send(get("/"));
    until("the request", || (slow.hits() == 1).then_some(()));

    let output = command(&weir, &["drain", "was/a", "--wait", "--deadline", "300ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("not drained by the deadline: 1 in flight"),
        "{}",
        stderr(&output)
    );
    assert!(
        stdout(&output).contains("was/a drains: 1 in flight"),
        "{}",
        stdout(&output)
    );

    let mut waiting = prepared(&weir, &["drain", "was/a", "--wait", "--deadline", "1m"]);
    let mut waiting = waiting.stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(waiting.try_wait().unwrap(), None);
    gate.store(true, Ordering::SeqCst);
    assert_eq!(client.answer().text(), "slow");
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(
        stdout(&output).contains("was/a is drained"),
        "{}",
        stdout(&output)
    );
    assert_eq!(weir.get("/").status(), 503, "nobody else is there");

    let output = command(&weir, &["status"]);
    assert!(
        stdout(&output).contains("a: drain was set by api (127.0.0.1) at "),
        "{}",
        stdout(&output)
    );
    let output = command(&weir, &["maint", "was/a"]);
    assert!(
        stdout(&output).contains("note: no backend of was takes new clients now"),
        "{}",
        stdout(&output)
    );
    let output = command(&weir, &["ready", "was/a"]);
    assert_eq!(stdout(&output), "was/a is ready, 0 in flight\n");
    assert_eq!(weir.get("/").text(), "slow");
}

#[test]
fn waiting_ends_when_somebody_ends_the_drain() {
    let held = Origin::start(|visit| {
        if visit.request().is_ok() {
            visit.stall();
        }
    });
    let weir = Weir::start(&config(&[&held], ""));
    let mut client = weir.client();
    client.send(get("/"));
    until("the request", || (held.hits() == 1).then_some(()));
    let mut waiting = prepared(&weir, &["drain", "was/a", "--wait"]);
    waiting.stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = waiting.spawn().unwrap();
    until("the drain", || {
        (backend(&weir, 0)["state"] == "drain").then_some(())
    });
    set(&weir, "a", "ready");
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("set to ready meanwhile"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_difference_is_told_before_it_is_made() {
    let [a, b] = named();
    let weir = Weir::start(&config(&[&a, &b], ""));
    let candidate = weir.directory.join("next.toml");
    let diff = |text: &str| {
        fs::write(&candidate, weir.filled(text)).unwrap();
        let mut command = Command::new(binary());
        command.args(["diff", "-c"]).arg(&candidate);
        command.env_remove("WEIR_ADMIN").output().unwrap()
    };
    let same = diff(&config(&[&a, &b], ""));
    assert_eq!(same.status.code(), Some(0), "{}", stderr(&same));
    assert!(
        stdout(&same).ends_with("next.toml: would change nothing\n"),
        "{}",
        stdout(&same)
    );

    let less = diff(&config(&[&a], ""));
    assert_eq!(less.status.code(), Some(1));
    let said = stdout(&less);
    assert!(
        said.contains("next.toml: would change: pool was: -b"),
        "{said}"
    );
    assert!(
        said.contains("warning: pool was: sessions in the memory of b are lost"),
        "{said}"
    );
    let bad = diff(&config(&[&a, &b], "").replace("bind = [", "bind = 5 # ["));
    assert_eq!(bad.status.code(), Some(2));
    assert!(stderr(&bad).contains("error["), "{}", stderr(&bad));
    assert!(stderr(&bad).contains("next.toml"), "{}", stderr(&bad));

    let own = weir.admin("/api/v1/diff");
    assert_eq!(own.status(), 200);
    let own: Value = serde_json::from_slice(&own.body).unwrap();
    assert_eq!(own["summary"], "");
    assert_eq!(weir.post("/api/v1/diff").status(), 400, "no file in it");
    assert_eq!(weir.generation(), 1);
    assert_eq!(new_clients(&weir), ["a", "b"]);
}
