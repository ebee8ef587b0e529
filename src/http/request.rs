//! Reads a request head (RFC 9112 sections 2 to 6), strictly: what a server may refuse is refused.
//! It never changes or copies a byte and never looks at what routes exist.
//! The walk goes on in `l7/proxy.rs`.

use std::mem::MaybeUninit;

use super::fault::Fault;
use super::framing::{Chunked, Framing, TrailerLimits};
use super::head::{Field, Line, RequestHead, Span, TargetForm, Version, list_members};
use super::upgrade;
use crate::config::model::Limits;

/// Field lines that a head can have at the very most, whatever the limit says.
pub const MAX_LINES: usize = 256;

/// Options that `Connection` may name; nobody has a use for that many.
const MAX_OPTIONS: u32 = 64;

/// A request head and what follows from it for this hop.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The head.
    pub head: RequestHead<'a>,
    /// Its body.
    pub body: Framing,
    /// Whether the client wants to go on after the answer.
    pub keep_alive: bool,
    /// Whether `Connection` names fields beyond the usual.
    pub connection_options: bool,
    /// Whether the client waits for a 100 before it sends the body.
    pub expects_continue: bool,
    /// The protocols that the client offers to switch to; empty unless the offer can be passed on.
    pub upgrade: &'a [u8],
}

/// Reads a head from the front of `bytes`; `None` while it is incomplete. `lines` is memory to reuse.
///
/// # Errors
/// The first fault found; the connection cannot go on after it.
pub fn parse<'a>(
    bytes: &'a [u8],
    lines: &'a mut Vec<Line>,
    limits: &Limits,
) -> Result<Option<Request<'a>>, Fault> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length <= limits.head => length,
        Ok(httparse::Status::Complete(_)) => return Err(Fault::HeadTooLarge),
        Ok(httparse::Status::Partial) if bytes.len() < limits.head => return Ok(None),
        Ok(httparse::Status::Partial) if bytes.contains(&b'\n') => return Err(Fault::HeadTooLarge),
        Ok(httparse::Status::Partial) => return Err(Fault::TargetTooLong),
        Err(error) => return Err(fault_of(error, bytes)),
    };
    let bytes = &bytes[..length];
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Fault::StartLine);
    };
    let version = if minor == 1 {
        Version::Http11
    } else {
        Version::Http10
    };
    let line_end = method.len() + target.len() + " ".len() * 2 + "HTTP/1.1".len();
    let start = end_of_line(bytes, line_end)?;
    index(bytes, start, parsed.headers, limits.header_lines, lines)?;
    let facts = Facts::collect(bytes, lines)?;
    let target = parse_target(method.as_bytes(), target.as_bytes())?;
    let authority = facts.authority(target.authority, version)?;
    let path = target
        .path_and_query
        .split(|&byte| byte == b'?')
        .next()
        .unwrap_or_default();
    let head = RequestHead {
        bytes,
        lines,
        method: method.as_bytes(),
        target: target.whole,
        form: target.form,
        path_and_query: target.path_and_query,
        path: if path.is_empty() { b"/" } else { path },
        authority,
        version,
    };
    let body = facts.body(version, limits)?;
    Ok(Some(Request {
        head,
        body,
        keep_alive: facts.keep_alive(version),
        connection_options: facts.connection_options,
        expects_continue: facts.expects_continue && version == Version::Http11,
        upgrade: facts.upgrade(method.as_bytes(), version, body),
    }))
}

/// Takes away the empty lines before a request, a habit of old clients after a body (RFC 9112 section 2.2).
pub fn skip_empty_lines(received: &mut Vec<u8>) {
    if received.starts_with(b"\r\n") {
        let pairs = received.as_chunks::<2>().0.iter();
        let count = pairs.take_while(|pair| *pair == b"\r\n").count();
        received.drain(..2 * count);
    }
}

/// Turns httparse's complaint into ours; a version is told apart from garbage by its form.
fn fault_of(error: httparse::Error, bytes: &[u8]) -> Fault {
    match error {
        httparse::Error::TooManyHeaders => Fault::TooManyLines,
        httparse::Error::NewLine => Fault::BareLineEnd,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Fault::FieldLine,
        httparse::Error::Version => {
            let line = bytes
                .split(|&byte| byte == b'\n')
                .next()
                .unwrap_or_default();
            let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
            match (words.nth(2).unwrap_or_default(), words.next()) {
                ([b'H', b'T', b'T', b'P', b'/', major, b'.', minor], None)
                    if major.is_ascii_digit() && minor.is_ascii_digit() =>
                {
                    Fault::Version
                }
                _ => Fault::StartLine,
            }
        }
        _ => Fault::StartLine,
    }
}

