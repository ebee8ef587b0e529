//! What a socket did not take yet. It owns memory only under back-pressure and frees it when drained.
//! It never grows by itself: whoever sends must stop reading its source while something is left here.
//! The walk goes on in `l7/body.rs`.

use std::io;
use std::task::{Context, Poll, ready};

use super::duplex::Duplex;

/// Bytes on their way to one stream.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    sent: usize,
}

impl Backlog {
    /// Whether the stream took everything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Keeps bytes for later.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets what was not sent, as when the connection it was meant for is gone.
    pub fn clear(&mut self) {
        *self = Backlog::default();
    }

    /// Writes `first` and `second` behind what is kept already; what the stream does not take now is kept.
    ///
    /// # Errors
    /// The system's error: the stream is of no more use.
    #[inline]
    pub fn send(
        &mut self,
        stream: &mut impl Duplex,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> io::Result<()> {
        let mut taken = 0;
        if self.is_empty() {
            match stream.poll_write(cx, first, second) {
                Poll::Ready(Ok(count)) if count == first.len() + second.len() => return Ok(()),
                Poll::Ready(Ok(count)) => taken = count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        self.push(first.get(taken..).unwrap_or_default());
        self.push(
            second
                .get(taken.saturating_sub(first.len())..)
                .unwrap_or_default(),
        );
        // A short write says nothing about the next one; asking again registers the wish to be woken.
        match self.poll_flush(stream, cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes what is kept.
    ///
    /// # Errors
    /// The system's error: the stream is of no more use.
    #[inline]
    pub fn poll_flush(
        &mut self,
        stream: &mut impl Duplex,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(stream.poll_write(cx, &self.bytes[self.sent..], &[]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        if !self.bytes.is_empty() {
            self.clear();
        }
        Poll::Ready(Ok(()))
    }
}
