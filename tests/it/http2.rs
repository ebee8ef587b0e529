//! HTTP/2 toward clients: messages as they pass to an HTTP/1.1 backend and back, and what is refused.
//! Bodies, the life of a connection and abuse stand in files of their own.

mod abuse;
mod bodies;
mod connection;
mod programs;

use h2::Reason;
use http::Request;

use crate::support::http2::{
    self, END_HEADERS, END_STREAM, HEADERS, block, frame, head, post, post_frame, request,
};
use crate::support::origin::ok;
use crate::support::weir::plain;
use crate::support::{Message, Multiplexer, Origin, Weir, Wire};

#[track_caller]
fn multiplexer(weir: &Weir) -> Multiplexer {
    Multiplexer::connect(weir.address("web"))
}

#[track_caller]
fn wire(weir: &Weir) -> Wire {
    Wire::connect(weir.address("web"))
}

/// The origin's answers, by target.
fn answers() -> Origin {
    Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let answer = match request.target().as_str() {
                "/chunked" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n"
                }
                "/empty-chunked" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                }
                "/204" => "HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                "/close" => {
                    visit.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
                    return;
                }
                _ if request.method() == "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                _ => {
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\nhello"
                }
            };
            visit.send(answer);
        }
    })
}

#[test]
fn a_request_passes_as_http_1_has_it() {
    let origin = answers();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let question = request("GET", "/a/b?c=d&e")
        .header("accept", "text/html")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let answer = client.send(question, b"");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.value("content-length"), Some("5"));
    let cookies: Vec<_> = answer.head.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=b", "c=d"]);
    for hop in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert!(answer.value(hop).is_none(), "{hop}");
    }
    let request = origin.request();
    assert_eq!(request.first_line(), "GET /a/b?c=d&e HTTP/1.1");
    assert_eq!(request.value("host").as_deref(), Some("shop.example.com"));
    assert_eq!(request.value("accept").as_deref(), Some("text/html"));
    assert_eq!(
        request.value("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
    assert_eq!(request.value("x-forwarded-proto").as_deref(), Some("http"));
    assert!(!request.has("te") && !request.has("transfer-encoding"));
    let line = weir.access(|line| line["path"] == "/a/b?c=d&e");
    assert_eq!(
        (&line["version"], &line["status"]),
        (&"HTTP/2.0".into(), &200.into())
    );
}

#[test]
fn an_answer_ends_where_its_backend_says() {
    let origin = answers();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let chunked = client.get("/chunked");
    assert_eq!((chunked.status(), chunked.text().as_str()), (200, "abcde"));
    assert!(chunked.value("transfer-encoding").is_none());
    assert_eq!(chunked.trailers["x-sum"], "7");
    assert!(client.get("/empty-chunked").body.is_empty());
    assert_eq!(client.get("/close").text(), "until the end");
    let none = client.get("/204");
    assert_eq!((none.status(), none.value("etag")), (204, Some("x")));
    let same = client.get("/304");
    assert_eq!(
        (same.status(), same.value("content-length")),
        (304, Some("5"))
    );
    let head = client.send(request("HEAD", "/").body(()).unwrap(), b"");
    assert_eq!(
        (head.status(), head.value("content-length")),
        (200, Some("5"))
    );
    assert!(head.body.is_empty());
    // Only the one that ended with its connection cost one.
    assert_eq!(origin.connections(), 2);
}

/// However they come, and behind any body; what no trailer may be is a broken answer (RFC 9113 section 8.1).
#[test]
fn trailers_of_a_chunked_answer_follow_its_body() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let (body, section) = match request.target().as_str() {
                "/empty" => ("", "X-A:1\r\nx-b: \t two\r\nX-a: 3\r\n"),
                "/none" => ("2\r\nab\r\n", ""),
                "/bad" => ("2\r\nab\r\n", "Content-Length: 7\r\n"),
                _ => ("2\r\nab\r\n", "X-A: 1\r\nX-B: two\r\nX-A: 3\r\n"),
            };
            let end = format!("0\r\n{section}\r\n");
            match request.target().as_str() {
                "/drip" => {
                    visit.send([head, body].concat());
                    visit.drip(end);
                }
                _ => {
                    visit.send([head, body, &end].concat());
                }
            }
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    for _ in 0..2 {
        for (target, body) in [("/", "ab"), ("/drip", "ab"), ("/empty", "")] {
            let answer = client.get(target);
            assert_eq!(answer.text(), body, "{target}");
            let values: Vec<_> = answer.trailers.get_all("x-a").iter().collect();
            assert_eq!(values, ["1", "3"], "{target}");
            assert_eq!(answer.trailers["x-b"], "two", "{target}");
            assert_eq!(answer.trailers.len(), 3);
        }
        let none = client.get("/none");
        assert_eq!((none.text().as_str(), none.trailers.len()), ("ab", 0));
    }
    assert_eq!(origin.connections(), 1);
    let broken = client.try_send(http2::get("/bad"), b"");
    assert!(broken.is_err() || broken.unwrap().status() == 502);
    // HTTP/1.0 knows none, and gets the body alone.
    let (bytes, _) = weir.client().send("GET /drip HTTP/1.0\r\n\r\n").rest();
    assert!(bytes.ends_with(b"\r\n\r\nab"), "{bytes:?}");
}

