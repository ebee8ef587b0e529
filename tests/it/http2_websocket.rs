//! WebSockets over HTTP/2 (RFC 8441) to a backend that speaks HTTP/1.1: the handshake, bytes both ways, and every way in which they end.

use std::io::{Read, Write};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use h2::{Reason, SendStream};

use crate::support::http2::{self, Answer, request, websocket};
use crate::support::message::Fault;
use crate::support::origin::{Visit, ok};
use crate::support::weir::plain;
use crate::support::{Multiplexer, Origin, Weir, until};

const MIB: usize = 1024 * 1024;

/// Accepts the handshake as RFC 6455 section 4.2 wants it.
fn accept(visit: &mut Visit) {
    visit.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
    );
}

fn send_back(visit: &mut Visit) {
    let mut chunk = std::mem::take(&mut visit.reader.buffer);
    visit.reader.stream.set_read_timeout(None).unwrap();
    loop {
        if visit.reader.stream.write_all(&chunk).is_err() {
            return;
        }
        chunk.resize(64 * 1024, 0);
        match visit.reader.stream.read(&mut chunk) {
            Ok(count @ 1..) => chunk.truncate(count),
            _ => return,
        }
    }
}

fn echo() -> Origin {
    Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            if request.has("upgrade") {
                accept(visit);
                return send_back(visit);
            }
            visit.send(ok("no socket"));
        }
    })
}

/// A client that knows that it may ask for WebSockets.
fn client(weir: &Weir) -> Multiplexer {
    let client = Multiplexer::connect(weir.address("web"));
    until("the setting of RFC 8441", || {
        client
            .requests
            .is_extended_connect_protocol_enabled()
            .then_some(())
    });
    client
}

/// An open WebSocket.
#[track_caller]
fn open(client: &mut Multiplexer) -> (SendStream<Bytes>, h2::RecvStream) {
    let (answer, stream) = client.begin(websocket("/chat"), false);
    let answer = client.wait(answer).unwrap();
    assert_eq!(answer.status(), 200);
    (stream, answer.into_body())
}

#[track_caller]
fn says_back(
    client: &Multiplexer,
    up: &mut SendStream<Bytes>,
    down: &mut h2::RecvStream,
    text: &str,
) {
    let echoed = client.wait(async {
        http2::push(up, text.as_bytes().to_vec()).await.unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < text.len() {
            let piece = down.data().await.expect("an echo").unwrap();
            down.flow_control().release_capacity(piece.len()).unwrap();
            echoed.extend_from_slice(&piece);
        }
        echoed
    });
    assert_eq!(echoed, text.as_bytes());
}

