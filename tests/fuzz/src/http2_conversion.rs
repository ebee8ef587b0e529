//! HTTP/2 to HTTP/1.1 and back: what is not refused is one whole head with the same fields, and its body is where HTTP/2 said.

use ::http::header::HeaderMap;
use ::http::{Method, Request, Response, request as parts};
use arbitrary::{Arbitrary, Result, Unstructured};
use weir::config::model::Limits;
use weir::http::fields::{
    Shape, clean_trailers, read_answer, read_request, write_answer, write_request, write_trailers,
};
use weir::http::framing::{Chunked, Framing, TrailerLimits};
use weir::http::{answer, request};

use super::support::{decimal, folded, read_plainly, values};

const LIMITS: Limits = Limits {
    head: 1 << 20,
    header_lines: 250,
};

/// Names that matter, beside those that the input makes up.
const NAMES: [&str; 24] = [
    "host",
    "cookie",
    "content-length",
    "transfer-encoding",
    "te",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "expect",
    "x-forwarded-for",
    "x_forwarded_for",
    "x-real-ip",
    "forwarded",
    "set-cookie",
    "trailer",
    "sec-websocket-key",
    "sec-websocket-accept",
    "content-type",
    "grpc-timeout",
    "via",
    "x-a",
    "proxy-authenticate",
    "proxy-authorization",
];

const VALUES: [&str; 10] = [
    "",
    "0",
    "5",
    "chunked",
    "trailers",
    "close",
    "shop",
    "websocket",
    "a=b",
    "application/grpc",
];

pub fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    // An input that is too short stands for its beginning.
    let _ = requests(&mut input);
    let _ = answers(&mut input);
}

fn fields(input: &mut Unstructured<'_>) -> Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    for _ in 0..input.int_in_range(0..=6)? {
        let name = match u8::arbitrary(input)? {
            0..200 => input.choose(&NAMES)?.as_bytes(),
            _ => <&[u8]>::arbitrary(input)?,
        };
        let value = match bool::arbitrary(input)? {
            true => input.choose(&VALUES)?.as_bytes(),
            false => <&[u8]>::arbitrary(input)?,
        };
        // As the codec has it: a name is lower case, a value has no line end.
        let name = ::http::HeaderName::from_lowercase(name);
        if let (Ok(name), Ok(value)) = (name, ::http::HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    Ok(fields)
}

fn requests(input: &mut Unstructured<'_>) -> Result<()> {
    let shape = Shape {
        has_body: bool::arbitrary(input)?,
        protocol: *input.choose(&[None, None, None, Some("websocket"), Some("h2c")])?,
        key: "a2V5a2V5a2V5a2V5a2V5aw==",
    };
    let method = *input.choose(&["GET", "POST", "OPTIONS", "CONNECT", "HEAD", "M-SEARCH"])?;
    let path = match bool::arbitrary(input)? {
        true => *input.choose(&["/", "/a?b", "*", "", "/a%20b;c#d"])?,
        false => <&str>::arbitrary(input)?,
    };
    let authority = *input.choose(&["", "shop", "shop:8443", "[::1]:80", "a@b", "SHOP"])?;
    let mut uri = ::http::Uri::builder();
    if !authority.is_empty() {
        uri = uri.scheme("https").authority(authority);
    }
    let Ok(uri) = uri.path_and_query(path).build() else {
        return Ok(());
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
    *request.uri_mut() = uri;
    *request.headers_mut() = fields(input)?;
    let parts = request.into_parts().0;
    let mut head = Vec::new();
    if write_request(&parts, shape, &mut head).is_ok() {
        check_request(&parts, shape, &head);
    }
    Ok(())
}

fn check_request(parts: &parts::Parts, shape: Shape<'_>, written: &[u8]) {
    let mut lines = Vec::new();
    let Ok(read) = request::parse(written, &mut lines, &LIMITS) else {
        return;
    };
    let read = read.expect("a whole head");
    assert_eq!(read.head.bytes.len(), written.len(), "one head");
    let is_tunnel = shape.protocol.is_some();
    let method = if is_tunnel {
        "GET"
    } else {
        parts.method.as_str()
    };
    assert_eq!(read.head.method, method.as_bytes());
    let path = parts
        .uri
        .path_and_query()
        .map(|path| path.as_str().as_bytes());
    assert_eq!(Some(read.head.target), path);
    let host = parts.headers.get("host").map(|host| host.as_bytes());
    let pseudo = parts.uri.authority().map(|it| it.as_str().as_bytes());
    assert_eq!(Some(read.head.authority), pseudo.or(host));

    let (_, seen) = read_plainly(read.head.bytes, read.head.lines);
    let own = [
        "host",
        "cookie",
        "connection",
        "upgrade",
        "transfer-encoding",
        "sec-websocket-key",
    ];
    for name in NAMES.iter().filter(|name| !own.contains(name)) {
        let wanted: Vec<&[u8]> = parts
            .headers
            .get_all(*name)
            .iter()
            .map(|it| it.as_bytes())
            .collect();
        assert_eq!(values(&seen, name), wanted, "{name}");
    }
    let crumbs: Vec<&[u8]> = parts
        .headers
        .get_all("cookie")
        .iter()
        .map(|it| it.as_bytes())
        .collect();
    let cookie = crumbs.join(&b"; "[..]);
    let cookies = if crumbs.is_empty() {
        vec![]
    } else {
        vec![cookie.trim_ascii()]
    };
    assert_eq!(values(&seen, "cookie"), cookies);
    assert_eq!(values(&seen, "connection").len(), usize::from(is_tunnel));
    let length = parts
        .headers
        .get("content-length")
        .and_then(|it| decimal(it.as_bytes()));
    match (length, shape.has_body && !is_tunnel) {
        (Some(length), _) => assert_eq!(read.body, Framing::Length(length)),
        (None, true) => assert!(matches!(read.body, Framing::Chunked(_))),
        (None, false) => assert_eq!(read.body, Framing::NONE),
    }
    if !is_tunnel && let Some(again) = read_request(written, "https") {
        assert_eq!(again.method(), parts.method);
        for (name, value) in again.headers() {
            assert!(!is_of_one_hop(name.as_str()), "{name}");
            let is_known = parts.headers.get_all(name).iter().any(|it| it == value);
            assert!(
                is_known || matches!(name.as_str(), "te" | "cookie"),
                "{name}"
            );
        }
    }
}

fn is_of_one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "host"
    )
}

