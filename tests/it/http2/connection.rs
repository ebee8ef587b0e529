//! The life of an HTTP/2 connection: how it begins, what ends it, and what becomes of requests in flight meanwhile.

use std::time::{Duration, Instant};

use h2::Reason;

use super::{multiplexer, wire};
use crate::support::http2::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, SETTINGS, Wire, frame, get,
    get_frame, post, request,
};
use crate::support::origin::{nobody, ok};
use crate::support::weir::{plain, plain_at};
use crate::support::{Multiplexer, Origin, Weir, until};

const TERM: i32 = 15;

fn once(name: &'static str) -> Origin {
    Origin::answering(ok(name))
}

/// Answers `/slow` only when it may.
fn slow() -> (Origin, std::sync::mpsc::SyncSender<()>) {
    let (go, gate) = std::sync::mpsc::sync_channel(0);
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/slow" {
                let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(20));
            }
            visit.send(ok(request.target()));
        }
    });
    (origin, go)
}

#[test]
fn the_preface_may_come_in_pieces() {
    let origin = once("a");
    let weir = Weir::before(&[&origin]);
    let mut wire = Wire::silent(weir.address("web"));
    let start = [PREFACE, &http2::settings(&[]), &get_frame(1)].concat();
    for byte in start {
        wire.send([byte]);
        std::thread::yield_now();
    }
    assert_eq!(wire.await_frame(HEADERS).payload[0], 0x88);
}

#[test]
fn http_1_is_not_taken_for_a_preface() {
    let origin = once("a");
    let config = "[timeouts]\nheader = \"300ms\"\n";
    let weir = Weir::start(&plain(&[&origin], config));
    for method in ["POST", "PUT", "PRI", "P"] {
        let mut client = weir.client();
        client.send("P");
        let rest = format!(
            "{} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            &method[1..]
        );
        assert_eq!(client.ask(rest).status(), 200, "{method}");
    }
    // Who says no more than the beginning of either is told so as of any head.
    for beginning in ["P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nS"] {
        let mut client = weir.client();
        client.send(beginning);
        let status = client.answer().status();
        assert!(matches!(status, 408 | 505), "{beginning:?}: {status}");
        client.expect_end();
    }
}

#[test]
fn a_listener_may_have_no_http_2() {
    let origin = once("a");
    let config =
        plain(&[&origin], "").replace("bind = [\"$web\"]", "bind = [\"$web\"]\nhttp2 = false");
    let weir = Weir::start(&config);
    for pieces in [&[PREFACE][..], &[&PREFACE[..3], &PREFACE[3..]]] {
        let mut client = weir.client();
        pieces.iter().for_each(|piece| {
            client.send(piece);
        });
        assert_eq!(client.answer().status(), 505);
    }
    assert_eq!(weir.get("/").text(), "a");
}

