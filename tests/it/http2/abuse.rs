//! HTTP/2 clients that mean harm: each is told so with the right code and cut off, others are served, and memory stays flat.

use std::io::{Read, Write};

use h2::Reason;

use super::{multiplexer, wire};
use crate::support::http2::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, frame, get_frame, head, post_frame, rst, settings,
    window_update,
};
use crate::support::origin::ok;
use crate::support::weir::{plain, plain_at};
use crate::support::{Origin, Weir, process, until};

/// What a flood may add to weir's memory, in KiB.
const ROOM: u64 = 16 * 1024;

fn quick() -> Origin {
    Origin::answering(ok("served"))
}

/// Lets `flood` loose on a fresh connection until weir ends it; how it ended is for the caller.
fn against(weir: &Weir, flood: impl Fn(&mut Vec<u8>, u32)) -> Wire {
    let mut wire = wire(weir);
    let mut other = multiplexer(weir);
    assert_eq!(other.get("/").text(), "served");
    let before = weir.resident();
    wire.send(post_frame(1, &[]));
    let mut piece = Vec::new();
    for round in 0..2_000 {
        piece.clear();
        (0..10).for_each(|turn| flood(&mut piece, round * 10 + turn));
        if wire.try_send(&piece).is_err() {
            break;
        }
    }
    assert_eq!(other.get("/").text(), "served");
    let after = weir.resident();
    assert!(after < before + ROOM, "{before} KiB, then {after} KiB");
    wire
}

#[track_caller]
fn is_told_to_calm_down(kind: &str, flood: impl Fn(&mut Vec<u8>, u32)) {
    let origin = quick();
    let weir = Weir::before(&[&origin]);
    let mut wire = against(&weir, flood);
    wire.expect_goaway(Reason::ENHANCE_YOUR_CALM);
    weir.settles("weir_http2_floods_total", &[("kind", kind)], 1.0);
    weir.settles("weir_listener_connections", &[("listener", "web")], 0.0);
}

#[test]
fn pings() {
    is_told_to_calm_down("pings", |bytes, _| {
        bytes.extend(frame(PING, 0, 0, [7; 8]));
    });
}

#[test]
fn settings_again_and_again() {
    is_told_to_calm_down("settings", |bytes, turn| {
        bytes.extend(settings(&[(4, 65_535 + turn)]));
    });
}

#[test]
fn empty_data() {
    is_told_to_calm_down("empty_frames", |bytes, _| {
        bytes.extend(frame(DATA, 0, 1, b""));
    });
}

#[test]
fn padded_empty_data() {
    is_told_to_calm_down("empty_frames", |bytes, _| {
        bytes.extend(frame(DATA, 8, 1, [9, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    });
}

#[test]
fn priorities_in_a_circle() {
    is_told_to_calm_down("empty_frames", |bytes, turn| {
        let (one, other) = (3 + turn % 50 * 2, 3 + (turn + 1) % 50 * 2);
        let payload = [&other.to_be_bytes()[..], &[255]].concat();
        bytes.extend(frame(PRIORITY, 0, one, payload));
    });
}

#[test]
fn frames_of_no_kind() {
    is_told_to_calm_down("empty_frames", |bytes, _| {
        bytes.extend(frame(0x2a, 0, 0, b"grease"));
    });
}

/// CVE-2024-27316: a head without an end.
#[test]
fn continuations_without_end() {
    is_told_to_calm_down("continuations", |bytes, turn| {
        if turn == 0 {
            bytes.extend(frame(HEADERS, END_STREAM, 3, head("GET", "/", &[])));
        }
        bytes.extend(frame(CONTINUATION, 0, 3, http2::block(&[("x-a", "b")])));
    });
}

/// The same with nothing in it (CVE-2019-9518).
#[test]
fn empty_continuations_without_end() {
    is_told_to_calm_down("continuations", |bytes, turn| {
        if turn == 0 {
            bytes.extend(frame(HEADERS, END_STREAM, 3, head("GET", "/", &[])));
        }
        bytes.extend(frame(CONTINUATION, 0, 3, b""));
    });
}

/// CVE-2023-44487: each request is taken back at once.
#[test]
fn rapid_reset() {
    let origin = quick();
    let weir = Weir::before(&[&origin]);
    let mut wire = against(&weir, |bytes, turn| {
        bytes.extend(get_frame(3 + turn * 2));
        bytes.extend(rst(3 + turn * 2, Reason::CANCEL));
    });
    wire.expect_goaway(Reason::ENHANCE_YOUR_CALM);
    weir.settles("weir_http2_floods_total", &[("kind", "resets")], 1.0);
    // Two were the other client's, one is the flood's own first; hardly any that was reset at once came so far.
    assert!(
        origin.hits() < 20,
        "{} requests at the backend",
        origin.hits()
    );
    weir.settles("weir_backend_in_flight", &[], 0.0);
}

/// A user who moves on takes back many requests at once; that is no flood.
#[test]
fn some_resets_are_no_flood() {
    let origin = quick();
    let weir = Weir::before(&[&origin]);
    let mut wire = wire(&weir);
    let requests: Vec<u8> = (0..100).flat_map(|at| get_frame(1 + at * 2)).collect();
    let resets: Vec<u8> = (0..100)
        .flat_map(|at| rst(1 + at * 2, Reason::CANCEL))
        .collect();
    wire.send([requests, resets].concat());
    wire.expect_pong();
    wire.send(get_frame(201));
    assert_eq!(wire.await_on(HEADERS, 201).payload[0], 0x88);
}

/// CVE-2025-8671: the client sends what makes the server reset the stream, and the backend has the work.
#[test]
fn resets_that_are_provoked_count_as_resets() {
    for provocation in [
        |stream: u32| [get_frame(stream), window_update(stream, 0x7fff_ffff)].concat(),
        |stream: u32| {
            let post = post_frame(stream, &[("content-length", "1")]);
            [post, frame(DATA, 0, stream, b"xx")].concat()
        },
        |stream: u32| {
            let fields = head("GET", "/", &[("connection", "close")]);
            frame(HEADERS, END_HEADERS | END_STREAM, stream, fields)
        },
    ] {
        let origin = quick();
        let weir = Weir::before(&[&origin]);
        let mut wire = against(&weir, |bytes, turn| {
            bytes.extend(provocation(3 + turn * 2));
        });
        let seen = wire.expect_goaway(Reason::ENHANCE_YOUR_CALM);
        let resets = seen.iter().filter(|frame| frame.kind == RST_STREAM).count();
        assert!(resets <= 1000, "{resets} resets");
        weir.settles("weir_http2_floods_total", &[("kind", "resets")], 1.0);
        weir.settles("weir_backend_in_flight", &[], 0.0);
    }
}

/// More streams than allowed, each refused.
#[test]
fn requests_beyond_the_limit_without_end() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            if request.method() == "POST" {
                return visit.hold();
            }
            visit.send(ok("served"));
        }
    });
    let weir = Weir::start(&plain(&[&origin], "[http2]\nstreams = 1\n"));
    let mut wire = against(&weir, |bytes, turn| bytes.extend(get_frame(3 + turn * 2)));
    wire.expect_goaway(Reason::ENHANCE_YOUR_CALM);
    weir.settles("weir_http2_floods_total", &[("kind", "resets")], 1.0);
}