#[test]
fn bytes_pass_both_ways_until_both_have_ended() {
    let origin = echo();
    let weir = Weir::before(&[&origin]);
    let mut client = client(&weir);
    let (answer, mut up) = client.begin(websocket("/chat"), false);
    let answer = client.wait(answer).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    for gone in ["sec-websocket-accept", "connection", "upgrade"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    let handshake = origin.request();
    assert_eq!(handshake.first_line(), "GET /chat HTTP/1.1");
    assert_eq!(handshake.value("upgrade").as_deref(), Some("websocket"));
    assert_eq!(handshake.value("connection").as_deref(), Some("Upgrade"));
    assert_eq!(
        handshake.value("sec-websocket-version").as_deref(),
        Some("13")
    );
    let key = handshake.value("sec-websocket-key").unwrap();
    let random = base64::engine::general_purpose::STANDARD
        .decode(key)
        .unwrap();
    assert_eq!(random.len(), 16);
    assert!(!handshake.has("transfer-encoding"));

    let mut down = answer.into_body();
    says_back(&client, &mut up, &mut down, "hello");
    says_back(&client, &mut up, &mut down, "GET / HTTP/1.1\r\n\r\n");
    // Other requests go on beside it.
    assert_eq!(client.get("/").text(), "no socket");
    assert_eq!(
        weir.metric("weir_backend_upgraded", &[("pool", "was")]),
        1.0
    );
    up.send_data(Bytes::new(), true).unwrap();
    let (rest, _) = client.wait(http2::read_body(down)).expect("a clean end");
    assert!(rest.is_empty());
    let line = weir.access(|line| line["path"] == "/chat");
    assert_eq!(
        (&line["status"], &line["version"]),
        (&101.into(), &"HTTP/2.0".into())
    );
    assert!(line.get("error").is_none(), "{line}");
    weir.settles("weir_backend_upgraded", &[("pool", "was")], 0.0);
    assert!(client.is_open());
}

/// The end of one way is no end of the other.
#[test]
fn a_half_close_is_passed_on() {
    let origin = Origin::start(|visit| {
        visit.request().unwrap();
        accept(visit);
        // Only after the client's end comes what it asked for.
        let Ok(sent) = visit.reader.until_closed() else {
            return;
        };
        visit.send([b"all of ", &sent[..]].concat());
    });
    let weir = Weir::before(&[&origin]);
    let mut client = client(&weir);
    let (mut up, down) = open(&mut client);
    up.send_data("it".into(), true).unwrap();
    let (said, _) = client.wait(http2::read_body(down)).unwrap();
    assert_eq!(said, b"all of it");
}

#[test]
fn large_messages_pass_and_a_slow_reader_holds_them_back() {
    let origin = echo();
    let weir = Weir::before(&[&origin]);
    let mut client = client(&weir);
    let (mut up, mut down) = open(&mut client);
    let body: Vec<u8> = (0..8 * MIB).map(|at| (at / 251 + at) as u8).collect();
    let before = weir.resident();
    // Nothing is read: what is pushed stays before weir, in the end.
    let pushed = client.wait(async {
        let all = http2::push(&mut up, vec![7; 64 * MIB]);
        tokio::time::timeout(Duration::from_secs(2), all)
            .await
            .is_ok()
    });
    assert!(!pushed, "64 MiB that nobody read");
    assert!(weir.resident() < before + 4096);
    up.send_reset(Reason::CANCEL);
    drop(down);
    (up, down) = open(&mut client);
    let sent = body.clone();
    let echoed = client.wait(async move {
        let sending = async {
            http2::push(&mut up, sent).await.unwrap();
            up.send_data(Bytes::new(), true).unwrap();
        };
        tokio::join!(sending, http2::read_body(down)).1.unwrap().0
    });
    assert!(echoed == body);
}

#[test]
fn a_backend_may_refuse() {
    let origin = Origin::answering(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\nX-Why: not you\r\n\r\nno\n",
    );
    let weir = Weir::before(&[&origin]);
    let mut client = client(&weir);
    let (answer, _up) = client.begin(websocket("/chat"), false);
    let answer: Answer = client.wait(http2::read(answer)).unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no\n"));
    assert_eq!(answer.value("x-why"), Some("not you"));
    assert!(client.is_open());
}

#[test]
fn only_websockets_are_opened() {
    let origin = echo();
    let weir = Weir::before(&[&origin]);
    let mut client = client(&weir);
    let other = request("CONNECT", "/chat")
        .extension(h2::ext::Protocol::from_static("connect-udp"))
        .body(())
        .unwrap();
    let (answer, _up) = client.begin(other, false);
    let status = client.wait(http2::read(answer)).unwrap().status();
    assert_eq!(status, 405);
    let long = request("CONNECT", "/chat")
        .header("content-length", "5")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (answer, _up) = client.begin(long, false);
    assert_eq!(client.wait(http2::read(answer)).unwrap().status(), 400);
    assert_eq!(origin.hits(), 0);
}

#[test]
fn an_idle_one_is_closed() {
    let origin = echo();
    let config = "[timeouts]\nupgrade_idle = \"1500ms\"\nkeep_alive = \"30s\"\n";
    let weir = Weir::start(&plain(&[&origin], config));
    let mut client = client(&weir);
    let (mut up, mut down) = open(&mut client);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        says_back(&client, &mut up, &mut down, "still here");
    }
    client
        .wait(http2::read_body(down))
        .expect_err("no clean end");
    let line = weir.access(|line| line["status"] == 101);
    assert_eq!(line["error"], "upgrade_idle", "{line}");
    until("the backend's connection to close", || {
        (origin.open() == 0).then_some(())
    });
    assert!(client.is_open());
}

#[test]
fn a_reset_is_passed_on_by_either_side() {
    let (tell, ends) = std::sync::mpsc::channel();
    let origin = Origin::start(move |visit| {
        let Ok(request) = visit.request() else { return };
        accept(visit);
        if request.target() == "/chat" {
            let _ = tell.send(visit.stall());
            return;
        }
        visit.reset();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = client(&weir);
    let (mut up, _down) = open(&mut client);
    up.send_reset(Reason::CANCEL);
    let end = ends.recv_timeout(crate::support::DEADLINE);
    assert_eq!(end, Ok(Fault::Reset));
    let line = weir.access(|line| line["path"] == "/chat");
    assert_eq!(line["error"], "client_gone", "{line}");

    let (answer, _up) = client.begin(websocket("/fails"), false);
    let broken = client.wait(http2::read(answer));
    assert!(broken.is_err(), "{broken:?}");
    assert!(client.is_open());
}

/// A drain waits for it as for any other, and no longer than its deadline.
#[test]
fn a_drain_ends_at_its_deadline() {
    let origin = echo();
    let weir = Weir::start(&plain(&[&origin], "drain_timeout = \"1s\"\n"));
    let mut client = client(&weir);
    let (mut up, mut down) = open(&mut client);
    weir.signal(15);
    says_back(&client, &mut up, &mut down, "still here");
    client
        .wait(http2::read_body(down))
        .expect_err("no clean end");
    weir.await_exit();
    // What it wrote last may still be on its way here.
    weir.access(|line| line["error"] == "cut_off");
}
