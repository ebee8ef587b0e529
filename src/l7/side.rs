//! The client's side of an exchange: a connection that carries one request after the other (HTTP/1), or one stream of many (HTTP/2).
//! Both take and give payload in the same way; how a head and an end are told is all that differs, and stands here.
//! The walk goes on in `http2/stream.rs`.

use std::io;
use std::task::{Context, Poll};

use ::http::HeaderMap;
use tokio::net::TcpStream;

use super::http2::stream::ClientStream;
use crate::net::duplex::Duplex;
use crate::net::stream::Stream;

/// Where a request came from, and its answer goes.
#[derive(Debug)]
pub enum Side {
    /// A connection.
    Http1(Stream),
    /// A stream of a connection; boxed, since a waiting HTTP/1 connection is small.
    Http2(Box<ClientStream>),
}

impl Side {
    /// The stream of an HTTP/2 connection, if it is one.
    #[inline]
    pub fn http2(&mut self) -> Option<&mut ClientStream> {
        match self {
            Side::Http1(_) => None,
            Side::Http2(stream) => Some(stream),
        }
    }

    /// Whether it is a connection within TLS.
    #[inline]
    pub fn speaks_tls(&self) -> bool {
        matches!(self, Side::Http1(Stream::Tls(_)))
    }

    /// Whether it speaks HTTP/2.
    #[inline]
    pub fn is_http2(&self) -> bool {
        matches!(self, Side::Http2(_))
    }

    /// Reads what is there to the end of `buffer`; 0 is the end. Heads come this way in HTTP/1 only.
    #[inline]
    pub fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Side::Http1(stream) => stream.poll_read_into(cx, buffer),
            Side::Http2(_) => Poll::Ready(Ok(0)),
        }
    }

    /// Whether nothing of the client's is unread.
    #[inline]
    pub fn is_quiet(&mut self) -> bool {
        match self {
            Side::Http1(stream) => stream.is_quiet(),
            Side::Http2(_) => true,
        }
    }

    /// Ends an answer whose payload has been taken; in HTTP/1 its framing says so already.
    pub fn end(&mut self, trailers: Option<HeaderMap>) {
        if let Side::Http2(stream) = self {
            stream.end(trailers);
        }
    }
}

impl Duplex for Side {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Side::Http1(stream) => stream.poll_read(cx, buffer),
            Side::Http2(stream) => stream.poll_read(cx, buffer),
        }
    }

    #[inline]
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Side::Http1(stream) => stream.poll_write(cx, first, second),
            Side::Http2(stream) => stream.poll_write(cx, first, second),
        }
    }

    #[inline]
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Side::Http1(stream) => stream.plain(),
            Side::Http2(_) => None,
        }
    }

    fn shutdown_write(&mut self) {
        match self {
            Side::Http1(stream) => stream.shutdown_write(),
            Side::Http2(stream) => stream.end(None),
        }
    }

    fn cut_write(&mut self) {
        match self {
            Side::Http1(stream) => stream.cut_write(),
            Side::Http2(stream) => stream.abort(),
        }
    }

    fn reset_on_close(&mut self) {
        match self {
            Side::Http1(stream) => stream.reset_on_close(),
            Side::Http2(stream) => stream.abort(),
        }
    }

    fn keep_alive(&self) {
        if let Side::Http1(stream) = self {
            stream.keep_alive();
        }
    }

    fn has_failed(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Side::Http1(stream) => Stream::has_failed(stream),
            Side::Http2(stream) => stream.is_gone(cx),
        }
    }
}
