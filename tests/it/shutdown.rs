//! How weir starts and stops: readiness first, then new connections, then what is open, and never longer than agreed.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::support::message::Fault;
use crate::support::weir::{get, plain};
use crate::support::{Client, DEADLINE, Origin, Weir, until};

/// Answers half at once and the rest when released.
fn slow(release: &Arc<AtomicBool>) -> Origin {
    let release = Arc::clone(release);
    Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/fast" {
                visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast");
                continue;
            }
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow ");
            until("the release", || release.load(SeqCst).then_some(()));
            visit.send("done");
        }
    })
}

#[test]
fn what_is_open_ends_and_nothing_new_begins() {
    let release = Arc::default();
    let origin = slow(&release);
    let weir = Weir::before(&[&origin]);
    let mut idle = weir.client();
    assert_eq!(idle.ask(get("/fast")).text(), "fast");
    let mut open = weir.client();
    open.send(get("/"));
    let head = open.answer_head();
    assert_eq!(head.status(), 200);
    weir.signal(libc::SIGTERM);
    until("new connections to be refused", || {
        Client::try_connect(weir.address("web"))
            .is_err()
            .then_some(())
    });
    idle.expect_close();
    assert!(weir.exited().is_none(), "something is open");
    release.store(true, SeqCst);
    assert_eq!(open.reader.exactly(9).unwrap(), b"slow done");
    open.expect_close();
    let status = weir.await_exit();
    assert!(status.success(), "{status}");
}

#[test]
fn a_request_whose_answer_has_not_begun_is_told_to_close() {
    let release = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&release);
    let origin = Origin::start(move |visit| {
        while visit.request().is_ok() {
            until("the release", || gate.load(SeqCst).then_some(()));
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(get("/"));
    until("the request at the origin", || {
        (origin.hits() == 1).then_some(())
    });
    weir.signal(libc::SIGTERM);
    until("new connections to be refused", || {
        Client::try_connect(weir.address("web"))
            .is_err()
            .then_some(())
    });
    release.store(true, SeqCst);
    let answer = client.answer();
    assert_eq!(answer.text(), "fine");
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    client.expect_close();
    assert!(weir.await_exit().success());
}

#[test]
fn readiness_fails_first() {
    let release = Arc::default();
    let origin = slow(&release);
    let weir = Weir::start(&plain(&[&origin], "drain_delay = \"1500ms\""));
    assert_eq!(weir.admin("/readyz").status(), 200);
    let begun = Instant::now();
    weir.signal(libc::SIGTERM);
    until("readiness to fail", || {
        (weir.admin("/readyz").status() == 503).then_some(())
    });
    assert_eq!(weir.get("/fast").text(), "fast", "still accepting");
    assert_eq!(weir.admin("/healthz").status(), 200, "alive all the same");
    assert!(
        begun.elapsed() < Duration::from_millis(1400),
        "the test itself was too slow"
    );
    assert!(weir.await_exit().success());
    assert!(begun.elapsed() >= Duration::from_millis(1400));
}

#[test]
fn the_drain_has_an_end() {
    let origin = slow(&Arc::default());
    let weir = Weir::start(&plain(&[&origin], "drain_timeout = \"500ms\""));
    let mut open = weir.client();
    open.send(get("/"));
    assert_eq!(open.answer_head().status(), 200);
    let begun = Instant::now();
    weir.signal(libc::SIGTERM);
    weir.await_exit();
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(450) && took < Duration::from_secs(4),
        "{took:?}"
    );
    let rest = open.reader.exactly(9);
    assert!(
        matches!(rest, Err(Fault::Truncated | Fault::Reset)),
        "{rest:?}"
    );
}

#[test]
fn a_second_signal_ends_at_once() {
    let origin = slow(&Arc::default());
    let weir = Weir::before(&[&origin]);
    let mut open = weir.client();
    open.send(get("/"));
    assert_eq!(open.answer_head().status(), 200);
    weir.signal(libc::SIGTERM);
    until("the drain", || {
        Client::try_connect(weir.address("web"))
            .is_err()
            .then_some(())
    });
    assert!(weir.exited().is_none());
    let begun = Instant::now();
    weir.signal(libc::SIGTERM);
    weir.await_exit();
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn an_interrupt_is_a_shutdown_too() {
    let origin = slow(&Arc::default());
    let weir = Weir::before(&[&origin]);
    assert_eq!(weir.get("/fast").text(), "fast");
    weir.signal(libc::SIGINT);
    assert!(weir.await_exit().success());
}

#[test]
fn the_service_manager_is_told() {
    let origin = slow(&Arc::default());
    let path = std::env::temp_dir().join(format!("weir-it-notify-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = |word: &str| {
        let mut buffer = [0; 4096];
        until("a message of that word", || {
            let length = socket.recv(&mut buffer).expect("a message");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            text.lines().any(|line| line == word).then_some(text)
        })
    };
    let config = plain(&[&origin], "watch = \"off\"");
    let weir = Weir::start_with(&config, |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    next("READY=1");
    weir.signal(libc::SIGHUP);
    let reloading = next("RELOADING=1");
    assert!(
        reloading.contains("MONOTONIC_USEC="),
        "Type=notify-reload wants it: {reloading}"
    );
    next("READY=1");
    weir.write("nonsense = ");
    weir.signal(libc::SIGHUP);
    next("RELOADING=1");
    next("READY=1");
    weir.signal(libc::SIGTERM);
    next("STOPPING=1");
    weir.await_exit();
    std::fs::remove_file(&path).unwrap();
}

/// The body of the first answer that weir gives, asked as early as it listens, and how long it took from the start.
fn first_answer(slow: &Origin, quick: &Origin, health: &str) -> (String, Duration) {
    let config = plain(&[slow, quick], "").replace("health.type = \"none\"\n", health);
    let started = Instant::now();
    let weir = Weir::launch(&config, |_| {});
    let mut client = until("a connection", || {
        Client::try_connect(weir.address("web")).ok()
    });
    (client.ask(get("/")).text(), started.elapsed())
}

/// Answers probes after `wait`, everything else at once.
fn probed_after(wait: Duration, name: &'static str) -> (Origin, Arc<AtomicBool>) {
    let probed = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&probed);
    let origin = Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/healthz" {
                std::thread::sleep(wait);
                told.store(true, SeqCst);
            }
            visit.send(crate::support::origin::ok(name));
        }
    });
    (origin, probed)
}

const ASKED: &str = "health = { type = \"http\", path = \"/healthz\", timeout = \"5s\" }\n";

#[test]
fn nobody_is_served_before_the_first_verdicts() {
    let (slow, probed) = probed_after(Duration::from_millis(400), "slow");
    let quick = Origin::named("quick");
    first_answer(&slow, &quick, ASKED);
    assert!(
        probed.load(SeqCst),
        "an unknown backend may be the client's home"
    );
}

#[test]
fn a_silent_backend_holds_the_start_for_a_second_only() {
    let (silent, probed) = probed_after(Duration::from_secs(4), "silent");
    let quick = Origin::named("quick");
    let (served, took) = first_answer(&silent, &quick, ASKED);
    assert_eq!(served, "quick");
    assert!(!probed.load(SeqCst));
    assert!(took >= Duration::from_secs(1), "{took:?}");
}
