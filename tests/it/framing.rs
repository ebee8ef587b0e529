//! Well-formed messages pass byte for byte, however they are cut into segments, and connections are used again.

use crate::support::message::{Fault, Message};
use crate::support::origin::ok;
use crate::support::random::Random;
use crate::support::weir::{get, post};
use crate::support::{Origin, Weir, until};

const HOST: &str = "Host: shop.example.com\r\n";

#[test]
fn both_sides_keep_their_connections() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for count in 0..10 {
        let answer = client.ask(get(&format!("/{count}")));
        assert!(
            answer
                .text()
                .starts_with(&format!("GET /{count} HTTP/1.1\r\n"))
        );
        assert!(
            !answer.has("connection"),
            "nothing to say about the connection"
        );
    }
    assert_eq!((origin.hits(), origin.connections()), (10, 1));
    assert_eq!(weir.get("/other").status(), 200);
    assert_eq!(
        origin.connections(),
        1,
        "another client uses the same upstream connection"
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let requests: Vec<String> = (0..20)
        .map(|count| match count % 3 {
            0 => get(&format!("/{count}")),
            1 => post(&format!("/{count}"), &"x".repeat(count * 100)),
            _ => format!("POST /{count} HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        })
        .collect();
    client.send(requests.concat());
    for count in 0..20 {
        let answer = client.answer();
        let line = answer.text().split(" HTTP/1.1").next().unwrap().to_owned();
        assert!(
            line.ends_with(&format!(" /{count}")),
            "the answer to {count} is to {line}"
        );
    }
    let targets: Vec<String> = origin.requests().iter().map(Message::target).collect();
    assert_eq!(
        targets,
        (0..20).map(|count| format!("/{count}")).collect::<Vec<_>>()
    );
}

#[test]
fn what_stands_before_a_fault_is_answered_and_what_stands_behind_is_not() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(
        [
            &get("/1"),
            &get("/2"),
            "GET / HTTP/1.1\r\nbad line\r\n\r\n",
            &get("/3"),
        ]
        .concat(),
    );
    assert_eq!(client.answer().status(), 200);
    assert_eq!(client.answer().status(), 200);
    assert_eq!(client.answer().status(), 400);
    client.finish().expect_close();
    assert_eq!(origin.hits(), 2);
}

#[test]
fn bodies_of_known_length_are_exact() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(ok(request.body));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let mut random = Random(1);
    for length in [
        0, 1, 2, 127, 1024, 1025, 16_384, 65_535, 65_536, 139_264, 139_265, 300_000,
    ] {
        let body = random.bytes(length);
        let head = format!("PUT / HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n");
        client.send([head.as_bytes(), &body].concat());
        let answer = client.answer();
        assert!(answer.body == body, "{length} bytes differ");
        assert!(origin.requests().last().unwrap().body == body);
    }
    assert_eq!(origin.connections(), 1);
}

/// Bodies whose framing is odd and correct.
const CHUNKED_BODIES: [&str; 6] = [
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "1\r\na\r\n1\r\nb\r\n00003\r\ncde\r\n000\r\n\r\n",
    "A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n",
    "5;name=value;other=\"quo;ted\"\r\nhello\r\n0;last\r\n\r\n",
    "5\r\n0\r\n\r\n\r\n0\r\nX-Sum: 1\r\nX-More: a, b\r\n\r\n",
];

#[test]
fn chunks_pass_untouched() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            visit.send([head.as_bytes(), &request.raw_body].concat());
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for body in CHUNKED_BODIES {
        let answer = client.ask(format!(
            "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}"
        ));
        let sent = origin.requests().pop().unwrap();
        assert_eq!(sent.raw_body, body.as_bytes(), "toward the origin");
        assert_eq!(answer.raw_body, body.as_bytes(), "toward the client");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn trailers_are_kept() {
    let origin = Origin::start(|visit| {
        while visit.request().is_ok() {
            visit.send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 9\r\n\r\n");
        }
    });
    let weir = Weir::before(&[&origin]);
    let request = format!(
        "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-Mine: 8\r\n\r\n"
    );
    let answer = weir.client().ask(request);
    assert_eq!(answer.trailers, [("X-Sum".to_owned(), "9".to_owned())]);
    assert_eq!(
        origin.request().trailers,
        [("X-Mine".to_owned(), "8".to_owned())]
    );
}

#[test]
fn an_answer_that_ends_with_its_connection_arrives_whole() {
    let origin = Origin::start(|visit| {
        let Ok(request) = visit.request() else { return };
        let version = if request.target() == "/old" {
            "1.0"
        } else {
            "1.1"
        };
        visit.send(format!("HTTP/{version} 200 OK\r\n\r\n"));
        for _ in 0..10 {
            visit.send([b'x'; 10_000]);
        }
    });
    let weir = Weir::before(&[&origin]);
    for target in ["/", "/old"] {
        let mut client = weir.client();
        let answer = client.ask(get(target));
        assert_eq!(answer.body.len(), 100_000);
        if answer.has("transfer-encoding") {
            assert_eq!(client.ask(get("/")).body.len(), 100_000);
        } else {
            assert_eq!(answer.value("connection").as_deref(), Some("close"));
        }
        let mut old = weir.client();
        old.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let answer = old.answer();
        assert_eq!(answer.body.len(), 100_000);
        assert!(!answer.has("transfer-encoding"));
    }
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(match request.target().as_str() {
                "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n",
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/none" => "HTTP/1.1 200 OK\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
            });
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for (method, target, length) in [
        ("HEAD", "/length", Some("1234")),
        ("HEAD", "/chunked", None),
        ("HEAD", "/none", None),
        ("HEAD", "/304", Some("1234")),
        ("GET", "/304", Some("1234")),
        ("GET", "/204", None),
    ] {
        client.send(format!("{method} {target} HTTP/1.1\r\n{HOST}\r\n"));
        let answer = client.answer_to_head();
        assert_eq!(
            answer.value("content-length").as_deref(),
            length,
            "{method} {target}"
        );
        assert_eq!(
            client.ask(get("/next")).text(),
            "fine",
            "after {method} {target}"
        );
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn interim_answers_are_passed_on() {
    let origin = Origin::start(|visit| {
        while visit.request().is_ok() {
            visit.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
            visit.send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for _ in 0..2 {
        client.send(get("/"));
        for link in ["</a.css>; rel=preload", "</b.css>; rel=preload"] {
            let hint = client.answer();
            assert_eq!(hint.status(), 103);
            assert_eq!(hint.value("link").as_deref(), Some(link));
        }
        assert_eq!(client.answer().text(), "fine");
    }
    let old = weir.client().ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.status(), 200, "HTTP/1.0 knows no interim answers");
}

#[test]
fn an_interim_answer_arrives_before_the_final_one_exists() {
    let origin = Origin::start(|visit| {
        let Ok(_) = visit.request() else { return };
        visit.send("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n");
        visit.request().ok();
        visit.send(ok("late"));
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    assert_eq!(client.ask(get("/")).status(), 103);
}

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: shop.example.com\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn continue_comes_from_the_origin() {
    let origin = Origin::start(|visit| {
        while let Ok(mut head) = visit.head() {
            assert_eq!(head.value("expect").as_deref(), Some("100-continue"));
            if visit.reader.buffer.is_empty() {
                visit.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            visit.body(&mut head).unwrap();
            visit.send(ok(head.body));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for _ in 0..2 {
        assert_eq!(client.ask(EXPECTING).status(), 100);
        assert_eq!(client.ask("hello").text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn weir_never_promises_to_continue_on_its_own() {
    let origin = Origin::start(|visit| {
        visit.head().ok();
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(EXPECTING);
    until("the head at the origin", || {
        (origin.hits() == 1).then_some(())
    });
    assert!(client.is_silent(std::time::Duration::from_millis(200)));
}

#[test]
fn a_final_answer_instead_of_continue() {
    let origin = Origin::start(|visit| {
        while let Ok(head) = visit.head() {
            if head.has("expect") {
                visit.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
                assert!(
                    visit.head().is_err(),
                    "a connection with half a request is not used again"
                );
            } else {
                visit.send(ok("fine"));
            }
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let answer = client.ask(EXPECTING);
    assert_eq!((answer.status(), answer.text().as_str()), (401, "no"));
    // Whether the five bytes still come is unknown, so that nothing more can be read here.
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    client.finish().expect_close();
    assert_eq!(weir.get("/").text(), "fine");
}

#[test]
fn a_client_that_does_not_wait_for_continue() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let mut answer = client.ask([EXPECTING, "hello"].concat());
    if answer.status() == 100 {
        answer = client.answer();
    }
    assert!(answer.text().ends_with("hello"));
    assert_eq!(client.ask(get("/next")).status(), 200);
}

#[test]
fn http_1_0_clients() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(match request.target().as_str() {
                "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n".to_vec(),
                _ => ok("fine"),
            });
        }
    });
    let weir = Weir::before(&[&origin]);

    let mut plain = weir.client();
    assert_eq!(plain.ask("GET / HTTP/1.0\r\n\r\n").text(), "fine");
    plain.expect_close();
    let request = origin.request();
    assert_eq!(request.first_line(), "GET / HTTP/1.1");
    assert!(
        request.value("host").is_some(),
        "HTTP/1.1 toward the origin needs a Host"
    );

    let mut kept = weir.client();
    for _ in 0..3 {
        let answer = kept.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(answer.text(), "fine");
        let says = answer.value("connection").unwrap_or_default();
        assert!(
            says.eq_ignore_ascii_case("keep-alive"),
            "Connection: {says}"
        );
    }

    let mut chunked = weir.client();
    let answer = chunked.ask("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(answer.text(), "abcde");
    assert!(!answer.has("transfer-encoding"));
    chunked.expect_close();
}

#[test]
fn every_form_of_target() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for (line, target, host) in [
        ("GET /a/b?c=d&e HTTP/1.1", "/a/b?c=d&e", "shop.example.com"),
        (
            "GET /a%20b?x=%00 HTTP/1.1",
            "/a%20b?x=%00",
            "shop.example.com",
        ),
        ("GET //a HTTP/1.1", "//a", "shop.example.com"),
        (
            "GET http://other.example:8080/a?b HTTP/1.1",
            "/a?b",
            "other.example:8080",
        ),
        ("GET HTTP://Other.Example/a HTTP/1.1", "/a", "Other.Example"),
        ("GET http://other.example HTTP/1.1", "/", "other.example"),
        (
            "GET http://other.example?b=c HTTP/1.1",
            "/?b=c",
            "other.example",
        ),
        ("OPTIONS * HTTP/1.1", "*", "shop.example.com"),
        (
            "OPTIONS http://other.example HTTP/1.1",
            "*",
            "other.example",
        ),
        ("PURGE /a HTTP/1.1", "/a", "shop.example.com"),
        ("get /a HTTP/1.1", "/a", "shop.example.com"),
        (
            "GET /?a=/../b;c HTTP/1.1",
            "/?a=/../b;c",
            "shop.example.com",
        ),
    ] {
        let answer = client.ask(format!("{line}\r\n{HOST}\r\n"));
        assert_eq!(answer.status(), 200, "{line}");
        let sent = origin.requests().pop().unwrap();
        assert_eq!(sent.target(), target, "{line}");
        assert_eq!(sent.method(), line.split(' ').next().unwrap());
        assert_eq!(sent.value("host").as_deref(), Some(host), "{line}");
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let chunk = format!(
                "{:x}\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
                request.body.len(),
                request.text()
            );
            visit.drip(format!("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for request in [
        post("/", "hello"),
        format!(
            "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=\"y\"\r\nllo\r\n0\r\nX-T: 1\r\n\r\n"
        ),
    ] {
        client.drip(&request);
        assert_eq!(client.answer().status(), 103);
        let answer = client.answer();
        assert_eq!(answer.text(), "hello");
        assert_eq!(answer.trailers.len(), 1);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_message_may_be_cut_anywhere() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                String::from_utf8_lossy(&request.raw_body)
            );
            let cut: usize = request.target().trim_start_matches('/').parse().unwrap();
            let (first, second) = answer.split_at(cut.min(answer.len()));
            visit.send(first);
            std::thread::sleep(std::time::Duration::from_micros(500));
            visit.send(second);
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let body = "2\r\nhe\r\n3;x\r\nllo\r\n0\r\nX-T: 1\r\n\r\n";
    for cut in 0..120 {
        let request =
            format!("POST /{cut} HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}");
        let (first, second) = request.split_at(cut.min(request.len()));
        client.send(first);
        std::thread::sleep(std::time::Duration::from_micros(500));
        client.send(second);
        assert_eq!(client.answer().raw_body, body.as_bytes(), "cut at {cut}");
    }
}

#[test]
fn close_is_for_one_side_only() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/close" {
                visit.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye");
                return;
            }
            visit.send(ok("fine"));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut closing = weir.client();
    let answer = closing.ask(format!("GET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"));
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    closing.expect_close();
    assert!(
        !origin
            .request()
            .values("connection")
            .contains(&"close".to_owned())
    );

    let mut kept = weir.client();
    assert_eq!(kept.ask(get("/close")).text(), "bye");
    assert_eq!(
        origin.connections(),
        1,
        "the client's close did not end the upstream connection"
    );
    assert_eq!(kept.ask(get("/")).text(), "fine");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn what_follows_close_is_not_served() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let last = format!("GET /last HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
    client.send([last, get("/behind")].concat());
    assert_eq!(client.answer().status(), 200);
    client.finish().expect_close();
    assert_eq!(origin.hits(), 1);
}

#[test]
fn an_origin_of_http_1_0() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/kept" {
                visit.send(
                    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nkept",
                );
            } else {
                visit.send("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine");
                return;
            }
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for text in ["kept", "kept", "fine", "fine", "kept"] {
        let answer = client.ask(get(&format!("/{text}")));
        assert_eq!(answer.text(), text);
        assert!(
            answer.first_line().starts_with("HTTP/1.1 "),
            "weir speaks for itself"
        );
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    // RFC 9112 section 2.2: at least one CRLF, which old clients send after a POST.
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    assert_eq!(client.ask(format!("\r\n{}", get("/"))).status(), 200);
    assert_eq!(
        client
            .ask(format!("{}\r\n{}", post("/", "x"), get("/")))
            .status(),
        200
    );
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn fields_pass_as_they_came() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let head = b"GET / HTTP/1.1\r\nhOsT: shop.example.com\r\nX-Empty:\r\nX-Twice: a\r\nx-twice: b\r\nX-Tab: a\tb\r\nX-High: \xe4\xff\r\nX-Many: a, b,, c\r\nX-Quote: \"a, b\"\r\n\r\n";
    assert_eq!(weir.client().ask(head).status(), 200);
    let request = origin.request();
    assert_eq!(request.values("x-empty"), [""]);
    assert_eq!(request.values("x-twice"), ["a", "b"]);
    assert_eq!(request.values("x-tab"), ["a\tb"]);
    assert_eq!(request.values("x-high"), ["\u{e4}\u{ff}"]);
    assert_eq!(request.values("x-many"), ["a, b,, c"]);
    assert_eq!(request.values("x-quote"), ["\"a, b\""]);
}

#[test]
fn a_large_head_passes() {
    let origin = Origin::answering(format!(
        "HTTP/1.1 200 OK\r\nX-Big: {}\r\nContent-Length: 4\r\n\r\nfine",
        "b".repeat(50_000)
    ));
    let weir = Weir::before(&[&origin]);
    let big = "a".repeat(60_000);
    let mut client = weir.client();
    for _ in 0..3 {
        let answer = client.ask(format!("GET / HTTP/1.1\r\n{HOST}X-Big: {big}\r\n\r\n"));
        assert_eq!(answer.text(), "fine");
        assert_eq!(answer.value("x-big").unwrap().len(), 50_000);
    }
    assert_eq!(origin.requests()[2].value("x-big").unwrap(), big);
}

#[test]
fn a_status_without_a_reason() {
    let origin = Origin::answering("HTTP/1.1 299 \r\nContent-Length: 4\r\n\r\nfine");
    let weir = Weir::before(&[&origin]);
    let answer = weir.get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (299, "fine"));
}

#[test]
fn an_early_answer_arrives_while_the_body_is_sent() {
    let origin = Origin::start(|visit| {
        let Ok(head) = visit.head() else { return };
        if head.method() == "POST" {
            visit.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
        } else {
            visit.send(ok("fine"));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(format!(
        "POST / HTTP/1.1\r\n{HOST}Content-Length: 50000000\r\n\r\n"
    ));
    for _ in 0..20 {
        if client.try_send(&[b'x'; 10_000]).is_err() {
            break;
        }
    }
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
    assert_eq!(weir.get("/").text(), "fine");
}

#[test]
fn a_request_cut_short_never_looks_whole() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    for beginning in [
        format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 50\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        format!(
            "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: b\r\n"
        ),
        format!("GET / HTTP/1.1\r\n{HOST}"),
    ] {
        let mut client = weir.client();
        client.send(&beginning).finish();
        match client.try_answer() {
            Ok(answer) => assert_eq!(answer.status(), 400, "{beginning:?}"),
            Err(fault) => assert!(
                matches!(fault, Fault::Closed | Fault::Reset),
                "{beginning:?}: {fault:?}"
            ),
        }
    }
    assert_eq!(origin.hits(), 0, "requests that the origin took for whole");
    until("the upstream connections to end", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_hint_is_no_leave_to_send_the_body() {
    let origin = Origin::start(|visit| {
        let Ok(_) = visit.head() else { return };
        visit.send("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n");
        visit.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    assert_eq!(client.ask(EXPECTING).status(), 103);
    assert_eq!(client.answer().status(), 401);
    // The client still waits for a 100, so that the next bytes are a request, or the five; weir cannot tell.
    client.send(get("/next"));
    let (rest, _) = client.finish().rest();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(origin.hits(), 1);
}

#[test]
fn an_answer_of_weirs_own_to_a_head_has_no_body() {
    let origin = Origin::named("fine");
    let config = crate::support::weir::plain(&[&origin], "");
    let weir = Weir::start(&config.replace("[[routes]]\n", "[[routes]]\npath = \"/here\"\n"));
    let mut client = weir.client();
    client.send("HEAD /lost HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!(answer.status(), 404);
    assert!(answer.has("content-length"));
    assert_eq!(client.ask(get("/here")).text(), "fine");
}

#[test]
fn thousands_of_pipelined_requests() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(crate::support::origin::ok(request.target()));
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let mut sender = client.reader.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let requests: Vec<String> = (0..3000).map(|count| get(&format!("/{count}"))).collect();
        std::io::Write::write_all(&mut sender, requests.concat().as_bytes())
    });
    for count in 0..3000 {
        assert_eq!(client.answer().text(), format!("/{count}"));
    }
    sending.join().unwrap().unwrap();
}
