//! Retries by the rules of a route: what is tried again, what never is, and what bounds it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::http2::{self, Multiplexer};
use crate::support::origin::ok;
use crate::support::weir::{get, post};
use crate::support::{Origin, Weir, until};

const ERROR: &[u8] = b"HTTP/1.1 503 Broken\r\nContent-Length: 4\r\nX-Own: yes\r\n\r\nsick";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";

/// A route with these rules to backends at these addresses, the first of which takes nearly every first try.
fn route(backends: &[&Origin], rules: &str, pool: &str) -> String {
    let addresses: Vec<String> = (backends.iter().enumerate())
        .map(|(index, one)| {
            let weight = if index == 0 { 256 } else { 1 };
            format!(
                "{{ name = \"b{index}\", address = \"{}\", weight = {weight} }}",
                one.address
            )
        })
        .collect();
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nname = \"all\"\npool = \"was\"\nretry = {{ {rules} }}\ntimeouts.response = \"10s\"\n\
         [pools.was]\nhealth.type = \"none\"\nbackends = [{}]\n{pool}\n",
        addresses.join(", ")
    )
}

fn retries(weir: &Weir, cause: &str) -> f64 {
    weir.metric("weir_retries_total", &[("route", "all"), ("cause", cause)])
}

/// Reads each request and closes without an answer.
fn closing() -> Origin {
    Origin::start(|visit| drop(visit.request()))
}

fn silent() -> Origin {
    Origin::start(|visit| {
        if visit.request().is_ok() {
            visit.stall();
        }
    })
}

#[test]
fn an_error_is_tried_elsewhere_when_the_method_is_idempotent() {
    let (sick, well) = (Origin::answering(ERROR), Origin::echo());
    let weir = Weir::start(&route(&[&sick, &well], "on = [\"5xx\"]", ""));
    let mut client = weir.client();
    (0..5).for_each(|_| assert_eq!(client.ask(get("/")).status(), 200));
    let answer = client.ask(PUT);
    assert!(answer.text().ends_with("hello"), "its body came with it");
    let post = client.ask(post("/", "hello"));
    assert_eq!((post.status(), post.text().as_str()), (503, "sick"));
    assert_eq!(post.value("x-own").as_deref(), Some("yes"));
    assert_eq!(sick.hits(), 7);
    weir.settles("weir_retries_total", &[("cause", "5xx")], 6.0);
}

#[test]
fn the_backends_own_answer_is_passed_on_when_tries_end() {
    let sick = [
        Origin::answering(ERROR),
        Origin::answering(ERROR),
        Origin::answering(ERROR),
    ];
    let weir = Weir::start(&route(
        &[&sick[0], &sick[1], &sick[2]],
        "attempts = 2, on = [\"5xx\"]",
        "",
    ));
    let answer = weir.get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "sick"));
    let hits = || sick.iter().map(Origin::hits).sum::<usize>();
    assert_eq!(hits(), 2);
    drop(weir);
    let before = hits();
    let weir = Weir::start(&route(
        &[&sick[0], &sick[1]],
        "attempts = 6, on = [\"5xx\"]",
        "",
    ));
    let answer = weir.get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "sick"));
    assert_eq!(hits() - before, 2, "nobody is asked twice");
}

#[test]
fn a_request_with_a_key_is_idempotent_where_the_route_says_so() {
    let (sick, well) = (Origin::answering(ERROR), Origin::echo());
    let keyed =
        "POST / HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: \"7\"\r\nContent-Length: 5\r\n\r\nhello";
    for (rules, status) in [
        ("on = [\"5xx\"]", 503),
        ("on = [\"5xx\"], idempotency_key = true", 200),
    ] {
        let weir = Weir::start(&route(&[&sick, &well], rules, ""));
        assert_eq!(weir.client().ask(keyed).status(), status);
        assert_eq!(weir.client().ask(post("/", "hello")).status(), 503);
    }
}

#[test]
fn a_connection_that_closes_before_an_answer_is_tried_elsewhere_where_the_route_says_so() {
    let (dead, well) = (closing(), Origin::echo());
    for (rules, status) in [("on = [\"5xx\"]", 502), ("attempts = 2", 200)] {
        let weir = Weir::start(&route(&[&dead, &well], rules, ""));
        assert_eq!(weir.client().ask(PUT).status(), status);
        assert_eq!(
            weir.client().ask(post("/", "hello")).status(),
            502,
            "a POST is not"
        );
    }
}