/// What HTTP/1.1 has no words for in one line is told by its framing.
#[test]
fn a_body_is_framed_as_its_head_says() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let known = request("POST", "/known").header("content-length", "5");
    assert!(
        client
            .send(known.body(()).unwrap(), b"hello")
            .text()
            .ends_with("\r\n\r\nhello")
    );
    assert!(
        client
            .send(post("/unknown"), b"hello")
            .text()
            .ends_with("\r\n\r\nhello")
    );
    let empty = request("POST", "/empty").header("content-length", "0");
    assert_eq!(client.send(empty.body(()).unwrap(), b"").status(), 200);
    assert_eq!(client.send(post("/none"), b"").status(), 200);
    let seen: Vec<Message> = origin.requests();
    assert_eq!(seen[0].value("content-length").as_deref(), Some("5"));
    assert!(!seen[0].has("transfer-encoding"));
    assert_eq!(
        seen[1].value("transfer-encoding").as_deref(),
        Some("chunked")
    );
    assert!(!seen[1].has("content-length"));
    assert_eq!(seen[2].value("content-length").as_deref(), Some("0"));
    assert!(!seen[3].has("transfer-encoding"), "{:?}", seen[3].fields());
}

#[test]
fn trailers_of_a_request_follow_its_chunks() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let (answer, mut stream) = client.begin(post("/"), false);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    trailers.insert("x-forwarded-for", "1.1.1.1".parse().unwrap());
    trailers.insert("content-length", "3".parse().unwrap());
    let answer = client.wait(async {
        stream.send_data("abc".into(), false).unwrap();
        stream.send_trailers(trailers).unwrap();
        http2::read(answer).await.unwrap()
    });
    assert!(answer.text().ends_with("\r\n\r\nabc"));
    let request = origin.request();
    assert_eq!(request.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let origin = Origin::start(|visit| {
        let mut request = visit.head().unwrap();
        visit.send(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        );
        visit.body(&mut request).unwrap();
        visit.send(ok(request.body));
    });
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let question = request("POST", "/").header("expect", "100-continue");
    let (mut answer, mut stream) = client.begin(question.body(()).unwrap(), false);
    let mut hints = Vec::new();
    let answer = client.wait(async {
        while hints.len() < 2 {
            let interim = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
            hints.push(interim.expect("an interim answer").unwrap());
        }
        stream.send_data("now".into(), true).unwrap();
        http2::read(answer).await.unwrap()
    });
    assert_eq!(hints[0].status(), 103);
    assert_eq!(hints[0].headers()["link"], "</a.css>");
    assert_eq!(hints[1].status(), 100);
    assert_eq!(answer.text(), "now");
}

#[test]
fn crumbs_of_a_cookie_become_one_line() {
    let origin = answers();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let crumbs = request("GET", "/")
        .header("cookie", "a=b")
        .header("x-between", "1")
        .header("cookie", "c=d; e=f");
    client.send(crumbs.body(()).unwrap(), b"");
    assert_eq!(
        origin.request().value("cookie").as_deref(),
        Some("a=b; c=d; e=f")
    );
}

