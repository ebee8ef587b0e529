//! How new work is spread, and that a backend which is down or not wanted gets none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::origin::{nobody, ok};
use crate::support::weir::{get, list, plain};
use crate::support::{Client, Origin, Weir, until};

/// Fast probes, so that a test need not wait long for a verdict.
pub const PROBES: &str = "interval = \"50ms\"\ntimeout = \"500ms\"\nfall = 2\nrise = 1\n";

fn with_balancer(origins: &[&Origin], balancer: &str) -> String {
    plain(origins, "").replace(
        "[pools.was]\n",
        &format!("[pools.was]\nbalancer = \"{balancer}\"\n"),
    )
}

/// A pool with http probes of `/healthz`.
fn probed(backends: &[SocketAddr]) -> String {
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [{}]\n[pools.was.health]\ntype = \"http\"\npath = \"/healthz\"\n{PROBES}",
        list(backends)
    )
}

/// Answers probes according to `healthy` and everything else with its name.
fn probed_origin(name: &'static str, healthy: &'static AtomicBool) -> Origin {
    Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            let good = request.target() != "/healthz" || healthy.load(SeqCst);
            visit.send(match good {
                true => ok(name),
                false => {
                    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec()
                }
            });
        }
    })
}

/// How often each body came in `count` requests.
fn tally(weir: &Weir, count: usize) -> BTreeMap<String, usize> {
    let mut client = weir.client();
    let mut tally = BTreeMap::new();
    for _ in 0..count {
        let answer = client.ask(get("/"));
        assert_eq!(answer.status(), 200);
        *tally.entry(answer.text()).or_insert(0) += 1;
    }
    tally
}

fn figures(tally: &BTreeMap<String, usize>) -> Vec<usize> {
    tally.values().copied().collect()
}

#[test]
fn round_robin_is_exact() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let weir = Weir::before(&[&a, &b, &c]);
    assert_eq!(figures(&tally(&weir, 30)), [10, 10, 10]);
    let mut client = weir.client();
    let order: Vec<String> = (0..9).map(|_| client.ask(get("/")).text()).collect();
    assert!(order.windows(2).all(|two| two[0] != two[1]), "{order:?}");
}

#[test]
fn round_robin_is_even_over_workers() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let weir = Weir::start(&format!("workers = 3\n{}", plain(&[&a, &b, &c], "")));
    let mut counts = BTreeMap::new();
    for _ in 0..90 {
        *counts.entry(weir.get("/").text()).or_insert(0) += 1;
    }
    // Each worker is exact for itself, so that three workers are off by two each at most.
    assert!(
        counts
            .values()
            .all(|&count: &i32| (24..=36).contains(&count)),
        "{counts:?}"
    );
}

#[test]
fn weights_are_smooth_and_exact() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let config = plain(&[&a, &b], "").replace(
        &format!("\"{}\"", a.address),
        &format!("{{ address = \"{}\", weight = 3 }}", a.address),
    );
    let weir = Weir::start(&config);
    assert_eq!(figures(&tally(&weir, 40)), [30, 10]);
    let mut client = weir.client();
    let order: String = (0..16).map(|_| client.ask(get("/")).text()).collect();
    assert!(
        !order.contains("aaaa") && !order.contains("bb"),
        "in bursts: {order}"
    );
}

/// Holds every request for `/hold` until the client goes.
fn holding(name: &'static str) -> Origin {
    Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/hold" {
                visit.stall();
                return;
            }
            visit.send(ok(name));
        }
    })
}

/// Opens requests that no answer comes to, one after the other.
fn hold(weir: &Weir, origins: &[&Origin], count: usize) -> Vec<Client> {
    let hits = || origins.iter().map(|origin| origin.hits()).sum::<usize>();
    (0..count)
        .map(|_| {
            let before = hits();
            let mut client = weir.client();
            client.send(get("/hold"));
            until("the held request at an origin", || {
                (hits() > before).then_some(())
            });
            client
        })
        .collect()
}

