//! HTTP/2 toward backends: messages of clients of every version, what is tried again elsewhere, what breaks, and how many connections there are.
//! The backends are the `h2` crate's server, or write frames themselves where no server would do what is asked.

mod connections;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderMap, HeaderValue, Response};

use crate::support::backend::{self, Asked, work};
use crate::support::http2::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, frame, post, push, read, request, settings,
};
use crate::support::message::Fault;
use crate::support::origin::Visit;
use crate::support::weir::{get, list};
use crate::support::{Backend, Client, Multiplexer, Origin, Weir, until};

/// In front of backends that speak HTTP/2; `head` stands before the listener.
fn config(backends: &[SocketAddr], head: &str) -> String {
    format!(
        "{head}\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n\
         [pools.was]\nprotocol = \"http2\"\nbackends = [{}]\nhealth.type = \"none\"\n",
        list(backends)
    )
}

fn before(backends: &[&Backend]) -> Weir {
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    Weir::start(&config(&addresses, ""))
}

fn multiplexer(weir: &Weir) -> Multiplexer {
    Multiplexer::connect(weir.address("web"))
}

/// Sends back what comes, with as many bytes in a trailer, and the trailers that came.
async fn echo(mut asked: Asked) {
    let mut answer = asked.begin();
    let mut total = 0;
    while let Some(Ok(piece)) = asked.request.body_mut().data().await {
        total += piece.len();
        let flow = asked.request.body_mut().flow_control();
        flow.release_capacity(piece.len()).unwrap();
        if push(&mut answer, piece.to_vec()).await.is_err() {
            return;
        }
    }
    let trailers = asked.request.body_mut().trailers().await;
    let mut trailers = trailers.ok().flatten().unwrap_or_default();
    trailers.insert("x-total", total.into());
    let _ = answer.send_trailers(trailers);
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let backend = Backend::start(echo);
    let weir = before(&[&backend]);
    let body = pattern(3_000_000);
    let mut client = weir.client();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut sending = Client::of(client.reader.stream.try_clone().unwrap());
    let sent = [head.as_bytes(), &body].concat();
    let sender = thread::spawn(move || sending.try_send(&sent));
    let answer = client.answer();
    sender.join().unwrap().unwrap();
    assert!(answer.body == body, "{} bytes", answer.body.len());
    assert_eq!(
        answer.value("transfer-encoding").as_deref(),
        Some("chunked")
    );
    assert_eq!(answer.trailers, [("x-total".into(), "3000000".into())]);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Late: 1\r\n\r\n";
    // An answer that begins before its request has ended ends the connection.
    assert_eq!(weir.client().ask(chunked).body, b"abcde");
    let mut client = multiplexer(&weir);
    let answer = client.send(post("/"), &body);
    assert!(answer.body == body, "{} bytes", answer.body.len());
    assert_eq!(answer.trailers["x-total"], "3000000");
    let (answer, mut stream) = client.begin(post("/"), false);
    stream.send_data("abc".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-late", HeaderValue::from_static("1"));
    stream.send_trailers(trailers).unwrap();
    let answer = client.wait(read(answer)).unwrap();
    assert_eq!(answer.trailers["x-late"], "1");
    assert_eq!(answer.trailers["x-total"], "3");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_backend_that_does_not_read_holds_its_client_back() {
    let backend = Backend::start(|asked| async move {
        let _stays = asked.request;
        std::future::pending().await
    });
    let weir = before(&[&backend]);
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let stream = &client.reader.stream;
    (stream.set_write_timeout(Some(Duration::from_millis(500)))).unwrap();
    let mut sent = 0;
    while sent < 100_000_000 {
        match std::io::Write::write(&mut &*stream, &[b'x'; 65536]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    // What the kernel's buffers of both ends hold, and little beside it.
    assert!(sent < 20_000_000, "{sent} bytes were taken");
    assert!(weir.resident() < 100_000, "{} KiB", weir.resident());
}

#[test]
fn a_client_that_does_not_read_holds_its_backend_back() {
    let backend = Backend::start(|mut asked| async move {
        let mut answer = asked.begin();
        for _ in 0..10_000 {
            let piece = vec![b'x'; 10_000];
            if push(&mut answer, piece).await.is_err() {
                return;
            }
            asked.moved(10_000);
        }
    });
    let weir = before(&[&backend]);
    let mut client = weir.client();
    client.send(get("/"));
    client.answer_head();
    let mut last = 0;
    let settled = until("the backend stands still", || {
        let before = std::mem::replace(&mut last, backend.bytes());
        thread::sleep(Duration::from_millis(100));
        (before > 0 && before == backend.bytes()).then_some(before)
    });
    assert!(settled < 20_000_000, "{settled} bytes");
    // Another request on the same connection does not wait for it.
    assert!(weir.resident() < 100_000, "{} KiB", weir.resident());
    let mut other = weir.client();
    other.send(get("/"));
    assert_eq!(other.answer_head().status(), 200);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn interim_answers_pass() {
    let backend = Backend::start(|mut asked| async move {
        let hints = Response::builder().status(103).header("link", "</a.css>");
        let hints = hints.body(()).unwrap();
        asked.respond.send_informational(hints).unwrap();
        asked.answer(Response::new(()), "page").await;
    });
    let weir = before(&[&backend]);
    let mut client = weir.client();
    let hints = client.ask(get("/"));
    assert_eq!(hints.status(), 103);
    assert_eq!(hints.value("link").as_deref(), Some("</a.css>"));
    assert_eq!(client.answer().text(), "page");
    let mut client = multiplexer(&weir);
    let (mut answer, _) = client.begin(request("GET", "/").body(()).unwrap(), true);
    let hints = client.wait(std::future::poll_fn(|cx| answer.poll_informational(cx)));
    assert_eq!(hints.unwrap().unwrap().status(), 103);
    let answer = client.wait(read(answer)).unwrap();
    assert_eq!(answer.text(), "page");
    let mut old = weir.client();
    assert_eq!(old.ask("GET / HTTP/1.0\r\n\r\n").status(), 200);
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let backend = Backend::start(|mut asked| async move {
        assert_eq!(asked.request.headers()["expect"], "100-continue");
        let on = Response::builder().status(100).body(()).unwrap();
        asked.respond.send_informational(on).unwrap();
        echo(asked).await;
    });
    let weir = before(&[&backend]);
    let mut client = weir.client();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(client.ask(head).status(), 100);
    assert_eq!(client.ask("hello").text(), "hello");
}

#[test]
fn a_backend_that_never_asks_for_the_body_is_to_blame() {
    let backend = Backend::start(|asked| async move {
        let _stays = asked;
        std::future::pending().await
    });
    let times = "[timeouts]\nresponse = \"300ms\"\nbody_idle = \"20s\"";
    let weir = Weir::start(&config(&[backend.address], times));
    let mut client = weir.client();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(client.ask(head).status(), 504);
}

#[test]
fn answers_without_a_body_have_none() {
    let backend = Backend::start(|mut asked| async move {
        let path = asked.request.uri().path().to_owned();
        let answer = Response::builder().header("etag", "x");
        let answer = match path.as_str() {
            "/204" => answer.status(204),
            "/304" => answer.status(304).header("content-length", "5"),
            "/empty" => answer,
            "/length" => answer.header("content-length", "5"),
            _ => answer,
        };
        let is_bare = asked.request.method() == "HEAD" || path != "/length" && path != "/open";
        let body = if is_bare { "" } else { "hello" };
        asked.answer(answer.body(()).unwrap(), body).await;
    });
    let weir = before(&[&backend]);
    let mut client = weir.client();
    for (target, status) in [("/204", 204), ("/304", 304), ("/empty", 200)] {
        let answer = client.ask(get(target));
        assert_eq!(
            (answer.status(), answer.body.len()),
            (status, 0),
            "{target}"
        );
    }
    client.send("HEAD /length HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!(answer.value("content-length").as_deref(), Some("5"));
    client.send("HEAD /open HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().status(), 200);
    let answer = client.ask(get("/length"));
    assert_eq!(answer.value("content-length").as_deref(), Some("5"));
    assert_eq!(answer.text(), "hello");
    let mut old = weir.client();
    let answer = old.ask("GET /open HTTP/1.0\r\n\r\n");
    assert!(!answer.has("transfer-encoding"));
    assert_eq!(answer.text(), "hello");
    old.expect_close();
    let mut old = weir.client();
    let keep = "GET /length HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(old.ask(keep).text(), "hello");
    assert_eq!(old.ask(keep).text(), "hello");
    let mut client = multiplexer(&weir);
    for (target, status, body) in [
        ("/204", 204, ""),
        ("/304", 304, ""),
        ("/open", 200, "hello"),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status(), &*answer.text()), (status, body));
    }
}

#[test]
fn a_refused_request_goes_elsewhere_whatever_its_method() {
    let refusing = Backend::start(|mut asked| async move {
        asked.respond.send_reset(Reason::REFUSED_STREAM);
    });
    let good = Backend::start(echo);
    let weir = before(&[&refusing, &good]);
    let mut client = weir.client();
    for _ in 0..4 {
        let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nonce");
        assert_eq!((answer.status(), &*answer.text()), (200, "once"));
    }
    assert_eq!(good.requests(), 4);
    let refused = refusing.requests();
    assert!(refused > 0);
    weir.settles("weir_retries_total", &[], refused as f64);
    let mut client = multiplexer(&weir);
    for _ in 0..4 {
        assert_eq!(client.send(post("/"), b"once").text(), "once");
    }
    assert!(refusing.requests() > refused);
    weir.settles("weir_retries_total", &[], refusing.requests() as f64);
}

#[test]
fn another_reset_of_a_post_is_not_tried_again() {
    let breaking = Backend::start(|mut asked| async move {
        asked.respond.send_reset(Reason::CANCEL);
    });
    let good = Backend::start(echo);
    let weir = before(&[&breaking, &good]);
    let mut client = weir.client();
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nonce";
    let mut answers = [client.ask(post).status(), client.ask(post).status()];
    answers.sort();
    assert_eq!(answers, [200, 502]);
    assert_eq!(weir.metric("weir_retries_total", &[]), 0.0);
}

/// A server that writes frames itself: `script` gets the stream of each request whose head came.
fn raw(script: impl Fn(&mut Visit, u32) -> bool + Send + Sync + 'static) -> Origin {
    Origin::start(move |visit| {
        if backend::preface(visit).is_err() {
            return;
        }
        visit.send(settings(&[]));
        while let Ok(frame) = backend::frame(visit) {
            if frame.kind == HEADERS {
                visit.record_end();
                if !script(visit, frame.stream) {
                    return;
                }
            }
        }
    })
}

/// `:status 200` of HPACK's static table, and a body.
fn answer_frames(stream: u32, body: &str) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, stream, [0x88]),
        frame(DATA, END_STREAM, stream, body),
    ]
    .concat()
}

fn goaway(last: u32, code: Reason) -> Vec<u8> {
    let payload = [last.to_be_bytes(), u32::from(code).to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, payload)
}

#[test]
fn what_a_leaving_backend_did_not_take_goes_elsewhere() {
    let leaving = raw(|visit, _| {
        visit.send(goaway(0, Reason::NO_ERROR));
        while backend::frame(visit).is_ok() {}
        false
    });
    let good = raw(|visit, stream| visit.send(answer_frames(stream, "good")));
    let weir = Weir::start(&config(&[leaving.address, good.address], ""));
    let mut client = multiplexer(&weir);
    for _ in 0..4 {
        assert_eq!(client.send(post("/"), b"once").text(), "good");
    }
    assert!(leaving.hits() > 0);
    assert_eq!(good.hits(), 4);
    weir.settles("weir_retries_total", &[], leaving.hits() as f64);
}

#[test]
fn a_leaving_backend_ends_what_it_took() {
    let leaving = raw(|visit, stream| {
        visit.send(goaway(stream, Reason::NO_ERROR));
        visit.send(answer_frames(stream, "last"));
        while backend::frame(visit).is_ok() {}
        false
    });
    let weir = Weir::start(&config(&[leaving.address], ""));
    let mut client = weir.client();
    for _ in 0..3 {
        assert_eq!(client.ask(get("/")).text(), "last");
    }
    assert_eq!(leaving.connections(), 3);
    until("what was left is closed", || {
        (leaving.open() == 0).then_some(())
    });
    assert_eq!(weir.metric("weir_retries_total", &[]), 0.0);
}

#[test]
fn a_backend_that_goes_without_a_word_is_not_asked_twice() {
    let gone = raw(|_, _| false);
    let good = raw(|visit, stream| visit.send(answer_frames(stream, "good")));
    let weir = Weir::start(&config(&[gone.address, good.address], ""));
    let mut client = weir.client();
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nonce";
    let mut answers = [client.ask(post).status(), client.ask(post).status()];
    answers.sort();
    assert_eq!(answers, [200, 502]);
    assert_eq!((gone.hits(), good.hits()), (1, 1));
}

#[test]
fn a_backend_that_speaks_http_1_is_a_bad_one() {
    let old = Origin::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let weir = Weir::start(&config(&[old.address], ""));
    assert_eq!(weir.get("/").status(), 502);
    assert_eq!(multiplexer(&weir).get("/").status(), 502);
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_be_broken() {
    let backend = Backend::start(|mut asked| async move {
        let mut answer = Response::builder();
        if asked.request.uri().path() == "/length" {
            answer = answer.header("content-length", "10");
        }
        let answer = answer.body(()).unwrap();
        let mut stream = asked.respond.send_response(answer, false).unwrap();
        stream
            .send_data(Bytes::from_static(b"half"), false)
            .unwrap();
        work(Duration::from_millis(50)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    });
    let weir = before(&[&backend]);
    for target in ["/length", "/chunked"] {
        let mut client = weir.client();
        let fault = client.send(get(target)).try_answer().unwrap_err();
        assert!(
            matches!(fault, Fault::Truncated | Fault::Reset),
            "{fault:?}"
        );
        let error = multiplexer(&weir).try_send(request("GET", target).body(()).unwrap(), b"");
        assert!(error.unwrap_err().is_reset(), "{target}");
        let mut old = weir.client();
        old.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let (bytes, fault) = old.rest();
        // A length that is not reached says it; without one only a reset can.
        let is_told = bytes
            .windows(17)
            .any(|seen| seen.eq_ignore_ascii_case(b"content-length: 1"));
        assert!(is_told || fault == Fault::Reset, "{target}: {fault:?}");
    }
}

#[test]
fn an_early_answer_ends_a_request() {
    let backend = Backend::start(|mut asked| async move {
        let answer = Response::builder().status(403).body(()).unwrap();
        asked.answer(answer, "no").await;
        // Dropped, the rest of the request is refused with NO_ERROR (RFC 9113 section 8.1).
    });
    let weir = before(&[&backend]);
    let mut client = multiplexer(&weir);
    let (answer, mut stream) = client.begin(post("/"), false);
    stream.send_data("some".into(), false).unwrap();
    let answer = client.wait(read(answer)).unwrap();
    assert_eq!((answer.status(), &*answer.text()), (403, "no"));
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome");
    let answer = client.answer();
    assert_eq!((answer.status(), &*answer.text()), (403, "no"));
}

/// Sends `count` requests at once, each on a connection of its own; all must be answered.
fn burst(weir: &Weir, count: usize) {
    let mut clients: Vec<Client> = (0..count).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().status(), 200);
    }
}

fn busy(limit: u32) -> Backend {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(limit);
    Backend::start_with(&builder, |mut asked| async move {
        work(Duration::from_millis(100)).await;
        asked.answer(Response::new(()), "done").await;
    })
}

#[test]
fn a_burst_shares_one_connection() {
    let backend = busy(200);
    let weir = before(&[&backend]);
    burst(&weir, 40);
    assert_eq!(backend.connections(), 1);
    assert!(backend.at_once() > 10, "{}", backend.at_once());
    burst(&weir, 10);
    assert_eq!(backend.connections(), 1);
    weir.settles(
        "weir_backend_connections_total",
        &[("reused", "false")],
        1.0,
    );
    weir.settles(
        "weir_backend_connections_total",
        &[("reused", "true")],
        49.0,
    );
}

#[test]
fn what_a_backend_takes_at_once_is_kept_to() {
    for (limit, count) in [(1, 8), (10, 30)] {
        let backend = busy(limit);
        let weir = before(&[&backend]);
        burst(&weir, count);
        assert!(backend.at_once() <= limit as usize, "{}", backend.at_once());
        let connections = backend.connections();
        let wanted = count.div_ceil(limit as usize);
        assert!((2..=wanted).contains(&connections), "{connections}");
        assert_eq!(weir.metric("weir_retries_total", &[]), 0.0);
    }
}

#[test]
fn more_requests_than_places_wait() {
    let backend = busy(1);
    let weir = before(&[&backend]);
    burst(&weir, 100);
    assert!(backend.connections() <= 64, "{}", backend.connections());
    assert_eq!(backend.at_once(), 1);
}

#[test]
fn an_idle_connection_is_closed() {
    let backend = Backend::named("a");
    let times = "[timeouts]\nupstream_idle = \"300ms\"";
    let weir = Weir::start(&config(&[backend.address], times));
    assert_eq!(weir.get("/").text(), "a");
    assert_eq!(backend.open(), 1);
    until("the idle connection is closed", || {
        (backend.open() == 0).then_some(())
    });
    assert_eq!(weir.get("/").text(), "a");
}

#[test]
fn a_reload_keeps_connections_and_a_drain_ends_them() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let times = "[timeouts]\nupstream_idle = \"60s\"";
    let text = config(&[a.address, b.address], times);
    let weir = Weir::start(&text);
    burst(&weir, 4);
    assert_eq!((a.connections(), b.connections()), (1, 1));
    let generation = weir.generation();
    weir.write(&text.replace("60s", "61s"));
    weir.await_generation_after(generation);
    burst(&weir, 4);
    assert_eq!((a.connections(), b.connections()), (1, 1));
    let name = a.address.to_string().replace(':', "%3A");
    let answer = weir.post(&format!("/api/v1/pools/was/backends/{name}/drain"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    until("the drained backend's connection ends", || {
        (a.open() == 0).then_some(())
    });
    burst(&weir, 4);
    assert_eq!(a.connections(), 1);
    assert_eq!(b.connections(), 1);
}

#[test]
fn an_answer_head_has_limits() {
    let backend = Backend::start(|mut asked| async move {
        let mut answer = Response::new(());
        let fields = answer.headers_mut();
        match asked.request.uri().path() {
            "/large" => {
                let value = HeaderValue::from_str(&"x".repeat(70_000)).unwrap();
                fields.insert("x-large", value);
            }
            "/many" => {
                for ordinal in 0..200 {
                    fields.append("x-many", ordinal.into());
                }
            }
            _ => {
                let value = HeaderValue::from_str(&"x".repeat(50_000)).unwrap();
                fields.insert("x-fits", value);
            }
        }
        asked.answer(answer, "body").await;
    });
    let weir = before(&[&backend]);
    let mut client = weir.client();
    for (target, status) in [
        ("/fits", 200),
        ("/large", 502),
        ("/many", 502),
        ("/fits", 200),
    ] {
        assert_eq!(client.ask(get(target)).status(), status, "{target}");
    }
    let reason = [("reason", "answer_too_large")];
    weir.settles("weir_http_refused_total", &reason, 2.0);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn an_answer_shorter_than_it_says_is_broken() {
    let short = raw(|visit, stream| {
        // `content-length: 9` by a literal with the name of the static table.
        let head = [0x88, 0x0f, 0x0d, 0x01, b'9'];
        visit.send(frame(HEADERS, END_HEADERS, stream, head));
        visit.send(frame(DATA, END_STREAM, stream, b"short"));
        true
    });
    let weir = Weir::start(&config(&[short.address], ""));
    let mut client = weir.client();
    let fault = client.send(get("/")).try_answer();
    let is_broken = fault.map_or(true, |answer| answer.status() == 502);
    assert!(is_broken);
    let answer = multiplexer(&weir).try_send(request("GET", "/").body(()).unwrap(), b"");
    assert!(answer.map_or(true, |answer| answer.status() == 502));
}

#[test]
fn a_client_that_goes_resets_its_stream() {
    static RESETS: AtomicUsize = AtomicUsize::new(0);
    let backend = Backend::start(|mut asked| async move {
        let path = asked.request.uri().path().to_owned();
        if path == "/begun" {
            let mut answer = asked.begin();
            answer.send_data("x".into(), false).unwrap();
            let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
        } else {
            let _ = std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await;
        }
        RESETS.fetch_add(1, Ordering::SeqCst);
    });
    let weir = before(&[&backend]);
    let came = |count| {
        until("the request is at the backend", || {
            (backend.requests() == count).then_some(())
        })
    };
    let went = |count| {
        until("the backend hears of it", || {
            (RESETS.load(Ordering::SeqCst) == count).then_some(())
        })
    };
    let mut client = weir.client();
    client.send(get("/"));
    came(1);
    drop(client);
    went(1);
    let mut client = weir.client();
    client.send(get("/begun")).answer_head();
    drop(client);
    went(2);
    let mut client = multiplexer(&weir);
    let (answer, stream) = client.begin(post("/"), false);
    came(3);
    drop((answer, stream));
    went(3);
    assert_eq!(backend.open(), 1, "the connection stays");
    weir.settles("weir_backend_in_flight", &[], 0.0);
}

#[test]
fn a_call_has_its_deadline_from_weir_and_its_refusals_in_its_own_words() {
    let backend = Backend::start(|mut asked| async move {
        if asked.request.uri().path() == "/a.B/Begun" {
            let mut answer = asked.begin();
            answer.send_data("x".into(), false).unwrap();
            let () = std::future::pending().await;
        }
        let _stays = asked;
        std::future::pending().await
    });
    let weir = before(&[&backend]);
    let mut client = multiplexer(&weir);
    let call = |target: &str| {
        request("POST", target)
            .header("content-type", "application/grpc")
            .header("grpc-timeout", "300m")
            .header("te", "trailers")
            .body(())
            .unwrap()
    };
    let before = std::time::Instant::now();
    let answer = client.send(call("/a.B/Hang"), b"\0\0\0\0\0");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.value("grpc-status"), Some("4"));
    let took = before.elapsed();
    assert!((250..1000).contains(&took.as_millis()), "{took:?}");
    let answer = client.send(call("/a.B/Begun"), b"\0\0\0\0\0");
    assert_eq!(
        (&*answer.body, &answer.trailers["grpc-status"]),
        (&b"x"[..], &HeaderValue::from_static("4"))
    );
    drop(backend);
    let answer = client.send(call("/a.B/Gone"), b"\0\0\0\0\0");
    assert_eq!(answer.value("grpc-status"), Some("14"));
}