#[test]
fn there_is_one_authority() {
    let origin = answers();
    let weir = Weir::before(&[&origin]);
    let ask = |fields: &[(&str, &str)]| {
        let mut wire = wire(&weir);
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        let block = block(&[&pseudo[..], fields].concat());
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block));
        wire.await_frame(HEADERS).payload[0]
    };
    // Indexed `:status: 200` and `:status: 400` (RFC 7541 appendix A).
    let (fine, refused) = (0x88, 0x8c);
    assert_eq!(ask(&[(":authority", "a.example.com")]), fine);
    assert_eq!(ask(&[("host", "b.example.com")]), fine);
    assert_eq!(
        ask(&[(":authority", "c.example.com"), ("host", "c.example.com")]),
        fine
    );
    assert_eq!(
        ask(&[(":authority", "d.example.com"), ("host", "x.example.com")]),
        refused
    );
    assert_eq!(
        ask(&[("host", "e.example.com"), ("host", "e.example.com")]),
        refused
    );
    assert_eq!(ask(&[(":authority", "user@f.example.com")]), refused);
    assert_eq!(ask(&[]), refused);
    let hosts: Vec<_> = (origin.requests().iter())
        .map(|it| it.value("host").unwrap())
        .collect();
    assert_eq!(hosts, ["a.example.com", "b.example.com", "c.example.com"]);
}

/// RFC 9113 sections 8.1.1 to 8.3: a malformed request is an error of its stream, and no backend hears of it.
#[test]
fn a_malformed_request_is_refused_alone() {
    let origin = answers();
    let weir = Weir::before(&[&origin]);
    let mut wire = wire(&weir);
    let mut stream = 1;
    let whole = |fields: &[(&str, &str)]| {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "a")];
        block(&[&pseudo[..], fields].concat())
    };
    for fields in [
        whole(&[(":path", "/"), ("connection", "close")]),
        whole(&[(":path", "/"), ("transfer-encoding", "chunked")]),
        whole(&[(":path", "/"), ("upgrade", "h2c")]),
        whole(&[(":path", "/"), ("keep-alive", "5")]),
        whole(&[(":path", "/"), ("proxy-connection", "close")]),
        whole(&[(":path", "/"), ("te", "gzip")]),
        whole(&[(":path", "/"), ("x-a", "1"), (":method", "GET")]),
        whole(&[(":path", "/"), (":path", "/b")]),
        whole(&[(":path", "/"), (":status", "200")]),
        whole(&[(":path", "/"), ("content-length", "5")]),
        whole(&[(":path", "/"), ("content-length", "x")]),
        whole(&[(":path", "")]),
        whole(&[]),
        block(&[(":method", "GET"), (":path", "/"), (":authority", "a")]),
        block(&[(":scheme", "http"), (":path", "/"), (":authority", "a")]),
    ] {
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, fields));
        wire.expect_reset(stream, Reason::PROTOCOL_ERROR);
        stream += 2;
    }
    wire.send(http2::get_frame(stream));
    assert_eq!(wire.await_on(HEADERS, stream).payload[0], 0x88);
    // For a field that cannot be one the codec gives up the connection.
    for field in [("X-Upper", "1"), (":unknown", "1"), ("x y", "1"), ("", "1")] {
        let mut wire = self::wire(&weir);
        let fields = whole(&[(":path", "/"), field]);
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, fields));
        wire.expect_goaway(Reason::PROTOCOL_ERROR);
    }
    assert_eq!(origin.hits(), 1);
}

/// What HTTP/2 lets pass and HTTP/1.1 could read as something else is answered 400.
#[test]
fn nothing_is_smuggled_into_http_1() {
    let origin = answers();
    let weir = Weir::before(&[&origin]);
    for (target, more) in [
        ("/", ("x-a", "b\r\nx-smuggled: 1")),
        ("/", ("x-a", "b\nc")),
        ("/", ("x-a", "b\0c")),
        ("/", ("x-a", " padded")),
        ("/ HTTP/1.1\r\nx-smuggled: 1\r\n", ("x-a", "b")),
        ("/a b", ("x-a", "b")),
        ("http://other/", ("x-a", "b")),
        ("*", ("x-a", "b")),
        ("relative", ("x-a", "b")),
        ("/public/..;/manager", ("x-a", "b")),
        ("/%2e%2e/manager", ("x-a", "b")),
    ] {
        let mut wire = wire(&weir);
        let fields = head("GET", target, &[more]);
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, fields));
        let answer = loop {
            match wire.frame().expect("an answer") {
                frame if frame.stream == 1 || frame.kind == http2::GOAWAY => break frame,
                _ => {}
            }
        };
        let refused = match answer.kind {
            HEADERS => answer.payload[0] == 0x8c,
            _ => http2::code_of(&answer) == Reason::PROTOCOL_ERROR,
        };
        assert!(refused, "{target:?} {more:?}: {answer:?}");
    }
    assert_eq!(origin.hits(), 0, "{:?}", origin.requests());
}

