//! What a socket did not take yet. It owns memory only under back-pressure and frees it when drained.
//! It never grows by itself: whoever sends must stop reading its source while something is left here.
//! The walk goes on in `l7/body.rs`.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::duplex::Duplex;
use super::splice::{Lent, Pipes, poll_write_with_more};

/// Bytes on their way to one stream.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    sent: usize,
    /// What comes behind the bytes, and never was in this process's memory.
    pipe: Option<Lent>,
}

impl Backlog {
    /// Whether the stream took everything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.pipe.is_none()
    }

    /// Bytes that are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.pipe.as_ref().map_or(0, Lent::held)
    }

    /// Keeps bytes for later.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Keeps a head and what came with it, in one piece.
    #[inline]
    pub fn gather(&mut self, head: &[u8], body: &[u8]) {
        self.bytes.reserve(head.len() + body.len());
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(body);
    }

    /// Forgets what was not sent, as when the connection it was meant for is gone.
    pub fn clear(&mut self) {
        *self = Backlog::default();
    }

    /// Takes up to `limit` bytes off `source` into a pipe, to be flushed to `target` while nothing else is kept; 0 is the end of the
    /// stream. `None`: they must be copied, because not both carry bytes as they are, or no pipe is left.
    ///
    /// # Errors
    /// The system's error: the source is of no more use.
    pub fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        source: &impl Duplex,
        target: &impl Duplex,
        pipes: &Rc<Pipes>,
        limit: usize,
    ) -> Poll<Option<io::Result<usize>>> {
        let (Some(source), Some(_), None) = (source.plain(), target.plain(), &self.pipe) else {
            return Poll::Ready(None);
        };
        let Some(mut pipe) = pipes.lend() else {
            return Poll::Ready(None);
        };
        let filled = ready!(pipe.poll_fill(cx, source, limit));
        if pipe.held() > 0 {
            self.pipe = Some(pipe);
        }
        Poll::Ready(Some(filled))
    }

    /// Writes `first` and `second` behind the bytes that are kept already, and before what a pipe holds; what the stream does not
    /// take now is kept.
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
        if self.bytes.is_empty() {
            let written = match (&self.pipe, stream.plain()) {
                (Some(_), Some(socket)) => poll_write_with_more(cx, socket, first, second),
                _ => stream.poll_write(cx, first, second),
            };
            match written {
                Poll::Ready(Ok(count))
                    if count == first.len() + second.len() && self.pipe.is_none() =>
                {
                    return Ok(());
                }
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
            (self.bytes, self.sent) = (Vec::new(), 0);
        }
        while let (Some(pipe), Some(socket)) = (&mut self.pipe, stream.plain()) {
            ready!(pipe.poll_drain(cx, socket))?;
            self.pipe.take_if(|pipe| pipe.held() == 0);
        }
        Poll::Ready(Ok(()))
    }
}
