//! Compressed answers over HTTP/2: the codings, what keeps an answer as it is, streams, small windows, and answers that break off.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use h2::{Reason, client};
use http::{Request, Response};

use super::{FILTER, decoded, pages, text, weir};
use crate::support::http2::{Answer, push, read, request};
use crate::support::weir::list;
use crate::support::{Backend, Multiplexer, Origin, Weir, until};

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

fn asks(method: &str, target: &str, accepts: &str) -> Request<()> {
    let asked = request(method, target).header("accept-encoding", accepts);
    asked.body(()).unwrap()
}

fn multiplexer(weir: &Weir) -> Multiplexer {
    Multiplexer::connect(weir.address("web"))
}

/// The body as the client understands it, and by which coding it came.
fn understood(answer: &Answer) -> (Vec<u8>, &str) {
    match answer.value("content-encoding") {
        Some(coding) => (decoded(coding, &answer.body), coding),
        None => (answer.body.clone(), ""),
    }
}

#[test]
fn every_framing_and_size_arrives_in_every_coding_at_once() {
    let origin = pages();
    let weir = weir(&origin, FILTER);
    // Answers that are not read yet hold up none that is.
    let mut builder = client::Builder::new();
    builder.initial_connection_window_size(16 << 20);
    let mut client = Multiplexer::connect_with(weir.address("web"), &builder);
    let mut under_way = Vec::new();
    for coding in CODINGS {
        for framing in ["length", "chunked", "close"] {
            for size in [1024, 5000, 65_536, 600_000] {
                let asked = asks("GET", &format!("/{framing}/{size}"), coding);
                under_way.push((coding, framing, size, client.begin(asked, true).0));
            }
        }
    }
    for (coding, framing, size, answer) in under_way {
        let answer = client.wait(read(answer)).unwrap();
        let (body, by) = understood(&answer);
        assert_eq!(by, coding, "{framing} {size}");
        assert!(body == text(size), "{coding} {framing} {size}");
        assert!(
            answer.body.len() < size * 3 / 4,
            "{coding} {framing} {size}"
        );
        for hop in ["content-length", "transfer-encoding"] {
            assert_eq!(answer.value(hop), None, "{coding} {framing} {size}");
        }
        assert_eq!(answer.value("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.value("etag"), Some("W/\"v1\""));
        let sum = answer.trailers.get("x-sum");
        assert_eq!(sum.is_some(), framing == "chunked", "{coding} {size}");
    }
    assert_eq!(weir.metric("weir_listener_connections", &[]), 1.0);
}

/// What says of itself how it is to be answered.
fn particular() -> Origin {
    Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let target = request.target();
            let kind = if target == "/image" {
                "image/png"
            } else {
                "text/plain"
            };
            let (status, more) = match target.as_str() {
                "/coded" => ("200 OK", "Content-Encoding: br\r\n"),
                "/fixed" => ("200 OK", "Cache-Control: public, no-transform\r\n"),
                "/part" => (
                    "206 Partial Content",
                    "Content-Range: bytes 0-8999/20000\r\n",
                ),
                "/parts" => ("200 OK", "Accept-Ranges: bytes\r\n"),
                "/digest" => ("200 OK", "Content-Digest: sha-256=:AA==:\r\n"),
                "/error" => ("404 Not Found", ""),
                "/204" => ("204 No Content", "ETag: \"v1\"\r\n"),
                _ if request.has("if-none-match") => ("304 Not Modified", "ETag: \"v1\"\r\n"),
                _ => ("200 OK", ""),
            };
            let length = if target == "/small" { 1023 } else { 9000 };
            let (length, body) = match status {
                "204 No Content" => (String::new(), Vec::new()),
                "304 Not Modified" => (format!("Content-Length: {length}\r\n"), Vec::new()),
                _ if request.method() == "HEAD" => {
                    (format!("Content-Length: {length}\r\n"), Vec::new())
                }
                _ => (format!("Content-Length: {length}\r\n"), text(length)),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}{length}\r\n");
            visit.send([head.as_bytes(), &body].concat());
        }
    })
}

