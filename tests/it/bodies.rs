//! Large bodies stream in bounded memory at the pace of the slower side, and end when either side goes away.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::message::Fault;
use crate::support::origin::ok;
use crate::support::random::{Random, checksum};
use crate::support::weir::{get, plain};
use crate::support::{Client, Origin, Weir, process, until};

const HOST: &str = "Host: shop.example.com\r\n";
const MIB: usize = 1 << 20;

/// What weir may grow by, in KiB, however large the body.
const GROWTH: u64 = 64 * 1024;

fn large() -> usize {
    if std::env::var_os("WEIR_FULL").is_some() {
        1024 * MIB
    } else {
        64 * MIB
    }
}

/// A block of which a body is made.
fn block() -> Vec<u8> {
    Random(7).bytes(256 * 1024)
}

/// The checksum of `length` bytes of blocks.
fn expected(length: usize) -> u64 {
    let block = block();
    (0..length / block.len()).fold(0, |sum, _| checksum(sum, &block))
}

/// Reads `length` bytes; their checksum in blocks as `expected` makes it.
fn sum_of(
    reader: &mut crate::support::message::Reader,
    length: usize,
    mut each: impl FnMut(),
) -> Result<u64, Fault> {
    let size = block().len();
    let mut sum = 0;
    for _ in 0..length / size {
        sum = checksum(sum, &reader.exactly(size)?);
        each();
    }
    Ok(sum)
}

struct Growth<'w> {
    weir: &'w Weir,
    before: u64,
    most: u64,
}

impl Growth<'_> {
    fn of(weir: &Weir) -> Growth<'_> {
        let before = weir.resident();
        Growth {
            weir,
            before,
            most: before,
        }
    }

    fn look(&mut self) {
        self.most = self.most.max(self.weir.resident());
    }

    #[track_caller]
    fn bounded(&mut self, most: u64) {
        self.look();
        let growth = self.most - self.before;
        assert!(growth < most, "weir grew by {growth} KiB");
    }
}

#[test]
fn a_large_upload() {
    let origin = Origin::start(|visit| {
        let Ok(head) = visit.head() else { return };
        let length: usize = head.value("content-length").unwrap().parse().unwrap();
        if let Ok(sum) = sum_of(&mut visit.reader, length, || {}) {
            visit.send(ok(sum.to_string()));
        }
    });
    let weir = Weir::before(&[&origin]);
    let length = large();
    let mut growth = Growth::of(&weir);
    let mut client = weir.client().patient(Duration::from_secs(60));
    client.send(format!(
        "PUT / HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n"
    ));
    let block = block();
    for _ in 0..length / block.len() {
        client.send(&block);
        growth.look();
    }
    assert_eq!(client.answer().text(), expected(length).to_string());
    growth.bounded(GROWTH);
}

#[test]
fn a_large_download() {
    let length = large();
    let origin = Origin::start(move |visit| {
        let block = block();
        while let Ok(request) = visit.request() {
            let chunked = request.target() == "/chunked";
            visit.send(if chunked {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
            } else {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
            });
            for _ in 0..length / block.len() {
                if chunked {
                    visit.send(format!("{:x}\r\n", block.len()));
                }
                if !visit.send(&block) {
                    return;
                }
                if chunked {
                    visit.send("\r\n");
                }
            }
            if chunked {
                visit.send("0\r\n\r\n");
            }
        }
    });
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nupstream_idle = \"1m\""));
    let mut growth = Growth::of(&weir);
    let mut client = weir.client().patient(Duration::from_secs(60));
    client.send(get("/length"));
    assert_eq!(client.answer_head().status(), 200);
    let sum = sum_of(&mut client.reader, length, || growth.look()).unwrap();
    assert_eq!(sum, expected(length));

    client.send(get("/chunked"));
    let answer = client.answer();
    assert_eq!(answer.body.len(), length);
    let sum = answer.body.chunks(block().len()).fold(0, checksum);
    assert_eq!(sum, expected(length));
    assert_eq!(origin.connections(), 1);
    growth.bounded(GROWTH);
}

