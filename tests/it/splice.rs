//! Bytes that pass without a copy: nothing of them is lost, doubled or held for ever, and what is small or must be looked at is copied.
//! That pipes were used is seen from their descriptors, which weir keeps for the next time.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::Duration;

use crate::support::origin::{Visit, ok};
use crate::support::random::{Random, checksum};
use crate::support::weir::{get, plain};
use crate::support::{Client, Origin, Weir, until};

const MIB: usize = 1 << 20;
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n";
const OFFER: &str = "GET /socket HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n";

/// Ends of pipes that weir has open, its output among them.
fn pipe_ends(weir: &Weir) -> usize {
    let directory = format!("/proc/{}/fd", weir.id());
    let ends = fs::read_dir(directory).unwrap().filter(|entry| {
        let link = entry.as_ref().map(|entry| fs::read_link(entry.path()));
        matches!(link, Ok(Ok(target)) if target.to_string_lossy().starts_with("pipe:"))
    });
    ends.count()
}

/// A 200 with so many bytes, no two KiB of them alike.
fn large(length: usize) -> Vec<u8> {
    ok(Random(length as u64).bytes(length))
}

fn sends(length: usize) -> Origin {
    let answer = large(length);
    Origin::start(
        move |visit| {
            while visit.request().is_ok() && visit.send(&answer) {}
        },
    )
}

/// So many bytes of a stream that the other side can check.
fn pour(mut stream: TcpStream, seed: u64, length: usize) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let block = Random(seed).bytes(MIB);
        (0..length / MIB).fold(0, |sum, _| {
            stream.write_all(&block).expect("taken");
            checksum(sum, &block)
        })
    })
}

fn sum(ahead: &[u8], stream: TcpStream, length: usize) -> u64 {
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    let mut stream = ahead.chain(stream);
    let mut block = vec![0; MIB];
    (0..length / MIB).fold(0, |sum, _| {
        stream.read_exact(&mut block).expect("more");
        checksum(sum, &block)
    })
}