#[test]
fn what_is_no_business_of_the_coder_passes_as_it_is() {
    let origin = particular();
    let weir = weir(&origin, FILTER);
    let mut client = multiplexer(&weir);
    for (target, accepts, status) in [
        ("/", "", 200),
        ("/", "identity, gzip;q=0.5", 200),
        ("/", "gzip;q=0, *;q=0", 200),
        ("/image", "gzip", 200),
        ("/coded", "gzip", 200),
        ("/fixed", "gzip", 200),
        ("/small", "gzip", 200),
        ("/digest", "gzip", 200),
        ("/part", "gzip", 206),
        ("/error", "gzip", 404),
    ] {
        let answer = client.send(asks("GET", target, accepts), b"");
        let length = if target == "/small" { 1023 } else { 9000 };
        assert_eq!(answer.status(), status, "{target} {accepts}");
        assert!(answer.body == text(length), "{target} {accepts}");
        assert_eq!(answer.value("content-length"), Some(&*length.to_string()));
        let coding = (target == "/coded").then_some("br");
        assert_eq!(answer.value("content-encoding"), coding, "{target}");
    }
    let parts = client.send(asks("GET", "/parts", "gzip"), b"");
    assert_eq!(understood(&parts), (text(9000), "gzip"));
    assert_eq!(parts.value("accept-ranges"), None, "of what, now?");
}

#[test]
fn an_answer_without_a_body_has_none_in_any_coding() {
    let origin = particular();
    let weir = weir(&origin, FILTER);
    let mut client = multiplexer(&weir);
    for coding in CODINGS {
        let head = client.send(asks("HEAD", "/", coding), b"");
        assert_eq!(head.value("content-length"), Some("9000"));
        let mut same = asks("GET", "/", coding);
        let tag = http::HeaderValue::from_static("W/\"v1\"");
        same.headers_mut().insert("if-none-match", tag);
        let same = client.send(same, b"");
        assert_eq!((same.status(), same.value("etag")), (304, Some("\"v1\"")));
        let none = client.send(asks("GET", "/204", coding), b"");
        assert_eq!((none.status(), none.value("content-length")), (204, None));
        for answer in [head, same, none] {
            assert!(answer.body.is_empty() && answer.value("content-encoding").is_none());
        }
    }
    let origins = origin.requests();
    assert_eq!(
        origins[1].value("if-none-match").as_deref(),
        Some("W/\"v1\"")
    );
}

/// A client can decode each piece before the next one is sent.
#[test]
fn nothing_is_held_back_while_the_backend_pauses() {
    let read = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&read);
    let origin = Origin::start(move |visit| {
        while visit.request().is_ok() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            seen.store(0, SeqCst);
            for number in 1..=10 {
                let event = format!("data: {number}\n\n");
                visit.send(format!("{:x}\r\n{event}\r\n", event.len()));
                until("the event to be read", || {
                    (seen.load(SeqCst) >= number).then_some(())
                });
            }
            visit.send("0\r\n\r\n");
        }
    });
    let filter = "filters = [{ type = \"compress\", types = [\"text/event-stream\"] }]\n";
    let weir = weir(&origin, filter);
    let mut client = multiplexer(&weir);
    for coding in CODINGS {
        let (answer, _) = client.begin(asks("GET", "/", coding), true);
        let answer = client.wait(answer).unwrap();
        assert_eq!(answer.headers()["content-encoding"], coding);
        let mut body = answer.into_body();
        let (mut coded, mut expected) = (Vec::new(), String::new());
        for number in 1..=10 {
            expected += &format!("data: {number}\n\n");
            while decoded(coding, &coded) != expected.as_bytes() {
                let piece = client.wait(body.data()).expect("more").unwrap();
                coded.extend_from_slice(&piece);
            }
            read.store(number, SeqCst);
        }
        while let Some(piece) = client.wait(body.data()) {
            coded.extend_from_slice(&piece.unwrap());
        }
        assert!(body.is_end_stream());
    }
}

