//! What can go wrong with a request, and the one table that turns it into a status, a reason for logs and metrics, and a text.
//! It never sends anything: `respond.rs` does.
//! The walk ends here; it comes from `proxy.rs`.

use std::io;

use super::protect::Limited;
use crate::http::fault::Fault;
use crate::http::path::PathFault;

/// Why a request did not get its backend's answer, or only a part of it. The first word says who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client sent what is refused.
    Request(Fault),
    /// The client sent an ambiguous path.
    Path(PathFault),
    /// The client did not complete a head in time.
    HeadTimeout,
    /// The client stopped sending a body.
    BodyTimeout,
    /// The client's body is larger than the route allows.
    BodyTooLarge,
    /// The client went away, or stopped reading for too long.
    ClientGone,
    /// No route matches.
    NoRoute,
    /// No backend may be chosen.
    NoBackend,
    /// The client's home cannot serve, and the route wants no other to.
    HomeDown,
    /// The backend did not accept a connection.
    Connect(io::ErrorKind),
    /// There was no socket to reach the backend with: no descriptor, port or memory, or none that may bear the client's address. It says
    /// nothing of the backend.
    NoSocket,
    /// The backend did not accept a connection in time.
    ConnectTimeout,
    /// The backend closed the connection before its answer, or within it.
    BackendClosed,
    /// The backend's answer is refused.
    Answer(Fault),
    /// The backend switched protocols without having been asked.
    Switched,
    /// The backend did not answer in time, or stopped in the middle.
    ResponseTimeout,
    /// The backend answered with this status of class 5xx. It leads to another attempt.
    ErrorStatus(u16),
    /// No answer began in the time that all attempts together have.
    TotalTimeout,
    /// The backend, which drains, does not know the client's session any more. It leads to another attempt.
    SessionOver,
    /// A filter answered, as it was told to: nothing failed, and nothing is counted.
    Answered,
    /// The client may not come in.
    Denied,
    /// The client asks more often than it may.
    Limited(Limited),
    /// The client did not say who it is, or said it wrongly.
    Unauthorized,
    /// Too many passwords wait to be checked.
    DoorBusy,
    /// The client sends its body too slowly.
    BodyTooSlow,
    /// The client of a gRPC call does not wait any more.
    DeadlineExceeded,
    /// The client speaks TLS where it is not spoken.
    TlsHere,
    /// The request is for a host that the connection is not for.
    Misdirected,
    /// The backend did not prove who it is, or does not speak TLS as it should.
    Unproven,
    /// Every backend has all the connections that it may have, which was not known before. It leads to the queue.
    Crowded,
    /// As many requests wait for a backend as may.
    QueueFull,
    /// The request has waited for a backend for as long as it may.
    QueueTimeout,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// Label of `weir_http_refused_total` and word in the access log.
    pub reason: &'static str,
    /// Status code.
    pub status: u16,
    /// A sentence for whoever reads the answer.
    pub text: &'static str,
}

/// Status in the log for a client that went away before its answer; it is never sent.
pub const CLIENT_GONE: u16 = 499;

const fn row(reason: &'static str, status: u16, text: &'static str) -> Row {
    Row {
        reason,
        status,
        text,
    }
}

/// Every reason, in the order of [`Failure::ordinal`].
pub const TABLE: [Row; 51] = [
    row("start_line", 400, "The request line is malformed."),
    row("version", 505, "This server speaks HTTP/1.0 and HTTP/1.1."),
    row("target", 400, "The request target is malformed."),
    row("connect_method", 405, "CONNECT is not available here."),
    row("field_line", 400, "A header field line is malformed."),
    row("bare_line_end", 400, "A line must end in CR LF."),
    row("host_missing", 400, "The Host header field is missing."),
    row("host_repeated", 400, "The Host header field is repeated."),
    row("host_invalid", 400, "The Host header field is invalid."),
    row(
        "length_and_coding",
        400,
        "Content-Length and Transfer-Encoding exclude each other.",
    ),
    row("length", 400, "The Content-Length header field is invalid."),
    row(
        "coding",
        400,
        "The Transfer-Encoding header field is invalid.",
    ),
    row(
        "coding_unimplemented",
        501,
        "Only the chunked transfer coding is implemented.",
    ),
    row("coding_in_http10", 400, "HTTP/1.0 has no transfer codings."),
    row("target_too_long", 414, "The request target is too long."),
    row("head_too_large", 431, "The request header is too large."),
    row(
        "too_many_lines",
        431,
        "The request header has too many lines.",
    ),
    row("chunk", 400, "The chunked body is malformed."),
    row("trailer", 400, "The trailer section is malformed."),
    row("path", 400, "The path is ambiguous."),
    row(
        "head_timeout",
        408,
        "The request header was not complete in time.",
    ),
    row("body_timeout", 408, "The request body stopped arriving."),
    row("body_too_large", 413, "The request body is too large."),
    row("client_gone", CLIENT_GONE, ""),
    row("no_route", 404, "Nothing is served at this address."),
    row("no_backend", 503, "No server is available at the moment."),
    row("connect_refused", 502, "The server refused the connection."),
    row("connect_failed", 502, "The server could not be reached."),
    row(
        "connect_timeout",
        504,
        "The server could not be reached in time.",
    ),
    row("backend_closed", 502, "The server closed the connection."),
    row("bad_answer", 502, "The server's answer is malformed."),
    row(
        "answer_too_large",
        502,
        "The header of the server's answer is too large.",
    ),
    row(
        "switched_protocols",
        502,
        "The server switched protocols without being asked.",
    ),
    row(
        "response_timeout",
        504,
        "The server did not answer in time.",
    ),
    row(
        "home_down",
        503,
        "The server of this session is not available at the moment.",
    ),
    row("session_over", 503, "The session is over."),
    row("answered", 200, "A filter answered."),
    row("denied", 403, "Access is not allowed."),
    row("limited", 429, "Too many requests."),
    row("body_too_slow", 408, "The request body arrived too slowly."),
    row(
        "deadline_exceeded",
        504,
        "The deadline of the call has passed.",
    ),
    row(
        "tls_on_plain_port",
        400,
        "This port does not speak TLS: ask with http:// here.",
    ),
    row(
        "misdirected",
        421,
        "This connection is not for that host: ask on another one.",
    ),
    row("unproven", 502, "The server could not be reached securely."),
    row(
        "unauthorized",
        401,
        "A name and a password are needed here.",
    ),
    row(
        "door_busy",
        503,
        "Too many passwords are being checked at the moment.",
    ),
    row("error_status", 502, "The server failed."),
    row(
        "total_timeout",
        504,
        "The request was not answered in time.",
    ),
    row("queue_full", 503, "Every server is busy at the moment."),
    row("queue_timeout", 503, "No server was free in time."),
    row("no_socket", 503, "No server can be reached at the moment."),
];

