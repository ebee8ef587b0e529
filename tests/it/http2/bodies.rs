//! Bodies over HTTP/2: of any size both ways, never more of them in weir than it has room for, and never cut short in silence.

use std::thread;
use std::time::Duration;

use h2::Reason;

use super::{multiplexer, wire};
use crate::support::http2::{self, DATA, END_STREAM, HEADERS, frame, get, post, request};
use crate::support::origin::ok;
use crate::support::{Multiplexer, Origin, Weir, until};

/// A client whose streams may wait for each other to be read.
fn roomy(weir: &Weir) -> Multiplexer {
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(64 * MIB as u32);
    Multiplexer::connect_with(weir.address("web"), &builder)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at) as u8).collect()
}

const MIB: usize = 1024 * 1024;

/// Echoes bodies, in chunks where the target asks for it.
fn mirror() -> Origin {
    Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            if request.target() != "/chunked" {
                visit.send(ok(request.body));
                continue;
            }
            visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in request.body.chunks(10_000) {
                visit.send(format!("{:x}\r\n", piece.len()));
                visit.send(piece);
                visit.send("\r\n");
            }
            visit.send("0\r\n\r\n");
        }
    })
}

#[test]
fn bodies_of_any_size_pass_both_ways() {
    let origin = mirror();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    for length in [0, 1, 1023, 16_384, 16_385, 65_535, 65_536, 300_000, 8 * MIB] {
        let body = bytes(length);
        for target in ["/known", "/chunked"] {
            let mut question = request("POST", target);
            if target == "/known" {
                question = question.header("content-length", length);
            }
            let answer = client.send(question.body(()).unwrap(), &body);
            assert_eq!(answer.status(), 200);
            assert!(answer.body == body, "{length} bytes to {target}");
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn many_requests_share_a_connection() {
    let origin = mirror();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    for at in 0..2000 {
        let body = format!("{at}");
        assert_eq!(client.send(post("/"), body.as_bytes()).text(), body);
    }
    assert_eq!(origin.connections(), 1);
    weir.settles("weir_listener_connections", &[("listener", "web")], 1.0);
}

#[test]
fn a_hundred_streams_go_on_at_once() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let number: usize = request.target()[1..].parse().unwrap();
            visit.send(ok(bytes(number * 1000)));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = roomy(&weir);
    let answers: Vec<_> = (0..100)
        .map(|number| client.begin(get(&format!("/{number}")), true).0)
        .collect();
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = client.wait(http2::read(answer)).unwrap();
        assert!(answer.body == bytes(number * 1000), "{number}");
    }
}

/// Sends for ever, until the other side goes away; counts what was taken.
fn fountain() -> (Origin, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let origin = Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.target() != "/fountain" {
                visit.send(ok("still here"));
                continue;
            }
            visit.send("HTTP/1.1 200 OK\r\n\r\n");
            while visit.send([7; 16_384]) {
                counter.fetch_add(16_384, std::sync::atomic::Ordering::Relaxed);
            }
            return;
        }
    });
    (origin, sent)
}

/// A client that takes nothing of an answer holds its backend back, and no other stream.
#[test]
fn a_client_that_does_not_read_holds_its_backend_back() {
    let (origin, sent) = fountain();
    let weir = Weir::before(&[&origin]);
    let mut client = roomy(&weir);
    let (answer, _stream) = client.begin(get("/fountain"), true);
    let answer = client.wait(answer).unwrap();
    let stalled = || {
        let before = sent.load(std::sync::atomic::Ordering::Relaxed);
        thread::sleep(Duration::from_millis(300));
        sent.load(std::sync::atomic::Ordering::Relaxed) == before
    };
    until("the backend to be held back", || stalled().then_some(()));
    let resident = weir.resident();
    // What the kernel keeps for the connection toward the backend is the most of it.
    assert!(sent.load(std::sync::atomic::Ordering::Relaxed) < 16 * MIB);
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "still here");
    }
    assert!(weir.resident() < resident + 8192, "{resident} KiB and more");
    // Whoever reads again gets more.
    let before = sent.load(std::sync::atomic::Ordering::Relaxed);
    let mut body = answer.into_body();
    client.wait(async {
        let mut taken = 0;
        while taken < 8 * MIB {
            let piece = body.data().await.unwrap().unwrap();
            taken += piece.len();
            body.flow_control().release_capacity(piece.len()).unwrap();
        }
    });
    until("the backend to go on", || {
        (sent.load(std::sync::atomic::Ordering::Relaxed) > before).then_some(())
    });
}

