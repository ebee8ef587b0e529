//! Every wait and every size is bounded, and whoever meets a bound is told so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::message::Fault;
use crate::support::origin::ok;
use crate::support::weir::{get, plain, plain_at, post};
use crate::support::{Client, Origin, Weir, until};

const HOST: &str = "Host: shop.example.com\r\n";

/// How much later than configured a coarse timer may strike, on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

#[track_caller]
fn took(begun: Instant, least: Duration) {
    let took = begun.elapsed();
    assert!(
        took + Duration::from_millis(60) >= least,
        "after {took:?}, too early for {least:?}"
    );
    assert!(
        took < least + SLACK,
        "after {took:?}, too late for {least:?}"
    );
}

#[test]
fn a_head_that_never_ends_is_408() {
    let origin = Origin::named("reached");
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nheader = \"300ms\""));
    let begun = Instant::now();
    let mut client = weir.client();
    client.send(format!("GET / HTTP/1.1\r\n{HOST}X-A"));
    let answer = client.answer();
    took(begun, Duration::from_millis(300));
    assert_eq!(answer.status(), 408);
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    client.finish().expect_close();
    assert_eq!(origin.hits(), 0);
}

#[test]
fn dripping_does_not_buy_time() {
    let origin = Origin::named("reached");
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nheader = \"300ms\""));
    let begun = Instant::now();
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nX-Slow: ");
    while begun.elapsed() < Duration::from_secs(5) {
        if client.try_send(b"x").is_err() || !client.is_silent(Duration::from_millis(50)) {
            break;
        }
    }
    took(begun, Duration::from_millis(300));
}

#[test]
fn a_connection_that_never_speaks_is_closed() {
    let origin = Origin::named("reached");
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nheader = \"300ms\""));
    let begun = Instant::now();
    let mut client = weir.client();
    match client.try_answer() {
        Ok(answer) => assert_eq!(answer.status(), 408),
        Err(fault) => assert_eq!(fault, Fault::Closed),
    }
    took(begun, Duration::from_millis(300));
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nkeep_alive = \"300ms\"\nheader = \"5s\"",
    ));
    let mut client = weir.client();
    assert_eq!(client.ask(get("/")).text(), "fine");
    let begun = Instant::now();
    client.expect_close();
    took(begun, Duration::from_millis(300));
}

#[test]
fn the_next_head_has_the_header_timeout_again() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nkeep_alive = \"8s\"\nheader = \"300ms\"",
    ));
    let mut client = weir.client();
    assert_eq!(client.ask(get("/")).text(), "fine");
    let begun = Instant::now();
    assert_eq!(client.ask("GET /").status(), 408);
    took(begun, Duration::from_millis(300));
}

#[test]
fn a_body_that_stalls_is_408_and_ends_the_upstream_request() {
    let origin = Origin::echo();
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nbody_idle = \"300ms\""));
    for framing in [
        "Content-Length: 50\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let begun = Instant::now();
        let mut client = weir.client();
        let answer = client.ask(format!("POST / HTTP/1.1\r\n{HOST}{framing}"));
        took(begun, Duration::from_millis(300));
        assert_eq!(answer.status(), 408);
        client.finish().expect_close();
    }
    assert_eq!(origin.hits(), 0);
    until("the upstream connections to end", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_slow_body_is_no_stalled_body() {
    let origin = Origin::echo();
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nbody_idle = \"500ms\"\nheader = \"400ms\"",
    ));
    let mut client = weir.client();
    client.send(format!(
        "POST / HTTP/1.1\r\n{HOST}Content-Length: 8\r\n\r\n"
    ));
    for _ in 0..8 {
        assert!(client.is_silent(Duration::from_millis(150)));
        client.send("x");
    }
    assert!(client.answer().text().ends_with("xxxxxxxx"));
}

