//! Compressed answers: what a client decodes is what the backend sent, whoever it is and however the backend framed it.

mod http2;

use std::io::Read;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, LazyLock};

use crate::support::message::{Fault, Message};
use crate::support::random::Random;
use crate::support::weir::plain;
use crate::support::{Origin, Weir, until};

const FILTER: &str = "filters = [{ type = \"compress\" }]\n";

fn weir(origin: &Origin, filter: &str) -> Weir {
    let config = plain(&[origin], "");
    Weir::start(&config.replace("[[routes]]\n", &format!("[[routes]]\n{filter}")))
}

fn asks(target: &str, accepts: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example.com\r\nAccept-Encoding: {accepts}\r\n\r\n")
}

/// Text of so many bytes that is neither trivial to compress nor noise.
fn text(length: usize) -> Vec<u8> {
    static TILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let noise = Random(7).bytes(40_000);
        let words: Vec<&[u8]> = noise[..600].chunks(6).collect();
        let chosen = noise.chunks_exact(2).map(|pair| {
            let place = usize::from(pair[0]) * usize::from(pair[1]);
            words[place % words.len()]
        });
        let letters =
            chosen.flat_map(|word| word.iter().map(|byte| b'a' + byte % 26).chain([b' ']));
        letters.collect()
    });
    TILE.iter().copied().cycle().take(length).collect()
}

/// All that can be decoded of what is there.
fn decoded(coding: &str, coded: &[u8]) -> Vec<u8> {
    let mut source: Box<dyn Read + '_> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(coded)),
        "br" => Box::new(brotli::Decompressor::new(coded, 4096)),
        "zstd" => return unzstd(coded),
        other => panic!("{other}"),
    };
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = source.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    bytes
}

fn unzstd(coded: &[u8]) -> Vec<u8> {
    let mut context = zstd_safe::DCtx::create();
    let mut bytes = Vec::new();
    let mut input = zstd_safe::InBuffer::around(coded);
    loop {
        bytes.reserve(64 * 1024);
        let at = bytes.len();
        let mut output = zstd_safe::OutBuffer::around_pos(&mut bytes, at);
        context.decompress_stream(&mut output, &mut input).unwrap();
        if output.pos() == at {
            return bytes;
        }
    }
}

/// The body as the client understands it, and by which coding it came.
fn understood(answer: &Message) -> (Vec<u8>, String) {
    match answer.value("content-encoding") {
        Some(coding) => (decoded(&coding, &answer.body), coding),
        None => (answer.body.clone(), String::new()),
    }
}

/// Answers with text of the length that the target names, framed as the rest of it says.
fn pages() -> Origin {
    Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let target = request.target();
            let (framing, length) = target[1..].split_once('/').unwrap();
            let body = text(length.parse().unwrap());
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nETag: \"v1\"\r\n";
            match framing {
                "chunked" => {
                    visit.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
                    for piece in body.chunks(7001) {
                        let size = format!("{:x}\r\n", piece.len());
                        visit.send([size.as_bytes(), piece, b"\r\n"].concat());
                    }
                    visit.send("0\r\nX-Sum: 1\r\n\r\n");
                }
                "close" => {
                    visit.send(format!("{head}\r\n"));
                    visit.send(&body);
                    return;
                }
                _ => {
                    let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
                    visit.send([head.as_bytes(), &body].concat());
                }
            }
        }
    })
}

