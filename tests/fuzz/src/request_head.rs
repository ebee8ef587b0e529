//! A request head: what is taken is what a plain and strict reader takes, and nothing depends on how much of it has come.

use weir::http::framing::Framing;
use weir::http::head::Version;
use weir::http::request::{self, Request};

use super::support::{LIMITS, Numbers, decimal, read_plainly, values};

pub fn run(bytes: &[u8]) {
    let mut lines = Vec::new();
    let whole = request::parse(bytes, &mut lines, &LIMITS);
    let end = match &whole {
        Ok(Some(request)) => Some(request.head.bytes.len()),
        _ => None,
    };
    let cut = Numbers::of(bytes).up_to(bytes.len());
    let mut others = Vec::new();
    match request::parse(&bytes[..cut], &mut others, &LIMITS) {
        Ok(None) => assert!(end.is_none_or(|end| cut < end), "it was complete"),
        Ok(Some(part)) => assert_eq!(Some(part.head.bytes.len()), end),
        Err(_) => assert!(end.is_none(), "a fault that goes away"),
    }
    if let Ok(Some(request)) = &whole {
        check(request);
    }
    request::skip_empty_lines(&mut bytes.to_vec());
}

fn check(request: &Request<'_>) {
    let head = &request.head;
    assert!(head.bytes.len() <= LIMITS.head && head.lines.len() <= LIMITS.header_lines);
    let (first, fields) = read_plainly(head.bytes, head.lines);
    let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let version: &[u8] = match head.version {
        Version::Http10 => b"HTTP/1.0",
        _ => b"HTTP/1.1",
    };
    assert_eq!(words, [head.method, head.target, version]);
    assert_ne!(head.method, b"CONNECT");
    assert!(head.target.iter().all(u8::is_ascii_graphic));
    assert!(head.path_and_query.starts_with(head.path) || head.path == b"/");
    assert!(matches!(head.path_and_query[0], b'/' | b'*' | b'?'));

    let hosts = values(&fields, "host");
    assert!(hosts.len() == 1 || hosts.is_empty() && head.version == Version::Http10);
    let lengths = values(&fields, "content-length");
    let codings = values(&fields, "transfer-encoding");
    match (&lengths[..], &codings[..]) {
        ([], []) => assert_eq!(request.body, Framing::NONE),
        ([length], []) => {
            let length = decimal(length).expect("a number");
            assert_eq!(request.body, Framing::Length(length));
        }
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked") && head.version != Version::Http10);
            assert!(matches!(request.body, Framing::Chunked(_)));
        }
        _ => panic!("{lengths:?} and {codings:?}"),
    }
    let options = values(&fields, "connection").join(&b','.to_owned());
    let mut options = options.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if options.any(|option| option.eq_ignore_ascii_case(b"close")) {
        assert!(!request.keep_alive);
    }
    if !request.upgrade.is_empty() {
        assert_eq!(values(&fields, "upgrade"), [request.upgrade]);
        assert_eq!(head.version, Version::Http11);
    }
}
