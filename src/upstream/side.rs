//! The backend's side of an exchange: a connection of its own (HTTP/1), or one stream of a connection that requests share (HTTP/2).
//! An answer is read in the same way from both: its head as HTTP/1 has it, then its payload.
//! The walk goes on in `http2.rs`.

use std::io;
use std::task::{Context, Poll};

use ::http::HeaderMap;
use tokio::net::TcpStream;

use super::http2::BackendStream;
use crate::net::duplex::Duplex;
use crate::net::stream::Stream;

/// Where a request goes, and its answer comes from.
#[derive(Debug)]
pub enum BackendSide {
    /// A connection.
    Http1(Stream),
    /// A stream of one; boxed, since most are not.
    Http2(Box<BackendStream>),
}

impl BackendSide {
    /// The stream of an HTTP/2 connection, if it is one.
    #[inline]
    pub fn http2(&mut self) -> Option<&mut BackendStream> {
        match self {
            BackendSide::Http1(_) => None,
            BackendSide::Http2(stream) => Some(stream),
        }
    }

    /// Whether it speaks HTTP/2.
    #[inline]
    pub fn is_http2(&self) -> bool {
        matches!(self, BackendSide::Http2(_))
    }

    /// Ends a request whose payload has been taken; in HTTP/1 its framing says so already.
    #[inline]
    pub fn end(&mut self, trailers: Option<HeaderMap>) {
        if let BackendSide::Http2(stream) = self {
            stream.end(trailers);
        }
    }
}

impl Duplex for BackendSide {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            BackendSide::Http1(stream) => stream.poll_read(cx, buffer),
            BackendSide::Http2(stream) => stream.poll_read(cx, buffer),
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
            BackendSide::Http1(stream) => stream.poll_write(cx, first, second),
            BackendSide::Http2(stream) => stream.poll_write(cx, first, second),
        }
    }

    fn shutdown_write(&mut self) {
        match self {
            BackendSide::Http1(stream) => stream.shutdown_write(),
            BackendSide::Http2(stream) => stream.end(None),
        }
    }

    fn plain(&self) -> Option<&TcpStream> {
        match self {
            BackendSide::Http1(stream) => stream.plain(),
            BackendSide::Http2(_) => None,
        }
    }

    fn cut_write(&mut self) {
        if let BackendSide::Http1(stream) = self {
            stream.cut_write();
        }
    }

    fn reset_on_close(&mut self) {
        // A stream that is let go before its end is reset by the codec.
        if let BackendSide::Http1(stream) = self {
            stream.reset_on_close();
        }
    }

    fn keep_alive(&self) {
        if let BackendSide::Http1(stream) = self {
            stream.keep_alive();
        }
    }

    fn has_failed(&mut self, _: &mut Context<'_>) -> bool {
        matches!(self, BackendSide::Http1(stream) if Stream::has_failed(stream))
    }
}
