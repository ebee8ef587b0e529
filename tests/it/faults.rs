//! Everything that can go wrong with a backend, by what it does to its socket: each has its status within its time, for clients of HTTP/1 and
//! of HTTP/2 alike, and the next request is served. What no connection comes of, and malformed answers, are in `limits.rs` and `smuggling/`.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::http2;
use crate::support::message::Fault;
use crate::support::origin::{Visit, ok};
use crate::support::weir::{get, plain, post};
use crate::support::{Client, Multiplexer, Origin, Weir};

const TIMEOUTS: &str =
    "[timeouts]\nresponse = \"700ms\"\nresponse_idle = \"700ms\"\nbody_idle = \"5s\"\n";
const TIMEOUT: Duration = Duration::from_millis(700);
/// How much later a busy machine may be.
const LATE: Duration = Duration::from_secs(3);

/// What a client is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// This status of weir's own.
    Status(u16),
    /// An answer that breaks off, and is seen to.
    Broken,
    /// A whole answer with this body.
    Whole(&'static str),
}
use Seen::{Broken, Status, Whole};

/// What a backend does with a request that it has read.
type Deed = fn(&mut Visit);

/// The fault, what it is to look like, and whether it takes a timeout.
const FAULTS: &[(&str, Deed, Seen, bool)] = &[
    ("closes", |_| {}, Status(502), false),
    ("resets", Visit::reset, Status(502), false),
    (
        "closes-within-the-head",
        |visit| told(visit, HALF_HEAD),
        Status(502),
        false,
    ),
    (
        "resets-within-the-head",
        |visit| {
            visit.send(HALF_HEAD);
            visit.reset();
        },
        Status(502),
        false,
    ),
    ("says-nothing", silence, Status(504), true),
    (
        "says-half-a-head",
        |visit| {
            visit.send(HALF_HEAD);
            silence(visit);
        },
        Status(504),
        true,
    ),
    (
        "says-a-head-without-end",
        |visit| {
            visit.send(HALF_HEAD);
            while slowly(visit, "x") {}
        },
        Status(504),
        true,
    ),
    (
        "says-it-byte-by-byte",
        |visit| {
            slowly(visit, "HTTP/1.1 200 OK\r\n");
            visit.send("Content-Length: 12\r\n\r\n");
            slowly(visit, "byte by byte");
        },
        Whole("byte by byte"),
        false,
    ),
    ("is-half-open", half_open, Status(502), false),
    (
        "closes-within-the-body",
        |visit| told(visit, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        Broken,
        false,
    ),
    (
        "resets-within-the-body",
        |visit| {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
            // Else the reset may overtake what was said.
            thread::sleep(Duration::from_millis(50));
            visit.reset();
        },
        Broken,
        false,
    ),
    (
        "is-half-open-within-the-body",
        |visit| {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
            half_open(visit);
        },
        Broken,
        false,
    ),
    (
        "stops-within-the-body",
        |visit| {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
            silence(visit);
        },
        Broken,
        true,
    ),
    (
        "stops-within-a-chunk",
        |visit| {
            visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc");
            silence(visit);
        },
        Broken,
        true,
    ),
    (
        "says-more-than-it-announced",
        |visit| {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 500 Poison\r\nContent-Length: 0\r\n\r\n");
            silence(visit);
        },
        Whole("abc"),
        false,
    ),
];

const HALF_HEAD: &str = "HTTP/1.1 200 OK\r\nX-Half: ";

fn told(visit: &mut Visit, said: &str) {
    visit.send(said);
}

fn silence(visit: &mut Visit) {
    visit.stall();
}

/// Says that it has nothing more to say, and goes on listening.
fn half_open(visit: &mut Visit) {
    let stream = &visit.reader.stream;
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    visit.stall();
}

/// A byte at a time, each well within every timeout; whether the other side was still there.
fn slowly(visit: &mut Visit, text: &str) -> bool {
    text.bytes().all(|byte| {
        thread::sleep(Duration::from_millis(20));
        visit.send([byte])
    })
}

/// A backend that does what the target says, and serves whoever asks for something else.
fn faulty() -> Origin {
    Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let target = request.target();
            let fault = FAULTS.iter().find(|(name, ..)| target[1..] == **name);
            match fault {
                Some((_, deed, ..)) => return deed(visit),
                None => drop(visit.send(ok("fine"))),
            }
        }
    })
}

fn times_well(name: &str, takes_timeout: bool, began: Instant) {
    let took = began.elapsed();
    let least = if takes_timeout {
        TIMEOUT / 2
    } else {
        Duration::ZERO
    };
    assert!(
        took >= least && took < TIMEOUT + LATE,
        "{name} took {took:?}"
    );
}

