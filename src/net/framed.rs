//! A stream as the HTTP/2 codec wants it: bytes that arrived before come first, and every frame that arrives is counted.
//! It never looks into a frame. After a flood nothing arrives any more: whoever drives the codec finds out from the meter.
//! The walk goes on in `http/meter.rs`, which counts.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;
use crate::clock;
use crate::http::meter::Meter;

/// A stream whose frames are counted.
#[derive(Debug)]
pub struct Framed {
    stream: Stream,
    early: Vec<u8>,
    meter: Option<Rc<RefCell<Meter>>>,
}

impl Framed {
    /// A client's: reads `early` first, and then from the stream.
    pub fn of_client(stream: Stream, early: Vec<u8>, meter: Rc<RefCell<Meter>>) -> Self {
        Framed {
            stream,
            early,
            meter: Some(meter),
        }
    }

    /// A backend's, whose frames are not counted.
    pub fn of_backend(stream: Stream) -> Self {
        Framed {
            stream,
            early: Vec::new(),
            meter: None,
        }
    }

    /// Hands over what stands behind `known` in `buffer`. After a flood nothing is handed over any more.
    fn count(&self, known: usize, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(meter) = &self.meter else {
            return Poll::Ready(Ok(()));
        };
        let bytes = &buffer.filled()[known..];
        if meter.borrow_mut().count(bytes, clock::now()).is_ok() {
            return Poll::Ready(Ok(()));
        }
        buffer.set_filled(known);
        Poll::Pending
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let known = buffer.filled().len();
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.remaining());
            let rest = self.early.split_off(count);
            let piece = std::mem::replace(&mut self.early, rest);
            buffer.put_slice(&piece);
            return self.count(known, buffer);
        }
        let count = ready!(self.stream.poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        self.count(known, buffer)
    }
}

impl AsyncWrite for Framed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bytes, &[])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        let (first, second) = (filled.next(), filled.next());
        let (Some(first), second) = (first, second.map_or(&[][..], |slice| slice)) else {
            return Poll::Ready(Ok(0));
        };
        self.stream.poll_write(cx, first, second)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