fn answers(input: &mut Unstructured<'_>) -> Result<()> {
    let status = input.int_in_range(100..=599)?;
    let mut answer = Response::new(());
    *answer.status_mut() = ::http::StatusCode::from_u16(status).expect("a status");
    *answer.headers_mut() = fields(input)?;
    let trailers = fields(input)?;
    check_trailers(trailers);
    let parts = answer.into_parts().0;
    let mut head = Vec::new();
    if write_answer(&parts, &mut head).is_err() {
        return Ok(());
    }
    let mut lines = Vec::new();
    let Ok(read) = answer::parse(&head, &mut lines, &LIMITS, false) else {
        return Ok(());
    };
    let read = read.expect("a whole head");
    assert_eq!(read.head.bytes.len(), head.len(), "one head");
    assert_eq!(read.head.status, status);
    assert!(
        !matches!(read.body, Framing::Chunked(_)),
        "HTTP/2 has no chunks"
    );
    let again = read_answer(&head).expect("a head that was written");
    let switched = status == 101;
    assert_eq!(again.status().as_u16(), if switched { 200 } else { status });
    for name in parts
        .headers
        .keys()
        .filter(|name| *name != "host" && !switched)
    {
        let of = |fields: &HeaderMap| -> Vec<_> { fields.get_all(name).iter().cloned().collect() };
        assert_eq!(of(&again.headers().clone()), of(&parts.headers), "{name}");
    }
    Ok(())
}

fn check_trailers(mut trailers: HeaderMap) {
    let mut wire = Vec::new();
    write_trailers(Some(&trailers), &mut wire);
    let limits = TrailerLimits {
        bytes: 1 << 20,
        lines: 100,
    };
    let mut framing = Framing::Chunked(Chunked::new(limits));
    assert_eq!(
        framing.advance(&wire),
        Ok(wire.len()),
        "{}",
        wire.escape_ascii()
    );
    assert!(framing.is_done());
    clean_trailers(&mut trailers);
    for name in trailers.keys() {
        let name = folded(name.as_str().as_bytes());
        assert!(
            !is_of_one_hop(&name) && !name.starts_with("x-forwarded-"),
            "{name}"
        );
        let forbidden = [
            "content-length",
            "cookie",
            "set-cookie",
            "x-real-ip",
            "forwarded",
        ];
        assert!(!forbidden.contains(&&*name), "{name}");
    }
}