#[test]
fn who_does_not_answer_is_given_up_while_another_may() {
    let (late, well) = (silent(), Origin::named("well"));
    let rules = "on = [\"timeout\"], try_timeout = \"100ms\"";
    let weir = Weir::start(&route(&[&late, &well], rules, ""));
    let begun = Instant::now();
    assert_eq!(weir.get("/").text(), "well");
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(100) && took < Duration::from_secs(8),
        "{took:?}"
    );
    assert_eq!(retries(&weir, "timeout"), 1.0);
}

#[test]
fn the_last_try_and_what_cannot_be_tried_again_have_all_of_the_time() {
    let slow = || {
        Origin::start(|visit| {
            while visit.request().is_ok() {
                std::thread::sleep(Duration::from_millis(300));
                visit.send(ok("slow"));
            }
        })
    };
    let (one, two) = (slow(), slow());
    let rules = "attempts = 2, on = [\"timeout\"], try_timeout = \"50ms\"";
    let weir = Weir::start(&route(&[&one, &two], rules, ""));
    assert_eq!(weir.get("/").text(), "slow");
    assert_eq!((one.hits(), two.hits()), (1, 1));
    assert_eq!(weir.client().ask(post("/", "x")).text(), "slow");
    drop(weir);
    let alone = Weir::start(&route(&[&one], rules, ""));
    assert_eq!(alone.get("/").text(), "slow", "there is no other to try");
    assert_eq!(retries(&alone, "timeout"), 0.0);
}

#[test]
fn all_tries_together_have_a_time() {
    let late = [silent(), silent(), silent()];
    let rules = "on = [\"timeout\"], try_timeout = \"150ms\", total_timeout = \"900ms\"";
    let weir = Weir::start(&route(&[&late[0], &late[1], &late[2]], rules, ""));
    let begun = Instant::now();
    assert_eq!(weir.get("/").status(), 504);
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_secs(8),
        "{took:?}"
    );
    weir.settles(
        "weir_http_refused_total",
        &[("reason", "total_timeout")],
        1.0,
    );
    let tries: Vec<usize> = late.iter().map(Origin::hits).collect();
    assert_eq!(tries, [1, 1, 1]);
}

#[test]
fn a_body_is_kept_up_to_its_limit() {
    // The first backend reads the whole request before it fails.
    let (sick, well) = (Origin::answering(ERROR), Origin::echo());
    let weir = Weir::start(&route(&[&sick, &well], "on = [\"5xx\"]", ""));
    for (size, is_kept) in [
        (1000, true),
        (40_000, true),
        (60_000, true),
        (70_000, false),
        (300_000, false),
    ] {
        let body = "x".repeat(size);
        let whole = format!("PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: {size}\r\n\r\n{body}");
        let mut chunked =
            "PUT / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        for piece in body.as_bytes().chunks(9000) {
            chunked += &format!(
                "{:x}\r\n{}\r\n",
                piece.len(),
                std::str::from_utf8(piece).unwrap()
            );
        }
        chunked += "0\r\n\r\n";
        for request in [whole, chunked] {
            let mut client = weir.client();
            let (head, rest) = request.split_at(200);
            client.send(head);
            client.send(rest);
            let answer = client.answer();
            let wanted = if is_kept { 200 } else { 503 };
            assert_eq!(answer.status(), wanted, "{size}");
            assert!(
                !is_kept || answer.text().ends_with(&body),
                "{size}: all of it"
            );
        }
    }
}

#[test]
fn the_budget_bounds_retries_at_once() {
    // Each try at the second backend is held until all requests came.
    let held = Arc::new(AtomicUsize::new(0));
    let sick = Origin::answering(ERROR);
    let slow = {
        let held = Arc::clone(&held);
        Origin::start(move |visit| {
            while visit.request().is_ok() {
                held.fetch_add(1, SeqCst);
                until("the end", || (held.load(SeqCst) >= 100).then_some(()));
                visit.send(ok("well"));
            }
        })
    };
    let weir = Weir::start(&route(&[&sick, &slow], "on = [\"5xx\"], budget = 0", ""));
    let mut waiting: Vec<_> = (0..3).map(|_| weir.client()).collect();
    for client in &mut waiting {
        client.send(get("/"));
    }
    until("three retries", || (held.load(SeqCst) == 3).then_some(()));
    let answer = weir.get("/");
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (503, "sick"),
        "the budget is used up"
    );
    weir.settles(
        "weir_retry_budget_exhausted_total",
        &[("route", "all")],
        1.0,
    );
    held.store(100, SeqCst);
    for client in &mut waiting {
        assert_eq!(client.answer().text(), "well");
    }
    until("places to be given back", || {
        (weir.get("/").status() == 200).then_some(())
    });
}