#[test]
fn a_body_over_the_routes_limit_is_413() {
    let origin = Origin::echo();
    let config =
        plain(&[&origin], "").replace("pool = \"was\"\n", "pool = \"was\"\nmax_body = \"1KiB\"\n");
    let weir = Weir::start(&config);
    let large = "x".repeat(1025);

    let mut client = weir.client();
    let answer = client.ask(post("/", &large));
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    client.finish().expect_close();
    assert_eq!(
        origin.connections(),
        0,
        "the length alone is enough to refuse"
    );

    let mut client = weir.client();
    let chunks = format!(
        "200\r\n{0}\r\n200\r\n{0}\r\n1\r\nx\r\n0\r\n\r\n",
        "x".repeat(512)
    );
    client.send(format!(
        "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunks}"
    ));
    assert_eq!(client.answer().status(), 413);
    client.finish().expect_close();

    let mut client = weir.client();
    client.send(format!(
        "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n200\r\n{}\r\n",
        "x".repeat(512)
    ));
    until("the first chunk at the origin", || {
        (origin.connections() > 0).then_some(())
    });
    client.send(format!("FFFFFFF\r\n{}", "x".repeat(600)));
    assert_eq!(client.answer().status(), 413, "within a chunk");
    assert_eq!(origin.hits(), 0, "whole requests at the origin");

    assert!(
        weir.client()
            .ask(post("/", &large[..1024]))
            .text()
            .ends_with(&large[..1024])
    );
    let chunks = format!("400\r\n{}\r\n0\r\n\r\n", &large[..1024]);
    let answer = weir.client().ask(format!(
        "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunks}"
    ));
    assert_eq!(answer.status(), 200, "the framing does not count");
}

#[test]
fn a_refused_body_makes_no_continue() {
    let origin = Origin::echo();
    let config =
        plain(&[&origin], "").replace("pool = \"was\"\n", "pool = \"was\"\nmax_body = \"10B\"\n");
    let weir = Weir::start(&config);
    let answer = weir.client().ask(format!(
        "POST / HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 11\r\n\r\n"
    ));
    assert_eq!(answer.status(), 413);
}

#[test]
fn a_target_over_the_limit_is_414() {
    let origin = Origin::named("reached");
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let _ =
        client.try_send(format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(70_000)).as_bytes());
    assert_eq!(client.answer().status(), 414);
    client.finish().expect_close();
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_head_over_the_limit_is_431() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&plain(
        &[&origin],
        "[limits]\nhead = \"4KiB\"\nheader_lines = 20",
    ));
    let lines = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\n{HOST}{}\r\n",
            "X-A: b\r\n".repeat(count - 1)
        )
    };
    let sized = |size: usize| {
        let start = format!("GET / HTTP/1.1\r\n{HOST}X-A: ");
        format!("{start}{}\r\n\r\n", "b".repeat(size - start.len() - 4))
    };
    for (name, request, status) in [
        ("as many lines as allowed", lines(20), 200),
        ("a line too many", lines(21), 431),
        ("far too many lines", lines(300), 431),
        ("as long as allowed", sized(4096), 200),
        ("a byte too long", sized(4097), 431),
        ("far too long", sized(60_000), 431),
        ("endless", sized(3_000_000).trim_end().to_owned(), 431),
    ] {
        let mut client = weir.client();
        let _ = client.try_send(request.as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status(), status, "{name}");
        if status == 431 {
            client.finish().expect_close();
        }
    }
    assert_eq!(origin.hits(), 2);
}

#[test]
fn an_origin_that_never_answers_is_504() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.stall();
    });
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nresponse = \"300ms\""));
    let mut client = weir.client();
    for request in [post("/", "x"), get("/")] {
        let begun = Instant::now();
        let answer = client.ask(request);
        took(begun, Duration::from_millis(300));
        assert_eq!(answer.status(), 504);
        if answer.value("connection").as_deref() == Some("close") {
            client = weir.client();
        }
    }
    assert_eq!(origin.hits(), 2, "not retried: it may have been acted upon");
    until("weir to end the upstream requests", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_routes_own_timeout_wins() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.stall();
    });
    let config = plain(&[&origin], "[timeouts]\nresponse = \"20s\"").replace(
        "[[routes]]\n",
        "[[routes]]\npath = \"/fast\"\npool = \"was\"\ntimeouts.response = \"200ms\"\n[[routes]]\n",
    );
    let weir = Weir::start(&config);
    let begun = Instant::now();
    assert_eq!(weir.get("/fast/x").status(), 504);
    took(begun, Duration::from_millis(200));
}

/// A listener whose queue is full, so that connecting to it neither succeeds nor fails.
fn black_hole() -> (Socket, Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..4 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address.into());
        fillers.push(socket);
    }
    (listener, fillers, address)
}

#[test]
fn a_backend_that_takes_no_connection_is_504() {
    let (_listener, _fillers, address) = black_hole();
    let weir = Weir::start(&plain_at(&[address], "[timeouts]\nconnect = \"300ms\""));
    let begun = Instant::now();
    let answer = weir.get("/");
    assert_eq!(answer.status(), 504);
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "three attempts at most"
    );
}