/// Fills `lines` from httparse's headers and checks what it lets pass: every line must end in CRLF, the head in an empty one.
pub(super) fn index(
    bytes: &[u8],
    start: usize,
    headers: &[httparse::Header<'_>],
    limit: usize,
    lines: &mut Vec<Line>,
) -> Result<(), Fault> {
    if headers.len() > limit {
        return Err(Fault::TooManyLines);
    }
    lines.clear();
    let mut at = start;
    for header in headers {
        let value = (header.value.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
        let value = Span {
            start: value as u32,
            end: value.wrapping_add(header.value.len()) as u32,
        };
        let name = Span {
            start: at as u32,
            end: (at + header.name.len()) as u32,
        };
        if value.start <= name.end || value.end as usize > bytes.len() {
            return Err(Fault::FieldLine);
        }
        at = end_of_line(bytes, value.end as usize)?;
        lines.push(Line {
            name,
            value,
            end: at as u32,
            field: Field::from_name(header.name.as_bytes()),
        });
    }
    if bytes.get(at..) == Some(b"\r\n") {
        Ok(())
    } else {
        Err(Fault::BareLineEnd)
    }
}

/// The start of the next line, past blanks and a CRLF that begin at `at`.
pub(super) fn end_of_line(bytes: &[u8], mut at: usize) -> Result<usize, Fault> {
    while let Some(b' ' | b'\t') = bytes.get(at) {
        at += 1;
    }
    if bytes.get(at..at + 2) == Some(b"\r\n") {
        Ok(at + 2)
    } else {
        Err(Fault::BareLineEnd)
    }
}

/// What the field lines say about framing and this hop, for requests and answers.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    persistent: bool,
    pub(super) connection_options: bool,
    options: u32,
    expects_continue: bool,
    wants_upgrade: bool,
    upgrade: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
}

impl<'a> Facts<'a> {
    pub(super) fn collect(bytes: &'a [u8], lines: &[Line]) -> Result<Self, Fault> {
        let mut facts = Facts::default();
        for line in lines {
            let value = || line.value.of(bytes);
            match line.field {
                Field::ContentLength if facts.length.is_some() => return Err(Fault::Length),
                Field::ContentLength => {
                    facts.length = Some(parse_length(value()).ok_or(Fault::Length)?)
                }
                Field::TransferEncoding if facts.chunked => return Err(Fault::Coding),
                Field::TransferEncoding => facts.chunked = parse_coding(value())?,
                Field::Connection => facts.add_connection(value())?,
                Field::Expect => {
                    facts.expects_continue |= value().eq_ignore_ascii_case(b"100-continue")
                }
                // Who says it twice is not understood.
                Field::Upgrade if facts.upgrade.is_some() => facts.upgrade = Some(b""),
                Field::Upgrade => facts.upgrade = Some(value()),
                Field::Host if facts.host.is_some() => return Err(Fault::HostRepeated),
                Field::Host => facts.host = Some(value()),
                _ => {}
            }
        }
        if facts.chunked && facts.length.is_some() {
            return Err(Fault::LengthAndCoding);
        }
        Ok(facts)
    }

    fn add_connection(&mut self, value: &[u8]) -> Result<(), Fault> {
        for option in list_members(value) {
            self.options += 1;
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.persistent = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.wants_upgrade = true;
            } else {
                self.connection_options = true;
            }
        }
        // Every line is compared with every option: a list that is made to be slow must stay short.
        if self.options > MAX_OPTIONS {
            return Err(Fault::FieldLine);
        }
        Ok(())
    }

    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.persistent)
    }

    /// An offer to switch, which HTTP/1.0 does not know (RFC 9110 section 7.8).
    fn upgrade(&self, method: &[u8], version: Version, body: Framing) -> &'a [u8] {
        let is_meant = self.wants_upgrade && version == Version::Http11;
        let offer = self.upgrade.filter(|_| is_meant).unwrap_or_default();
        if upgrade::is_passed_on(offer, method, body) {
            offer
        } else {
            b""
        }
    }

    fn authority(
        &self,
        from_target: Option<&'a [u8]>,
        version: Version,
    ) -> Result<&'a [u8], Fault> {
        match self.host {
            None if version == Version::Http11 => Err(Fault::HostMissing),
            Some(host) if !is_authority(host) => Err(Fault::HostInvalid),
            _ => Ok(from_target.or(self.host).unwrap_or_default()),
        }
    }

    fn body(&self, version: Version, limits: &Limits) -> Result<Framing, Fault> {
        if !self.chunked {
            return Ok(Framing::Length(self.length.unwrap_or(0)));
        }
        if version == Version::Http10 {
            return Err(Fault::CodingInHttp10);
        }
        Ok(chunked(limits))
    }
}