#[test]
fn other_methods_and_targets_pass() {
    let origin = answers();
    let weir = Weir::before(&[&origin]);
    for (method, target) in [
        ("OPTIONS", "*"),
        ("PURGE", "/"),
        ("DELETE", "/a;b=c/d?e;f"),
        ("GET", "/%7Euser/%41?q=%00"),
        ("GET", "/a?b=http://c/"),
    ] {
        let mut wire = wire(&weir);
        let fields = head(method, target, &[]);
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, fields));
        assert_eq!(
            wire.await_frame(HEADERS).payload[0],
            0x88,
            "{method} {target}"
        );
        let last = origin.requests().pop().unwrap();
        assert_eq!(
            (last.method().as_str(), last.target().as_str()),
            (method, target)
        );
    }
    let mut client = multiplexer(&weir);
    let connect = Request::builder()
        .method("CONNECT")
        .uri("a.example.com:443");
    let answer = client.send(connect.body(()).unwrap(), b"");
    assert_eq!(answer.status(), 405);
}

/// RFC 9113 section 8.1.1: a body that is not as long as its head says is never taken for a whole one.
#[test]
fn a_body_of_another_length_is_no_request() {
    for (length, sent) in [("5", "four"), ("5", "six, or"), ("0", "some")] {
        let origin = Origin::start(|visit| {
            let _ = visit.request();
            visit.stall();
        });
        let weir = Weir::before(&[&origin]);
        let mut wire = wire(&weir);
        wire.send(post_frame(1, &[("content-length", length)]));
        wire.send(frame(http2::DATA, END_STREAM, 1, sent));
        wire.expect_reset(1, Reason::PROTOCOL_ERROR);
        wire.expect_pong();
        crate::support::until("the backend's connection to close", || {
            (origin.open() == 0).then_some(())
        });
        if length == "5" {
            assert_eq!(origin.hits(), 0, "{length} {sent}");
        }
    }
}

#[test]
fn a_head_has_the_limits_of_http_1() {
    let origin = answers();
    let config = plain(&[&origin], "[limits]\nhead = \"8KiB\"\nheader_lines = 20\n");
    let weir = Weir::start(&config);
    let mut client = multiplexer(&weir);
    let with = |fields: usize, size: usize| {
        let names = (0..fields).map(|at| format!("x-{at}"));
        names
            .fold(request("GET", "/"), |request, name| {
                request.header(name, "v".repeat(size))
            })
            .body(())
            .unwrap()
    };
    assert_eq!(client.send(with(19, 10), b"").status(), 200);
    assert_eq!(client.send(with(20, 10), b"").status(), 431);
    assert_eq!(client.send(with(1, 7000), b"").status(), 200);
    assert_eq!(client.send(with(1, 9000), b"").status(), 431);
    assert_eq!(client.get("/").status(), 200);
    // Both are seen, like those of HTTP/1.
    for (reason, count) in [("head_too_large", 1.0), ("too_many_lines", 1.0)] {
        weir.settles("weir_http_refused_total", &[("reason", reason)], count);
    }
    weir.access(|line| line["status"] == 431 && line["error"] == "head_too_large");
}

#[test]
fn a_fields_count_is_limited_by_default() {
    let origin = answers();
    let weir = Weir::before(&[&origin]);
    let mut client = multiplexer(&weir);
    let with = |fields: usize| {
        (0..fields)
            .fold(request("GET", "/"), |request, at| {
                request.header(format!("x-{at}"), "v")
            })
            .body(())
            .unwrap()
    };
    assert_eq!(client.send(with(127), b"").status(), 200);
    assert_eq!(client.send(with(128), b"").status(), 431);
}