#[test]
fn a_backend_that_takes_no_connection_is_left_for_another() {
    let (_listener, _fillers, address) = black_hole();
    let origin = Origin::named("fine");
    let weir = Weir::start(&plain_at(
        &[address, origin.address],
        "[timeouts]\nconnect = \"200ms\"",
    ));
    for _ in 0..4 {
        assert_eq!(weir.client().ask(post("/", "x")).text(), "fine");
    }
}

#[test]
fn an_answer_that_stalls_breaks_off() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc");
        visit.stall();
    });
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nresponse_idle = \"300ms\"\nresponse = \"20s\"",
    ));
    let begun = Instant::now();
    let mut client = weir.client();
    let fault = client.send(get("/")).try_answer().unwrap_err();
    took(begun, Duration::from_millis(300));
    assert!(
        matches!(fault, Fault::Truncated | Fault::Reset),
        "{fault:?}"
    );
    until("weir to end the upstream request", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn an_event_stream_may_pause() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..4 {
            let _ = visit
                .reader
                .fill(Instant::now() + Duration::from_millis(250));
            visit.send("6\r\ndata\n\n\r\n");
        }
        visit.send("0\r\n\r\n");
    });
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nresponse_idle = \"600ms\"\nresponse = \"400ms\"\nbody_idle = \"200ms\"\nkeep_alive = \"200ms\"",
    ));
    let mut client = weir.client();
    client.send(get("/events"));
    assert_eq!(client.answer_head().status(), 200);
    let begun = Instant::now();
    let first = client.reader.exactly(11).unwrap();
    assert_eq!(first, b"6\r\ndata\n\n\r\n");
    assert!(
        begun.elapsed() < Duration::from_millis(700),
        "events are not held back"
    );
    assert_eq!(client.reader.exactly(33 + 5).unwrap().len(), 38);
}

#[test]
fn a_pooled_connection_expires() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nupstream_idle = \"300ms\""));
    assert_eq!(weir.get("/").text(), "fine");
    let begun = Instant::now();
    until("weir to close it", || (origin.open() == 0).then_some(()));
    took(begun, Duration::from_millis(300));
}

#[test]
fn max_idle_bounds_the_pool() {
    let arrived = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&arrived);
    let origin = Origin::start(move |visit| {
        while visit.request().is_ok() {
            // All answers come together, so that all connections become idle at once.
            counted.fetch_add(1, SeqCst);
            until("the others", || (counted.load(SeqCst) >= 10).then_some(()));
            visit.send(ok("fine"));
        }
    });
    let config = plain(&[&origin], "").replace("[pools.was]\n", "[pools.was]\nmax_idle = 2\n");
    let weir = Weir::start(&config);
    let mut clients: Vec<Client> = (0..10).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send(post("/", "x"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "fine");
    }
    assert_eq!(arrived.load(SeqCst), 10);
    until("all but two to close", || {
        (origin.open() <= 2).then_some(())
    });
}

#[test]
fn an_error_is_read_even_by_a_client_that_goes_on_sending() {
    let origin = Origin::named("reached");
    let config =
        plain(&[&origin], "").replace("pool = \"was\"\n", "pool = \"was\"\nmax_body = \"1KiB\"\n");
    let weir = Weir::start(&config);
    let megabyte = vec![b'x'; 1 << 20];
    for head in [
        format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 1048576\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{HOST}Host: x\r\n\r\n"),
    ] {
        for _ in 0..5 {
            let mut client = weir.client();
            client.send(&head);
            // A reset would make this fail, or the answer unreadable.
            client.try_send(&megabyte).expect("weir goes on reading");
            let answer = client.answer();
            assert!(
                matches!(answer.status(), 400 | 413),
                "{}",
                answer.first_line()
            );
            client.finish().expect_close();
        }
    }
}

#[test]
fn lingering_is_bounded() {
    let origin = Origin::named("reached");
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nbad\r\n\r\n");
    assert_eq!(client.answer().status(), 400);
    // Sending for ever must not keep the connection for ever; nor a client that never closes.
    let begun = Instant::now();
    let chunk = [b'x'; 1024];
    while client.try_send(&chunk).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
        assert!(
            begun.elapsed() < Duration::from_secs(40),
            "weir lingers for ever"
        );
    }
}