#[test]
fn a_large_upload_in_chunks() {
    let origin = Origin::start(|visit| {
        visit.reader.patience = Duration::from_secs(60);
        if let Ok(request) = visit.request() {
            let sum = request.body.chunks(block().len()).fold(0, checksum);
            visit.send(ok(sum.to_string()));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client().patient(Duration::from_secs(60));
    client.send(format!(
        "PUT / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"
    ));
    let length = 16 * MIB;
    let body = block().repeat(length / block().len());
    let mut random = Random(3);
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at((1 + random.below(100_000)).min(rest.len()));
        client.send(
            [
                format!("{:X};n=1\r\n", chunk.len()).as_bytes(),
                chunk,
                b"\r\n",
            ]
            .concat(),
        );
        rest = after;
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().text(), expected(length).to_string());
}

#[test]
fn a_body_and_its_answer_may_overlap() {
    let origin = Origin::start(|visit| {
        let Ok(_) = visit.head() else { return };
        visit.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            4 * MIB
        ));
        for _ in 0..4 * MIB / 65_536 {
            let Ok(piece) = visit.reader.exactly(65_536) else {
                return;
            };
            visit.send(piece);
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let mut sender = client.reader.stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        use std::io::Write;
        let body = block().repeat(4 * MIB / block().len());
        let head = format!(
            "POST / HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n",
            body.len()
        );
        sender.write_all(head.as_bytes())?;
        sender.write_all(&body)
    });
    assert_eq!(client.answer_head().status(), 200);
    let sum = sum_of(&mut client.reader, 4 * MIB, || {}).unwrap();
    assert_eq!(sum, expected(4 * MIB));
    sending.join().unwrap().unwrap();
}

/// Waits until a count stands still; what it is then.
#[track_caller]
fn at_rest(count: &AtomicU64) -> u64 {
    let mut last = (0, Instant::now());
    until("the count to rest", || {
        let now = count.load(SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(500)).then_some(now)
    })
}

/// An origin that answers with `length` bytes and counts what it got rid of.
fn pouring(length: usize, poured: &Arc<AtomicU64>) -> Origin {
    let poured = Arc::clone(poured);
    Origin::start(move |visit| {
        let Ok(_) = visit.request() else { return };
        visit.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ));
        let block = block();
        for _ in 0..length / block.len() {
            if !visit.send(&block) {
                return;
            }
            poured.fetch_add(block.len() as u64, SeqCst);
        }
    })
}

#[test]
fn a_client_that_does_not_read_holds_the_origin_back() {
    let poured = Arc::default();
    let length = 64 * MIB;
    let origin = pouring(length, &poured);
    let weir = Weir::before(&[&origin]);
    let mut growth = Growth::of(&weir);
    let mut client = weir.client().patient(Duration::from_secs(60));
    client.send(get("/"));
    let held = at_rest(&poured);
    assert!(
        held < 48 * MIB as u64,
        "the origin got rid of {held} bytes that nobody read"
    );
    growth.bounded(16 * 1024);
    assert_eq!(
        weir.get("/other").status(),
        200,
        "others are served meanwhile"
    );
    assert_eq!(client.answer_head().status(), 200);
    assert_eq!(
        sum_of(&mut client.reader, length, || {}).unwrap(),
        expected(length)
    );
}