#[test]
fn a_client_stays_with_its_local_session() {
    let is_sick = Arc::new(AtomicUsize::new(0));
    let home = {
        let is_sick = Arc::clone(&is_sick);
        Origin::start(move |visit| {
            while visit.request().is_ok() {
                match is_sick.load(SeqCst) {
                    0 => visit.send(ok("home")),
                    _ => visit.send(ERROR),
                };
            }
        })
    };
    let other = Origin::named("other");
    for (sessions, text) in [("local", "sick"), ("replicated", "other")] {
        is_sick.store(0, SeqCst);
        let config = route(&[&home, &other], "on = [\"5xx\"]", "").replace(
            "timeouts.response",
            &format!(
                "sticky = {{ mode = \"insert\", sessions = \"{sessions}\" }}\ntimeouts.response"
            ),
        );
        let weir = Weir::start(&config);
        let answer = weir.get("/");
        assert_eq!(answer.text(), "home");
        let cookie = answer.value("set-cookie").unwrap();
        let cookie = cookie.split(';').next().unwrap();
        is_sick.store(1, SeqCst);
        let again = format!("GET / HTTP/1.1\r\nHost: shop\r\nCookie: {cookie}\r\n\r\n");
        assert_eq!(weir.client().ask(again).text(), text, "{sessions}");
    }
}

#[test]
fn clients_of_http2_are_served_alike() {
    let (sick, well) = (Origin::answering(ERROR), Origin::echo());
    let weir = Weir::start(&route(&[&sick, &well], "on = [\"5xx\"]", ""));
    let mut client = Multiplexer::connect(weir.address("web"));
    assert_eq!(client.get("/").status(), 200);
    let open = http2::request("PUT", "/").body(()).unwrap();
    let answer = client.send(open, b"a body without a length");
    assert_eq!(answer.status(), 200);
    assert!(
        answer.text().contains("a body without a length"),
        "{}",
        answer.text()
    );
    let sized = http2::request("PUT", "/")
        .header("content-length", "4")
        .body(())
        .unwrap();
    assert!(client.send(sized, b"four").text().ends_with("four"));
    assert_eq!(client.send(http2::post("/"), b"x").status(), 503);
}

#[test]
fn backends_of_http2_are_tried_alike() {
    let sick = Backend::start(|mut asked| async move {
        let answer = http::Response::builder().status(503).body(()).unwrap();
        asked.answer(answer, "sick").await;
    });
    let well = Backend::named("well");
    let config = |rules: &str| {
        format!(
            "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nname = \"all\"\npool = \"was\"\nretry = {{ {rules} }}\n[pools.was]\nprotocol = \"http2\"\n\
             health.type = \"none\"\nbackends = [{{ address = \"{}\", weight = 256 }}, \"{}\"]\n",
            sick.address, well.address
        )
    };
    let weir = Weir::start(&config("on = [\"5xx\"]"));
    (0..5).for_each(|_| assert_eq!(weir.get("/").text(), "well"));
    assert_eq!(weir.client().ask(PUT).text(), "well");
    assert_eq!(weir.client().ask(post("/", "x")).status(), 503);
    let mut client = Multiplexer::connect(weir.address("web"));
    assert_eq!(client.get("/").text(), "well");
}

#[test]
fn an_answer_that_began_is_never_tried_again() {
    let cut = Origin::start(|visit| {
        if visit.request().is_ok() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        }
    });
    let half = Origin::start(|visit| {
        if visit.request().is_ok() {
            visit.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let well = Origin::named("well");
    let rules = "on = [\"5xx\", \"reset\", \"timeout\"]";
    let weir = Weir::start(&route(&[&cut, &well], rules, ""));
    let mut client = weir.client();
    client.send(get("/"));
    let (bytes, _) = client.rest();
    assert!(bytes.ends_with(b"abc"));
    drop(weir);
    let weir = Weir::start(&route(&[&half, &well], rules, ""));
    let mut client = weir.client();
    client.send(get("/"));
    assert_eq!(client.answer().status(), 103);
    assert_eq!(client.answer().status(), 503);
    assert_eq!(well.hits(), 0);
}
