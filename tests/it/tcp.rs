//! TCP listeners: bytes both ways, ends and resets as they were, which backend gets a connection, and what is told of it.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::message::Fault;
use crate::support::origin::{Visit, nobody};
use crate::support::weir::list;
use crate::support::{Client, Origin, Weir, process, until};

/// A tcp listener at `$db` before these backends, without probes.
pub fn relay(backends: &[SocketAddr], head: &str) -> String {
    format!(
        "{head}\n[listeners.db]\nbind = [\"$db\"]\nprotocol = \"tcp\"\n[[routes]]\nname = \"main\"\nlisteners = [\"db\"]\npool = \"pg\"\n\
         [pools.pg]\nbackends = [{}]\nhealth.type = \"none\"\n",
        list(backends)
    )
}

/// Says its name, then sends everything back until the other side ends.
fn echo(name: &'static str) -> Origin {
    Origin::start(move |visit| {
        visit.send(name);
        send_back(visit);
    })
}

pub fn send_back(visit: &mut Visit) {
    while let Ok(bytes) = visit.reader.exactly(1) {
        let more = std::mem::take(&mut visit.reader.buffer);
        if !visit.send([bytes, more].concat()) {
            return;
        }
    }
}

#[track_caller]
pub fn client(weir: &Weir) -> Client {
    Client::connect(weir.address("db"))
}

/// Which one-letter backend a new connection gets.
#[track_caller]
fn greeting(weir: &Weir) -> (Client, String) {
    let mut client = client(weir);
    let name = client.reader.exactly(1).expect("a greeting");
    (client, String::from_utf8(name).unwrap())
}

#[track_caller]
fn says_back(client: &mut Client, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    client.send(bytes);
    let back = client.reader.exactly(bytes.len()).expect("an echo");
    assert!(back == bytes, "another echo");
}

#[test]
fn bytes_pass_both_ways_and_the_log_tells_of_them() {
    let origin = echo("a");
    let weir = Weir::start(&relay(&[origin.address], ""));
    let (mut client, name) = greeting(&weir);
    assert_eq!(name, "a", "a server may speak first");
    says_back(&mut client, b"\0\xff not HTTP\r\n\r\n");
    let labels = [("pool", "pg")];
    assert_eq!(weir.metric("weir_backend_in_flight", &labels), 1.0);
    assert_eq!(
        weir.metric("weir_listener_connections", &[("listener", "db")]),
        1.0
    );
    client.finish();
    assert_eq!(client.rest(), (Vec::new(), Fault::Closed));

    let line = weir.access(|line| line["protocol"] == "tcp");
    let expected = serde_json::json!({
        "listener": "db", "client": "127.0.0.1", "bytes_in": 15, "bytes_out": 16, "route": "main",
        "pool": "pg", "backend": origin.address.to_string(), "tries": 1, "end": "client",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key} in {line}");
    }
    assert!(line.get("error").is_none(), "{line}");
    let place = [("listener", "db"), ("route", "main"), ("pool", "pg")];
    weir.settles("weir_tcp_connections_total", &place, 1.0);
    let ended = [("end", "client")];
    assert_eq!(weir.metric("weir_tcp_connections_total", &ended), 1.0);
    assert_eq!(
        weir.metric("weir_tcp_bytes_total", &[("direction", "in")]),
        15.0
    );
    assert_eq!(
        weir.metric("weir_tcp_bytes_total", &[("direction", "out")]),
        16.0
    );
    weir.settles("weir_backend_in_flight", &labels, 0.0);
    weir.settles("weir_listener_connections", &[("listener", "db")], 0.0);
    let fresh = [("pool", "pg"), ("reused", "false")];
    assert_eq!(weir.metric("weir_backend_connections_total", &fresh), 1.0);
}

#[test]
fn each_half_closes_by_itself() {
    // What the client said is answered only when it has said that this was all.
    let origin = Origin::start(|visit| {
        let (said, end) = (visit.reader.until_closed(), Fault::Closed);
        assert_eq!(end, Fault::Closed);
        visit.send(said.unwrap_or_default());
    });
    let weir = Weir::start(&relay(&[origin.address], ""));
    let mut first = client(&weir);
    first.send("all of it").finish();
    assert_eq!(first.rest(), (b"all of it".to_vec(), Fault::Closed));

    // The server ends first, and still reads.
    let origin = Origin::start(|visit| {
        visit.send("bye");
        visit
            .reader
            .stream
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
        let said = visit.reader.until_closed().unwrap_or_default();
        if said == b"and thanks" {
            visit.record_end();
        }
    });
    let weir = Weir::start(&relay(&[origin.address], ""));
    let mut second = client(&weir);
    assert_eq!(second.rest(), (b"bye".to_vec(), Fault::Closed));
    second.send("and thanks").finish();
    until("the server to have heard", || {
        (origin.hits() == 1).then_some(())
    });
    let line = weir.access(|line| line["protocol"] == "tcp");
    assert_eq!(line["end"], "backend", "{line}");
}

