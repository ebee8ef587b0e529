//! The admin server as its clients see it, over real sockets.
//! It is compiled for tests only.
//! Nothing follows from here.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::channel;

use serde_json::Value;

use super::*;
use crate::control::sample::{self, Ends};
use crate::control::shared::{Lifecycle, Refusal, Reloaded};
use crate::policy::health::Health;
use crate::state::access_log;
use crate::state::sample::loopback;

/// A server on a Unix socket of its own.
struct Desk {
    server: Server,
    path: PathBuf,
    ends: Ends,
}

fn desk(name: &str) -> Desk {
    let (shared, ends) = sample::shared(&[("was", &[loopback(1), loopback(2)])]);
    let queue = access_log::Queue::new().0;
    let metrics = Metrics::new(shared.clone(), channel().1, queue);
    let context = Context {
        shared,
        metrics: metrics.unwrap(),
    };
    let path = std::env::temp_dir().join(format!("weir-{}-{name}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let prepared = Prepared::new(&at(AdminBind::Unix(path.clone())), None, None).unwrap();
    Desk {
        server: Server::start(prepared, context),
        path,
        ends,
    }
}

fn at(bind: AdminBind) -> Admin {
    Admin {
        bind,
        token_file: None,
    }
}

/// An answer taken apart.
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a body of JSON")
    }

    fn has(&self, line: &str) -> bool {
        self.head
            .lines()
            .any(|found| found.eq_ignore_ascii_case(line))
    }
}

fn read(mut stream: impl Read) -> Answered {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    Answered {
        status: head[9..12].parse().unwrap(),
        head: head.into(),
        body: body.into(),
    }
}

async fn ask(desk: &Desk, request: &'static str) -> Answered {
    let path = desk.path.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        read(stream)
    });
    asked.await.unwrap()
}

