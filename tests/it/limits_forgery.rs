//! Nobody but a trusted proxy says where a request comes from or whom it is for, however it spells or hides that.

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::support::http2::{self, Multiplexer};
use crate::support::message::Message;
use crate::support::weir::plain;
use crate::support::{Origin, Weir};

/// Spellings of the fields that speak for a client, one of each that a server might read.
const NAMES: [&str; 24] = [
    "X-Forwarded-For",
    "x-forwarded-for",
    "X-FORWARDED-FOR",
    "X_Forwarded_For",
    "X-Forwarded_For",
    "x_FORWARDED-for",
    "X-Forwarded-Proto",
    "X_Forwarded_Proto",
    "X-Forwarded-Host",
    "X_Forwarded_Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Client-Cert",
    "X_Forwarded_Ssl",
    "X-Real-IP",
    "X_Real_IP",
    "Forwarded",
    "FORWARDED",
    "Client-Cert",
    "CLIENT_CERT",
    "Client-Cert-Chain",
    "X-Client-Cert-Subject",
    "x_client_cert_subject",
    "X-Client_Cert-Verify",
];

/// What a forger claims, so that it is found wherever it went.
const FORGED: &str = "203.0.113.66";

/// Sends these bytes and gives what the origin got; nothing if weir refused them.
fn through(weir: &Weir, origin: &Origin, request: &str) -> Option<Message> {
    let before = origin.hits();
    let status = weir.client().ask(request).status();
    match status {
        200 => Some(origin.requests().remove(before)),
        _ => {
            assert_eq!((status, origin.hits()), (400, before), "{request}");
            None
        }
    }
}

#[track_caller]
fn is_honest(request: &Message, asked: &str) {
    let whole = [&request.head[..], &request.body[..]].concat();
    let text = String::from_utf8_lossy(&whole).into_owned();
    let trailers = format!("{:?}", request.trailers);
    assert!(
        !text.contains(FORGED) && !trailers.contains(FORGED),
        "{asked}\n{text}{trailers}"
    );
    assert_eq!(request.values("x-forwarded-for"), ["127.0.0.1"], "{asked}");
    assert_eq!(request.values("x-forwarded-proto"), ["http"], "{asked}");
}

#[test]
fn no_spelling_and_no_place_of_a_field_is_believed() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    for name in NAMES {
        for head in [
            format!("{name}: {FORGED}\r\n"),
            format!("{name}: {FORGED}\r\n{name}: {FORGED}\r\n"),
            format!("{name}:{FORGED}\r\nX-Between: 1\r\n{name}:\t{FORGED} , {FORGED}\r\n"),
            // Who names a field hop-by-hop wants its true value gone, or its own to stay.
            format!("Connection: {name}\r\n{name}: {FORGED}\r\n"),
            format!("Connection: close, {name}\r\nConnection: {name}\r\n"),
            format!("{name}: \r\n{name}: {FORGED}\r\n"),
        ] {
            for line in [
                "GET / HTTP/1.1",
                "GET / HTTP/1.0",
                "GET http://shop.example.com/ HTTP/1.1",
            ] {
                let asked = format!("{line}\r\nHost: shop.example.com\r\n{head}\r\n");
                let got = through(&weir, &origin, &asked).expect("nothing is wrong with it");
                is_honest(&got, &asked);
            }
        }
    }
}

#[test]
fn what_is_no_field_line_is_no_way_in() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    for name in NAMES {
        for head in [
            format!("{name} : {FORGED}\r\n"),
            format!(" {name}: {FORGED}\r\n"),
            format!("X-A: b\r\n {name}: {FORGED}\r\n"),
            format!("X-A: b\n{name}: {FORGED}\r\n"),
            format!("X-A: b\r{name}: {FORGED}\r\n"),
            format!("{name}\0: {FORGED}\r\n"),
        ] {
            let asked = format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\n{head}\r\n");
            assert!(through(&weir, &origin, &asked).is_none(), "{asked:?}");
        }
    }
}

#[test]
fn trailers_claim_nothing() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    for name in NAMES {
        let asked = format!(
            "POST / HTTP/1.1\r\nHost: shop.example.com\r\nTrailer: {name}\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\n{name}: {FORGED}\r\n\r\n"
        );
        if let Some(got) = through(&weir, &origin, &asked) {
            is_honest(&got, &asked);
        }
    }
}