#[test]
fn an_upgraded_connection_moves_much_both_ways_in_flat_memory() {
    let total = 64 * MIB;
    let origin = Origin::start(move |visit| {
        if visit.request().is_err() {
            return;
        }
        visit.send(SWITCH);
        let stream = &visit.reader.stream;
        let sent = pour(stream.try_clone().unwrap(), 3, total);
        let got = sum(&[], stream.try_clone().unwrap(), total);
        let sent = sent.join().unwrap();
        visit.send(format!("{got:>20}{sent:>20}"));
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    assert_eq!(client.ask(OFFER).status(), 101);
    let pipes = pipe_ends(&weir);
    let before = weir.resident();
    let stream = client.reader.stream.try_clone().unwrap();
    let sent = pour(stream.try_clone().unwrap(), 4, total);
    let ahead = std::mem::take(&mut client.reader.buffer);
    let got = sum(&ahead, stream, total);
    let sent = sent.join().unwrap();
    let told = client.reader.exactly(40).expect("the other side's sums");
    assert_eq!(
        String::from_utf8(told).unwrap(),
        format!("{sent:>20}{got:>20}")
    );
    let grown = weir.resident().saturating_sub(before);
    assert!(grown < 2 * 1024, "{grown} KiB more");
    assert!(pipe_ends(&weir) > pipes, "all of it was copied");
    client.reader.stream.shutdown(Shutdown::Both).unwrap();
    let line = weir.access(|line| line["status"] == 101);
    assert!(line["bytes_in"].as_u64().unwrap() >= total as u64, "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() >= total as u64 + 40);
}

#[test]
fn small_messages_are_copied_however_many() {
    let origin = Origin::start(|visit| {
        if visit.request().is_ok() {
            visit.send(SWITCH);
            while let Ok(message) = visit.reader.exactly(1000) {
                visit.send(message);
            }
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    assert_eq!(client.ask(OFFER).status(), 101);
    let pipes = pipe_ends(&weir);
    for _ in 0..300 {
        client.send([1; 1000]);
        client.reader.exactly(1000).expect("an echo");
    }
    assert_eq!(pipe_ends(&weir), pipes);
}

/// The first answer tells weir what to expect of the second; both must be the same to the client, and so must a small one between.
#[test]
fn large_answers_arrive_whole_and_leave_the_connections_usable() {
    let sizes = [
        40_000,
        64 << 10,
        100,
        300_000,
        3 * MIB + 17,
        5_000,
        33_000,
        64 << 10,
    ];
    let answers = sizes.map(large);
    let expected = answers.clone();
    let origin = Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            let ordinal: usize = request.target()[1..].parse().unwrap();
            visit.send(&answers[ordinal]);
        }
    });
    let weir = Weir::before(&[&origin]);
    let pipes = pipe_ends(&weir);
    let mut client = weir.client();
    let mut from_weir = 0;
    for round in 0..3 {
        for (ordinal, expected) in expected.iter().enumerate() {
            let answer = client.ask(get(&format!("/{ordinal}")));
            assert!(expected.ends_with(&answer.body), "{round} {ordinal}");
            assert_eq!(answer.body.len(), sizes[ordinal]);
            from_weir += answer.head.len() + answer.body.len();
        }
    }
    assert_eq!(origin.connections(), 1, "kept all the time");
    assert!(pipe_ends(&weir) > pipes, "all of it was copied");
    drop(client);
    let mut bytes_out = 0;
    until("the access log", || {
        let lines = weir.stdout();
        let lines = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let counts: Vec<u64> = lines
            .filter_map(|line| line["bytes_out"].as_u64())
            .collect();
        bytes_out = counts.iter().sum();
        (counts.len() == 3 * sizes.len()).then_some(())
    });
    assert_eq!(bytes_out, from_weir as u64);
}

#[test]
fn large_requests_arrive_whole() {
    let body = Random(9).bytes(5 * MIB + 3);
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let told = format!("{} {}", request.body.len(), checksum(0, &request.body));
            visit.send(ok(told));
        }
    });
    let weir = Weir::before(&[&origin]);
    let pipes = pipe_ends(&weir);
    let mut client = weir.client();
    for _ in 0..3 {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = client.ask([head.as_bytes(), &body].concat());
        let expected = format!("{} {}", body.len(), checksum(0, &body));
        assert_eq!(answer.text(), expected);
    }
    assert!(pipe_ends(&weir) > pipes, "all of it was copied");
    assert_eq!(origin.connections(), 1);
}

/// What follows a large answer on the backend's connection was never looked at, and must not become the next answer.
#[test]
fn what_follows_a_large_answer_is_nobodys() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            match request.target().as_str() {
                "/forged" => visit.send([large(200_000), ok("forged")].concat()),
                target => visit.send(ok(target)),
            };
        }
    });
    let weir = Weir::before(&[&origin]);
    for _ in 0..5 {
        let mut client = weir.client();
        assert_eq!(client.ask(get("/forged")).body.len(), 200_000);
        assert_eq!(client.ask(get("/next")).text(), "/next");
    }
}

#[test]
fn a_large_answer_that_breaks_off_does_not_end_like_a_whole_one() {
    for reset in [false, true] {
        let origin = Origin::start(move |visit| {
            let answer = large(300_000);
            while let Ok(request) = visit.request() {
                if request.target() == "/whole" {
                    visit.send(&answer);
                    continue;
                }
                visit.send(&answer[..200_000]);
                if reset {
                    visit.reset();
                }
                return;
            }
        });
        let weir = Weir::before(&[&origin]);
        for _ in 0..3 {
            let mut client = weir.client();
            // So that the next one is expected to be large.
            assert_eq!(client.ask(get("/whole")).body.len(), 300_000);
            client.send(get("/"));
            let head = client.answer_head();
            assert_eq!(head.value("content-length").as_deref(), Some("300000"));
            let (rest, _) = client.rest();
            assert!(rest.len() < 300_000);
        }
    }
}