/// The stream is reset, so that what came cannot be taken for all of it.
#[test]
fn an_answer_that_breaks_off_does_not_end_like_a_whole_one() {
    let origin = Origin::start(|visit| {
        let Ok(request) = visit.request() else { return };
        let (framing, size) = match request.target().as_str() {
            "/length" => ("Content-Length: 50000\r\n", ""),
            _ => ("Transfer-Encoding: chunked\r\n", "9c40\r\n"),
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
        visit.send(format!("{head}{framing}\r\n{size}"));
        visit.send(text(30_000));
    });
    let weir = weir(&origin, FILTER);
    let mut client = multiplexer(&weir);
    for target in ["/length", "/chunked"] {
        for coding in CODINGS {
            let (answer, _) = client.begin(asks("GET", target, coding), true);
            // Its head may have been overtaken by the reset.
            let whole = client.wait(read(answer));
            let why = whole.expect_err("a reset").reason();
            assert_eq!(why, Some(Reason::INTERNAL_ERROR), "{target} {coding}");
        }
    }
    assert!(client.is_open());
}

/// A client that takes a thousand bytes at a time gets all of it, and others on its connection theirs.
#[test]
fn a_small_window_holds_back_and_loses_nothing() {
    let origin = pages();
    let weir = weir(&origin, FILTER);
    let mut builder = client::Builder::new();
    builder.initial_window_size(1000);
    let mut client = Multiplexer::connect_with(weir.address("web"), &builder);
    for coding in CODINGS {
        let (slow, _) = client.begin(asks("GET", "/length/600000", coding), true);
        let other = client.send(asks("GET", "/chunked/5000", coding), b"");
        assert!(understood(&other).0 == text(5000), "{coding}");
        let answer = client.wait(read(slow)).unwrap();
        assert_eq!(understood(&answer), (text(600_000), coding));
    }
}

/// What a backend of HTTP/2 says at its end is no part of the body, and stays.
#[test]
fn trailers_of_a_backend_of_http_2_come_after_the_last_piece() {
    let backend = Backend::start(|mut asked| async move {
        let head = Response::builder().header("content-type", "text/plain");
        let head = head.body(()).unwrap();
        let mut stream = asked.respond.send_response(head, false).unwrap();
        push(&mut stream, text(70_000)).await.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", 7.into());
        stream.send_trailers(trailers).unwrap();
    });
    let weir = Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\n{FILTER}pool = \"was\"\n[pools.was]\nprotocol = \"http2\"\nbackends = [{}]\nhealth.type = \"none\"\n",
        list(&[backend.address])
    ));
    let mut client = multiplexer(&weir);
    for coding in CODINGS {
        let answer = client.send(asks("GET", "/", coding), b"");
        assert_eq!(understood(&answer), (text(70_000), coding));
        assert_eq!(answer.trailers["x-sum"], "7");
    }
    let mut old = weir.client();
    let answer = old.ask(super::asks("/", "gzip"));
    assert_eq!(super::understood(&answer), (text(70_000), "gzip".into()));
    assert_eq!(answer.trailers, [("x-sum".into(), "7".into())]);
}

/// curl decodes what it asked for.
#[test]
fn curl_understands_every_coding() {
    let origin = pages();
    let weir = weir(&origin, FILTER);
    for coding in CODINGS {
        let accepts = format!("Accept-Encoding: {coding}");
        let url = format!("http://{}/chunked/65536", weir.address("web"));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--http2-prior-knowledge", "--compressed", "-H"]);
        curl.args([&accepts, &url]);
        let output = curl.output().expect("curl; tests/run installs it");
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{coding}: {wrong}");
        assert!(output.stdout == text(65_536), "{coding}");
    }
}