#[test]
fn connections_over_the_listeners_limit_wait() {
    let origin = Origin::named("fine");
    let config = plain(&[&origin], "").replace(
        "[listeners.web]\n",
        "[listeners.web]\nmax_connections = 2\n",
    );
    let weir = Weir::start(&format!("workers = 2\n{config}"));
    let mut first = weir.client();
    let mut second = weir.client();
    assert_eq!(first.ask(get("/")).text(), "fine");
    assert_eq!(second.ask(get("/")).text(), "fine");
    let mut third = weir.client();
    third.send(get("/"));
    assert!(
        third.is_silent(Duration::from_millis(300)),
        "a third is served"
    );
    assert_eq!(first.ask(get("/")).text(), "fine", "those who are in go on");
    drop(first);
    assert_eq!(third.answer().text(), "fine", "a place became free");
}

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: shop.example.com\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

/// Says 100 to every head, then answers 200.
fn welcoming() -> Origin {
    Origin::start(|visit| {
        while let Ok(mut head) = visit.head() {
            visit.send("HTTP/1.1 100 Continue\r\n\r\n");
            if visit.body(&mut head).is_err() {
                return;
            }
            visit.send(ok(head.body));
        }
    })
}

#[test]
fn a_body_that_stalls_after_continue_is_408() {
    let origin = welcoming();
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nbody_idle = \"300ms\"\nresponse = \"20s\"",
    ));
    let mut client = weir.client();
    assert_eq!(client.ask(EXPECTING).status(), 100);
    let begun = Instant::now();
    let answer = client.answer();
    took(begun, Duration::from_millis(300));
    assert_eq!(answer.status(), 408, "the client is to blame");
}

#[test]
fn a_client_that_was_told_to_continue_has_its_own_time() {
    let origin = welcoming();
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nbody_idle = \"5s\"\nresponse = \"300ms\"",
    ));
    let mut client = weir.client();
    assert_eq!(client.ask(EXPECTING).status(), 100);
    assert!(
        client.is_silent(Duration::from_millis(800)),
        "the backend is not to blame"
    );
    assert_eq!(client.ask("hello").text(), "hello");
}

#[test]
fn a_backend_that_never_says_continue_is_504() {
    let origin = Origin::start(|visit| {
        visit.head().ok();
        visit.stall();
    });
    let weir = Weir::start(&plain(
        &[&origin],
        "[timeouts]\nbody_idle = \"20s\"\nresponse = \"300ms\"",
    ));
    let begun = Instant::now();
    let mut client = weir.client();
    let answer = client.ask(EXPECTING);
    took(begun, Duration::from_millis(300));
    assert_eq!(answer.status(), 504);
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
}

#[test]
fn a_client_that_stops_reading_is_given_up() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let block = vec![b'x'; 1 << 20];
        while visit.send(&block) {}
    });
    let weir = Weir::start(&plain(&[&origin], "[timeouts]\nresponse_idle = \"500ms\""));
    let mut client = weir.client();
    client.send(get("/"));
    until("the request at the origin", || {
        (origin.hits() == 1).then_some(())
    });
    until("weir to end the upstream request", || {
        (origin.open() == 0).then_some(())
    });
    drop(client);
}

#[test]
fn a_pause_of_the_process_is_nobodys_fault() {
    // A virtual machine that is moved, or a control group out of its share: to weir, time jumps. What begins after the jump has all
    // of its time.
    let origin = Origin::start(|visit| {
        while visit.request().is_ok() {
            let _ = visit
                .reader
                .fill(Instant::now() + Duration::from_millis(300));
            visit.send(ok("fine"));
        }
    });
    let waits = "[timeouts]\nheader = \"1s\"\nresponse = \"1s\"\nconnect = \"1s\"";
    let weir = Weir::start(&plain(&[&origin], waits));
    for _ in 0..5 {
        weir.signal(libc::SIGSTOP);
        let mut clients: Vec<Client> = (0..20).map(|_| weir.client()).collect();
        for (count, client) in clients.iter_mut().enumerate() {
            client.send(if count % 2 == 0 {
                get("/")
            } else {
                post("/", "x")
            });
        }
        std::thread::sleep(Duration::from_millis(1500));
        weir.signal(libc::SIGCONT);
        for client in &mut clients {
            let answer = client.answer();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "fine"));
        }
    }
}
