//! What a hop adds and removes: hop-by-hop fields both ways, and who may say for whom a request is forwarded.

use crate::support::message::Message;
use crate::support::weir::{get, plain};
use crate::support::{Origin, Weir};

/// What the origin got for a GET with these field lines.
fn forwarded(weir: &Weir, origin: &Origin, lines: &str) -> Message {
    let request = format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\n{lines}\r\n");
    let answer = weir.client().ask(request);
    assert_eq!(answer.status(), 200, "{lines}");
    origin.requests().pop().unwrap()
}

#[test]
fn hop_by_hop_fields_of_a_request_end_here() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    let request = forwarded(
        &weir,
        &origin,
        "Connection: keep-alive, X-Named\r\nconnection: X-Too,,Upgrade , HTTP2-Settings\r\nKeep-Alive: timeout=5\r\n\
         X-Named: 1\r\nx-too: 2\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAA\r\nX-Stays: 3\r\nTrailer: X-T\r\n",
    );
    for name in [
        "x-named",
        "x-too",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "upgrade",
        "http2-settings",
    ] {
        assert!(!request.has(name), "{name} went on");
    }
    for value in request.values("connection") {
        assert_eq!(value, "keep-alive");
    }
    assert!(request.has("x-stays"));
    assert!(request.has("trailer"), "Trailer is end-to-end");
}

#[test]
fn hop_by_hop_fields_of_an_answer_end_here() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Named, keep-alive\r\nKeep-Alive: timeout=60\r\nX-Named: 1\r\nProxy-Connection: x\r\n\
         Upgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Stays: 3\r\nContent-Length: 4\r\n\r\nfine",
    );
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    for _ in 0..2 {
        let answer = client.ask(get("/"));
        for name in [
            "x-named",
            "keep-alive",
            "proxy-connection",
            "upgrade",
            "connection",
        ] {
            assert!(!answer.has(name), "{name} went on");
        }
        assert_eq!(answer.values("set-cookie"), ["a=1", "b=2"]);
        assert!(answer.has("x-stays"));
        assert_eq!(answer.text(), "fine");
    }
}

#[test]
fn connection_cannot_strip_what_weir_or_the_framing_says() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: Content-Length, Content-Type, Set-Cookie\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nfine",
    );
    let weir = Weir::before(&[&origin]);
    let names = "Expect: 100-continue\r\nConnection: Expect, Host, Content-Length, Transfer-Encoding, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, close\r\n";
    for (framing, raw) in [
        ("Content-Length: 5\r\n", "hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: shop.example.com\r\n{names}{framing}\r\n{raw}");
        let answer = weir.client().ask(request);
        assert_eq!(answer.text(), "fine");
        let request = origin.requests().pop().unwrap();
        assert_eq!(request.text(), "hello");
        assert_eq!(request.value("expect").as_deref(), Some("100-continue"));
        assert_eq!(request.value("host").as_deref(), Some("shop.example.com"));
        assert_eq!(
            request.value("x-forwarded-for").as_deref(),
            Some("127.0.0.1")
        );
        assert_eq!(request.value("x-forwarded-proto").as_deref(), Some("http"));
        assert_eq!(
            request.value("x-forwarded-host").as_deref(),
            Some("shop.example.com")
        );
    }
}

#[test]
fn forwarding_fields_are_always_written() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    let request = forwarded(&weir, &origin, "");
    assert_eq!(
        request.value("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
    assert_eq!(request.value("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(
        request.value("x-forwarded-host").as_deref(),
        Some("shop.example.com")
    );
    assert!(!request.has("forwarded") && !request.has("via"), "opt-in");
}

/// Every way to spell a claim about who one is.
const CLAIMS: &str = "X-Forwarded-For: 1.2.3.4\r\nx-forwarded-for: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
    X-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Server: evil\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n\
    X_Forwarded_For: 1.2.3.4\r\nX-Forwarded_For: 1.2.3.4\r\nX_Forwarded-Proto: https\r\nX_FORWARDED_HOST: evil.example\r\nX_Real_IP: 1.2.3.4\r\nx-real_ip: 1.2.3.4\r\n";

#[test]
fn claims_of_a_stranger_are_removed() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    let request = forwarded(&weir, &origin, CLAIMS);
    let head = String::from_utf8(request.head.clone()).unwrap();
    for claim in ["1.2.3.4", "5.6.7.8", "evil", "https", "443", "_"] {
        assert!(!head.contains(claim), "{claim} went on:\n{head}");
    }
    assert_eq!(
        request.value("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
}

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&plain(
        &[&origin],
        "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]",
    ));
    let request = forwarded(
        &weir,
        &origin,
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\n",
    );
    let chain = request.values("x-forwarded-for").join(", ");
    assert_eq!(chain, "6.6.6.6, 203.0.113.9, 10.1.2.3, 127.0.0.1");
    assert_eq!(request.value("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(
        request.value("x-forwarded-host").as_deref(),
        Some("public.example")
    );
    // The client is the rightmost that no trusted proxy is, whatever it claims further left.
    weir.access(|line| line["client"] == "203.0.113.9");

    forwarded(&weir, &origin, "X-Forwarded-For: 2001:db8::7\r\n");
    weir.access(|line| line["client"] == "2001:db8::7");
}

#[test]
fn a_trusted_proxy_that_talks_nonsense() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&plain(&[&origin], "trusted_proxies = [\"127.0.0.1/32\"]"));
    for value in [
        "",
        "unknown",
        ",,,",
        "1.2.3.4.5",
        "203.0.113.9, nonsense",
        "256.1.1.1",
        "<script>",
    ] {
        forwarded(&weir, &origin, &format!("X-Forwarded-For: {value}\r\n"));
        assert!(
            origin
                .requests()
                .pop()
                .unwrap()
                .values("x-forwarded-for")
                .join(",")
                .ends_with("127.0.0.1")
        );
    }
}