/// Bytes that decompress to far more: one large entry of the dynamic table, said again and again.
#[test]
fn a_bomb_of_header_compression() {
    let origin = quick();
    let weir = Weir::before(&[&origin]);
    let mut other = multiplexer(&weir);
    assert_eq!(other.get("/").text(), "served");
    let before = weir.resident();
    let mut wire = wire(&weir);
    // Literal with incremental indexing (RFC 7541 section 6.2.1), then its index, 62.
    let mut entry = vec![0x40, 5];
    entry.extend(b"x-big");
    http2::put_length(&mut entry, 3900);
    entry.extend([b'a'; 3900]);
    let fill = [head("GET", "/", &[]), entry].concat();
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, fill));
    assert_eq!(wire.await_on(HEADERS, 1).payload[0], 0x88);
    for stream in [3, 5, 7, 9] {
        let bomb = [head("GET", "/", &[]), vec![0x80 | 62; 16_000]].concat();
        let _ = wire.try_send(frame(HEADERS, END_HEADERS | END_STREAM, stream, bomb));
    }
    // 431 for what is too large, the end for what is beyond reason.
    wire.expect_goaway(Reason::ENHANCE_YOUR_CALM);
    assert_eq!(other.get("/").text(), "served");
    assert!(weir.resident() < before + ROOM);
    assert_eq!(origin.hits(), 3);
}

