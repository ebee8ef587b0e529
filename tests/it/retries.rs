//! A request that a backend cannot have acted upon is tried elsewhere; any other is not sent twice.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::support::origin::{nobody, ok};
use crate::support::weir::{get, plain_at, post};
use crate::support::{Origin, Weir};

#[test]
fn a_refused_connect_is_tried_elsewhere_whatever_the_method() {
    let origin = Origin::echo();
    let weir = Weir::start(&plain_at(&[nobody(), origin.address, nobody()], ""));
    let mut client = weir.client();
    for count in 0..12 {
        let answer = client.ask(if count % 2 == 0 {
            get("/")
        } else {
            post("/", "hello")
        });
        assert_eq!(answer.status(), 200, "request {count}");
    }
    let bodies = origin
        .requests()
        .iter()
        .filter(|one| one.text() == "hello")
        .count();
    assert_eq!((origin.hits(), bodies), (12, 6), "each once, with its body");
    assert!(weir.metric("weir_retries_total", &[]) > 0.0);
}

#[test]
fn at_most_two_retries() {
    let origin = Origin::echo();
    let mut backends: Vec<_> = (0..9).map(|_| nobody()).collect();
    backends.push(origin.address);
    let weir = Weir::start(&plain_at(&backends, ""));
    let mut statuses: Vec<u16> = (0..10).map(|_| weir.get("/").status()).collect();
    statuses.sort_unstable();
    // Nine of ten are dead and each request sees at most three: some must fail, and with round robin three or so must pass.
    assert!(statuses.first() == Some(&200), "{statuses:?}");
    assert!(matches!(statuses.last(), Some(502 | 503)), "{statuses:?}");
    let tries = weir.metric("weir_retries_total", &[]);
    assert!(tries <= 20.0, "{tries} retries for ten requests");
}

#[test]
fn nobody_answers() {
    let weir = Weir::start(&plain_at(&[nobody()], ""));
    let begun = Instant::now();
    let mut client = weir.client();
    for _ in 0..3 {
        let answer = client.ask(get("/"));
        assert!(
            matches!(answer.status(), 502 | 503),
            "{}",
            answer.first_line()
        );
        assert!(!answer.body.is_empty());
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "at once");
}

#[test]
fn all_backends_down_is_503_at_once() {
    let pool = format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\", \"{}\"]\n\
         [pools.was.health]\ntype = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"50ms\"\nfall = 1\nrise = 1\ninitial = \"down\"\n",
        nobody(),
        nobody()
    );
    let weir = Weir::start(&pool);
    let begun = Instant::now();
    let answer = weir.get("/");
    assert_eq!(answer.status(), 503);
    assert!(answer.has("retry-after"), "Retry-After helps here");
    assert!(begun.elapsed() < Duration::from_secs(2), "never a hang");
}

/// Answers the first request of each connection and closes on the second without a word, so that a pooled connection dies as it is
/// used.
fn mortal(deaths: &Arc<AtomicUsize>) -> Origin {
    let deaths = Arc::clone(deaths);
    Origin::start(move |visit| {
        if visit.request().is_err() {
            return;
        }
        visit.send(ok(format!("connection {}", visit.number)));
        if visit.request().is_ok() {
            deaths.fetch_add(1, SeqCst);
        }
    })
}

#[test]
fn an_idempotent_request_survives_a_dead_pooled_connection() {
    let deaths = Arc::default();
    let origin = mortal(&deaths);
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    assert_eq!(client.ask(get("/")).text(), "connection 0");
    assert_eq!(
        client.ask(get("/again")).text(),
        "connection 1",
        "a fresh connection to the same backend"
    );
    assert_eq!(deaths.load(SeqCst), 1);
    let put = "PUT /put HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 5\r\n\r\nhello";
    let answer = client.ask(put);
    assert!(
        matches!(answer.status(), 200 | 502),
        "a body may or may not be kept for a second try"
    );
}