#[test]
fn trust_ends_at_its_network() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&plain(
        &[&origin],
        "trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::/32\"]",
    ));
    let request = forwarded(&weir, &origin, "X-Forwarded-For: 203.0.113.9\r\n");
    assert_eq!(
        request.value("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
}

#[test]
fn forwarded_and_via_on_request() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nVia: 1.1 cache\r\nContent-Length: 0\r\n\r\n");
    let weir = Weir::start(&plain(
        &[&origin],
        "[forwarding]\nforwarded = true\nvia = true",
    ));
    let mut client = weir.client();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: shop.example.com:8080\r\nVia: 1.0 fred\r\nForwarded: for=1.2.3.4\r\n\r\n");
    let request = origin.request();
    let forwarded = request.value("forwarded").unwrap().to_ascii_lowercase();
    assert!(forwarded.contains("for=127.0.0.1"), "{forwarded}");
    assert!(forwarded.contains("proto=http"), "{forwarded}");
    // A colon must stand in a quoted string (RFC 7239 section 4).
    assert!(
        forwarded.contains("host=\"shop.example.com:8080\""),
        "{forwarded}"
    );
    assert!(!forwarded.contains("1.2.3.4"), "{forwarded}");
    let via = request.values("via").join(", ");
    assert!(via.starts_with("1.0 fred, 1.1 "), "{via}");
    let via = answer.values("via").join(", ");
    assert!(via.starts_with("1.1 cache, 1.1 "), "{via}");
}

#[test]
fn a_client_of_ip_version_6() {
    let origin = Origin::named("fine");
    let config = plain(&[&origin], "").replace("[\"$web\"]", "[\"$web\", \"[::1]:$port6\"]");
    let port = crate::support::process::free_address().port();
    let _weir = Weir::start(&config.replace("$port6", &port.to_string()));
    let mut client = crate::support::Client::connect(format!("[::1]:{port}").parse().unwrap());
    assert_eq!(client.ask(get("/")).text(), "fine");
    assert_eq!(
        origin.request().value("x-forwarded-for").as_deref(),
        Some("::1")
    );
}

#[test]
fn the_host_passes_as_it_came() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    for host in [
        "Shop.Example.com",
        "shop.example.com:8080",
        "[2001:db8::1]:80",
        "127.0.0.1",
        "shop.example.com.",
    ] {
        weir.client()
            .ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let request = origin.requests().pop().unwrap();
        assert_eq!(request.value("host").as_deref(), Some(host));
        assert_eq!(request.value("x-forwarded-host").as_deref(), Some(host));
    }
}

/// A request of HTTP/1.0 needs no `Host`, and one of HTTP/1.1 to the backend does: from the target, where that has one.
#[test]
fn a_request_without_a_host_line_gets_one() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    let backend = origin.address.to_string();
    for (line, host) in [
        ("GET http://shop.example.com?x HTTP/1.0", "shop.example.com"),
        (
            "GET http://shop.example.com:81/a HTTP/1.0",
            "shop.example.com:81",
        ),
        ("GET /a HTTP/1.0", &backend),
    ] {
        let answer = weir.client().ask(format!("{line}\r\n\r\n"));
        assert_eq!(answer.text(), "fine", "{line}");
        let request = origin.requests().pop().expect("a request");
        assert_eq!(request.values("host"), [host], "{line}");
        assert!(request.first_line().ends_with(" HTTP/1.1"), "{line}");
    }
}
