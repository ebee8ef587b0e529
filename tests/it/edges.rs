//! What happens only when things coincide: a listener that closes on a full queue, a backend that pauses, bytes that come too early.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::Duration;

use crate::support::message::Fault;
use crate::support::origin::ok;
use crate::support::weir::{get, plain, post};
use crate::support::{Client, Origin, Weir, until};

#[test]
fn whoever_is_queued_when_a_listener_closes_is_served() {
    let origin = Origin::named("fine");
    let limited = "[listeners.web]\nmax_connections = 1\n";
    let weir = Weir::start(&plain(&[&origin], "").replace("[listeners.web]\n", limited));
    let mut first = weir.client();
    assert_eq!(first.ask(get("/")).text(), "fine");
    // More than a task of the runtime accepts in one go.
    let mut queued: Vec<Client> = (0..300).map(|_| weir.client()).collect();
    for client in &mut queued {
        client.send(get("/"));
    }
    weir.signal(libc::SIGTERM);
    for (number, client) in queued.iter_mut().enumerate() {
        let answer = client.try_answer();
        let text = answer.map(|answer| answer.text());
        assert_eq!(text.as_deref(), Ok("fine"), "client {number}");
    }
    assert!(weir.await_exit().success());
}

#[test]
fn an_empty_line_after_a_body_is_no_request() {
    let origin = Origin::named("fine");
    let head = "[timeouts]\nheader = \"300ms\"\n";
    let weir = Weir::start(&plain(&[&origin], head));
    let mut client = weir.client();
    assert_eq!(client.ask(post("/", "hello") + "\r\n").text(), "fine");
    assert!(client.is_silent(Duration::from_millis(900)));
    client.send("\r\n");
    assert!(client.is_silent(Duration::from_millis(900)));
    assert_eq!(client.ask(get("/")).text(), "fine");
}

#[test]
fn any_number_of_empty_lines_is_cheap() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let lines = "\r\n".repeat(64 * 1024);
    for _ in 0..40 {
        client.send(get("/") + &lines);
    }
    client.send(get("/"));
    for _ in 0..41 {
        assert_eq!(client.answer().text(), "fine");
    }
    let spent = crate::robustness::processor_time(weir.id());
    assert!(spent < Duration::from_secs(1), "{spent:?}");
}

#[test]
fn a_backend_that_pauses_within_a_body_has_the_response_timeout() {
    static GO_ON: AtomicBool = AtomicBool::new(false);
    const LENGTH: usize = 64 << 20;
    let origin = Origin::start(|visit| {
        let Ok(_) = visit.head() else { return };
        until("the word to go on", || GO_ON.load(SeqCst).then_some(()));
        if visit.reader.exactly(LENGTH).is_ok() {
            visit.send(ok("all"));
        }
    });
    let head = "[timeouts]\nbody_idle = \"2s\"\nresponse = \"30s\"\n";
    let weir = Weir::start(&plain(&[&origin], head));
    let mut client = weir.client().patient(Duration::from_secs(60));
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LENGTH}\r\n\r\n"
    ));
    let mut stream = client.reader.stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        use std::io::Write;
        stream.write_all(&vec![b'x'; LENGTH])
    });
    assert!(
        client.is_silent(Duration::from_secs(4)),
        "the client waits for the backend, and is not to blame"
    );
    GO_ON.store(true, SeqCst);
    assert_eq!(client.answer().text(), "all");
    sending.join().unwrap().unwrap();
}

