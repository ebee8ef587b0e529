//! Sends weir's own answer to a request that failed, and decides what becomes of the connection.
//! It never explains more to the client than the table in `reject.rs` says.
//! The walk goes on in `record.rs`.

use std::future::poll_fn;
use std::task::Poll;

use super::client::Next;
use super::exchange::{Coding, Exchange};
use super::http2::stream::ClientStream;
use super::protect;
use super::reject::{Failure, phrase};
use crate::clock;
use crate::http::fault::Fault;
use crate::http::fields;
use crate::http::framing::Framing;
use crate::policy::filter::{Answer, Body, Reason};

/// Seconds after which trying again is worth while.
const RETRY_AFTER: u32 = 5;

/// Ends a request that has no answer, or only the beginning of one.
pub(super) async fn respond(exchange: &mut Exchange<'_>, failure: Failure) -> Next {
    if failure != Failure::Answered {
        exchange.facts.failure = Some(failure);
        exchange.client.local.counts.refused[failure.ordinal()].increment();
    }
    exchange.backend = None;
    if failure.is_told() && exchange.refuse_call(failure) {
        exchange.facts.ended = clock::now();
        return Next::Request;
    }
    let next = match (failure, exchange.answer.status) {
        (Failure::ClientGone, 0) => Next::Close,
        (_, 0) => send(exchange, failure).await,
        // The client must not take what it has for the whole answer.
        (_, _) if exchange.answer.body == Framing::Close => Next::Abort,
        (_, _) if exchange.answer.coding == Coding::Decode => Next::Abort,
        (_, _) if exchange.is_coded() => Next::Abort,
        (_, _) => Next::Close,
    };
    exchange.facts.ended = clock::now();
    next
}

async fn send(exchange: &mut Exchange<'_>, failure: Failure) -> Next {
    let keeps = keeps_connection(exchange, failure);
    let own = exchange.take_own_answer();
    let mut answer = own.unwrap_or_else(|| refusal(exchange, failure));
    if answer.body.bytes.is_empty() {
        let page = exchange.page(answer.status);
        answer.body = page.unwrap_or_else(|| text(failure));
    }
    let message = compose(exchange, &answer, keeps);
    exchange.answer.status = answer.status;
    exchange.facts.bytes_out += message.len() as u64;
    let keeps = keeps || exchange.client.stream.is_http2();
    match exchange.client.stream.http2() {
        Some(stream) => match begin_on_stream(stream, &message) {
            Some(rest) => exchange.answer.backlog.push(rest),
            None => return Next::Abort,
        },
        None => exchange.answer.backlog.push(&message),
    }
    let wait = exchange.timeouts().response_idle;
    let mut is_first = true;
    let sent = poll_fn(|cx| {
        if std::mem::take(&mut is_first) {
            exchange.client.timer.set(cx, wait);
        }
        match exchange
            .answer
            .backlog
            .poll_flush(&mut exchange.client.stream, cx)
        {
            Poll::Pending if exchange.client.timer.has_fired() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
        }
    })
    .await;
    if sent {
        exchange.client.stream.end(None);
    }
    match (sent, keeps) {
        (false, _) => Next::Close,
        (true, true) => Next::Request,
        (true, false) => Next::Linger,
    }
}

/// Sends the head, and the body if there is room for it; else returns it.
fn begin_on_stream<'a>(stream: &mut ClientStream, message: &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memmem::find(message, b"\r\n\r\n")? + "\r\n\r\n".len();
    let (head, body) = message.split_at(end);
    let answer = fields::read_answer(head)?;
    let taken = stream.respond(answer, body, true).ok()?;
    Some(&body[taken..])
}

/// After a fault of framing nobody knows where the next request begins; otherwise the connection may go on if this one is complete.
fn keeps_connection(exchange: &Exchange<'_>, failure: Failure) -> bool {
    let is_clear = !matches!(
        failure,
        Failure::Request(_)
            | Failure::TlsHere
            | Failure::Path(_)
            | Failure::HeadTimeout
            | Failure::BodyTooLarge
    );
    is_clear
        && exchange.upload.is_done()
        && exchange.head.is_some_and(|head| head.keep_alive)
        && !exchange.client.view.is_closing()
}

/// What the table says about a failure, as an answer.
fn refusal(exchange: &Exchange<'_>, failure: Failure) -> Answer {
    let row = failure.row();
    let status = row.status;
    let mut fields = "Cache-Control: no-store\r\n".to_owned();
    if status == 503 {
        fields += &format!("Retry-After: {RETRY_AFTER}\r\n");
    }
    if let Failure::Limited(limited) = failure {
        fields += &protect::rate_fields(exchange, limited);
    }
    if failure == Failure::Request(Fault::Connect) {
        fields += "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n";
    }
    Answer {
        reason: Reason::Meant,
        status,
        fields: fields.into_bytes(),
        body: Body::default(),
    }
}

/// The body that says what the table says; none where nothing failed.
fn text(failure: Failure) -> Body {
    let row = failure.row();
    let text = format!("{} {}\n{}\n", row.status, phrase(row.status), row.text);
    match failure {
        Failure::Answered => Body::default(),
        _ => Body {
            content_type: "text/plain; charset=utf-8".into(),
            bytes: text.into_bytes().into(),
        },
    }
}

fn compose(exchange: &Exchange<'_>, answer: &Answer, keeps: bool) -> Vec<u8> {
    let status = answer.status;
    let mut head = format!("HTTP/1.1 {status} {}\r\n", phrase(status)).into_bytes();
    head.extend_from_slice(&answer.fields);
    // These have no body, and must not speak of one (RFC 9110 section 8.6).
    let has_body = !matches!(status, 204 | 304);
    let Body {
        content_type,
        bytes,
    } = &answer.body;
    if has_body && !bytes.is_empty() {
        head.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
    }
    if has_body {
        head.extend_from_slice(format!("Content-Length: {}\r\n", bytes.len()).as_bytes());
    }
    let is_old = exchange
        .head
        .is_some_and(|head| head.version == crate::http::head::Version::Http10);
    match keeps {
        true if is_old => head.extend_from_slice(b"Connection: keep-alive\r\n"),
        true => {}
        false => head.extend_from_slice(b"Connection: close\r\n"),
    }
    head.extend_from_slice(b"\r\n");
    let mut message = exchange.filter_own(head);
    if has_body && exchange.head.is_none_or(|head| !head.is_head) {
        message.extend_from_slice(bytes);
    }
    message
}
