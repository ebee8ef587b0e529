//! What can be read from and written to without waiting: a socket, or one stream of an HTTP/2 connection.
//! It says nothing of what the bytes mean.
//! The walk goes on in `stream.rs` and in `l7/side.rs`, which are it.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::stream::Stream;

/// Bytes both ways, each with an end of its own.
pub trait Duplex {
    /// Reads what is there; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes `first` and then `second` as far as they are taken. Both must not be empty.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>>;

    /// The socket behind it, where bytes pass as they are.
    fn plain(&self) -> Option<&TcpStream>;

    /// Sends the end.
    fn shutdown_write(&mut self);

    /// Sends an end that nobody meant: who can tell it from the other one, as within TLS, must be able to.
    fn cut_write(&mut self);

    /// Makes the coming close a reset: the other side must not take it for an end.
    fn reset_on_close(&mut self);

    /// Has the system ask now and then whether the other end is still there.
    fn keep_alive(&self);

    /// Whether it is known to have failed, for a side from which nobody reads any more. It is told once.
    fn has_failed(&mut self, cx: &mut Context<'_>) -> bool;
}

impl Duplex for Stream {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Stream::poll_read(self, cx, buffer)
    }

    #[inline]
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write(self, cx, first, second)
    }

    #[inline]
    fn plain(&self) -> Option<&TcpStream> {
        Stream::plain(self)
    }

    fn shutdown_write(&mut self) {
        Stream::shutdown_write(self);
    }

    fn cut_write(&mut self) {
        Stream::cut_write(self);
    }

    fn reset_on_close(&mut self) {
        Stream::reset_on_close(self);
    }

    fn keep_alive(&self) {
        Stream::keep_alive(self);
    }

    fn has_failed(&mut self, _: &mut Context<'_>) -> bool {
        Stream::has_failed(self)
    }
}