#[test]
fn a_request_is_for_one_host() {
    let origin = Origin::named("fine");
    let config = plain(&[&origin], "").replace(
        "[[routes]]",
        "[[routes]]\nhosts = [\"admin.example.com\"]\npath = \"/x\"\npool = \"was\"\n[[routes]]\nhosts = [\"shop.example.com\"]",
    );
    let weir = Weir::start(&config);
    for (asked, expected) in [
        // An absolute target overrides Host, also toward the backend.
        (
            "GET http://shop.example.com/ HTTP/1.1\r\nHost: admin.example.com\r\n\r\n",
            200,
        ),
        (
            "GET http://admin.example.com/ HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
            404,
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nHost: admin.example.com\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nhost: shop.example.com\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example.com, admin.example.com\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost: user@shop.example.com\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : shop.example.com\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "GET / HTTP/1.0\r\nHost: shop.example.com\r\nHost: admin.example.com\r\n\r\n",
            400,
        ),
        (
            "GET http://shop.example.com@admin.example.com/ HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Host\r\n\r\n",
            200,
        ),
        (
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-Forwarded-Host: admin.example.com\r\n\r\n",
            200,
        ),
    ] {
        let before = origin.hits();
        assert_eq!(weir.client().ask(asked).status(), expected, "{asked}");
        for got in &origin.requests()[before..] {
            assert_eq!(got.values("host"), ["shop.example.com"], "{asked}");
            assert_eq!(
                got.values("x-forwarded-host"),
                ["shop.example.com"],
                "{asked}"
            );
        }
    }
}

#[test]
fn trust_is_the_connections_and_not_the_headers() {
    let origin = Origin::named("fine");
    let config = plain(&[&origin], "trusted_proxies = [\"10.0.0.0/8\"]");
    let weir = Weir::start(&config);
    for claim in ["10.0.0.1", "127.0.0.1, 10.0.0.1", "10.0.0.1, 10.0.0.2"] {
        let asked = format!(
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-Forwarded-For: {FORGED}, {claim}\r\nX-Forwarded-Proto: https\r\n\r\n"
        );
        is_honest(&through(&weir, &origin, &asked).unwrap(), &asked);
    }
}

#[test]
fn a_trusted_proxy_vouches_for_its_own_client_only() {
    let origin = Origin::named("fine");
    let config = plain(&[&origin], "trusted_proxies = [\"127.0.0.1\"]").replace(
        "bind = [\"$web\"]",
        "bind = [\"$web\"]\ndeny = [\"192.0.2.0/24\"]",
    );
    let weir = Weir::start(&config);
    let status = |lines: &str| {
        let asked = format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\n{lines}\r\n");
        weir.client().ask(asked).status()
    };
    // The proxy appends who it saw; what stands before is that client's own word.
    assert_eq!(status("X-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n"), 403);
    assert_eq!(
        status("X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-For: 192.0.2.1\r\n"),
        403
    );
    assert_eq!(status("X-Forwarded-For: 192.0.2.1, 198.51.100.7\r\n"), 200);
    assert_eq!(status("X-Forwarded-For: 192.0.2.1:4711\r\n"), 403);
    assert_eq!(status("X-Forwarded-For: ::ffff:192.0.2.1\r\n"), 403);
    assert_eq!(status("X-Forwarded-For: [::ffff:c000:201]\r\n"), 403);
    // Other fields are for the backend; they never name the client.
    assert_eq!(
        status("X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 198.51.100.7\r\n"),
        403
    );
    assert_eq!(
        status("X_Forwarded_For: 198.51.100.7\r\nX-Forwarded-For: 192.0.2.1\r\n"),
        403
    );
    assert_eq!(
        status("Connection: X-Forwarded-For\r\nX-Forwarded-For: 192.0.2.1\r\n"),
        403
    );
}

#[test]
fn http_2_hides_no_claim_either() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    let mut client = Multiplexer::connect(weir.address("web"));
    for name in NAMES {
        let name = HeaderName::try_from(name).unwrap();
        let mut request = http2::get("/");
        for value in [FORGED, FORGED] {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(name.clone(), value);
        }
        let before = origin.hits();
        assert_eq!(client.send(request, b"").status(), 200, "{name}");
        is_honest(&origin.requests().remove(before), name.as_str());
        // The same behind the body.
        let request = Request::post("http://shop.example.com/").body(()).unwrap();
        let (answer, mut stream) = client.begin(request, false);
        let trailers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(FORGED))]);
        stream.send_data("ok".into(), false).unwrap();
        stream.send_trailers(trailers).unwrap();
        let answer = client.wait(answer).unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        is_honest(&origin.requests().remove(before + 1), name.as_str());
    }
}
