//! Slow attacks: many clients that send a byte now and then hold no place for long, and are in nobody's way meanwhile.
//! The long form (`WEIR_FULL=1`) has two thousand of them at one byte a second, and measures what others notice.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http2::{push, read, request};
use crate::support::weir::{get, plain, post};
use crate::support::{Backend, Client, DEADLINE, Multiplexer, Origin, Weir, until};

/// A client that never completes its request.
struct Slow {
    stream: TcpStream,
    began: Instant,
    received: Vec<u8>,
    /// When weir ended the connection.
    ended: Option<Duration>,
    sent: usize,
}

impl Slow {
    fn connect(address: SocketAddr) -> Slow {
        let began = Instant::now();
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
        stream.set_nonblocking(true).unwrap();
        Slow {
            stream,
            began,
            received: Vec::new(),
            ended: None,
            sent: 0,
        }
    }

    /// Sends the next byte of a head that has no end, and looks whether weir had enough.
    fn step(&mut self) {
        const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-Slow: ";
        let byte = HEAD.get(self.sent).copied().unwrap_or(b'a');
        let sent = self.stream.write(&[byte]);
        self.sent += 1;
        let mut buffer = [0; 1024];
        let read = loop {
            match self.stream.read(&mut buffer) {
                Ok(count @ 1..) => self.received.extend_from_slice(&buffer[..count]),
                other => break other,
            }
        };
        let is_open = matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if !is_open || sent.is_err() {
            self.ended = Some(self.began.elapsed());
        }
    }
}

/// Keeps so many slow clients busy, each with a byte every `pause`, until weir has ended them all.
fn attack(address: SocketAddr, count: usize, pause: Duration) -> Vec<Slow> {
    let mut clients: Vec<Slow> = (0..count).map(|_| Slow::connect(address)).collect();
    let end = Instant::now() + Duration::from_secs(60);
    while clients.iter().any(|client| client.ended.is_none()) {
        assert!(Instant::now() < end, "some are still there");
        let round = Instant::now();
        for (number, client) in clients.iter_mut().enumerate() {
            if client.ended.is_none() {
                client.step();
            }
            // Spread over the pause, as two thousand machines would be.
            let due = pause * (number as u32 + 1) / count as u32;
            let ahead = due.saturating_sub(round.elapsed());
            if ahead > Duration::from_millis(1) {
                thread::sleep(ahead);
            }
        }
    }
    clients
}

/// How long each of the requests took that were sent one after the other until `enough`.
fn times(client: &mut Client, mut enough: impl FnMut() -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !enough() {
        let begun = Instant::now();
        assert_eq!(client.ask(get("/")).text(), "fine");
        times.push(begun.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    times
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn two_thousand_bytes_a_second_are_in_nobodys_way() {
    let full = std::env::var_os("WEIR_FULL").is_some();
    let (count, pause, header) = match full {
        true => (2000, Duration::from_secs(1), Duration::from_secs(10)),
        false => (200, Duration::from_millis(100), Duration::from_secs(1)),
    };
    let origin = Origin::named("fine");
    let waits = format!("[timeouts]\nheader = \"{}s\"", header.as_secs());
    let weir = Weir::start(&plain(&[&origin], &waits));
    let mut client = weir.client();
    let quiet = Instant::now() + header;
    let quiet = times(&mut client, || Instant::now() > quiet);

    let (web, over) = (weir.address("web"), AtomicBool::new(false));
    let (slow, busy) = thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let slow = attack(web, count, pause);
            over.store(true, Ordering::Relaxed);
            slow
        });
        let busy = times(&mut client, || over.load(Ordering::Relaxed));
        (attack.join().unwrap(), busy)
    });
    for client in &slow {
        let ended = client.ended.unwrap();
        assert!(
            ended + Duration::from_millis(60) >= header,
            "early: {ended:?}"
        );
        assert!(ended < header + DEADLINE, "late: {ended:?}");
        let text = String::from_utf8_lossy(&client.received);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 408 "),
            "{text}"
        );
    }
    let told = slow
        .iter()
        .filter(|client| !client.received.is_empty())
        .count();
    assert!(told * 2 > count, "only {told} of {count} were told why");
    weir.settles(
        "weir_http_refused_total",
        &[("reason", "head_timeout")],
        count as f64,
    );
    assert_eq!(origin.connections(), 1, "the slow ones never came so far");
    assert!(!busy.is_empty());
    let (quiet, busy) = (p99(quiet), p99(busy));
    println!("p99: quiet {quiet:?}, with {count} slow clients {busy:?}");
    assert!(!full || busy <= quiet * 2, "{busy:?} after {quiet:?}");
}

