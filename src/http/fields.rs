//! Turns the header maps of HTTP/2 into HTTP/1.1 heads and back (RFC 9113 section 8), so that one parser, one set of edits and one request
//! function serve both. What an HTTP/1.1 reader could take for something else is refused, never mended.
//! The walk goes on in `request.rs` and `answer.rs`, which read the heads that are written here.

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Uri, Version, request, response};
use bytes::Bytes;

use super::fault::Fault;
use super::head::Field;

/// Fields that a head has room for before it grows; most answers have fewer.
const FIELDS: usize = 8;

/// What of a request is not in its fields.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Whether anything follows the fields.
    pub has_body: bool,
    /// The protocol of an extended CONNECT (RFC 8441).
    pub protocol: Option<&'a str>,
    /// The key that a WebSocket over HTTP/1.1 needs and one over HTTP/2 has none of (RFC 6455 section 4.1): base64 of 16 random bytes.
    pub key: &'a str,
}

/// Writes a request as its HTTP/1.1 head. An extended CONNECT becomes the GET that asks for the same protocol.
///
/// # Errors
/// What RFC 9113 section 8 calls malformed, or an HTTP/1.1 head has no way to say.
pub fn write_request(
    request: &request::Parts,
    shape: Shape<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let tunnel = match (&request.method, shape.protocol) {
        (&Method::CONNECT, Some("websocket")) => true,
        (&Method::CONNECT, _) => return Err(Fault::Connect),
        (_, Some(_)) => return Err(Fault::StartLine),
        (_, None) => false,
    };
    let method = if tunnel {
        "GET"
    } else {
        request.method.as_str()
    };
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target(request)?);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority(request)? {
        write_field(b"host", authority, out)?;
    }
    write_fields(&request.headers, out)?;
    let has_length = request.headers.contains_key(header::CONTENT_LENGTH);
    match (tunnel, shape.has_body) {
        (true, _) if has_length => return Err(Fault::Length),
        (true, _) => {
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
            write_field(b"sec-websocket-key", shape.key.as_bytes(), out)?;
        }
        (false, true) if !has_length => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        (false, false) if has_length && length(&request.headers) != Some(b"0") => {
            return Err(Fault::Length);
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn length(fields: &HeaderMap) -> Option<&[u8]> {
    fields
        .get(header::CONTENT_LENGTH)
        .map(HeaderValue::as_bytes)
}

/// `:path` in origin form, or `*`; anything else would be another form of target in HTTP/1.1.
fn target(request: &request::Parts) -> Result<&[u8], Fault> {
    let path = (request.uri.path_and_query()).map_or(&b""[..], |path| path.as_str().as_bytes());
    let is_asterisk = path == b"*" && request.method == Method::OPTIONS;
    match path.first() {
        Some(b'/') => Ok(path),
        _ if is_asterisk => Ok(path),
        _ => Err(Fault::Target),
    }
}

/// The one authority of a request: `:authority`, or `Host`, or both if they are equal (RFC 9113 section 8.3.1).
fn authority(request: &request::Parts) -> Result<Option<&[u8]>, Fault> {
    let pseudo = request.uri.authority().map(|it| it.as_str().as_bytes());
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Fault::HostRepeated);
    }
    match (pseudo, host) {
        (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other) => Err(Fault::HostInvalid),
        _ => Ok(pseudo.or(host)),
    }
}