/// The chunked coding with the limits of a head for its trailers.
pub fn chunked(limits: &Limits) -> Framing {
    Framing::Chunked(Chunked::new(TrailerLimits {
        bytes: limits.head as u32,
        lines: limits.header_lines as u32,
    }))
}

/// Digits and nothing else (RFC 9112 section 6.2).
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// `chunked`, once and alone (RFC 9112 section 6.1).
fn parse_coding(value: &[u8]) -> Result<bool, Fault> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    let known = |coding: &[u8]| {
        [
            b"gzip".as_slice(),
            b"x-gzip",
            b"deflate",
            b"compress",
            b"x-compress",
        ]
        .iter()
        .any(|name| coding.eq_ignore_ascii_case(name))
    };
    let mut members: Vec<&[u8]> = list_members(value).collect();
    let last = members.pop().unwrap_or_default();
    if last.eq_ignore_ascii_case(b"chunked")
        && !members.is_empty()
        && members.into_iter().all(known)
    {
        return Err(Fault::CodingUnimplemented);
    }
    Err(Fault::Coding)
}

struct Target<'a> {
    whole: &'a [u8],
    form: TargetForm,
    authority: Option<&'a [u8]>,
    path_and_query: &'a [u8],
}

/// The four forms of RFC 9112 section 3.2.
fn parse_target<'a>(method: &[u8], target: &'a [u8]) -> Result<Target<'a>, Fault> {
    if method == b"CONNECT" {
        return Err(Fault::Connect);
    }
    // A fragment is no part of a target, and bytes above 127 stand in no URI (RFC 3986).
    if target
        .iter()
        .any(|&byte| byte == b'#' || !byte.is_ascii_graphic())
    {
        return Err(Fault::Target);
    }
    let whole = target;
    if target.first() == Some(&b'/') {
        return Ok(Target {
            whole,
            form: TargetForm::Origin,
            authority: None,
            path_and_query: target,
        });
    }
    if target == b"*" && method == b"OPTIONS" {
        return Ok(Target {
            whole,
            form: TargetForm::Asterisk,
            authority: None,
            path_and_query: target,
        });
    }
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start
                .eq_ignore_ascii_case(scheme.as_bytes())
                .then_some(rest)
        })
        .ok_or(Fault::Target)?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(end);
    if !is_authority(authority) {
        return Err(Fault::HostInvalid);
    }
    let path_and_query = match path_and_query {
        b"" if method == b"OPTIONS" => b"*",
        b"" => b"/".as_slice(),
        some => some,
    };
    Ok(Target {
        whole,
        form: TargetForm::Absolute,
        authority: Some(authority),
        path_and_query,
    })
}