#[test]
fn every_framing_and_size_arrives_in_every_coding() {
    let origin = pages();
    let weir = weir(&origin, FILTER);
    let mut client = weir.client();
    let mut expected_in = 0;
    for coding in ["gzip", "br", "zstd"] {
        for framing in ["length", "chunked", "close"] {
            for size in [1024, 5000, 65_536, 600_000] {
                let answer = client.ask(asks(&format!("/{framing}/{size}"), coding));
                let (body, by) = understood(&answer);
                assert_eq!(by, coding, "{framing} {size}");
                assert!(body == text(size), "{coding} {framing} {size}");
                assert!(
                    answer.body.len() < size * 3 / 4,
                    "{} of {size}",
                    answer.body.len()
                );
                assert_eq!(answer.value("content-length"), None);
                assert_eq!(answer.values("transfer-encoding"), ["chunked"]);
                assert_eq!(answer.value("vary").as_deref(), Some("Accept-Encoding"));
                assert_eq!(answer.value("etag").as_deref(), Some("W/\"v1\""));
                let has_sum = answer.trailers == [("X-Sum".into(), "1".into())]
                    || answer.trailers == [("x-sum".into(), "1".into())];
                assert_eq!(has_sum, framing == "chunked", "{:?}", answer.trailers);
                expected_in += 1;
            }
        }
    }
    // One connection of the client, and the backend's but for those that it closed itself.
    assert_eq!(origin.connections(), 3 * 4);
    weir.settles(
        "weir_http_requests_total",
        &[("code", "2xx")],
        f64::from(expected_in),
    );
}

#[test]
fn who_takes_none_and_what_is_no_text_gets_what_the_backend_sent() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let (kind, more) = match request.target().as_str() {
                "/image" => ("image/png", ""),
                "/coded" => ("text/plain", "Content-Encoding: br\r\n"),
                "/fixed" => ("text/plain", "Cache-Control: no-transform\r\n"),
                _ => ("text/plain", ""),
            };
            let length = if request.target() == "/small" {
                1023
            } else {
                9000
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}Content-Length: {length}\r\n\r\n"
            );
            let body = if request.method() == "HEAD" {
                Vec::new()
            } else {
                text(length)
            };
            visit.send([head.as_bytes(), &body].concat());
        }
    });
    let weir = weir(&origin, FILTER);
    let mut client = weir.client();
    for (target, accepts, varies) in [
        ("/", "", true),
        ("/", "identity, gzip;q=0.5", true),
        ("/", "gzip;q=0, *;q=0", true),
        ("/image", "gzip", false),
        ("/coded", "gzip", false),
        ("/fixed", "gzip", false),
        ("/small", "gzip", false),
    ] {
        let answer = client.ask(asks(target, accepts));
        let length = if target == "/small" { 1023 } else { 9000 };
        assert!(answer.body == text(length), "{target} {accepts}");
        assert_eq!(answer.value("content-length"), Some(length.to_string()));
        assert_eq!(answer.has("vary"), varies, "{target} {accepts}");
    }
    client.send(asks("/", "gzip").replace("GET", "HEAD"));
    let head = client.answer_to_head();
    assert_eq!(head.value("content-length").as_deref(), Some("9000"));
    assert_eq!(head.value("content-encoding"), None);
    let mut old = weir.client();
    let answer = old.ask(asks("/", "gzip").replace("HTTP/1.1", "HTTP/1.0"));
    assert!(answer.body == text(9000));
    let answer = client.ask(asks("/", "gzip"));
    assert_eq!(understood(&answer), (text(9000), "gzip".into()));
}

/// What the route says counts: order, types, sizes.
#[test]
fn the_route_says_what_is_offered() {
    let origin = pages();
    let filter = "filters = [{ type = \"compress\", algorithms = [\"gzip\", \"br\"], types = [\"text/html\"], min_size = \"4KiB\", level = 9 }]\n";
    let weir = weir(&origin, filter);
    let mut client = weir.client();
    let mut coding = |target: &str, accepts: &str| {
        let answer = client.ask(asks(target, accepts));
        understood(&answer).1
    };
    assert_eq!(coding("/length/9000", "zstd, br, gzip"), "gzip");
    assert_eq!(coding("/length/9000", "zstd, br"), "br");
    assert_eq!(coding("/length/9000", "zstd"), "");
    assert_eq!(coding("/length/4095", "gzip"), "");
}