#[test]
fn the_same_backend_comes_before_another() {
    let deaths = Arc::default();
    let first = mortal(&deaths);
    let other = Origin::named("other");
    // Weights make the first one the choice for nearly everything.
    let weir = Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [{{ address = \"{}\", weight = 200 }}, \"{}\"]\nhealth.type = \"none\"\n",
        first.address, other.address
    ));
    let mut client = weir.client();
    let texts: Vec<String> = (0..20).map(|_| client.ask(get("/")).text()).collect();
    assert!(
        texts
            .iter()
            .all(|text| text.starts_with("connection") || text == "other"),
        "{texts:?}"
    );
    assert!(
        other.hits() <= 1,
        "deaths of a pooled connection are no reason to leave: {texts:?}"
    );
    assert!(deaths.load(SeqCst) > 0);
}

#[test]
fn a_post_is_never_sent_twice() {
    let deaths = Arc::default();
    let origin = mortal(&deaths);
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    assert_eq!(client.ask(get("/")).status(), 200);
    let answer = client.ask(post("/order", "one"));
    assert_eq!(answer.status(), 502, "the origin may have acted upon it");
    let orders = origin
        .requests()
        .iter()
        .filter(|one| one.target() == "/order")
        .count();
    assert_eq!(orders, 1);
}

#[test]
fn a_fresh_connection_that_dies_is_not_blamed_on_the_pool() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
    });
    let weir = Weir::before(&[&origin]);
    assert_eq!(weir.get("/").status(), 502);
    assert!(origin.hits() <= 3, "at most two retries");
    let before = origin.hits();
    assert_eq!(weir.client().ask(post("/", "x")).status(), 502);
    assert_eq!(origin.hits(), before + 1, "a POST once");
}

#[test]
fn nothing_is_retried_after_the_first_byte_of_an_answer() {
    let first = Origin::start(|visit| {
        visit.request().ok();
        visit.send("HTTP/1.1 2");
    });
    let weir = Weir::before(&[&first]);
    assert_eq!(weir.get("/").status(), 502);
    assert_eq!(first.hits(), 1);
}

#[test]
fn a_pooled_connection_that_closed_while_idle_is_not_used() {
    let origin = Origin::start(|visit| {
        if visit.request().is_ok() {
            visit.send(ok("fine"));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for count in 1..=20 {
        // POST: a retry would be wrong, so that only a fresh connection can give 200. weir must have seen the close by now.
        crate::support::until("the origin to close", || (origin.open() == 0).then_some(()));
        assert_eq!(client.ask(post("/", "x")).status(), 200, "request {count}");
    }
    assert_eq!(origin.hits(), 20);
}

#[test]
fn idle_upstream_connections_expire_before_the_backend_says() {
    let origin = Origin::start(|visit| {
        while visit.request().is_ok() {
            visit.send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 4\r\n\r\nfine");
        }
    });
    let weir = Weir::before(&[&origin]);
    assert_eq!(weir.get("/").text(), "fine");
    // The backend's own 2 s minus 1 s.
    crate::support::until("weir to give the connection up", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_large_body_survives_a_refused_connect() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(ok(request.body.len().to_string()));
        }
    });
    let weir = Weir::start(&plain_at(&[nobody(), origin.address], ""));
    for length in [5_000, 200_000, 3_000_000] {
        for _ in 0..2 {
            let answer = weir.client().ask(post("/", &"x".repeat(length)));
            assert_eq!(answer.text(), length.to_string());
        }
    }
    assert_eq!(origin.hits(), 6);
}

#[test]
fn half_a_body_is_never_sent_to_another() {
    // Each connection dies once the body has begun; a PUT is idempotent, but its beginning is gone.
    let deadly = || {
        Origin::start(|visit| {
            if visit.head().is_ok() {
                visit.reader.exactly(500_000).ok();
            }
        })
    };
    let (a, b) = (deadly(), deadly());
    let weir = Weir::before(&[&a, &b]);
    let body = "x".repeat(2_000_000);
    let mut client = weir.client();
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = client.try_send(request.as_bytes());
    assert_eq!(client.answer().status(), 502);
    assert_eq!(a.hits() + b.hits(), 1);
}
