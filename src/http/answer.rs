//! Reads an answer head (RFC 9112 section 4) with the same strictness as a request: a fault here is the backend's, and a 502.
//! It never changes or copies a byte.
//! The walk goes on in `l7/answer.rs`, which passes answers on.

use std::mem::MaybeUninit;

use super::fault::Fault;
use super::framing::Framing;
use super::head::{AnswerHead, Line, Version};
use super::request::{Facts, MAX_LINES, chunked, end_of_line, index};
use crate::config::model::Limits;

/// An answer head and what follows from it for this hop.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The head.
    pub head: AnswerHead<'a>,
    /// Its body.
    pub body: Framing,
    /// Whether the backend lets the connection be used again.
    pub keep_alive: bool,
    /// Whether `Connection` names fields beyond the usual.
    pub connection_options: bool,
}

impl Answer<'_> {
    /// Whether another answer to the same request follows (RFC 9110 section 15.2).
    pub fn is_interim(&self) -> bool {
        self.head.status < 200
    }
}

/// Reads a head from the front of `bytes`; `None` while it is incomplete. `is_head` says that the request was a HEAD.
///
/// # Errors
/// The first fault found; the upstream connection cannot go on after it.
pub fn parse<'a>(
    bytes: &'a [u8],
    lines: &'a mut Vec<Line>,
    limits: &Limits,
    is_head: bool,
) -> Result<Option<Answer<'a>>, Fault> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut parsed, bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length <= limits.head => length,
        Ok(httparse::Status::Partial) if bytes.len() < limits.head => return Ok(None),
        Ok(_) => return Err(Fault::HeadTooLarge),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooManyLines),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(Fault::FieldLine);
        }
        Err(_) => return Err(Fault::StartLine),
    };
    let bytes = &bytes[..length];
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Fault::StartLine);
    };
    let version = if minor == 1 {
        Version::Http11
    } else {
        Version::Http10
    };
    let first = "HTTP/1.1 200".len();
    let reason = match parsed.reason {
        Some(reason) if !reason.is_empty() => reason.len() + " ".len(),
        _ => 0,
    };
    let start = end_of_line(bytes, first + reason)?;
    index(bytes, start, parsed.headers, limits.header_lines, lines)?;
    let facts = Facts::collect(bytes, lines)?;
    if status < 100 || (facts.chunked && version == Version::Http10) {
        return Err(if status < 100 {
            Fault::StartLine
        } else {
            Fault::CodingInHttp10
        });
    }
    let body = body(status, is_head, &facts, limits);
    Ok(Some(Answer {
        head: AnswerHead {
            bytes,
            lines,
            status,
            version,
        },
        body,
        keep_alive: facts.keep_alive(version) && body != Framing::Close,
        connection_options: facts.connection_options,
    }))
}

/// RFC 9112 section 6.3.
fn body(status: u16, is_head: bool, facts: &Facts<'_>, limits: &Limits) -> Framing {
    if is_head || status < 200 || status == 204 || status == 304 {
        return Framing::NONE;
    }
    if facts.chunked {
        return chunked(limits);
    }
    facts.length().map_or(Framing::Close, Framing::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: 4096,
        header_lines: 16,
    };

    fn read(wire: &[u8], is_head: bool) -> Result<(u16, Framing, bool), Fault> {
        let mut lines = Vec::new();
        parse(wire, &mut lines, &LIMITS, is_head).map(|answer| {
            let answer = answer.expect("complete");
            (answer.head.status, answer.body, answer.keep_alive)
        })
    }

    #[test]
    fn a_body_follows_from_status_method_and_fields() {
        let some = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(read(some, false), Ok((200, Framing::Length(5), true)));
        assert_eq!(read(some, true), Ok((200, Framing::NONE, true)));
        assert_eq!(
            read(
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                false
            ),
            Ok((304, Framing::NONE, true))
        );
        assert_eq!(
            read(b"HTTP/1.1 200\r\n\r\n", false),
            Ok((200, Framing::Close, false))
        );
        assert_eq!(
            read(b"HTTP/1.1 200 \r\n\r\n", false),
            Ok((200, Framing::Close, false))
        );
        assert_eq!(
            read(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            Ok((200, Framing::NONE, false))
        );
        let kept = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(read(kept, false), Ok((200, Framing::NONE, true)));
        assert!(matches!(
            read(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                false
            ),
            Ok((200, Framing::Chunked(_), true))
        ));
    }

    #[test]
    fn faults_are_found() {
        let cases: &[(&[u8], Fault)] = &[
            (
                b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
                Fault::BareLineEnd,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n",
                Fault::BareLineEnd,
            ),
            (b"HTTP/1.1 200 OK\r\nX : 5\r\n\r\n", Fault::FieldLine),
            (b"HTTP/1.1 200 OK\r\nX: 5\r\n 6\r\n\r\n", Fault::FieldLine),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::LengthAndCoding,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                Fault::Length,
            ),
            (
                b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::CodingInHttp10,
            ),
            (b"HTTP/1.1 099 OK\r\n\r\n", Fault::StartLine),
            (b"HTTP/2.0 200 OK\r\n\r\n", Fault::StartLine),
            (b"ICY 200 OK\r\n\r\n", Fault::StartLine),
        ];
        for (wire, wanted) in cases {
            assert_eq!(read(wire, false), Err(*wanted), "{}", wire.escape_ascii());
        }
    }
}