/// Bytes of a registered name (RFC 3986 section 3.2.2).
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=%";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// `host [":" port]` without user information (RFC 3986 section 3.2); empty is none.
pub fn is_authority(value: &[u8]) -> bool {
    let (host_is_good, rest) = match value.strip_prefix(b"[") {
        Some(literal) => {
            let end = literal
                .iter()
                .position(|&byte| byte == b']')
                .unwrap_or(literal.len());
            let (host, rest) = literal.split_at(end);
            let good = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            (
                !host.is_empty() && host.iter().all(good) && !rest.is_empty(),
                rest.get(1..).unwrap_or_default(),
            )
        }
        None => {
            let end = value
                .iter()
                .position(|&byte| byte == b':')
                .unwrap_or(value.len());
            let (host, rest) = value.split_at(end);
            let good = |&byte: &u8| IN_NAME[usize::from(byte)];
            (!host.is_empty() && host.iter().all(good), rest)
        }
    };
    let port_is_good = match rest.split_first() {
        None => true,
        Some((b':', port)) => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    host_is_good && port_is_good
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: 4096,
        header_lines: 16,
    };

    fn fault(wire: &[u8]) -> Option<Fault> {
        parse(wire, &mut Vec::new(), &LIMITS).err()
    }

    #[test]
    fn a_head_is_read_in_place() {
        let wire = b"POST /cart;a=b?x=1 HTTP/1.1\r\nHost: Shop.example.com.:8080\r\nX-Empty:\r\nContent-Length:  5 \r\nConnection: close, x-secret\r\n\r\nhello";
        let mut lines = Vec::new();
        let request = parse(wire, &mut lines, &LIMITS).unwrap().unwrap();
        assert_eq!(request.head.bytes.len(), wire.len() - 5);
        assert_eq!(request.head.path, b"/cart;a=b");
        assert_eq!(request.head.host(), b"Shop.example.com");
        assert_eq!(request.body, Framing::Length(5));
        assert!(!request.keep_alive && request.connection_options);
        assert_eq!(request.head.values("x-empty").next(), Some(b"".as_slice()));
        assert_eq!(
            request.head.field(Field::ContentLength).next(),
            Some((2, b"5".as_slice()))
        );
    }

    #[test]
    fn an_absolute_target_overrides_host() {
        let wire = b"GET http://a.example?q HTTP/1.1\r\nHost: b.example\r\n\r\n";
        let mut lines = Vec::new();
        let head = parse(wire, &mut lines, &LIMITS).unwrap().unwrap().head;
        assert_eq!(
            (head.host(), head.path, head.path_and_query),
            (b"a.example".as_slice(), b"/".as_slice(), b"?q".as_slice())
        );
        assert_eq!(head.form, TargetForm::Absolute);
    }

    #[test]
    fn what_may_be_refused_is_refused() {
        let cases: &[(&[u8], Fault)] = &[
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Fault::BareLineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::BareLineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::BareLineEnd),
            (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::BareLineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Fault::FieldLine),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", Fault::FieldLine),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", Fault::FieldLine),
            (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Fault::FieldLine),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", Fault::FieldLine),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0\r\n\r\n", Fault::FieldLine),
            (b"GET / HTTP/1.1\r\n\r\n", Fault::HostMissing),
            (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Fault::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Fault::HostRepeated),
            (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Fault::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Fault::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Fault::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Fault::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Fault::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Fault::Length),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", Fault::Length),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", Fault::Length),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Fault::Length),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", Fault::Length),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::LengthAndCoding),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Coding),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Fault::Coding),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", Fault::Coding),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Fault::Coding),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Fault::Coding),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", Fault::Coding),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Fault::CodingUnimplemented),
            (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::CodingInHttp10),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Fault::Version),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault::Version),
            (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Fault::Version),
            (b"GET / http/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
            (b"GET /\r\nHost: a\r\n\r\n", Fault::StartLine),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
            (b"GET / a HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
            (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
            (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Connect),
            (b"GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::HostInvalid),
            (b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", Fault::HostInvalid),
            (b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
        ];
        for (wire, wanted) in cases {
            assert_eq!(fault(wire), Some(*wanted), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn sizes_have_limits() {
        let long = [b"GET /".as_slice(), &vec![b'a'; 4096]].concat();
        assert_eq!(fault(&long), Some(Fault::TargetTooLong));
        let large = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(),
            &vec![b'a'; 4096],
        ]
        .concat();
        assert_eq!(fault(&large), Some(Fault::HeadTooLarge));
        let many = [
            b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(),
            &b"X: a\r\n".repeat(16),
            b"\r\n",
        ]
        .concat();
        assert_eq!(fault(&many), Some(Fault::TooManyLines));
        assert_eq!(fault(b"GET / HTTP/1.1\r\nHost: a\r\n"), None);
    }

    #[test]
    fn every_prefix_of_a_head_is_incomplete_and_none_is_wrong() {
        let wire = b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nCookie: a=b; c=d\r\n\r\n";
        for length in 0..wire.len() {
            let mut lines = Vec::new();
            assert!(
                matches!(parse(&wire[..length], &mut lines, &LIMITS), Ok(None)),
                "{length}"
            );
        }
    }
}