/// Half of it lies in a pipe when the client stops reading: the deadline holds, and the pipe is not used again.
#[test]
fn a_client_that_stops_reading_does_not_keep_a_pipe() {
    let origin = sends(16 * MIB);
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nresponse_idle = \"1s\""));
    let pipes = pipe_ends(&weir);
    let clients: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = weir.client();
            client.send(get("/"));
            client.answer_head();
            client
        })
        .collect();
    for _ in &clients {
        weir.access(|line| line["error"] == "client_gone");
    }
    until("the pipes to be closed", || {
        (pipe_ends(&weir) == pipes).then_some(())
    });
    until("the backend to be let go", || {
        (origin.open() == 0).then_some(())
    });
    let answer = weir.get("/");
    assert!(large(16 * MIB).ends_with(&answer.body));
}

/// Events one by one: each is there before the next is sent, whatever the framing.
#[test]
fn each_event_of_a_stream_arrives_before_the_next_is_sent() {
    const EVENTS: usize = 20;
    let read = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&read);
    let origin = Origin::start(move |visit: &mut Visit| {
        let Ok(request) = visit.request() else { return };
        let framing = match request.target().as_str() {
            "/chunked" => "Transfer-Encoding: chunked\r\n".to_owned(),
            "/length" => format!("Content-Length: {}\r\n", EVENTS * 30_000),
            _ => "Connection: close\r\n".to_owned(),
        };
        visit.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n"
        ));
        for number in 0..EVENTS {
            let event = event(&request.target(), number);
            let framed = match request.target().as_str() {
                "/chunked" => format!("{:x}\r\n{event}\r\n", event.len()),
                _ => event,
            };
            visit.send(framed);
            let before = visit.number * EVENTS + number;
            until("the event to be read", || {
                (seen.load(SeqCst) > before).then_some(())
            });
        }
        if request.target() == "/chunked" {
            visit.send("0\r\n\r\n");
        }
    });
    let weir = Weir::before(&[&origin]);
    for target in ["/chunked", "/close", "/length", "/length"] {
        let mut client = weir.client();
        client.send(get(target));
        assert_eq!(client.answer_head().status(), 200);
        for number in 0..EVENTS {
            let event = event(target, number);
            let wire = match target {
                "/chunked" => format!("{:x}\r\n{event}\r\n", event.len()),
                _ => event,
            };
            let got = client.reader.exactly(wire.len()).expect("the event");
            assert!(got == wire.as_bytes(), "{target} {number}");
            read.fetch_add(1, SeqCst);
        }
    }
}

/// With a length they are large enough to be handed over.
fn event(target: &str, number: usize) -> String {
    let width = if target == "/length" { 30_000 - 8 } else { 20 };
    format!("data: {number:>width$}\n\n")
}

/// At a stop: who waits is let go at once, who is served is served, and a WebSocket may go on to the deadline.
#[test]
fn upgraded_connections_are_drained_last() {
    let released = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&released);
    let origin = Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            match request.target().as_str() {
                "/socket" => {
                    visit.send(SWITCH);
                    while let Ok(message) = visit.reader.exactly(4) {
                        visit.send(message);
                    }
                    return;
                }
                "/slow" => {
                    until("the release", || gate.load(SeqCst).then_some(()));
                    visit.send(ok("slow"));
                }
                _ => {
                    visit.send(ok("fast"));
                }
            }
        }
    });
    let weir = Weir::start(&plain(&[&origin], "drain_timeout = \"2s\""));
    let mut socket = weir.client();
    assert_eq!(socket.ask(OFFER).status(), 101);
    let mut idle = weir.client();
    assert_eq!(idle.ask(get("/fast")).text(), "fast");
    let mut busy = weir.client();
    busy.send(get("/slow"));
    until("the request at the origin", || {
        (origin.hits() == 3).then_some(())
    });
    weir.signal(libc::SIGTERM);
    idle.expect_close();
    socket.send("ping");
    assert_eq!(socket.reader.exactly(4).unwrap(), b"ping");
    released.store(true, SeqCst);
    assert_eq!(busy.answer().text(), "slow");
    busy.expect_close();
    // Nothing is open but the socket, and it still carries.
    assert!(weir.exited().is_none());
    socket.send("pong");
    assert_eq!(socket.reader.exactly(4).unwrap(), b"pong");
    weir.await_exit();
    let line = weir.access(|line| line["status"] == 101);
    assert_eq!(line["error"], "cut_off", "{line}");
    assert!(line["duration"].as_f64().unwrap() >= 1.9, "{line}");
}