/// Writes the fields but `Host`; the crumbs of a cookie become one line (RFC 9113 section 8.2.3).
fn write_fields(fields: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Fault> {
    for (name, value) in fields {
        if name == header::HOST || name == header::COOKIE {
            continue;
        }
        if !is_end_to_end(name.as_str().as_bytes()) && !is_plain_te(name, value) {
            return Err(Fault::FieldLine);
        }
        write_field(name.as_str().as_bytes(), value.as_bytes(), out)?;
    }
    let mut is_first = true;
    for crumb in fields.get_all(header::COOKIE) {
        let start: &[u8] = if is_first { b"cookie: " } else { b"; " };
        is_first = false;
        out.extend_from_slice(start);
        out.extend_from_slice(checked(crumb.as_bytes())?);
    }
    out.extend_from_slice(if is_first { b"" } else { b"\r\n" });
    Ok(())
}

/// The one hop-by-hop field that HTTP/2 knows.
fn is_plain_te(name: &HeaderName, value: &HeaderValue) -> bool {
    name == header::TE && value.as_bytes().eq_ignore_ascii_case(b"trailers")
}

fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(checked(value)?);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// A value that ends where it ends in any version (RFC 9113 section 8.2.1).
fn checked(value: &[u8]) -> Result<&[u8], Fault> {
    let is_clean = value
        .iter()
        .all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let is_trimmed = value.trim_ascii().len() == value.len();
    (is_clean && is_trimmed)
        .then_some(value)
        .ok_or(Fault::FieldLine)
}

/// Whether a field is of the message and not of one connection (RFC 9113 section 8.2.2).
fn is_end_to_end(name: &[u8]) -> bool {
    let field = Field::from_name(name);
    !field.is_hop_by_hop() && field != Field::TransferEncoding
        || matches!(field, Field::ProxyAuthenticate | Field::ProxyAuthorization)
}

/// Reads the lines of a head that weir wrote or checked: its first line, and its fields without those of one connection and without `Host`,
/// which is returned beside them.
fn read(head: &[u8]) -> Option<(&[u8], HeaderMap, Option<HeaderValue>)> {
    let end = memchr::memchr(b'\r', head)?;
    let (first, rest) = (&head[..end], Bytes::copy_from_slice(&head[end + 2..]));
    let mut fields = HeaderMap::with_capacity(FIELDS);
    let mut host = None;
    let mut at = 0;
    while !rest[at..].starts_with(b"\r\n") {
        let colon = at + memchr::memchr(b':', &rest[at..])?;
        let end = colon + memchr::memchr(b'\r', &rest[colon..])?;
        let (name, value) = (&rest[at..colon], rest[colon + 1..end].trim_ascii());
        at = end + 2;
        if !is_end_to_end(name) {
            continue;
        }
        let value = HeaderValue::from_maybe_shared(rest.slice_ref(value)).ok()?;
        if name.eq_ignore_ascii_case(b"host") {
            host = Some(value);
            continue;
        }
        fields.append(HeaderName::from_bytes(name).ok()?, value);
    }
    Some((first, fields, host))
}

/// Reads an answer's HTTP/1.1 head, as it would be sent to a client, for one that speaks HTTP/2. A switch of protocols reads as the 200
/// that says the same there (RFC 8441 section 5). `None` if it is no head, which is never so for one that weir wrote.
pub fn read_answer(head: &[u8]) -> Option<Response<()>> {
    let (first, mut fields, _) = read(head)?;
    let status = StatusCode::from_bytes(first.get(9..12)?).ok()?;
    let mut answer = Response::new(());
    *answer.version_mut() = Version::HTTP_2;
    *answer.status_mut() = status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        *answer.status_mut() = StatusCode::OK;
        fields.remove(header::SEC_WEBSOCKET_ACCEPT);
    }
    *answer.headers_mut() = fields;
    Some(answer)
}