#[test]
fn every_fault_is_seen_for_what_it_is_over_http_1() {
    let origin = faulty();
    let weir = Weir::start(&plain(&[&origin], TIMEOUTS));
    for (name, _, expected, takes_timeout) in FAULTS {
        let mut client = weir.client();
        // The first try is over a new connection, the second over one that was used before.
        for is_pooled in [false, true] {
            if is_pooled {
                assert_eq!(client.ask(get("/fine")).text(), "fine", "before {name}");
            }
            let began = Instant::now();
            client.send(post(&format!("/{name}"), ""));
            let seen = match client.try_answer() {
                Ok(answer) if answer.status() == 200 => Ok(answer.text()),
                Ok(answer) => Err(Status(answer.status())),
                Err(Fault::Timeout) => panic!("{name}: no answer"),
                Err(_) => Err(Broken),
            };
            let expected = match expected {
                Whole(body) => Ok((*body).to_owned()),
                other => Err(*other),
            };
            assert_eq!(seen, expected, "{name}");
            times_well(name, *takes_timeout, began);
            if seen != Err(Broken) && client.try_send(get("/fine").as_bytes()).is_ok() {
                // It goes on where it is, or was told not to.
                match client.try_answer() {
                    Ok(next) => assert_eq!(next.text(), "fine", "after {name}"),
                    Err(_) => client = weir.client(),
                }
            } else {
                client = weir.client();
            }
            assert_eq!(client.ask(get("/fine")).text(), "fine", "after {name}");
        }
    }
}

#[test]
fn every_fault_is_seen_for_what_it_is_over_http_2() {
    let origin = faulty();
    let weir = Weir::start(&plain(&[&origin], TIMEOUTS));
    // One connection for all of them: no fault of a backend may end it.
    let mut client = Multiplexer::connect(weir.address("web"));
    for (name, _, expected, takes_timeout) in FAULTS {
        let began = Instant::now();
        let target = format!("/{name}");
        let seen = match client.try_send(http2::post(&target), b"") {
            Ok(answer) if answer.status() == 200 => Ok(answer.text()),
            Ok(answer) => Err(Status(answer.status())),
            Err(error) => {
                assert!(error.is_reset(), "{name}: {error}");
                Err(Broken)
            }
        };
        let expected = match expected {
            Whole(body) => Ok((*body).to_owned()),
            other => Err(*other),
        };
        assert_eq!(seen, expected, "{name}");
        times_well(name, *takes_timeout, began);
        assert_eq!(client.get("/fine").text(), "fine", "after {name}");
    }
}

/// What happens to a body on its way: it ends with a status, whichever side breaks it off, and no half of it looks whole.
#[test]
fn a_backend_that_goes_away_within_a_request_body() {
    const LENGTH: usize = 4 << 20;
    for resets in [false, true] {
        let origin = Origin::start(move |visit| {
            let Ok(request) = visit.head() else { return };
            if request.target() == "/fine" {
                visit.send(ok("fine"));
                return;
            }
            let _ = visit.reader.exactly(10_000);
            if resets {
                visit.reset();
            }
        });
        let weir = Weir::start(&plain(&[&origin], TIMEOUTS));
        let mut client = weir.client();
        client.send(format!(
            "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"
        ));
        let mut stream = client.reader.stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            // weir may close before it has all of it.
            let _ = std::io::Write::write_all(&mut stream, &vec![b'x'; LENGTH]);
        });
        let began = Instant::now();
        assert_eq!(client.answer().status(), 502, "resets: {resets}");
        times_well("upload", false, began);
        drop(client);
        sending.join().unwrap();
        let mut multiplexer = Multiplexer::connect(weir.address("web"));
        let answer = multiplexer.try_send(http2::post("/up"), &vec![b'x'; 1 << 20]);
        assert_eq!(answer.expect("an answer").status(), 502, "resets: {resets}");
        assert_eq!(multiplexer.get("/fine").text(), "fine");
        assert_eq!(weir.get("/fine").text(), "fine");
    }
}

/// A client that resets within its body, or within its answer, costs the backend's connection and nobody else anything.
#[test]
fn a_client_that_resets_leaves_nothing_behind() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            match request.target().as_str() {
                "/long" => {
                    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
                    visit.stall();
                    return;
                }
                _ => visit.send(ok("fine")),
            };
        }
    });
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nresponse_idle = \"60s\"\nbody_idle = \"60s\"\n",
    ));
    let reset = |client: Client| crate::support::process::reset_on_close(&client.reader.stream);
    for round in 0..10 {
        let mut uploading = weir.client();
        uploading.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
        let mut downloading = weir.client();
        downloading.send(get("/long"));
        assert!(downloading.reader.head().is_ok(), "round {round}");
        reset(uploading);
        reset(downloading);
    }
    weir.settles("weir_backend_in_flight", &[("pool", "was")], 0.0);
    weir.settles("weir_listener_connections", &[], 0.0);
    assert_eq!(weir.get("/fine").text(), "fine");
}