#[test]
fn least_connections_levels_what_is_in_flight() {
    let [a, b, c] = ["a", "b", "c"].map(holding);
    let weir = Weir::start(&with_balancer(&[&a, &b, &c], "least-connections"));
    let _held = hold(&weir, &[&a, &b, &c], 9);
    assert_eq!([a.hits(), b.hits(), c.hits()], [3, 3, 3]);
}

#[test]
fn least_connections_avoids_the_slow_one() {
    let slow = holding("slow");
    let [a, b] = ["a", "b"].map(Origin::named);
    let weir = Weir::start(&with_balancer(&[&slow, &a, &b], "least-connections"));
    // Which of three idle ones comes first is the balancer's affair: go on until the slow one holds a request.
    let mut held = Vec::new();
    while slow.open() == 0 {
        held.extend(hold(&weir, &[&slow, &a, &b], 1));
    }
    let before = slow.hits();
    let counts = tally(&weir, 20);
    assert_eq!(
        slow.hits(),
        before,
        "work for the one that has work: {counts:?}"
    );
}

#[test]
fn least_connections_heeds_weights() {
    let [a, b] = ["a", "b"].map(holding);
    let config = with_balancer(&[&a, &b], "least-connections").replace(
        &format!("\"{}\"", a.address),
        &format!("{{ address = \"{}\", weight = 3 }}", a.address),
    );
    let weir = Weir::start(&config);
    let _held = hold(&weir, &[&a, &b], 12);
    assert_eq!([a.hits(), b.hits()], [9, 3]);
}

#[test]
fn least_connections_is_even_when_nothing_is_in_flight() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let weir = Weir::start(&with_balancer(&[&a, &b, &c], "least-connections"));
    let counts = tally(&weir, 300);
    assert!(
        counts.len() == 3 && counts.values().all(|&count| count >= 60),
        "ties go to one: {counts:?}"
    );
}

#[test]
fn random_two_is_even_and_avoids_the_loaded() {
    let [a, b, c] = ["a", "b", "c"].map(holding);
    let weir = Weir::start(&with_balancer(&[&a, &b, &c], "random-two"));
    let counts = tally(&weir, 600);
    assert!(
        counts.len() == 3 && counts.values().all(|&count| (130..=270).contains(&count)),
        "{counts:?}"
    );
    let _held = hold(&weir, &[&a, &b, &c], 30);
    let held = [&a, &b, &c].map(|origin| {
        origin
            .requests()
            .iter()
            .filter(|one| one.target() == "/hold")
            .count()
    });
    assert!(
        held.iter().all(|&count| (6..=14).contains(&count)),
        "two choices level better than that: {held:?}"
    );
}