/// Reads a request's HTTP/1.1 head, as it would be sent to a backend, for one that speaks HTTP/2.
pub fn read_request(head: &[u8], scheme: &str) -> Option<Request<()>> {
    let (first, mut fields, host) = read(head)?;
    let mut words = first.split(|&byte| byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let method = Method::from_bytes(method).ok()?;
    // `OPTIONS *` has no path in this form of a URI; the codec writes `*` for it.
    let path = if target == b"*" { b"" } else { target };
    let mut uri = Uri::builder().scheme(scheme);
    if let Some(host) = &host {
        uri = uri.authority(host.as_bytes());
    }
    let uri = uri
        .path_and_query(if path.is_empty() { b"*" } else { path })
        .build()
        .ok()?;
    // A gRPC server takes the absence for a proxy that cannot pass trailers on.
    if is_grpc(fields.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes)) {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = fields;
    Some(request)
}

/// Whether a content type is gRPC's.
pub fn is_grpc(content_type: Option<&[u8]>) -> bool {
    let Some(rest) = content_type.and_then(|value| value.strip_prefix(b"application/grpc")) else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// Writes an answer as its HTTP/1.1 head.
///
/// # Errors
/// What RFC 9113 section 8 calls malformed, or an HTTP/1.1 head has no way to say.
pub fn write_answer(answer: &response::Parts, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(answer.status.as_str().as_bytes());
    out.extend_from_slice(b" \r\n");
    for (name, value) in &answer.headers {
        if !is_end_to_end(name.as_str().as_bytes()) {
            return Err(Fault::FieldLine);
        }
        write_field(name.as_str().as_bytes(), value.as_bytes(), out)?;
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes a trailer section with the end of the chunked coding before it. Fields that no trailer may carry are left out (RFC 9110 section 6.5.1).
pub fn write_trailers(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        let name = name.as_str().as_bytes();
        if may_trail(name) && checked(value.as_bytes()).is_ok() {
            // It cannot fail: the value was just checked.
            let _ = write_field(name, value.as_bytes(), out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Reads a trailer section of HTTP/1 that `framing.rs` found to be sound, up to its empty line; `None` when it says nothing.
pub fn read_trailers(section: &[u8]) -> Option<HeaderMap> {
    let (_, mut trailers, _) = read(&[b"\r\n", section].concat())?;
    clean_trailers(&mut trailers);
    (!trailers.is_empty()).then_some(trailers)
}

/// Leaves out of a trailer section what no trailer may carry.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let forbidden: Vec<HeaderName> = (trailers.keys())
        .filter(|name| !may_trail(name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

/// Fields that frame, route or vouch for a message have no meaning after its body. What goes is at least what `framing.rs` refuses.
fn may_trail(name: &[u8]) -> bool {
    let field = Field::from_name(name);
    !field.is_hop_by_hop()
        && !field.is_forwarding()
        && !matches!(
            field,
            Field::ContentLength
                | Field::TransferEncoding
                | Field::Host
                | Field::Cookie
                | Field::SetCookie
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Limits;
    use crate::http::answer;
    use crate::http::framing::Framing;
    use crate::http::request as reader;

    const LIMITS: Limits = Limits {
        head: 65_536,
        header_lines: 128,
    };

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for &(name, value) in fields {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn write(
        parts: &request::Parts,
        has_body: bool,
        protocol: Option<&str>,
    ) -> Result<String, Fault> {
        let mut out = Vec::new();
        let shape = Shape {
            has_body,
            protocol,
            key: "a2V5a2V5a2V5a2V5a2V5aw==",
        };
        write_request(parts, shape, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_request_becomes_the_head_that_http_1_has_for_it() {
        let fields = [
            ("cookie", "a=b"),
            ("x-one", "1"),
            ("cookie", "c=d"),
            ("te", "trailers"),
        ];
        let head = write(&parts("GET", "https://shop/cart?x=1", &fields), false, None);
        assert_eq!(
            head.unwrap(),
            "GET /cart?x=1 HTTP/1.1\r\nhost: shop\r\nx-one: 1\r\nte: trailers\r\ncookie: a=b; c=d\r\n\r\n"
        );
        let head = write(&parts("POST", "https://shop/", &[]), true, None);
        assert_eq!(
            head.unwrap(),
            "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let head = write(
            &parts("PUT", "https://shop/", &[("content-length", "5")]),
            true,
            None,
        );
        assert_eq!(
            head.unwrap(),
            "PUT / HTTP/1.1\r\nhost: shop\r\ncontent-length: 5\r\n\r\n"
        );
        let head = write(
            &parts("GET", "/only-host", &[("host", "shop")]),
            false,
            None,
        );
        assert_eq!(
            head.unwrap(),
            "GET /only-host HTTP/1.1\r\nhost: shop\r\n\r\n"
        );
    }

    #[test]
    fn an_extended_connect_becomes_the_get_that_asks_for_the_same() {
        let fields = [("sec-websocket-version", "13")];
        let parts = parts("CONNECT", "https://shop/chat", &fields);
        let head = write(&parts, true, Some("websocket")).unwrap();
        assert_eq!(
            head,
            "GET /chat HTTP/1.1\r\nhost: shop\r\nsec-websocket-version: 13\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a2V5a2V5a2V5a2V5a2V5aw==\r\n\r\n"
        );
        let mut lines = Vec::new();
        let read = reader::parse(head.as_bytes(), &mut lines, &LIMITS)
            .unwrap()
            .unwrap();
        assert_eq!(
            (read.upgrade, read.body),
            (&b"websocket"[..], Framing::NONE)
        );
        assert_eq!(write(&parts, true, None), Err(Fault::Connect));
        assert_eq!(
            write(&parts, true, Some("connect-udp")),
            Err(Fault::Connect)
        );
    }

    #[test]
    fn what_http_1_would_read_differently_is_refused() {
        let refused = |method: &str, uri: &str, fields: &[(&str, &str)], has_body| {
            write(&parts(method, uri, fields), has_body, None).err()
        };
        let get = |fields: &[(&str, &str)]| refused("GET", "https://shop/", fields, false);
        for field in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("keep-alive", "5"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("x-a", " padded"),
            ("x-a", "padded\t"),
        ] {
            assert_eq!(get(&[field]), Some(Fault::FieldLine), "{field:?}");
        }
        assert_eq!(get(&[("host", "other")]), Some(Fault::HostInvalid));
        assert_eq!(get(&[("host", "SHOP")]), None);
        assert_eq!(
            get(&[("host", "shop"), ("host", "shop")]),
            Some(Fault::HostRepeated)
        );
        assert_eq!(get(&[("content-length", "5")]), Some(Fault::Length));
        assert_eq!(get(&[("content-length", "0")]), None);
        assert_eq!(
            refused("GET", "*", &[("host", "a")], false),
            Some(Fault::Target)
        );
        assert_eq!(
            refused("CONNECT", "shop:443", &[], true),
            Some(Fault::Connect)
        );
    }

    #[test]
    fn an_answer_keeps_what_is_end_to_end() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Empty:\r\n\r\n";
        let answer = read_answer(head).unwrap();
        assert_eq!(answer.status(), 200);
        let fields: Vec<_> = (answer.headers().iter())
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                "server: x",
                "set-cookie: a=b",
                "set-cookie: c=d",
                "x-empty: "
            ]
        );
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        let answer = read_answer(switch).unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().len()), (200, 1));
    }

    #[test]
    fn a_request_is_read_for_http_2() {
        let head = b"POST /svc/Call?x HTTP/1.1\r\nHost: grpc.example:50051\r\nContent-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n";
        let request = read_request(head, "https").unwrap();
        assert_eq!(request.uri(), "https://grpc.example:50051/svc/Call?x");
        assert_eq!(request.headers().len(), 3);
        assert_eq!(request.headers()["te"], "trailers");
        let options = read_request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "http").unwrap();
        assert_eq!(options.uri().path(), "*");
    }

    #[test]
    fn an_answer_of_http_2_reads_as_one_of_http_1() {
        let parts = Response::builder()
            .status(204)
            .header("etag", "x")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let mut out = Vec::new();
        write_answer(&parts, &mut out).unwrap();
        let mut lines = Vec::new();
        let read = answer::parse(&out, &mut lines, &LIMITS, false)
            .unwrap()
            .unwrap();
        assert_eq!((read.head.status, read.body), (204, Framing::NONE));
    }

    #[test]
    fn an_answer_of_http_2_with_fields_of_a_connection_is_none() {
        for name in ["connection", "transfer-encoding", "keep-alive", "upgrade"] {
            let answer = Response::builder().header(name, "x").body(()).unwrap();
            let written = write_answer(&answer.into_parts().0, &mut Vec::new());
            assert_eq!(written, Err(Fault::FieldLine), "{name}");
        }
    }

    #[test]
    fn trailers_carry_nothing_that_frames_or_routes() {
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("grpc-status", "0"),
            ("content-length", "5"),
            ("x-forwarded-for", "1.1.1.1"),
            ("host", "a"),
            ("set-cookie", "a=b"),
            ("proxy-authorization", "Basic YQ=="),
            ("te", "trailers"),
        ] {
            trailers.insert(name, HeaderValue::from_static(value));
        }
        let mut out = Vec::new();
        write_trailers(Some(&trailers), &mut out);
        assert_eq!(out, b"0\r\ngrpc-status: 0\r\n\r\n");
        clean_trailers(&mut trailers);
        assert_eq!(trailers.len(), 1);
    }

    proptest! {
        /// Whatever passes is one whole head with the same fields, and its body is where HTTP/2 said.
        #[test]
        fn what_is_written_is_read_as_it_was_meant(
            method in "[A-Z]{1,8}",
            path in "/[!-~]{0,20}",
            fields in prop::collection::vec(("[a-z_-]{1,20}", prop::collection::vec(any::<u8>(), 0..20)), 0..10),
            has_body: bool,
        ) {
            let mut request = Request::builder().method(&*method).uri(format!("https://shop{path}"));
            for (name, value) in &fields {
                request = request.header(name, &value[..]);
            }
            let Ok(request) = request.body(()) else { return Ok(()) };
            let parts = request.into_parts().0;
            let mut out = Vec::new();
            let shape = Shape { has_body, protocol: None, key: "" };
            if write_request(&parts, shape, &mut out).is_err() { return Ok(()) }
            let mut lines = Vec::new();
            let Ok(Some(read)) = reader::parse(&out, &mut lines, &LIMITS) else { return Ok(()) };
            prop_assert_eq!(read.head.bytes.len(), out.len());
            prop_assert_eq!(read.head.authority, b"shop");
            prop_assert_eq!(read.body == Framing::NONE, !has_body);
            let crumbs = fields.iter().filter(|(name, _)| name == "cookie").count();
            let extra = 1 + usize::from(has_body) + usize::from(crumbs > 0);
            prop_assert_eq!(read.head.lines.len(), fields.len() - crumbs + extra - fields.iter().filter(|(name, _)| name == "host").count());
        }
    }
}