/// What no client may send ends the connection with the code that RFC 9113 names, but for two where the codec says PROTOCOL_ERROR.
#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let origin = quick();
    let weir = Weir::before(&[&origin]);
    let mut other = multiplexer(&weir);
    let half = [
        frame(HEADERS, END_STREAM, 3, head("GET", "/", &[])),
        frame(PING, 0, 0, [0; 8]),
    ];
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        (
            "a window beyond 2^31-1",
            window_update(0, 0x7fff_ffff),
            Reason::FLOW_CONTROL_ERROR,
        ),
        (
            "a zero increment",
            window_update(0, 0),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "DATA on an idle stream",
            frame(DATA, 0, 5, b"x"),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "DATA on the connection",
            frame(DATA, 0, 0, b"x"),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "HEADERS on the connection",
            frame(HEADERS, END_HEADERS, 0, head("GET", "/", &[])),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a reset of an idle stream",
            rst(9, Reason::CANCEL),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a stream of the server's",
            get_frame(2),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a stream id that goes back",
            [get_frame(9), get_frame(7)].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a push",
            frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                [&[0, 0, 0, 2][..], &head("GET", "/", &[])].concat(),
            ),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a short PING",
            frame(PING, 0, 0, [0; 7]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "a PING on a stream",
            frame(PING, 0, 1, [0; 8]),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a short RST_STREAM",
            frame(RST_STREAM, 0, 1, [0; 3]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "a short WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, [0; 3]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "a short PRIORITY",
            frame(PRIORITY, 0, 1, [0; 4]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "a ragged SETTINGS",
            frame(SETTINGS, 0, 0, [0; 5]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "SETTINGS on a stream",
            frame(SETTINGS, 0, 1, []),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "an acknowledgement with something in it",
            frame(SETTINGS, ACK, 0, [0; 6]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "an acknowledgement of nothing",
            frame(SETTINGS, ACK, 0, []),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a window setting beyond 2^31-1",
            settings(&[(4, 0x8000_0000)]),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a frame size setting too small",
            settings(&[(5, 100)]),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a push setting of 2",
            settings(&[(2, 2)]),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a frame that is too large",
            frame(DATA, 0, 1, [0; 16_385]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, b""),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a frame within a head",
            half.concat(),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "more padding than payload",
            frame(DATA, 8, 1, [9, 0]),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "an index that is none",
            frame(HEADERS, END_HEADERS | END_STREAM, 3, [0xff, 0xff, 0x03]),
            Reason::PROTOCOL_ERROR,
        ),
    ];
    let count = cases.len();
    let mut wrong = Vec::new();
    for (name, bytes, code) in cases {
        let mut wire = wire(&weir);
        wire.send(post_frame(1, &[]));
        let _ = wire.try_send(bytes);
        let mut told = None;
        let end = loop {
            match wire.frame() {
                Ok(frame) if frame.kind == http2::GOAWAY => told = Some(http2::code_of(&frame)),
                Ok(_) => {}
                Err(fault) => break fault,
            }
        };
        if (told, end) != (Some(code), crate::support::message::Fault::Closed) {
            wrong.push(format!("{name}: {told:?} and {end:?}, not {code:?}"));
        }
        assert_eq!(other.get("/").text(), "served");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    weir.settles("weir_http2_errors_total", &[], count as f64);
    until("the backend to be rid of them", || {
        (weir.metric("weir_backend_in_flight", &[]) == 0.0).then_some(())
    });
}

/// While a backend takes its time to connect, no window opens: what is beyond a stream's ends the stream, or the connection
/// (RFC 9113 section 6.9.1 leaves the choice).
#[test]
fn more_data_than_the_window_of_a_stream() {
    let deaf = process::deaf();
    let weir = Weir::start(&plain_at(&[deaf.address], ""));
    let mut wire = wire(&weir);
    wire.send(post_frame(1, &[]));
    wire.send(vec![frame(DATA, 0, 1, [0; 16_384]); 5].concat());
    let told = std::iter::from_fn(|| wire.frame().ok());
    let end = told
        .filter(|frame| [RST_STREAM, http2::GOAWAY].contains(&frame.kind))
        .map(|frame| http2::code_of(&frame))
        .next();
    assert_eq!(end, Some(Reason::FLOW_CONTROL_ERROR));
}

/// Likewise what is beyond that of the connection, although each stream kept to its own.
#[test]
fn more_data_than_the_window_of_a_connection() {
    let deaf = process::deaf();
    let weir = Weir::start(&plain_at(&[deaf.address], "[http2]\nwindow = \"64KiB\"\n"));
    let mut wire = wire(&weir);
    for stream in [1, 3, 5] {
        wire.send(post_frame(stream, &[]));
        wire.send(vec![frame(DATA, 0, stream, [0; 16_384]); 2].concat());
    }
    wire.expect_goaway(Reason::FLOW_CONTROL_ERROR);
    weir.settles("weir_http2_errors_total", &[], 1.0);
    weir.settles("weir_backend_in_flight", &[], 0.0);
}

/// What is wrong with one stream is that stream's alone.
#[test]
fn what_breaks_a_stream_leaves_the_others() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(ok(request.target()));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut wire = wire(&weir);
    let cases = [
        (window_update(1, 0x7fff_ffff), Reason::FLOW_CONTROL_ERROR),
        (
            frame(PRIORITY, 0, 3, [0, 0, 0, 3, 1]),
            Reason::PROTOCOL_ERROR,
        ),
    ];
    for (at, (bytes, code)) in cases.into_iter().enumerate() {
        let stream = 1 + at as u32 * 2;
        wire.send(post_frame(stream, &[]));
        wire.send(bytes);
        wire.expect_reset(stream, code);
    }
    wire.send(get_frame(99));
    assert_eq!(wire.await_on(HEADERS, 99).payload[0], 0x88);
}

/// Small pieces of a body cost their receiver more than they carry.
#[test]
fn a_body_in_crumbs() {
    let origin = Origin::start(|visit| {
        let Ok(head) = visit.head() else { return };
        if head.method() == "POST" {
            return visit.hold();
        }
        visit.send(ok("served"));
    });
    let weir = Weir::before(&[&origin]);
    let mut wire = against(&weir, |bytes, _| bytes.extend(frame(DATA, 0, 1, b"x")));
    wire.reader.stream.flush().unwrap();
    let _ = wire.reader.stream.read(&mut [0; 1]);
    weir.settles("weir_backend_in_flight", &[("pool", "none")], 0.0);
}