#[test]
fn an_origin_that_does_not_read_holds_the_client_back() {
    let origin = Origin::start(|visit| {
        let Ok(head) = visit.head() else { return };
        if head.method() == "GET" {
            visit.send(ok("fine"));
            return;
        }
        // Only when the other side has stopped, as the test sees by asking something else.
        until("the word to go on", || GO_ON.load(SeqCst).checked_sub(1));
        let length: usize = head.value("content-length").unwrap().parse().unwrap();
        if let Ok(sum) = sum_of(&mut visit.reader, length, || {}) {
            visit.send(ok(sum.to_string()));
        }
    });
    static GO_ON: AtomicU64 = AtomicU64::new(0);
    let weir = Weir::before(&[&origin]);
    let mut growth = Growth::of(&weir);
    let length = 64 * MIB;
    let mut client = weir.client().patient(Duration::from_secs(60));
    client.send(format!(
        "PUT / HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n"
    ));
    let sent = Arc::new(AtomicU64::new(0));
    let sending = {
        let mut stream = client.reader.stream.try_clone().unwrap();
        let sent = Arc::clone(&sent);
        thread::spawn(move || {
            use std::io::Write;
            let block = block();
            for _ in 0..length / block.len() {
                stream.write_all(&block).unwrap();
                sent.fetch_add(block.len() as u64, SeqCst);
            }
        })
    };
    let held = at_rest(&sent);
    assert!(
        held < 48 * MIB as u64,
        "the client got rid of {held} bytes that nobody read"
    );
    growth.bounded(16 * 1024);
    assert_eq!(weir.get("/other").text(), "fine");
    GO_ON.store(1, SeqCst);
    sending.join().unwrap();
    assert_eq!(client.answer().text(), expected(length).to_string());
}

#[test]
fn a_client_that_goes_away_before_the_answer_ends_the_upstream_request() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    for reset in [false, true] {
        let hits = origin.hits();
        let mut client = weir.client();
        client.send(get("/"));
        until("the request at the origin", || {
            (origin.hits() > hits).then_some(())
        });
        if reset {
            process::reset_on_close(&client.reader.stream);
        }
        drop(client);
        until("the upstream request to end", || {
            (origin.open() == 0).then_some(())
        });
    }
}

#[test]
fn a_client_that_goes_away_within_an_answer_ends_the_upstream_request() {
    let poured = Arc::default();
    let origin = pouring(1024 * MIB, &poured);
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(get("/"));
    assert_eq!(client.answer_head().status(), 200);
    client.reader.exactly(MIB).unwrap();
    drop(client);
    until("the upstream request to end", || {
        (origin.open() == 0).then_some(())
    });
    assert!(poured.load(SeqCst) < 512 * MIB as u64);
}

#[test]
fn a_client_that_goes_away_from_a_silent_stream_ends_the_upstream_request() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(get("/events"));
    assert_eq!(client.answer_head().status(), 200);
    client.reader.exactly(6).unwrap();
    drop(client);
    until("the upstream request to end", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_client_that_goes_away_within_its_body_ends_the_upstream_request() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(format!(
        "PUT / HTTP/1.1\r\n{HOST}Content-Length: 1000000\r\n\r\nabc"
    ));
    until("the origin to be reached", || {
        (origin.open() == 1).then_some(())
    });
    process::reset_on_close(&client.reader.stream);
    drop(client);
    until("the upstream request to end", || {
        (origin.open() == 0).then_some(())
    });
    assert_eq!(origin.hits(), 0);
}

#[test]
fn an_origin_that_goes_away_within_a_large_body_breaks_the_answer_off() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            8 * MIB
        ));
        visit.send(vec![b'x'; 3 * MIB]);
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let fault = client.send(get("/")).try_answer().unwrap_err();
    assert!(
        matches!(fault, Fault::Truncated | Fault::Reset),
        "{fault:?}"
    );
}

#[test]
fn many_bodies_at_once() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(ok(request.body));
        }
    });
    let weir = Weir::start(&format!("workers = 2\n{}", plain(&[&origin], "")));
    let address = weir.address("web");
    let threads: Vec<_> = (0..16)
        .map(|seed| {
            thread::spawn(move || {
                let mut random = Random(seed);
                let mut client = Client::connect(address).patient(Duration::from_secs(60));
                for _ in 0..5 {
                    let length = random.below(MIB);
                    let body = random.bytes(length);
                    let head = format!(
                        "POST / HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let mut sender = client.reader.stream.try_clone().unwrap();
                    let bytes = [head.as_bytes(), &body].concat();
                    let sending =
                        thread::spawn(move || std::io::Write::write_all(&mut sender, &bytes));
                    let answer = client.answer();
                    sending.join().unwrap().unwrap();
                    assert!(answer.body == body, "{} bytes differ", body.len());
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(origin.hits(), 80);
}