/// A backend that takes nothing holds its client back at 64 KiB, and no other stream.
#[test]
fn a_backend_that_does_not_read_holds_its_client_back() {
    let origin = Origin::start(|visit| {
        while let Ok(head) = visit.head() {
            if head.target() == "/stuck" {
                return visit.hold();
            }
            visit.send(ok("still here"));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let (_answer, mut stream) = client.begin(post("/stuck"), false);
    let mut sent = 0;
    let stopped = client.wait(async {
        loop {
            let piece = http2::push(&mut stream, vec![7; 16_384]);
            match tokio::time::timeout(Duration::from_millis(500), piece).await {
                Ok(pushed) => pushed.unwrap(),
                Err(_) => break true,
            }
            sent += 16_384;
            if sent > 64 * MIB {
                break false;
            }
        }
    });
    assert!(stopped, "{sent} bytes taken");
    let resident = weir.resident();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "still here");
    }
    assert!(weir.resident() < resident + 2048);
}

#[test]
fn an_answer_that_breaks_never_ends_like_a_whole_one() {
    let (go, gate) = std::sync::mpsc::sync_channel(0);
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::start(move |visit| {
        let Ok(request) = visit.request() else { return };
        let (begins, ends) = match request.target().as_str() {
            "/length" => ("Content-Length: 9\r\n\r\nabc", ""),
            "/chunked" => ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", ""),
            "/bad" => ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "zz\r\n"),
            _ => ("\r\nabc", ""),
        };
        visit.send(["HTTP/1.1 200 OK\r\n", begins].concat());
        let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(20));
        visit.send(ends);
        if request.target() == "/reset" {
            visit.reset();
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    for target in ["/length", "/chunked", "/bad", "/reset"] {
        let (answer, _stream) = client.begin(get(target), true);
        let answer = client.wait(answer).unwrap();
        go.send(()).unwrap();
        let broken = client
            .wait(http2::read_body(answer.into_body()))
            .unwrap_err();
        assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR), "{target}");
        let line = weir.access(|line| line["path"] == target);
        assert_eq!(line["status"], 200, "{line}");
        assert!(line["error"].is_string(), "{line}");
    }
    assert!(client.is_open());
}

#[test]
fn a_backend_that_fails_before_its_answer_is_a_502() {
    let origin = Origin::start(|visit| {
        let _ = visit.request();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    assert_eq!(client.send(post("/"), b"once").status(), 502);
    assert_eq!(client.get("/").status(), 502);
    assert!(client.is_open());
}

/// The backend hears of it at once, whatever the request was waiting for.
#[test]
fn a_stream_that_is_reset_ends_its_backend_connection() {
    let origin = Origin::start(|visit| {
        let Ok(request) = visit.head() else { return };
        if request.target() == "/answering" {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        }
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    for (number, target) in ["/waiting", "/answering", "/sending"]
        .into_iter()
        .enumerate()
    {
        let mut wire = wire(&weir);
        let fields = http2::head("POST", target, &[]);
        wire.send(frame(HEADERS, http2::END_HEADERS, 1, fields));
        match target {
            "/waiting" => wire.send(frame(DATA, END_STREAM, 1, "abc")),
            "/answering" => {
                wire.send(frame(DATA, END_STREAM, 1, "abc"));
                wire.await_frame(DATA);
                &mut wire
            }
            _ => wire.send(frame(DATA, 0, 1, "abc")),
        };
        until("the request at the backend", || {
            (origin.hits() > number).then_some(())
        });
        wire.send(http2::rst(1, Reason::CANCEL));
        until("the backend's connection to end", || {
            (origin.open() == 0).then_some(())
        });
        let line = weir.access(|line| line["path"] == target);
        let status = if target == "/answering" { 200 } else { 499 };
        assert_eq!(
            (&line["status"], &line["error"]),
            (&status.into(), &"client_gone".into()),
            "{line}"
        );
        wire.expect_pong();
    }
}

/// Also while the backend takes nothing of the body.
#[test]
fn a_reset_is_noticed_behind_a_backend_that_does_not_read() {
    let origin = Origin::start(|visit| {
        let Ok(_) = visit.head() else { return };
        // Reads nothing more; the connection ends with the origin.
        visit.hold();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let (_answer, mut stream) = client.begin(post("/stuck"), false);
    client.wait(async {
        let piece = http2::push(&mut stream, vec![7; 32 * MIB]);
        assert!(
            tokio::time::timeout(Duration::from_millis(500), piece)
                .await
                .is_err()
        );
    });
    stream.send_reset(Reason::CANCEL);
    let line = weir.access(|line| line["path"] == "/stuck");
    assert_eq!(
        (&line["status"], &line["error"]),
        (&499.into(), &"client_gone".into()),
        "{line}"
    );
}
