//! What becomes of tcp connections while things change around them: reloads, drains, limits; and who gets which backend.

use std::time::{Duration, Instant};

use crate::support::message::Fault;
use crate::support::{Client, Origin, Weir, until};
use crate::tcp::{client, relay, send_back};

/// Says its name, then sends everything back.
fn named(name: &'static str) -> Origin {
    Origin::start(move |visit| {
        visit.send(name);
        send_back(visit);
    })
}

#[track_caller]
fn greeted(mut client: Client) -> (Client, String) {
    let name = client.reader.exactly(1).expect("a greeting");
    (client, String::from_utf8(name).unwrap())
}

#[track_caller]
fn says_back(client: &mut Client, text: &str) {
    client.send(text);
    let back = client.reader.exactly(text.len()).expect("an echo");
    assert_eq!(back, text.as_bytes());
}

#[track_caller]
fn reload(weir: &Weir, config: &str) {
    let generation = weir.generation();
    weir.write(config);
    weir.signal(libc::SIGHUP);
    weir.await_generation_after(generation);
}

#[test]
fn a_client_stays_with_its_backend_by_address() {
    let origins = ["a", "b", "c"].map(named);
    let addresses = origins.each_ref().map(|origin| origin.address);
    let sticky = "sticky = { mode = \"source\", sessions = \"replicated\" }";
    let config =
        relay(&addresses, "").replace("pool = \"pg\"\n", &format!("pool = \"pg\"\n{sticky}\n"));
    let weir = Weir::start(&config);
    let (_first, home) = greeted(client(&weir));
    for _ in 0..5 {
        assert_eq!(greeted(client(&weir)).1, home);
    }
    weir.settles(
        "weir_sticky_total",
        &[("route", "main"), ("result", "kept")],
        6.0,
    );
    // Its home refuses: it moves, and always to the same one.
    let gone = origins.into_iter().filter(|origin| {
        let index = addresses
            .iter()
            .position(|own| *own == origin.address)
            .unwrap();
        ["a", "b", "c"][index] != home
    });
    let _left: Vec<Origin> = gone.collect();
    let (_, second) = greeted(client(&weir));
    assert_ne!(second, home);
    for _ in 0..3 {
        assert_eq!(greeted(client(&weir)).1, second);
    }
}

#[test]
fn a_drained_backend_keeps_what_it_has() {
    let (a, b) = (named("a"), named("b"));
    let weir = Weir::start(&relay(&[a.address, b.address], ""));
    let open: Vec<_> = (0..4).map(|_| greeted(client(&weir))).collect();
    weir.post(&format!("/api/v1/pools/pg/backends/{}/drain", a.address));
    for _ in 0..6 {
        assert_eq!(greeted(client(&weir)).1, "b");
    }
    for (mut open, _) in open {
        says_back(&mut open, "still here");
    }
}

#[test]
fn what_a_reload_does_not_touch_stays_open() {
    let (a, b) = (named("a"), named("b"));
    let config = relay(&[a.address], "");
    let weir = Weir::start(&config);
    let (mut open, _) = greeted(client(&weir));
    // Another backend comes, and a listener that has nothing to do with it.
    let more = relay(&[a.address, b.address], "") + "[listeners.other]\nbind = [\"$other\"]\n";
    reload(&weir, &more);
    says_back(&mut open, "after one reload");
    reload(&weir, &config);
    says_back(&mut open, "after two");
    assert_eq!(
        weir.metric("weir_backend_in_flight", &[("pool", "pg")]),
        1.0
    );
    open.finish();
    open.expect_close();
    weir.settles("weir_backend_in_flight", &[("pool", "pg")], 0.0);
}

#[test]
fn a_removed_backend_gets_no_more_and_its_connections_end_at_the_deadline() {
    let (a, b) = (named("a"), named("b"));
    let head = "drain_timeout = \"1s\"";
    let weir = Weir::start(&relay(&[a.address], head));
    let (mut idle, _) = greeted(client(&weir));
    let (mut busy, _) = greeted(client(&weir));
    let started = Instant::now();
    reload(&weir, &relay(&[b.address], head));
    assert_eq!(greeted(client(&weir)).1, "b");
    while started.elapsed() < Duration::from_millis(600) {
        says_back(&mut busy, "one more");
    }
    // However busy it is, the end comes.
    let end = loop {
        if busy.try_send(b"one more").is_err() {
            break Fault::Closed;
        }
        if let Err(fault) = busy.reader.exactly(8) {
            break fault;
        }
    };
    assert_ne!(end, Fault::Timeout);
    idle.expect_end();
    let took = started.elapsed();
    let window = Duration::from_millis(900)..Duration::from_secs(4);
    assert!(window.contains(&took), "{took:?}");
    until("the lines of both", || {
        let lines = weir.stdout();
        let drained = lines
            .iter()
            .filter(|line| line.contains("\"end\":\"drained\""));
        (drained.count() == 2).then_some(())
    });
}

#[test]
fn a_removed_listener_refuses_and_its_connections_end_at_the_deadline() {
    let a = named("a");
    let head = "drain_timeout = \"500ms\"";
    let config = relay(&[a.address], head);
    let weir = Weir::start(&config);
    let (mut open, _) = greeted(client(&weir));
    let address = weir.address("db");
    reload(&weir, &config.replace("$db", "$elsewhere"));
    until("the listener to be gone", || {
        Client::try_connect(address).is_err().then_some(())
    });
    open.expect_end();
    weir.access(|line| line["end"] == "drained");
}

#[test]
fn a_stopping_weir_waits_for_the_end_of_a_session() {
    let a = named("a");
    let weir = Weir::start(&relay(&[a.address], "drain_timeout = \"20s\""));
    let (mut open, _) = greeted(client(&weir));
    weir.signal(libc::SIGTERM);
    weir.tells("stop: ");
    says_back(&mut open, "not yet");
    open.finish();
    open.expect_close();
    assert!(weir.await_exit().success());
}

#[test]
fn limits_hold_for_connections() {
    let a = named("a");
    let with = |key: &str| {
        relay(&[a.address], "").replace(
            "protocol = \"tcp\"\n",
            &format!("protocol = \"tcp\"\n{key}\n"),
        )
    };
    let weir = Weir::start(&with("max_connections_per_source = 2"));
    let (first, _second) = (greeted(client(&weir)), greeted(client(&weir)));
    client(&weir).expect_end();
    drop(first);
    until("a place", || {
        let mut again = client(&weir);
        again.reader.exactly(1).ok()
    });

    let weir = Weir::start(&with("rate_limit = { rate = \"2/h\" }"));
    let _open = [greeted(client(&weir)), greeted(client(&weir))];
    client(&weir).expect_end();
    let line = weir.access(|line| line["error"] == "limited");
    assert_eq!(
        (&line["end"], &line["tries"]),
        (&"failed".into(), &0.into())
    );
    let limited = [("listener", "db"), ("limit", "2/h source")];
    assert_eq!(weir.metric("weir_limited_total", &limited), 1.0);

    let weir = Weir::start(&with("deny = [\"127.0.0.1\"]"));
    client(&weir).expect_end();

    let weir = Weir::start(&with("max_connections = 1"));
    let (first, _) = greeted(client(&weir));
    let mut waiting = client(&weir);
    assert!(
        waiting.is_silent(Duration::from_millis(100)),
        "it waits in the kernel"
    );
    drop(first);
    assert_eq!(waiting.reader.exactly(1).unwrap(), b"a");
}