#[test]
fn a_backend_in_drain_or_maintenance_gets_nothing_new() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let mut config = plain(&[&a, &b, &c], "");
    for (origin, state) in [(&a, "drain"), (&b, "maint")] {
        config = config.replace(
            &format!("\"{}\"", origin.address),
            &format!(
                "{{ address = \"{}\", state = \"{state}\" }}",
                origin.address
            ),
        );
    }
    let weir = Weir::start(&config);
    assert_eq!(tally(&weir, 10).keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn probes_take_a_backend_out_and_in() {
    static HEALTHY: AtomicBool = AtomicBool::new(true);
    static ALWAYS: AtomicBool = AtomicBool::new(true);
    let a = probed_origin("a", &HEALTHY);
    let b = probed_origin("b", &ALWAYS);
    let weir = Weir::start(&probed(&[a.address, b.address]));
    let name = a.address.to_string();
    let up = || weir.metric("weir_backend_up", &[("backend", &name)]);
    until("both to be up", || {
        (weir.metric("weir_backend_up", &[]) == 2.0).then_some(())
    });
    assert_eq!(tally(&weir, 10).len(), 2);
    HEALTHY.store(false, SeqCst);
    until("one to be down", || (up() == 0.0).then_some(()));
    assert_eq!(tally(&weir, 10).keys().collect::<Vec<_>>(), ["b"]);
    HEALTHY.store(true, SeqCst);
    until("both to be up again", || (up() == 1.0).then_some(()));
    assert_eq!(tally(&weir, 10).len(), 2);
    assert!(weir.metric("weir_probe_total", &[]) > 4.0);
}

#[test]
fn a_probe_is_a_polite_request() {
    static HEALTHY: AtomicBool = AtomicBool::new(true);
    let origin = probed_origin("a", &HEALTHY);
    let weir = Weir::start(&probed(&[origin.address]));
    until("a probe", || (origin.hits() > 1).then_some(()));
    let probe = origin.requests().remove(0);
    assert_eq!(probe.first_line(), "GET /healthz HTTP/1.1");
    assert_eq!(probe.value("host"), Some(origin.address.to_string()));
    drop(weir);

    let config = probed(&[origin.address]) + "host = \"shop.example.com\"\n";
    let before = origin.hits();
    let _weir = Weir::start(&config);
    until("a probe", || (origin.hits() > before + 1).then_some(()));
    assert_eq!(
        origin.requests().last().unwrap().value("host").as_deref(),
        Some("shop.example.com")
    );
}

#[test]
fn probes_that_hang_fail() {
    let hanging = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/healthz" {
                visit.stall();
                return;
            }
            visit.send(ok("hanging"));
        }
    });
    let fine = Origin::named("fine");
    let config = probed(&[hanging.address, fine.address]).replace("500ms", "100ms");
    let weir = Weir::start(&config);
    until("the verdicts", || {
        (weir.metric("weir_backend_up", &[]) == 1.0).then_some(())
    });
    assert_eq!(tally(&weir, 10).keys().collect::<Vec<_>>(), ["fine"]);
}

#[test]
fn tcp_probes() {
    let origin = Origin::named("fine");
    let dead = nobody();
    let config = probed(&[dead, origin.address])
        .replace("type = \"http\"\npath = \"/healthz\"", "type = \"tcp\"");
    let weir = Weir::start(&config);
    until("the verdicts", || {
        (weir.metric("weir_backend_up", &[]) == 1.0).then_some(())
    });
    assert_eq!(figures(&tally(&weir, 10)), [10]);
    assert_eq!(
        weir.metric("weir_retries_total", &[]),
        0.0,
        "the dead one is known"
    );
    let risen = Origin::at(dead, |visit| {
        while visit.request().is_ok() {
            visit.send(ok("risen"));
        }
    });
    until("it to be seen", || {
        (weir.metric("weir_backend_up", &[]) == 2.0).then_some(())
    });
    assert_eq!(tally(&weir, 10).len(), 2);
    drop(risen);
}

#[test]
fn an_unexpected_status_is_no_health() {
    let origin = Origin::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let weir = Weir::launch(&probed(&[origin.address]), |_| {});
    until("probes", || (origin.hits() > 3).then_some(()));
    until("503", || {
        let mut client = Client::try_connect(weir.address("web")).ok()?;
        client.try_send(get("/").as_bytes()).ok()?;
        (client.try_answer().ok()?.status() == 503).then_some(())
    });
    drop(weir);
    let before = origin.hits();
    let expecting = probed(&[origin.address]) + "expect = \"404\"\n";
    let weir = Weir::start(&expecting);
    until("probes", || (origin.hits() > before + 3).then_some(()));
    assert_eq!(weir.get("/").status(), 404);
}

/// When a server that was still starting is ready, the next probe comes soon and is enough, whatever the settings are.
#[test]
fn a_server_that_is_still_starting_is_noticed_when_it_is_up() {
    let dead = nobody();
    let config = probed(&[dead]).replace(PROBES, "interval = \"30s\"\nrise = 3\n");
    let weir = Weir::start(&config);
    assert_eq!(weir.get("/").status(), 503);
    let started = std::time::Instant::now();
    let _risen = Origin::at(dead, |visit| {
        while visit.request().is_ok() {
            visit.send(ok("risen"));
        }
    });
    until("it to serve", || {
        (weir.get("/").status() == 200).then_some(())
    });
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}
