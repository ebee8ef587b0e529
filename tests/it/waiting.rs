//! `on_failure = "wait"`: a request is held for a home that is away for a moment, and goes elsewhere when it is not back in time.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::balancing::PROBES;
use crate::sessions::{NAMES, addresses, application, at_home, config, fleet, up};
use crate::support::weir::get;
use crate::support::{Origin, Weir};

/// Three servers behind a route that waits for so long, probed often or hardly ever.
fn waiting(wait: &str, mode: &str, is_probed: bool) -> (Vec<Option<Origin>>, Weir) {
    let fleet = fleet();
    let sticky = format!("mode = \"{mode}\", on_failure = \"wait\", wait = \"{wait}\"");
    let mut text = config(&addresses(&fleet), &sticky, "");
    if !is_probed {
        text = text.replace(PROBES, "interval = \"60s\"\n");
    }
    let weir = Weir::start(&text);
    up(&weir, 3.0);
    (fleet, weir)
}

fn held(weir: &Weir, path: &str) -> Value {
    weir.access(|line| line["path"] == path)
}

/// Starts the first server again after this long.
fn restart(address: SocketAddr, after: Duration) -> thread::JoinHandle<Origin> {
    thread::spawn(move || {
        thread::sleep(after);
        Origin::at(address, application(NAMES[0]))
    })
}

#[test]
fn a_home_that_comes_back_in_time_answers() {
    for (is_probed, mode) in [(true, "insert"), (false, "insert"), (true, "cookie-hash")] {
        let (mut fleet, weir) = waiting("8s", mode, is_probed);
        let mut browser = at_home(&weir);
        let address = fleet[0].take().unwrap().address;
        if is_probed {
            up(&weir, 2.0);
        }
        let back = restart(address, Duration::from_millis(600));
        let began = Instant::now();
        let answer = browser.ask(&weir, "/held", "");
        assert_eq!(answer.text(), NAMES[0], "{mode}");
        assert!(began.elapsed() >= Duration::from_millis(500), "{mode}");
        let line = held(&weir, "/held");
        assert_eq!(
            (&line["sticky"], &line["backend"]),
            (&"kept".into(), &NAMES[0].into())
        );
        let time = line["held"].as_f64().unwrap();
        assert!((0.4..8.0).contains(&time), "{line}");
        assert!(line["overhead"].as_f64().unwrap() < 0.1, "{line}");
        weir.settles("weir_sticky_holds_total", &[("result", "home")], 1.0);
        weir.settles("weir_sticky_total", &[("result", "lost")], 0.0);
        drop(back.join().unwrap());
    }
}

#[test]
fn a_home_that_does_not_come_back_is_left_when_the_wait_is_over() {
    for is_probed in [true, false] {
        let (mut fleet, weir) = waiting("1s", "insert", is_probed);
        let mut browser = at_home(&weir);
        fleet[0] = None;
        let began = Instant::now();
        let refuge = browser.ask(&weir, "/held", "").text();
        assert_ne!(refuge, NAMES[0]);
        let took = began.elapsed();
        let limits = Duration::from_millis(950)..Duration::from_secs(4);
        assert!(limits.contains(&took), "{took:?}");
        let began = Instant::now();
        assert_eq!(browser.text(&weir), refuge);
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "it has waited before"
        );
        weir.settles("weir_sticky_holds_total", &[("result", "over")], 1.0);
        weir.settles("weir_sticky_holds_total", &[], 1.0);
    }
}

#[test]
fn others_go_on_while_one_waits_and_a_client_may_give_up() {
    let (mut fleet, weir) = waiting("60s", "insert", true);
    let browser = at_home(&weir);
    fleet[0] = None;
    up(&weir, 2.0);
    let cookie = &browser.jar["weir_was"];
    let mut client = weir.client();
    client.send(format!(
        "GET /left HTTP/1.1\r\nHost: a\r\nCookie: weir_was={cookie}\r\n\r\n"
    ));
    assert!(client.is_silent(Duration::from_millis(300)));
    let mut other = weir.client();
    assert!((0..20).all(|_| other.ask(get("/")).status() == 200));
    drop(client);
    let line = held(&weir, "/left");
    assert_eq!(line["status"], 499);
    assert_eq!(line["tries"], 0);
    weir.settles("weir_sticky_holds_total", &[("result", "gone")], 1.0);
}

#[test]
fn a_drain_and_maintenance_are_no_failures() {
    let (_fleet, weir) = waiting("60s", "insert", true);
    let mut browser = at_home(&weir);
    weir.post("/api/v1/pools/was/backends/was1/drain");
    assert_eq!(browser.text(&weir), NAMES[0]);
    weir.post("/api/v1/pools/was/backends/was1/maint");
    assert_ne!(browser.text(&weir), NAMES[0]);
    weir.settles("weir_sticky_holds_total", &[], 0.0);
}

#[test]
fn only_so_many_are_held_at_once() {
    const MAX_HELD: usize = 1024;
    let (mut fleet, weir) = waiting("60s", "insert", true);
    let browser = at_home(&weir);
    fleet[0] = None;
    up(&weir, 2.0);
    let cookie = &browser.jar["weir_was"];
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: weir_was={cookie}\r\n\r\n");
    let clients: Vec<_> = (0..MAX_HELD)
        .map(|_| {
            let mut client = weir.client();
            client.send(&request);
            client
        })
        .collect();
    // Who comes after them is not held.
    weir.settles("weir_listener_connections", &[], MAX_HELD as f64);
    assert_eq!(weir.client().ask(&request).status(), 200);
    weir.settles("weir_sticky_holds_total", &[("result", "full")], 1.0);
    drop(clients);
    weir.settles(
        "weir_sticky_holds_total",
        &[("result", "gone")],
        MAX_HELD as f64,
    );
}
