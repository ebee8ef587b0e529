//! weir's framing against that of hyper's server, fed the same bytes: a request that both take is the same request, and the next one
//! begins at the same byte. One of them may refuse what the other takes; that smuggles nothing.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use weir::http::request;

use super::support::LIMITS;

/// What both must agree on.
#[derive(Debug, PartialEq)]
struct Seen {
    method: Vec<u8>,
    authority: Vec<u8>,
    path_and_query: Vec<u8>,
    body: Vec<u8>,
}

/// Comes after what weir took: who does not see it there reads on elsewhere.
const NEXT: &[u8] = b"PUT /next HTTP/1.1\r\nHost: next\r\nContent-Length: 1\r\n\r\n!";

pub fn run(bytes: &[u8]) {
    let (taken, end, goes_on) = by_weir(bytes);
    if taken.is_empty() {
        return;
    }
    let wire = [&bytes[..end], NEXT].concat();
    let (other, incomplete) = by_hyper(&wire);
    for (ours, theirs) in taken.iter().zip(&other) {
        assert_eq!(ours, theirs);
    }
    assert!(
        !incomplete || other.len() > taken.len(),
        "hyper waits for more"
    );
    if let Some(next) = other.get(taken.len()) {
        assert!(goes_on || next.body == b"!", "after the last one");
        assert_eq!((&next.method[..], &next.body[..]), (&b"PUT"[..], &b"!"[..]));
        assert_eq!(next.path_and_query, b"/next");
    }
}

/// The whole requests at the front of the bytes, where they end, and whether the connection goes on after them.
fn by_weir(bytes: &[u8]) -> (Vec<Seen>, usize, bool) {
    let (mut seen, mut at) = (Vec::new(), 0);
    let mut lines = Vec::new();
    while seen.len() < 16 {
        let mut rest = bytes[at..].to_vec();
        request::skip_empty_lines(&mut rest);
        let skipped = bytes.len() - at - rest.len();
        let Ok(Some(request)) = request::parse(&rest, &mut lines, &LIMITS) else {
            break;
        };
        let head = &request.head;
        let mut body = rest[head.bytes.len()..].to_vec();
        let mut framing = request.body;
        let Ok((taken, kept)) = framing.advance_and_decode(&mut body) else {
            break;
        };
        if !framing.is_done() {
            break;
        }
        body.truncate(kept);
        seen.push(Seen {
            method: head.method.to_vec(),
            authority: head.authority.to_vec(),
            path_and_query: head.path_and_query.to_vec(),
            body,
        });
        at += skipped + head.bytes.len() + taken;
        if !request.keep_alive {
            return (seen, at, false);
        }
    }
    (seen, at, true)
}

/// What hyper's server makes of the bytes, and whether the last body was cut off by their end.
fn by_hyper(bytes: &[u8]) -> (Vec<Seen>, bool) {
    let seen = Rc::new(RefCell::new((Vec::new(), false)));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            match collect(body).await {
                Ok(body) => seen.borrow_mut().0.push(describe(&head, body)),
                Err(error) => seen.borrow_mut().1 |= error.is_incomplete_message(),
            }
            Ok::<_, Infallible>(Response::new(Empty))
        }
    });
    let wire = Wire(Bytes::copy_from_slice(bytes));
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_headers(64);
    let mut connection = pin!(builder.serve_connection(wire, service));
    let mut context = Context::from_waker(Waker::noop());
    // The wire is always ready: who waits has asked to be called again.
    for _ in 0..10_000 {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    seen.take()
}

fn describe(head: &hyper::http::request::Parts, body: Vec<u8>) -> Seen {
    let host = head.headers.get("host").map(|host| host.as_bytes());
    let authority = head.uri.authority().map(|it| it.as_str().as_bytes());
    let mut path = head
        .uri
        .path_and_query()
        .map_or("", |path| path.as_str())
        .to_owned();
    // What a URI without a path is, weir says when it is sent on.
    if head.method == "OPTIONS" && authority.is_some() && path == "/" {
        path = "*".to_owned();
    }
    Seen {
        method: head.method.as_str().as_bytes().to_vec(),
        authority: authority.or(host).unwrap_or_default().to_vec(),
        path_and_query: path.into_bytes(),
        body,
    }
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            all.extend_from_slice(&data);
        }
    }
    Ok(all)
}

/// No body.
struct Empty;

impl Body for Empty {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

/// Bytes to read and then the end; what is written is gone.
struct Wire(Bytes);

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let count = room.remaining().min(self.0.len());
        let bytes = self.0.split_to(count);
        room.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