#[test]
fn blank_lines_buy_no_time() {
    let origin = Origin::named("fine");
    let waits = "[timeouts]\nheader = \"500ms\"\nkeep_alive = \"500ms\"";
    let weir = Weir::start(&plain(&[&origin], waits));
    for asks_first in [false, true] {
        let mut client = weir.client();
        if asks_first {
            assert_eq!(client.ask(get("/")).text(), "fine");
        }
        let begun = Instant::now();
        while client.try_send(b"\r\n").is_ok() && client.is_silent(Duration::from_millis(40)) {
            assert!(begun.elapsed() < DEADLINE, "blank lines are waited for");
        }
        assert!(begun.elapsed() >= Duration::from_millis(400));
    }
}

#[test]
fn a_handshake_that_dribbles_in_has_the_time_of_a_head() {
    let made = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
    let directory = std::env::temp_dir().join(format!("weir-it-slow-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let origin = Origin::named("fine");
    let tls =
        format!("bind = [\"$web\"]\ntls.certificates = [{{ cert = {cert:?}, key = {key:?} }}]");
    let config = plain(&[&origin], "[timeouts]\nheader = \"500ms\"");
    let weir = Weir::start(&config.replace("bind = [\"$web\"]", &tls));
    // A record of 512 bytes that begins a ClientHello; the rest never comes so far.
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 400]].concat();
    let mut client = weir.client();
    let begun = Instant::now();
    for byte in hello {
        if client.try_send(&[byte]).is_err() || !client.is_silent(Duration::from_millis(40)) {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "it is waited for");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    let _ = std::fs::remove_dir_all(directory);
}

#[test]
fn a_body_that_dribbles_in_is_408_and_leaves_the_backend() {
    let origin = Origin::echo();
    let weir = Weir::start(&plain(&[&origin], "[limits]\nmin_body_rate = \"100B\""));
    // A body that is copied, one that the kernel may move, and one of unknown length.
    let framings = [
        "Content-Length: 10000",
        "Content-Length: 10000000",
        "Transfer-Encoding: chunked",
    ];
    let begin = |framing: &&str| {
        let mut client = weir.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: shop.example.com\r\nX-Pad: {}\r\n{framing}\r\n\r\n",
            // A large head is no part of the body.
            "x".repeat(8000)
        ));
        client
    };
    let mut slow: Vec<Client> = framings.iter().map(begin).collect();
    let mut fair: Vec<Client> = framings.iter().map(begin).collect();
    let begun = Instant::now();
    // Some bring 20 bytes a second at most, others 400 and more.
    while slow
        .iter_mut()
        .any(|client| client.is_silent(Duration::from_millis(30)))
    {
        assert!(begun.elapsed() < DEADLINE * 3, "it is waited for");
        for (client, framing) in slow.iter_mut().zip(framings) {
            let piece = if framing.starts_with('T') {
                "1\r\na\r\n"
            } else {
                "ab"
            };
            let _ = client.try_send(piece.as_bytes());
        }
        for (client, framing) in fair.iter_mut().zip(framings) {
            let piece = "c".repeat(0x40);
            client.send(match framing.starts_with('T') {
                true => format!("40\r\n{piece}\r\n"),
                false => piece,
            });
        }
        thread::sleep(Duration::from_millis(50));
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(9), "{took:?}");
    for client in &mut slow {
        assert_eq!(client.answer().status(), 408);
    }
    weir.settles(
        "weir_http_refused_total",
        &[("reason", "body_too_slow")],
        3.0,
    );
    until("the upstream connections to end", || {
        (origin.open() == 3).then_some(())
    });
    for client in &mut fair {
        assert!(
            client.is_silent(Duration::from_millis(10)),
            "a fair pace is enough"
        );
    }
}