#[test]
fn a_reset_is_carried_over_both_ways() {
    let origin = Origin::start(|visit| {
        let _ = visit.reader.exactly(1);
        visit.reset();
    });
    let weir = Weir::start(&relay(&[origin.address], ""));
    let mut first = client(&weir);
    first.send("x");
    assert_eq!(first.rest(), (Vec::new(), Fault::Reset));
    assert_eq!(
        weir.access(|line| line["protocol"] == "tcp")["end"],
        "backend_reset"
    );

    let origin = Origin::start(|visit| {
        visit.send("a");
        if visit.stall() == Fault::Reset {
            visit.record_end();
        }
    });
    let weir = Weir::start(&relay(&[origin.address], ""));
    let (client, _) = greeting(&weir);
    process::reset_on_close(&client.reader.stream);
    drop(client);
    until("a reset at the server", || {
        (origin.hits() == 1).then_some(())
    });
    assert_eq!(
        weir.access(|line| line["protocol"] == "tcp")["end"],
        "client_reset"
    );
}

/// Whoever sends hears of a reset first, and what came before it must not look whole to whoever reads.
#[test]
fn a_reset_that_an_upload_meets_is_one_for_the_reader() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::start(move |visit| {
        let _ = gone.lock().unwrap().recv();
        visit.send([7; 1000]);
        visit.reset();
    });
    let weir = Weir::start(&relay(&[origin.address], ""));
    let mut client = client(&weir);
    // Who writes now would hear of the reset instead of who reads.
    let mut upload = &client.reader.stream;
    upload
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    upload
        .write_all(&vec![1; 64 << 20])
        .expect_err("it must wait");
    go.send(()).unwrap();
    let (answer, end) = client.rest();
    assert_eq!((answer.len(), end), (1000, Fault::Reset));
    assert_eq!(
        weir.access(|line| line["protocol"] == "tcp")["end"],
        "backend_reset"
    );
}

/// A client that did not read for too long is not told that it has everything.
#[test]
fn an_answer_that_was_not_taken_in_time_ends_as_a_reset() {
    let origin = Origin::start(|visit| {
        visit.send(vec![1; 64 << 20]);
    });
    let weir = Weir::start(&relay(
        &[origin.address],
        "[timeouts]\nupgrade_idle = \"2s\"",
    ));
    let mut client = client(&weir);
    let line = weir.access(|line| line["protocol"] == "tcp");
    assert_eq!(line["end"], "idle", "{line}");
    assert_eq!(client.rest().1, Fault::Reset);
}

#[test]
fn a_connection_on_which_nothing_moves_is_closed() {
    let origin = echo("a");
    let weir = Weir::start(&relay(
        &[origin.address],
        "[timeouts]\nupgrade_idle = \"1500ms\"",
    ));
    let (mut client, _) = greeting(&weir);
    for _ in 0..4 {
        assert!(client.is_silent(Duration::from_millis(500)));
        says_back(&mut client, "still here");
    }
    client.expect_close();
    assert_eq!(weir.access(|line| line["protocol"] == "tcp")["end"], "idle");
    until("the backend's side to end", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_refused_connection_goes_to_another_backend() {
    let origin = echo("b");
    let weir = Weir::start(&relay(&[nobody(), origin.address], ""));
    for _ in 0..4 {
        let (mut client, name) = greeting(&weir);
        assert_eq!(name, "b");
        client.finish();
        client.expect_close();
    }
    weir.access(|line| line["tries"] == 2 && line["end"] == "client");
    let route = [("route", "main"), ("pool", "pg")];
    let retries = weir.metric("weir_retries_total", &route);
    assert!((1.0..=4.0).contains(&retries), "{retries}");
    let failed = weir.metric("weir_backend_connect_errors_total", &[("pool", "pg")]);
    assert_eq!(failed, retries);
}

#[test]
fn a_dead_pool_closes_at_once() {
    let weir = Weir::start(&relay(&[nobody(), nobody()], ""));
    client(&weir).expect_end();
    let line = weir.access(|line| line["protocol"] == "tcp");
    assert_eq!(
        (&line["end"], &line["error"]),
        (&"failed".into(), &"connect_refused".into())
    );
    assert_eq!((&line["tries"], &line["bytes_out"]), (&2.into(), &0.into()));
    weir.settles("weir_tcp_connections_total", &[("end", "failed")], 1.0);

    let config = relay(&[nobody()], "").replace("\"none\"", "\"tcp\"\nhealth.initial = \"down\"");
    let weir = Weir::start(&config);
    client(&weir).expect_end();
    let line = weir.access(|line| line["protocol"] == "tcp");
    assert_eq!(
        (&line["error"], &line["tries"]),
        (&"no_backend".into(), &0.into())
    );
}