impl Failure {
    /// Its place in [`TABLE`].
    pub fn ordinal(self) -> usize {
        match self {
            Failure::Request(fault) => match fault {
                Fault::StartLine => 0,
                Fault::Version => 1,
                Fault::Target => 2,
                Fault::Connect => 3,
                Fault::FieldLine => 4,
                Fault::BareLineEnd => 5,
                Fault::HostMissing => 6,
                Fault::HostRepeated => 7,
                Fault::HostInvalid => 8,
                Fault::LengthAndCoding => 9,
                Fault::Length => 10,
                Fault::Coding => 11,
                Fault::CodingUnimplemented => 12,
                Fault::CodingInHttp10 => 13,
                Fault::TargetTooLong => 14,
                Fault::HeadTooLarge => 15,
                Fault::TooManyLines => 16,
                Fault::Chunk => 17,
                Fault::Trailer => 18,
            },
            Failure::Path(_) => 19,
            Failure::HeadTimeout => 20,
            Failure::BodyTimeout => 21,
            Failure::BodyTooLarge => 22,
            Failure::ClientGone => 23,
            Failure::NoRoute => 24,
            Failure::NoBackend => 25,
            Failure::Connect(io::ErrorKind::ConnectionRefused) => 26,
            Failure::Connect(_) => 27,
            Failure::ConnectTimeout => 28,
            Failure::BackendClosed => 29,
            Failure::Answer(Fault::HeadTooLarge | Fault::TooManyLines) => 31,
            Failure::Answer(_) => 30,
            Failure::Switched => 32,
            Failure::ResponseTimeout => 33,
            Failure::HomeDown => 34,
            Failure::SessionOver => 35,
            Failure::Answered => 36,
            Failure::Denied => 37,
            Failure::Limited(_) => 38,
            Failure::Unauthorized => 44,
            Failure::DoorBusy => 45,
            Failure::ErrorStatus(_) => 46,
            Failure::TotalTimeout => 47,
            Failure::QueueFull => 48,
            Failure::Crowded | Failure::QueueTimeout => 49,
            Failure::NoSocket => 50,
            Failure::BodyTooSlow => 39,
            Failure::DeadlineExceeded => 40,
            Failure::TlsHere => 41,
            Failure::Misdirected => 42,
            Failure::Unproven => 43,
        }
    }

    /// Whether the client is told of it as of a failure.
    pub fn is_told(self) -> bool {
        !matches!(self, Failure::ClientGone | Failure::Answered)
    }

    /// Its row of [`TABLE`].
    pub fn row(self) -> &'static Row {
        &TABLE[self.ordinal()]
    }
}

/// The reason phrase of a status that weir answers with.
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::worker::REASONS;

    #[test]
    fn the_table_has_a_phrase_for_every_status_and_fits_its_counters() {
        assert!(TABLE.len() <= REASONS);
        for row in TABLE.iter().filter(|row| row.status != CLIENT_GONE) {
            assert!(
                !phrase(row.status).is_empty() && !row.text.is_empty(),
                "{}",
                row.reason
            );
        }
    }

    #[test]
    fn reasons_are_distinct_and_stand_where_their_failure_looks() {
        for (ordinal, row) in TABLE.iter().enumerate() {
            assert_eq!(
                TABLE.iter().position(|other| other.reason == row.reason),
                Some(ordinal)
            );
        }
        assert_eq!(Failure::Request(Fault::Trailer).row().reason, "trailer");
        assert_eq!(Failure::NoBackend.row().reason, "no_backend");
        assert_eq!(Failure::ResponseTimeout.row().reason, "response_timeout");
        assert_eq!(
            Failure::Answer(Fault::TooManyLines).row().reason,
            "answer_too_large"
        );
    }
}