/// A client can decode each piece before the next one is sent.
#[test]
fn nothing_is_held_back_while_the_backend_pauses() {
    let read = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&read);
    let origin = Origin::start(move |visit| {
        if visit.request().is_err() {
            return;
        }
        visit.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for number in 1..=10 {
            let event = format!("data: {number}\n\n");
            visit.send(format!("{:x}\r\n{event}\r\n", event.len()));
            let before = visit.number * 10;
            until("the event to be read", || {
                (seen.load(SeqCst) >= before + number).then_some(())
            });
        }
        visit.send("0\r\n\r\n");
    });
    let filter = "filters = [{ type = \"compress\", types = [\"text/event-stream\"] }]\n";
    let weir = weir(&origin, filter);
    for coding in ["gzip", "br", "zstd"] {
        let mut client = weir.client();
        client.send(asks("/", coding));
        let head = client.answer_head();
        assert_eq!(head.value("content-encoding").as_deref(), Some(coding));
        let (mut coded, mut expected) = (Vec::new(), String::new());
        for number in 1..=10 {
            expected += &format!("data: {number}\n\n");
            until("the event", || {
                let line = chunk(&mut client, &mut coded);
                (line && decoded(coding, &coded) == expected.as_bytes()).then_some(())
            });
            read.fetch_add(1, SeqCst);
        }
    }
}

/// Reads one chunk; false at the end.
fn chunk(client: &mut crate::support::Client, data: &mut Vec<u8>) -> bool {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(client.reader.exactly(1).expect("a size"));
    }
    let size = std::str::from_utf8(&line).unwrap().trim();
    let size = usize::from_str_radix(size, 16).unwrap();
    data.extend(client.reader.exactly(size).expect("data"));
    client.reader.exactly(2).expect("a line end");
    size > 0
}

#[test]
fn an_answer_that_breaks_off_does_not_end_like_a_whole_one() {
    let origin = Origin::start(|visit| {
        let Ok(request) = visit.request() else { return };
        let framing = match request.target().as_str() {
            "/length" => "Content-Length: 50000\r\n",
            _ => "Transfer-Encoding: chunked\r\n",
        };
        let size = if framing.starts_with('T') {
            "9c40\r\n"
        } else {
            ""
        };
        visit.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{framing}\r\n{size}"
        ));
        visit.send(text(30_000));
    });
    let weir = weir(&origin, FILTER);
    for target in ["/length", "/chunked"] {
        for coding in ["gzip", "br", "zstd"] {
            let mut client = weir.client();
            client.send(asks(target, coding));
            let head = client.answer_head();
            assert_eq!(head.value("content-encoding").as_deref(), Some(coding));
            let (rest, end) = client.rest();
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{target} {coding}");
            assert!(matches!(end, Fault::Closed | Fault::Reset));
        }
    }
}

/// Many at once, in both senses: clients that do not read hold a coder each, and others are served without one when none is left.
#[test]
fn memory_is_bounded_and_who_finds_no_coder_is_served_all_the_same() {
    let page = Arc::new(text(64 * 1024));
    let origin = Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/small" {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2000\r\n\r\n";
                visit.send([head.as_bytes(), &page[..2000]].concat());
                continue;
            }
            // It never ends, and so its coder is not free.
            visit.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n");
            visit.send(&*page);
            visit.stall();
            return;
        }
    });
    let weir = weir(&origin, FILTER);
    let before = weir.resident();
    let clients: Vec<_> = (0..300)
        .map(|_| {
            let mut client = weir.client();
            client.send(asks("/", "gzip"));
            client
        })
        .collect();
    let mut plainly = 0;
    let mut heads = Vec::new();
    for mut client in clients {
        let head = client.answer_head();
        plainly += usize::from(!head.has("content-encoding"));
        assert!(head.has("vary"));
        heads.push(client);
    }
    assert_eq!(plainly, 300 - 256);
    let grown = weir.resident().saturating_sub(before);
    assert!(grown < 200 * 1024, "{grown} KiB more");
    drop(heads);
    let mut client = weir.client();
    until("a coder to be free", || {
        let answer = client.ask(asks("/small", "gzip"));
        answer.has("content-encoding").then_some(())
    });
}