#[tokio::test]
async fn what_every_prober_wants_to_know() {
    let desk = desk("probers");
    let metrics = ask(&desk, "GET /metrics HTTP/1.1\r\nHost: anything\r\n\r\n").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.has("content-type: text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.has("connection: close"), "{}", metrics.head);
    assert!(metrics.body.contains("weir_config_generation 1\n"));
    let health = ask(&desk, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!((health.status, &*health.body), (200, "ok\n"));
    let head = ask(&desk, "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((head.status, &*head.body), (200, ""));
    assert!(head.head.to_lowercase().contains("content-length: "));
    let root = ask(&desk, "GET /?x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    for path in [
        "/metrics",
        "/healthz",
        "/readyz",
        "/api/v1/status",
        "/api/v1/diff",
        "/api/v1/reload",
        "/api/v1/pools/{pool}/backends/{backend}/{drain|ready|maint}",
    ] {
        assert!(root.body.contains(path), "{path}");
    }
}

#[tokio::test]
async fn readiness_follows_the_lifecycle() {
    let desk = desk("ready");
    const READYZ: &str = "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
    for (lifecycle, status, reason) in [
        (
            Lifecycle::Starting,
            503,
            Value::from("not every backend has its first verdict"),
        ),
        (Lifecycle::Ready, 200, Value::Null),
        (Lifecycle::Draining, 503, Value::from("draining")),
    ] {
        desk.ends.lifecycle.send_replace(lifecycle);
        let answered = ask(&desk, READYZ).await;
        assert_eq!(answered.status, status);
        assert_eq!(answered.json()["ready"], status == 200);
        assert_eq!(answered.json()["reason"], reason);
        assert!(answered.has("cache-control: no-store"));
    }
}

#[tokio::test]
async fn the_status_names_everything() {
    let desk = desk("status");
    {
        let snapshot = desk.ends.current.borrow();
        snapshot.pools[0].backends[0]
            .live
            .set_health(Health::Up, crate::clock::now());
    }
    desk.ends.reload.send_modify(|reload| {
        reload.refusal = Some(Refusal {
            text: "error: \"no\"".into(),
            wall_millis: 951_782_400_000,
        });
    });
    let status = ask(
        &desk,
        "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert_eq!(status.status, 200);
    let status = status.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["generation"], 1);
    assert_eq!(status["lifecycle"], "ready");
    assert_eq!(status["last_reload"]["ok"], false);
    assert_eq!(status["last_reload"]["at"], "2000-02-29T00:00:00.000Z");
    assert_eq!(status["last_reload"]["error"], "error: \"no\"");
    assert_eq!(status["listeners"][0]["addresses"][0], "127.0.0.1:8080");
    assert_eq!(status["routes"][0]["pool"], "was");
    let backends = &status["pools"][0]["backends"];
    assert_eq!(backends[0]["health"], "up");
    assert_eq!(backends[0]["effective"], "up");
    assert_eq!(backends[1]["name"], "127.0.0.1:2");
    assert_eq!(backends[1]["effective"], "unknown");
    assert_eq!(backends[1]["connections"]["reused"], 0);
}

#[tokio::test]
async fn a_reload_waits_for_its_outcome() {
    let mut desk = desk("reload");
    const RELOAD: &str = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let reloaded = Reloaded {
        generation: 2,
        summary: "pool was: 1 backend added".into(),
        warnings: Vec::new(),
        report: Default::default(),
    };
    let refusal = Refusal {
        text: "error[E0101]: no such pool".into(),
        wall_millis: 0,
    };
    for (outcome, status) in [(Ok(reloaded), 200), (Err(refusal), 422)] {
        let asked = {
            let path = desk.path.clone();
            tokio::task::spawn_blocking(move || {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.write_all(RELOAD.as_bytes()).unwrap();
                read(stream)
            })
        };
        let request = desk.ends.requests.recv().await.unwrap();
        request.reply.send(outcome).unwrap();
        let answered = asked.await.unwrap();
        assert_eq!(answered.status, status);
        if status == 200 {
            assert_eq!(answered.json()["generation"], 2);
        } else {
            assert!(answered.has("content-type: application/problem+json"));
            assert_eq!(answered.json()["detail"], "error[E0101]: no such pool");
        }
    }
    drop(std::mem::replace(
        &mut desk.ends.requests,
        tokio::sync::mpsc::channel(1).1,
    ));
    assert_eq!(
        ask(&desk, RELOAD).await.status,
        503,
        "nobody reloads any more"
    );
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let desk = desk("problems");
    let missing = ask(&desk, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["title"], "Not Found");
    assert_eq!(missing.json()["status"], 404);
    let post = ask(
        &desk,
        "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(post.status, 405);
    assert!(post.has("allow: GET, HEAD"), "{}", post.head);
    let get = ask(
        &desk,
        "GET /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert_eq!(get.status, 405);
    assert!(get.has("allow: POST"), "{}", get.head);
    let foreign = ask(
        &desk,
        "GET /api/v1/status HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
    )
    .await;
    assert_eq!(foreign.status, 403);
}

#[tokio::test]
async fn an_endless_head_is_cut() {
    let desk = desk("head");
    let path = desk.path.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        let line = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(2 * HEAD));
        // The server may have closed before the last byte is written.
        let _ = stream.write_all(line.as_bytes());
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    });
    let text = asked.await.unwrap();
    assert!(
        text.is_empty() || text.starts_with("HTTP/1.1 431"),
        "{text}"
    );
}

#[tokio::test]
async fn a_generation_moves_the_address_or_keeps_the_socket() {
    let mut desk = desk("switch");
    const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let same = at(AdminBind::Unix(desk.path.clone()));
    let kept = Prepared::new(&same, Some(&desk.server), None).unwrap();
    desk.server.switch(kept);
    assert_eq!(ask(&desk, HEALTHZ).await.status, 200);

    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let moved = at(AdminBind::Tcp(port));
    drop(Prepared::new(&moved, Some(&desk.server), None).unwrap());
    assert_eq!(
        ask(&desk, HEALTHZ).await.status,
        200,
        "what is only prepared changes nothing"
    );
    let prepared = Prepared::new(&moved, Some(&desk.server), None).unwrap();
    desk.server.switch(prepared);
    let asked = tokio::task::spawn_blocking(move || over_tcp(port, HEALTHZ));
    assert_eq!(asked.await.unwrap().status, 200);
    // The old task ends at its next turn, and its file with it.
    while desk.path.exists() {
        tokio::task::yield_now().await;
    }
}

fn over_tcp(address: SocketAddr, request: &str) -> Answered {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    read(stream)
}