#[test]
fn a_busy_connection_gets_no_poisoned_upstream_connection() {
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    static POISONED: AtomicUsize = AtomicUsize::new(0);
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(ok(request.target()));
            if let Some(round) = request.target().strip_prefix("/here/first/") {
                let round: usize = round.parse().unwrap();
                until("the answer at the client", || {
                    (ANSWERED.load(SeqCst) == round).then_some(())
                });
                visit.send(ok("unasked"));
                POISONED.store(round, SeqCst);
            }
        }
    });
    let config = plain(&[&origin], "").replace("[[routes]]\n", "[[routes]]\npath = \"/here\"\n");
    let weir = Weir::start(&config);
    let lost = "GET /l HTTP/1.1\r\nHost: a\r\n\r\n";
    for round in 1..=20 {
        // The runtime lets a task do 128 things before it must let others have their turn.
        let before = 112 + round;
        let mut client = weir.client();
        assert_eq!(client.ask(lost).status(), 404);
        weir.get(&format!("/here/first/{round}"));
        ANSWERED.store(round, SeqCst);
        until("the poison", || {
            (POISONED.load(SeqCst) == round).then_some(())
        });
        client.send(lost.repeat(before) + "GET /here/mine HTTP/1.1\r\nHost: a\r\n\r\n");
        for _ in 0..before {
            assert_eq!(client.answer().status(), 404);
        }
        assert_eq!(client.answer().text(), "/here/mine", "after {before}");
    }
}

#[test]
fn a_client_that_asks_too_early_reads_the_last_answer_to_its_end() {
    static SENT: AtomicBool = AtomicBool::new(false);
    let stopped = Arc::new(AtomicBool::new(false));
    let origin = {
        let stopped = Arc::clone(&stopped);
        Origin::start(move |visit| {
            let Ok(_) = visit.request() else { return };
            until("weir to stand still", || stopped.load(SeqCst).then_some(()));
            visit.send("HTTP/1.1 200 OK\r\n\r\nfine");
            visit
                .reader
                .stream
                .shutdown(std::net::Shutdown::Both)
                .unwrap();
            SENT.store(true, SeqCst);
        })
    };
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(get("/"));
    until("the request at the origin", || {
        (origin.hits() == 1).then_some(())
    });
    weir.signal(libc::SIGSTOP);
    stopped.store(true, SeqCst);
    until("the answer on its way", || SENT.load(SeqCst).then_some(()));
    client.send(get("/next"));
    weir.signal(libc::SIGCONT);
    let (answer, end) = client.rest();
    assert!(answer.ends_with(b"\r\n\r\nfine"));
    assert_eq!(end, Fault::Closed);
    assert_eq!(origin.hits(), 1);
}

#[test]
fn an_answer_before_the_end_of_the_body_says_close() {
    let origin = Origin::start(|visit| {
        let Ok(_) = visit.head() else { return };
        visit.send("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n");
        visit.send(ok("no"));
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    let lines = ["", "Expect: 100-continue\r\n"];
    for line in lines {
        let mut client = weir.client();
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: a.test\r\n{line}Content-Length: 5\r\n\r\n"
        ));
        assert_eq!(client.answer().status(), 103);
        let answer = client.answer();
        assert_eq!(answer.text(), "no");
        // What follows is the body or a request: weir cannot tell, and reads neither.
        assert_eq!(answer.value("connection").as_deref(), Some("close"));
    }
}

#[test]
fn what_is_sent_before_its_turn_takes_little_memory() {
    let origin = Origin::start(|visit| {
        let _ = visit.request();
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    let clients = 200;
    let before = weir.resident();
    let connected: Vec<Client> = (0..clients)
        .map(|_| {
            let mut client = weir.client();
            client.send(get("/").repeat(4000));
            client
        })
        .collect();
    until("every first request at the origin", || {
        (origin.hits() == clients).then_some(())
    });
    let grown = weir.resident() - before;
    assert!(grown < 64 * clients as u64, "weir grew by {grown} KiB");
    drop(connected);
}

#[test]
fn turns_go_on_over_reloads() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let config = |most: usize| {
        plain(&origins.each_ref(), "").replace(
            "[listeners.web]\n",
            &format!("[listeners.web]\nmax_connections = {most}\n"),
        )
    };
    let weir = Weir::start(&config(1000));
    for round in 0..12 {
        weir.get("/");
        let generation = weir.generation();
        weir.write(&config(1001 + round));
        weir.await_generation_after(generation);
    }
    let hits = origins.each_ref().map(Origin::hits);
    assert!(hits.iter().all(|&hits| hits >= 2), "{hits:?}");
}