/// RFC 9113 section 3.4: whatever follows the preface must be SETTINGS. The codec takes any frame, but no garbage.
#[test]
fn garbage_after_the_preface_ends_the_connection() {
    let origin = once("a");
    let weir = Weir::before(&[&origin]);
    let mut wire = Wire::silent(weir.address("web"));
    wire.send([PREFACE, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    wire.expect_goaway(Reason::FRAME_SIZE_ERROR);
    weir.settles("weir_http2_errors_total", &[], 1.0);
}

#[test]
fn who_asks_nothing_is_sent_away_at_the_deadline_of_a_head() {
    let origin = once("a");
    let config = "[timeouts]\nheader = \"300ms\"\nkeep_alive = \"30s\"\n";
    let weir = Weir::start(&plain(&[&origin], config));
    // A whole preface, with settings or without, or half of a request's head.
    let half = http2::head("GET", "/", &[]);
    let half = &frame(HEADERS, END_HEADERS | END_STREAM, 1, &half)[..20];
    for more in [
        &b""[..],
        &http2::settings(&[]),
        &[&http2::settings(&[]), half].concat(),
    ] {
        let mut wire = Wire::silent(weir.address("web"));
        wire.send([PREFACE, more].concat());
        wire.expect_goaway(Reason::NO_ERROR);
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = once("a");
    let config = "[timeouts]\nkeep_alive = \"300ms\"\nheader = \"30s\"\n";
    let weir = Weir::start(&plain(&[&origin], config));
    let mut client = multiplexer(&weir);
    assert_eq!(client.get("/").text(), "a");
    let began = Instant::now();
    client.end().expect("an orderly end");
    assert!(began.elapsed() > Duration::from_millis(200));
    weir.settles("weir_listener_connections", &[("listener", "web")], 0.0);
    // A connection with a request is none, however long that takes.
    let (origin, go) = slow();
    let weir = Weir::start(&plain(&[&origin], config));
    let mut client = multiplexer(&weir);
    let (answer, _stream) = client.begin(get("/slow"), true);
    std::thread::sleep(Duration::from_millis(700));
    assert!(client.is_open());
    go.send(()).unwrap();
    assert_eq!(client.wait(http2::read(answer)).unwrap().text(), "/slow");
    client.end().expect("an orderly end");
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let (origin, go) = slow();
    let weir = Weir::start(&plain(&[&origin], "[http2]\nstreams = 2\n"));
    let mut wire = wire(&weir);
    let settings = wire.await_frame(SETTINGS);
    let says = |id: u16, value: u32| {
        let pair = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        settings.payload.chunks(6).any(|it| it == pair)
    };
    assert!(says(3, 2) && says(8, 1), "{settings:?}");
    let slow = http2::head("GET", "/slow", &[]);
    for stream in [1, 3, 5] {
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &slow));
    }
    wire.expect_reset(5, Reason::REFUSED_STREAM);
    go.send(()).unwrap();
    go.send(()).unwrap();
    wire.await_frame(DATA);
    wire.await_frame(DATA);
    assert_eq!(origin.hits(), 2);
    wire.send(get_frame(7));
    assert_eq!(wire.await_on(HEADERS, 7).payload[0], 0x88);
}

/// A stop of weir: no new requests, those in flight are answered, then the connection ends.
#[test]
fn a_drain_lets_requests_in_flight_finish() {
    let (origin, go) = slow();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let idle = multiplexer(&weir);
    let (answer, _stream) = client.begin(get("/slow"), true);
    until("the request at the backend", || {
        (origin.hits() == 1).then_some(())
    });
    weir.signal(TERM);
    idle.end().expect("an orderly end");
    // The client was told: it may not ask any more.
    until("a GOAWAY", || {
        let ready = client.wait(client.requests.clone().ready());
        ready.is_err().then_some(())
    });
    assert!(client.is_open());
    go.send(()).unwrap();
    let answer = client.wait(http2::read(answer)).unwrap();
    assert_eq!(answer.text(), "/slow");
    client.end().expect("an orderly end");
    assert!(weir.await_exit().success());
}

/// A large answer to a slow reader is whole even when the drain begins in its middle.
#[test]
fn a_drain_cuts_no_answer_short() {
    let body = vec![7; 3 * 1024 * 1024];
    let answer = ok(&body);
    let origin = Origin::answering(answer);
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let (answer, _stream) = client.begin(get("/"), true);
    let answer = client.wait(answer).unwrap();
    weir.signal(TERM);
    let mut stream = answer.into_body();
    let mut taken = 0;
    client.wait(async {
        while let Some(piece) = stream.data().await {
            let piece = piece.unwrap();
            taken += piece.len();
            tokio::time::sleep(Duration::from_millis(2)).await;
            stream.flow_control().release_capacity(piece.len()).unwrap();
        }
    });
    assert_eq!(taken, body.len());
    client.end().expect("an orderly end");
    assert!(weir.await_exit().success());
}

/// A client that ignores the GOAWAY cannot keep its connection by always having a request open.
#[test]
fn who_ignores_a_goaway_is_refused_after_a_while() {
    let (origin, _go) = slow();
    let weir = Weir::start(&plain(&[&origin], "drain_timeout = \"8s\"\n"));
    let mut wire = wire(&weir);
    let slow = http2::head("GET", "/slow", &[]);
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &slow));
    until("the request at the backend", || {
        (origin.hits() == 1).then_some(())
    });
    weir.signal(TERM);
    assert_eq!(wire.await_frame(GOAWAY).stream, 0);
    let mut stream = 3;
    until("a refusal", || {
        wire.send(get_frame(stream));
        let refused = loop {
            // Not the end of the drain, which comes later.
            let frame = wire.frame().expect("a refusal of this stream alone");
            if frame.stream == stream {
                let is_reset = frame.kind == http2::RST_STREAM;
                break is_reset && http2::code_of(&frame) == Reason::REFUSED_STREAM;
            }
        };
        stream += 2;
        refused.then_some(())
    });
}