#[test]
fn time_that_the_backend_takes_is_not_the_clients() {
    // The backend looks away for 12 s and takes the body only then: the client could not send on.
    let origin = Origin::start(|visit| {
        if let Ok(mut request) = visit.head() {
            thread::sleep(Duration::from_secs(12));
            let _ = visit.body(&mut request);
            visit.send(crate::support::origin::ok("fine"));
        }
    });
    let weir = Weir::start(&plain(&[&origin], "[limits]\nmin_body_rate = \"1MiB\""));
    let body = "x".repeat(24 << 20);
    let mut client = weir.client().patient(DEADLINE * 6);
    let stream = client.reader.stream.try_clone().unwrap();
    stream.set_write_timeout(Some(DEADLINE * 6)).unwrap();
    let sending = thread::spawn(move || (&stream).write_all(post("/", &body).as_bytes()).is_ok());
    assert_eq!(client.answer().text(), "fine");
    assert!(sending.join().unwrap());
}

/// Streams that go both ways may rest: the rule ends where the answer begins.
#[test]
fn who_is_answered_already_may_take_its_time() {
    let (go, may_answer) = std::sync::mpsc::channel::<()>();
    let may_answer = std::sync::Mutex::new(may_answer);
    let origin = Origin::start(move |visit| {
        if visit.head().is_err() {
            return;
        }
        let _ = may_answer.lock().unwrap().recv();
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
        for _ in 0..2 {
            if let Ok(bytes) = visit.reader.exactly(3) {
                visit.send(bytes);
            }
        }
    });
    let weir = Weir::start(&plain(&[&origin], "[limits]\nmin_body_rate = \"100B\""));
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 9\r\n\r\nabc");
    // Past the time after which a body is found to be slow, had anything come meanwhile.
    assert!(client.is_silent(Duration::from_millis(10_500)));
    go.send(()).unwrap();
    let head = client.answer_head();
    assert_eq!(head.status(), 200);
    assert_eq!(client.reader.exactly(3).unwrap(), b"abc");
    client.send("def");
    assert_eq!(client.reader.exactly(3).unwrap(), b"def");
}

/// A call may be slow where there is gRPC; to say that it is one is no excuse elsewhere.
#[test]
fn who_only_calls_itself_grpc_is_held_to_the_pace() {
    let origin = Origin::echo();
    let backend = Backend::start(|mut asked| async move {
        let mut answer = asked.begin();
        while let Some(Ok(piece)) = asked.request.body_mut().data().await {
            let _ = push(&mut answer, piece.to_vec()).await;
        }
        let _ = answer.send_trailers(http::HeaderMap::new());
    });
    let weir = Weir::start(&format!(
        "[limits]\nmin_body_rate = \"100B\"\n[listeners.web]\nbind = [\"$web\"]\n\
         [[routes]]\npath = \"/calls\"\npool = \"calls\"\n[[routes]]\npool = \"was\"\n\
         [pools.calls]\nprotocol = \"http2\"\nbackends = [\"{}\"]\nhealth.type = \"none\"\n\
         [pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        backend.address, origin.address
    ));
    let mut client = Multiplexer::connect(weir.address("web"));
    let mut begin = |target: &str| {
        let call = request("POST", target).header("content-type", "application/grpc");
        client.begin(call.body(()).unwrap(), false)
    };
    let (call, mut honest) = begin("/calls/a.B/C");
    let (other, mut posing) = begin("/a.B/C");
    let begun = Instant::now();
    let refused = || weir.metric("weir_http_refused_total", &[("reason", "body_too_slow")]);
    while refused() == 0.0 {
        assert!(begun.elapsed() < DEADLINE * 3, "it is waited for");
        for stream in [&mut honest, &mut posing] {
            let _ = stream.send_data("ab".into(), false);
        }
        thread::sleep(Duration::from_millis(200));
    }
    assert!(begun.elapsed() >= Duration::from_secs(9));
    let refused = client.wait(read(other)).unwrap();
    assert!(
        refused.head.headers().contains_key("grpc-status"),
        "{refused:?}"
    );
    honest.send_data("end".into(), true).unwrap();
    assert!(client.wait(read(call)).unwrap().text().ends_with("end"));
}
