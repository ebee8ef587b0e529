//! What a gRPC call needs beyond HTTP/2 (the protocol's "gRPC over HTTP2" page): its own deadline, and refusals that its client understands.
//! Everything else of a call is a request like any other.
//! The walk goes on in `respond.rs`.

use std::task::Context;
use std::time::{Duration, Instant};

use ::http::Response;
use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::exchange::Exchange;
use super::reject::Failure;
use crate::clock;
use crate::http::fields::is_grpc;
use crate::http::head::RequestHead;

/// A gRPC call.
#[derive(Debug)]
pub(super) struct Call {
    /// When its client stops waiting.
    deadline: Option<Instant>,
}

impl Call {
    /// The call that a request is, if it is one.
    pub(super) fn of(head: &RequestHead<'_>, started: Instant) -> Option<Box<Call>> {
        if !is_grpc(head.values("content-type").next()) {
            return None;
        }
        let timeout = head.values("grpc-timeout").next().and_then(parse_timeout);
        Some(Box::new(Call {
            deadline: timeout.and_then(|timeout| started.checked_add(timeout)),
        }))
    }
}

/// Up to eight digits and a unit.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The status of a call that failed so; where HTTP's says enough, as the page "HTTP to gRPC status code mapping" has it.
fn status(failure: Failure) -> &'static str {
    match (failure, failure.row().status) {
        (Failure::DeadlineExceeded, _) => "4",
        (Failure::BodyTooLarge, _) => "8",
        (_, 401) => "16",
        (_, 403) => "7",
        (_, 404) => "12",
        (_, 429 | 502..=504) => "14",
        (_, 400..500) => "13",
        _ => "2",
    }
}

fn tell(failure: Failure, fields: &mut HeaderMap) {
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static;
    fields.insert(name("grpc-status"), value(status(failure)));
    fields.insert(name("grpc-message"), value(failure.row().text));
}

impl Exchange<'_> {
    /// Begins a wait of the request; that of a call ends at its deadline, and one before the answer at that of all tries.
    #[inline]
    pub(super) fn wait(&self, cx: &mut Context<'_>, wait: Duration) {
        let wait = match self.deadline() {
            None => wait,
            Some(deadline) => wait.min(deadline.saturating_duration_since(clock::now())),
        };
        self.client.timer.set(cx, wait);
    }

    fn deadline(&self) -> Option<Instant> {
        let of_call = self.call.as_ref().and_then(|call| call.deadline);
        match &self.retrying {
            Some(retrying) if self.answer.status == 0 => {
                of_call.into_iter().chain(retrying.until()).min()
            }
            _ => of_call,
        }
    }

    /// What a wait that took too long comes to.
    pub(super) fn overdue_or(&self, failure: Failure) -> Failure {
        match self.call.as_ref().and_then(|call| call.deadline) {
            Some(deadline) if deadline <= clock::now() => Failure::DeadlineExceeded,
            _ if self.is_out_of_time() => Failure::TotalTimeout,
            _ => failure,
        }
    }

    /// Tells the client of a call that it failed, whatever it has of the answer; false when there is no call.
    pub(super) fn refuse_call(&mut self, failure: Failure) -> bool {
        let Some(stream) = self.client.stream.http2().filter(|_| self.call.is_some()) else {
            return false;
        };
        if self.answer.status != 0 {
            let mut trailers = HeaderMap::new();
            tell(failure, &mut trailers);
            stream.end(Some(trailers));
            return true;
        }
        let mut answer = Response::new(());
        let fields = answer.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        tell(failure, fields);
        self.answer.status = failure.row().status;
        // It fails only when the client is gone.
        let _ = stream.respond(answer, &[], true);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit() {
        for (text, wanted) in [
            ("1H", Some(3_600_000_000_000u128)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("99999999m", Some(99_999_999_000_000)),
            ("5u", Some(5_000)),
            ("6n", Some(6)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("123456789S", None),
        ] {
            let read = parse_timeout(text.as_bytes()).map(|timeout| timeout.as_nanos());
            assert_eq!(read, wanted, "{text}");
        }
    }

    #[test]
    fn failures_have_a_status() {
        use std::io::ErrorKind;
        for (failure, wanted) in [
            (Failure::DeadlineExceeded, "4"),
            (Failure::NoRoute, "12"),
            (Failure::NoBackend, "14"),
            (Failure::Connect(ErrorKind::ConnectionRefused), "14"),
            (Failure::BodyTooLarge, "8"),
            (Failure::Denied, "7"),
        ] {
            assert_eq!(status(failure), wanted, "{failure:?}");
        }
    }
}