/// A reload that takes the listener away ends its connections as a drain does; one that keeps it is not noticed.
#[test]
fn a_reload_ends_the_connections_of_a_removed_listener() {
    let (origin, go) = slow();
    let both = plain(&[&origin], "") + "[listeners.more]\nbind = [\"$more\"]\n";
    let weir = Weir::start(&both);
    let mut stays = multiplexer(&weir);
    let mut goes = Multiplexer::connect(weir.address("more"));
    assert_eq!(stays.get("/").text(), "/");
    let (answer, _stream) = goes.begin(get("/slow"), true);
    until("the request at the backend", || {
        (origin.hits() == 2).then_some(())
    });
    let generation = weir.generation();
    weir.write(&plain(&[&origin], "# one listener less\n"));
    weir.await_generation_after(generation);
    go.send(()).unwrap();
    assert_eq!(goes.wait(http2::read(answer)).unwrap().text(), "/slow");
    goes.end().expect("an orderly end");
    assert_eq!(stays.get("/").text(), "/");
    assert!(stays.is_open());
}

/// A request takes the configuration that is in force when it comes, on a connection that was there before.
#[test]
fn a_reload_serves_old_connections_anew() {
    let (old, new) = (once("old"), once("new"));
    let weir = Weir::before(&[&old]);
    let mut client = multiplexer(&weir);
    assert_eq!(client.get("/").text(), "old");
    let generation = weir.generation();
    weir.write(&plain(&[&new], ""));
    weir.await_generation_after(generation);
    assert_eq!(client.get("/").text(), "new");
}

#[test]
fn waits_end_as_they_do_with_http_1() {
    let origin = Origin::start(|visit| {
        let Ok(mut request) = visit.head() else {
            return;
        };
        match request.target().as_str() {
            "/answers" => {
                visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
            }
            _ => drop(visit.body(&mut request)),
        }
        visit.stall();
    });
    let config =
        "[timeouts]\nresponse = \"300ms\"\nresponse_idle = \"400ms\"\nbody_idle = \"350ms\"\n";
    let weir = Weir::start(&plain(&[&origin], config));
    let mut client = multiplexer(&weir);
    assert_eq!(client.get("/").status(), 504);
    let (answer, stream) = client.begin(post("/"), false);
    assert_eq!(client.wait(http2::read(answer)).unwrap().status(), 408);
    drop(stream);
    let (answer, _stream) = client.begin(get("/answers"), true);
    let broken = client.wait(http2::read(answer)).unwrap_err();
    assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR));
    assert!(client.is_open());
    until("the backend's connections to close", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let origin = Origin::echo();
    let config = plain(&[&origin], "").replace("[[routes]]", "[[routes]]\nmax_body = \"10KiB\"");
    let weir = Weir::start(&config);
    let mut client = multiplexer(&weir);
    let known = request("POST", "/")
        .header("content-length", "10241")
        .body(())
        .unwrap();
    assert_eq!(client.send(known, &[7; 10_241]).status(), 413);
    assert_eq!(client.send(post("/"), &[7; 10_240]).status(), 200);
    assert_eq!(client.send(post("/"), &[7; 10_241]).status(), 413);
    assert_eq!(client.send(post("/"), &[7; 300_000]).status(), 413);
    assert!(client.is_open());
}

/// Another backend takes over where that is safe, and the client notices nothing.
#[test]
fn requests_are_tried_again() {
    let origin = Origin::echo();
    let weir = Weir::start(&plain_at(&[nobody(), origin.address, nobody()], ""));
    let mut client = multiplexer(&weir);
    for _ in 0..6 {
        assert_eq!(client.get("/").status(), 200);
        let answer = client.send(post("/"), b"with its body");
        assert!(answer.text().ends_with("\r\n\r\nwith its body"));
    }
    assert_eq!(origin.hits(), 12);
    until("the retries to be counted", || {
        (weir.metric("weir_retries_total", &[]) > 0.0).then_some(())
    });
}

