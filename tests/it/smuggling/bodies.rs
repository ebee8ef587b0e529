//! Request bodies whose end two readers could see at different places, and requests that hide within bodies.

use super::{SMUGGLED, refusal};
use crate::support::origin::ok;
use crate::support::weir::post;
use crate::support::{Origin, Weir, shown, until};

/// Chunked bodies that are faulty; what stands before the fault is a good beginning.
fn faulty_chunks() -> Vec<(&'static str, Vec<u8>)> {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000));
    let digits = format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(100_000));
    let cases: &[(&'static str, &[u8])] = &[
        ("no number", b"xyz\r\nhello\r\n0\r\n\r\n"),
        ("empty size", b"\r\nhello\r\n0\r\n\r\n"),
        ("extension without size", b";a=b\r\nhello\r\n0\r\n\r\n"),
        ("plus", b"+5\r\nhello\r\n0\r\n\r\n"),
        ("minus", b"-5\r\nhello\r\n0\r\n\r\n"),
        ("0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
        ("blank first", b" 5\r\nhello\r\n0\r\n\r\n"),
        ("digits behind a blank", b"5 5\r\nhello\r\n0\r\n\r\n"),
        ("blank behind", b"5 \r\nhello\r\n0\r\n\r\n"),
        ("letters behind", b"5g\r\nhello\r\n0\r\n\r\n"),
        ("17 digits", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("20 digits", b"FFFFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
        ("bare LF behind the size", b"5\nhello\r\n0\r\n\r\n"),
        ("bare CR behind the size", b"5\rhello\r\n0\r\n\r\n"),
        ("CR CR LF", b"5\r\r\nhello\r\n0\r\n\r\n"),
        ("bare LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("bare CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("NUL in an extension", b"5;a\0b\r\nhello\r\n0\r\n\r\n"),
        ("control in an extension", b"5;a\x01b\r\nhello\r\n0\r\n\r\n"),
        ("nothing behind the data", b"5\r\nhello0\r\n\r\n"),
        ("too much data", b"5\r\nhello!\r\n0\r\n\r\n"),
        ("bare LF behind the data", b"5\r\nhello\n0\r\n\r\n"),
        ("bare CR behind the data", b"5\r\nhello\r0\r\n\r\n"),
        ("bare LF behind the last size", b"5\r\nhello\r\n0\n\r\n"),
        ("bare LF at the end", b"5\r\nhello\r\n0\r\n\n"),
        (
            "trailer ended by a bare LF",
            b"5\r\nhello\r\n0\r\nX-A: b\n\r\n",
        ),
        (
            "bare CR in a trailer",
            b"5\r\nhello\r\n0\r\nX-A: b\rc\r\n\r\n",
        ),
        ("folded trailer", b"5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n"),
        (
            "blank before a trailer's colon",
            b"5\r\nhello\r\n0\r\nX-A : b\r\n\r\n",
        ),
        ("no colon in a trailer", b"5\r\nhello\r\n0\r\nX-A\r\n\r\n"),
        ("empty trailer name", b"5\r\nhello\r\n0\r\n: b\r\n\r\n"),
        ("NUL in a trailer", b"5\r\nhello\r\n0\r\nX-A: \0\r\n\r\n"),
        (
            "request in a trailer's place",
            b"5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
        ),
    ];
    let mut all: Vec<(&str, Vec<u8>)> = cases
        .iter()
        .map(|(name, body)| (*name, body.to_vec()))
        .collect();
    all.push(("long extension", long.into_bytes()));
    let blanks = format!("5{}\r\nhello\r\n0\r\n\r\n", " ".repeat(100_000));
    all.push(("long blanks", blanks.into_bytes()));
    let between = format!("5{};a=b\r\nhello\r\n0\r\n\r\n", "\t".repeat(100_000));
    all.push(("long blanks before an extension", between.into_bytes()));
    all.push(("long size", digits.into_bytes()));
    all
}

const CHUNKED: &[u8] =
    b"POST /chunked HTTP/1.1\r\nHost: shop.example.com\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn faulty_chunks_with_the_head() {
    let origin = Origin::named("reached");
    let weir = Weir::before(&[&origin]);
    let mut complaints = Vec::new();
    for (name, body) in faulty_chunks() {
        let request = [CHUNKED, &body].concat();
        if let Err(complaint) = refusal(weir.client(), &request, &[400]) {
            complaints.push(format!("{name}: {complaint}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(origin.hits(), 0, "whole requests at the origin");
}

#[test]
fn faulty_chunks_after_the_head_went_upstream() {
    let origin = Origin::start(|visit| {
        // The head is recorded when it came; the body must never come whole.
        let mut request = visit.head().unwrap_or_default();
        if visit.body(&mut request).is_ok() {
            visit.send(ok("whole"));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut complaints = Vec::new();
    for (count, (name, body)) in faulty_chunks().into_iter().enumerate() {
        let mut client = weir.client();
        client.send([CHUNKED, b"3\r\nabc\r\n"].concat());
        until("the head at the origin", || {
            (origin.hits() > count).then_some(())
        });
        if let Err(complaint) = refusal(client, &body, &[400]) {
            complaints.push(format!("{name}: {complaint}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(
        origin.connections(),
        origin.hits(),
        "a poisoned connection was used again"
    );
    until("the origin's connections to end", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn trailers_over_the_limit_are_refused() {
    let origin = Origin::named("reached");
    let weir = Weir::before(&[&origin]);
    for (name, trailers) in [
        ("lines", "X-A: b\r\n".repeat(200)),
        ("bytes", format!("X-A: {}\r\n", "b".repeat(100_000))),
    ] {
        let request = [CHUNKED, b"0\r\n", trailers.as_bytes(), b"\r\n"].concat();
        let result = refusal(weir.client(), &request, &[400, 431]);
        assert_eq!(result, Ok(()), "{name}");
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_request_within_a_body_stays_a_body() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let smuggled = String::from_utf8(SMUGGLED.to_vec()).unwrap();
    let mut client = weir.client();
    assert!(
        client
            .ask(post("/a", &smuggled))
            .text()
            .ends_with(&smuggled)
    );
    let get = format!(
        "GET /b HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    assert!(client.ask(get).text().ends_with(&smuggled));
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    assert!(
        client
            .ask([CHUNKED, chunk.as_bytes()].concat())
            .text()
            .ends_with(&smuggled)
    );
    let targets: Vec<String> = origin.requests().iter().map(|one| one.target()).collect();
    assert_eq!(targets, ["/a", "/b", "/chunked"]);
}

#[test]
fn the_rest_of_a_body_that_was_answered_early_is_no_request() {
    let origin = Origin::start(|visit| {
        let head = visit.head().unwrap();
        if head.target() == "/early" {
            visit.send(ok("early"));
            visit.stall();
        } else {
            visit.send(ok("smuggled"));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let head = format!(
        "POST /early HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: {}\r\n\r\nabc",
        SMUGGLED.len() + 3
    );
    assert_eq!(client.ask(head).text(), "early");
    let _ = client.try_send(&[SMUGGLED, SMUGGLED].concat());
    let _ = client.reader.stream.shutdown(std::net::Shutdown::Write);
    let (rest, _) = client.rest();
    // weir may close, or take the rest of the body and answer the request behind it: once, never twice.
    let answers = shown(&rest).matches("HTTP/1.1").count();
    assert!(answers <= 1, "{}", shown(&rest));
    assert!(origin.hits() <= 2, "the rest of a body became a request");
}

#[test]
fn trailers_that_speak_of_framing_or_of_the_client() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    for name in [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: evil.example",
        "X-Forwarded-For: 1.2.3.4",
        "x_forwarded_for: 1.2.3.4",
        "Connection: close",
        "Cookie: a=b",
    ] {
        let request = format!("5\r\nhello\r\n0\r\n{name}\r\n\r\n");
        let answer = weir.client().ask([CHUNKED, request.as_bytes()].concat());
        match answer.status() {
            400 => {}
            _ => assert!(
                origin.requests().pop().unwrap().trailers.is_empty(),
                "{name} went on"
            ),
        }
    }
}
