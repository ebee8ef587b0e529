//! The same faults in an answer are a 502, or break the answer off; and no client gets bytes that were not meant for it.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::support::message::Fault;
use crate::support::origin::ok;
use crate::support::weir::{get, post};
use crate::support::{Origin, Weir, shown, until};

/// Bad answers, none of which has been passed on in part.
fn faulty_answers() -> Vec<(&'static str, Vec<u8>)> {
    let answer = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n").into_bytes();
    let status = |line: &str| format!("{line}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    vec![
        (
            "CL and TE",
            [
                answer("Content-Length: 5\r\nTransfer-Encoding: chunked"),
                b"0\r\n\r\n".to_vec(),
            ]
            .concat(),
        ),
        (
            "repeated CL",
            [
                answer("Content-Length: 5\r\nContent-Length: 5"),
                b"hello".to_vec(),
            ]
            .concat(),
        ),
        (
            "differing CL",
            [
                answer("Content-Length: 5\r\nContent-Length: 6"),
                b"hello!".to_vec(),
            ]
            .concat(),
        ),
        (
            "CL list",
            [answer("Content-Length: 5, 5"), b"hello".to_vec()].concat(),
        ),
        (
            "signed CL",
            [answer("Content-Length: +5"), b"hello".to_vec()].concat(),
        ),
        ("empty CL", answer("Content-Length:")),
        (
            "overflowing CL",
            answer("Content-Length: 18446744073709551621"),
        ),
        ("unknown coding", answer("Transfer-Encoding: gzip")),
        (
            "chunked twice",
            [
                answer("Transfer-Encoding: chunked, chunked"),
                b"0\r\n\r\n".to_vec(),
            ]
            .concat(),
        ),
        (
            "chunked not last",
            [
                answer("Transfer-Encoding: chunked, gzip"),
                b"0\r\n\r\n".to_vec(),
            ]
            .concat(),
        ),
        (
            "coding in 1.0",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        ("folded line", answer("X-A: b\r\n c\r\nContent-Length: 0")),
        ("bare CR", answer("X-A: b\rc\r\nContent-Length: 0")),
        ("bare LF", answer("X-A: b\nContent-Length: 0")),
        (
            "bare LF at the end",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n\r\n\r\n".to_vec(),
        ),
        ("blank before a colon", answer("Content-Length : 0")),
        ("empty name", answer(": b\r\nContent-Length: 0")),
        ("no colon", answer("X-A\r\nContent-Length: 0")),
        ("NUL", answer("X-A: \0\r\nContent-Length: 0")),
        ("control", answer("X-A: \x01\r\nContent-Length: 0")),
        ("control in the reason", status("HTTP/1.1 200 O\x01K")),
        ("four digits", status("HTTP/1.1 2000 OK")),
        ("two digits", status("HTTP/1.1 20 OK")),
        ("status 099", status("HTTP/1.1 099 Low")),
        ("no status", status("HTTP/1.1 OK")),
        ("two blanks", status("HTTP/1.1  200 OK")),
        ("unknown version", status("HTTP/2.0 200 OK")),
        ("another protocol", status("ICY 200 OK")),
        (
            "no HTTP at all",
            b"220 mail.example.com ESMTP\r\n\r\n".to_vec(),
        ),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        ("nothing", Vec::new()),
        (
            "unasked upgrade",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
                .to_vec(),
        ),
        ("too many lines", answer(&"X-A: b\r\n".repeat(300))),
        ("too long", answer(&format!("X-A: {}", "b".repeat(100_000)))),
    ]
}

#[test]
fn faulty_answers_are_a_bad_gateway() {
    let faults = faulty_answers();
    let answers: Vec<Vec<u8>> = faults.iter().map(|(_, answer)| answer.clone()).collect();
    let origin = Origin::start(move |visit| {
        let Ok(request) = visit.request() else { return };
        let ordinal: usize = request.target().trim_start_matches('/').parse().unwrap();
        let answer = &answers[ordinal];
        visit.send(answer);
        // An answer that ends within its head ends with the connection; any other must be ended by weir.
        if !answer.ends_with(b"\r\n\r\n")
            && !answer.ends_with(b"hello")
            && !answer.ends_with(b"hello!")
        {
            return;
        }
        assert!(
            visit.request().is_err(),
            "a faulty connection was used again"
        );
    });
    let weir = Weir::before(&[&origin]);
    let mut complaints = Vec::new();
    for (ordinal, (name, _)) in faults.iter().enumerate() {
        let mut client = weir.client();
        match client.send(post(&format!("/{ordinal}"), "x")).try_answer() {
            Ok(answer) if answer.status() == 502 => {}
            Ok(answer) => complaints.push(format!("{name}: {}", answer.first_line())),
            Err(fault) => complaints.push(format!("{name}: {fault:?}")),
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(origin.hits(), faults.len(), "a POST is sent once");
    assert_eq!(
        origin.connections(),
        faults.len(),
        "a faulty connection is not kept"
    );
    until("weir to end them", || (origin.open() == 0).then_some(()));
}

#[test]
fn a_bad_gateway_keeps_the_client() {
    let origin = Origin::answering_once("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let first = client.ask(get("/"));
    assert_eq!(first.status(), 502);
    if first.value("connection").as_deref() != Some("close") {
        assert_eq!(client.ask(get("/")).status(), 502);
    }
}

/// Beginnings of answers, each then broken in the middle of its body; whether by a reset.
const BROKEN_BODIES: &[(&str, &str, &str, bool)] = &[
    (
        "length, closed early",
        "Content-Length: 9\r\n",
        "abc",
        false,
    ),
    ("length, reset", "Content-Length: 9\r\n", "abc", true),
    ("until close, reset", "", "abc", true),
    (
        "chunk closed early",
        "Transfer-Encoding: chunked\r\n",
        "5\r\nabc",
        false,
    ),
    (
        "chunks without the last",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n",
        false,
    ),
    (
        "chunk reset",
        "Transfer-Encoding: chunked\r\n",
        "5\r\nabc",
        true,
    ),
    (
        "chunk size no number",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabc\r\nxyz\r\n",
        false,
    ),
    (
        "chunk without its end",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        false,
    ),
    (
        "trailers closed early",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n0\r\nX-A: b\r\n",
        false,
    ),
    (
        "trailer ended by a bare LF",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n0\r\n\n\r\n",
        false,
    ),
];

#[test]
fn a_body_that_breaks_never_ends_cleanly() {
    let origin = Origin::start(|visit| {
        let Ok(request) = visit.request() else { return };
        let ordinal: usize = request.target().trim_start_matches('/').parse().unwrap();
        let (_, fields, body, reset) = BROKEN_BODIES[ordinal];
        visit.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"));
        if reset {
            visit.reset();
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut complaints = Vec::new();
    for (ordinal, (name, ..)) in BROKEN_BODIES.iter().enumerate() {
        for version in ["1.1", "1.0"] {
            let mut client = weir.client();
            client.send(format!("POST /{ordinal} HTTP/{version}\r\nHost: shop.example.com\r\nContent-Length: 0\r\n\r\n"));
            match client.try_answer() {
                Ok(answer) if answer.status() == 502 => {}
                Ok(answer) => complaints.push(format!(
                    "{name}, HTTP/{version}: a whole answer: {:?}",
                    answer.text()
                )),
                Err(Fault::Truncated | Fault::Reset) => {}
                Err(fault) => complaints.push(format!("{name}, HTTP/{version}: {fault:?}")),
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn excess_bytes_of_an_answer_reach_nobody() {
    const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let first = |target: &str| match target {
        "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
        "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n",
        "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
    };
    let poisoned = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&poisoned);
    let origin = Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            let target = request.target();
            if target == "/next" {
                visit.send(first(&target));
            } else if request.has("x-at-once") {
                visit.send(format!("{}{POISON}", first(&target)));
                count.fetch_add(1, SeqCst);
            } else {
                visit.send(first(&target));
                visit.send(POISON);
                count.fetch_add(1, SeqCst);
            }
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut rounds = 0;
    for target in ["/head", "/204", "/304", "/length", "/chunked"] {
        for line in ["X-At-Once: 1\r\n", ""] {
            let mut client = weir.client();
            let method = if target == "/head" { "HEAD" } else { "GET" };
            client.send(format!(
                "{method} {target} HTTP/1.1\r\nHost: a.test\r\n{line}\r\n"
            ));
            let answer = match method {
                "HEAD" => client.answer_to_head(),
                _ => client.answer(),
            };
            assert!(!answer.text().contains("poison"), "{target}");
            rounds += 1;
            until("the poison", || {
                (poisoned.load(SeqCst) == rounds).then_some(())
            });
            // On the same connection and on another.
            assert_eq!(client.ask(get("/next")).text(), "fine", "after {target}");
            assert_eq!(weir.get("/next").text(), "fine", "after {target}");
        }
    }
}

#[test]
fn an_answer_that_nobody_asked_for_reaches_nobody() {
    static ANSWERED: AtomicBool = AtomicBool::new(false);
    static POISONED: AtomicBool = AtomicBool::new(false);
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(ok(request.target()));
            if request.target() == "/first" {
                until("the answer at the client", || {
                    ANSWERED.load(SeqCst).then_some(())
                });
                visit.send(ok("unasked"));
                POISONED.store(true, SeqCst);
            }
        }
    });
    let weir = Weir::before(&[&origin]);
    assert_eq!(weir.get("/first").text(), "/first");
    ANSWERED.store(true, SeqCst);
    until("the poison", || POISONED.load(SeqCst).then_some(()));
    for _ in 0..3 {
        assert_eq!(weir.get("/second").text(), "/second");
    }
}

#[test]
fn answers_that_have_no_body_promise_none() {
    // RFC 9112 section 6.1 and RFC 9110 section 8.6: neither field in a 1xx or 204. A client that believed them would wait for a
    // body, or take the next answer for it.
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let target = request.target();
            let lines = match target.trim_start_matches('/') {
                "204-length" => "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                "204-chunked" => "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
                "103-length" => {
                    "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
                }
                "103-chunked" => {
                    "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
                }
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
            };
            visit.send(lines);
        }
    });
    let weir = Weir::before(&[&origin]);
    for target in ["/204-length", "/204-chunked", "/103-length", "/103-chunked"] {
        let mut client = weir.client();
        client.send(get(target));
        loop {
            let answer = client.answer_head();
            if answer.status() == 502 {
                break; // refused: as good
            }
            assert!(
                !answer.has("content-length") && !answer.has("transfer-encoding"),
                "{target}: {}",
                shown(&answer.head)
            );
            if answer.status() >= 200 {
                assert_eq!(client.ask(get("/next")).text(), "fine", "after {target}");
                break;
            }
        }
    }
}

#[test]
fn an_old_client_hears_of_no_coding() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send("HEAD / HTTP/1.0\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!(answer.status(), 200);
    assert!(!answer.has("transfer-encoding"), "{}", shown(&answer.head));
}

#[test]
fn interim_answers_lose_their_hop_by_hop_fields() {
    let origin = Origin::answering(
        "HTTP/1.1 103 Early Hints\r\nConnection: X-Named, close\r\nKeep-Alive: timeout=5\r\nX-Named: 1\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    );
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(get("/"));
    let hint = client.answer();
    assert_eq!(hint.status(), 103);
    for name in ["connection", "keep-alive", "x-named"] {
        assert!(!hint.has(name), "{name} went on");
    }
    assert!(hint.has("link"));
    assert_eq!(client.answer().status(), 204);
}