/// A pooled connection that its backend just closed is nobody's fault: the request goes out on another one.
#[test]
fn a_stale_backend_connection_is_no_failure() {
    let origin = Origin::start(|visit| {
        if visit.request().is_ok() {
            visit.send(ok("once"));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "once");
    }
}

#[test]
fn sessions_stick_as_they_do_with_http_1() {
    for mode in ["insert", "cookie-hash"] {
        let origins = [Origin::named("a"), Origin::named("b"), Origin::named("c")];
        let refs: Vec<&Origin> = origins.iter().collect();
        let sticky = format!("[[routes]]\nsticky = {{ mode = \"{mode}\" }}");
        let weir = Weir::start(&plain(&refs, "").replace("[[routes]]", &sticky));
        let mut first = multiplexer(&weir);
        let answer = first.get("/");
        let home = answer.text();
        let token = answer.value("set-cookie").expect("a token");
        let token = token.split(';').next().unwrap().to_owned();
        let with = |token: &str| {
            request("GET", "/")
                .header("cookie", "a=b")
                .header("cookie", token)
                .body(())
                .unwrap()
        };
        for _ in 0..6 {
            let answer = first.send(with(&token), b"");
            assert_eq!(answer.text(), home);
            assert!(answer.value("set-cookie").is_none());
        }
        // The same client by HTTP/1.1, and on another connection.
        let question = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {token}\r\n\r\n");
        assert_eq!(weir.client().ask(question).text(), home);
        assert_eq!(multiplexer(&weir).send(with(&token), b"").text(), home);
        weir.settles("weir_sticky_total", &[("result", "kept")], 8.0);
        // Streams at once have one home, too.
        let answers: Vec<_> = (0..20).map(|_| first.begin(with(&token), true).0).collect();
        for answer in answers {
            assert_eq!(first.wait(http2::read(answer)).unwrap().text(), home);
        }
        // The token is for weir alone.
        let seen = origins.iter().flat_map(|origin| origin.requests());
        assert!(seen.into_iter().all(|it| !it.text().contains("weir_")
            && it.values("cookie").iter().all(|it| !it.contains("weir_"))));
    }
}

/// Takes nothing of what it asked for: what waits for it is bounded, and so is for how long.
#[test]
fn who_never_reads_is_cut_off() {
    let origin = Origin::answering(ok(vec![7; 16_000]));
    let config = "[timeouts]\nresponse_idle = \"1s\"\n";
    let weir = Weir::start(&plain(&[&origin], config));
    let before = weir.resident();
    // No room in the windows, or all the room there is while the socket is full.
    for window in [0, 0x7fff_ffff] {
        let mut wires: Vec<Wire> = (0..20)
            .map(|_| Wire::connect_with(weir.address("web"), &[(4, window)]))
            .collect();
        for wire in &mut wires {
            wire.send(http2::window_update(0, 0x7fff_ffff - 65_535));
            let mut requests = Vec::new();
            let mut stream = 1;
            // No more than may be open; when the socket was large enough for all, more.
            for _ in 0..100 {
                requests.extend(get_frame(stream));
                stream += 2;
            }
            wire.send(requests);
            wire.reader
                .stream
                .set_write_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            for _ in 0..400 {
                if window == 0 || wire.try_send(get_frame(stream)).is_err() {
                    break;
                }
                stream += 2;
            }
        }
        assert_eq!(multiplexer(&weir).get("/").status(), 200);
        until("the connections or their streams to end", || {
            (weir.metric("weir_backend_in_flight", &[]) == 0.0).then_some(())
        });
        if window == 0 {
            // Each stream was given up by itself.
            let frames = (0..100)
                .map(|_| wires[0].await_frame(http2::RST_STREAM))
                .count();
            assert_eq!(frames, 100);
        }
        let resident = weir.resident();
        assert!(
            resident < before + 64 * 1024,
            "{before} KiB, then {resident} KiB"
        );
    }
    weir.settles("weir_listener_connections", &[("listener", "web")], 0.0);
    assert_eq!(multiplexer(&weir).get("/").status(), 200);
}

/// Streams end by themselves, and their resets wait for a socket that takes nothing: then the connection is cut.
#[test]
fn a_connection_whose_socket_takes_nothing_is_cut() {
    let origin = Origin::answering(ok(vec![7; 16 << 20]));
    let config = "[timeouts]\nresponse_idle = \"500ms\"\n";
    let weir = Weir::start(&plain(&[&origin], config));
    let mut wire = Wire::connect_with(weir.address("web"), &[(4, 0x7fff_ffff)]);
    wire.send(http2::window_update(0, 0x7fff_ffff - 65_535));
    wire.send([get_frame(1), get_frame(3)].concat());
    until("both requests", || (origin.hits() == 2).then_some(()));
    // Nobody but weir ends it.
    weir.settles("weir_listener_connections", &[("listener", "web")], 0.0);
    weir.settles("weir_http2_floods_total", &[], 0.0);
    assert_eq!(multiplexer(&weir).get("/").status(), 200);
}
