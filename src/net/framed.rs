//! A stream as the HTTP/2 codec wants it: bytes that arrived before come first, and the frames of both directions are counted as they pass.
//! It never looks into a frame. After an offence nothing arrives any more: whoever drives the codec finds out from the gauge that both hold.
//! The walk goes on in `http/meter.rs`, which counts.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;
use crate::clock;
use crate::http::meter::{Meter, Offence};

/// Bytes that are read and thrown away after the end was sent: closing over unread ones would be a reset, which may take the last frames away
/// from the other side. More is no accident.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// A stream whose frames are counted.
#[derive(Debug)]
pub struct Framed {
    stream: Stream,
    early: Vec<u8>,
    /// There for a client, whose frames are counted and whose last ones are awaited.
    gauge: Option<Rc<Gauge>>,
    /// Bytes that may still be thrown away.
    linger: usize,
}

/// What whoever drives the codec must know of its stream.
#[derive(Debug)]
pub struct Gauge {
    meter: RefCell<Meter>,
    sent: Cell<u64>,
    is_stalled: Cell<bool>,
    is_ending: Cell<bool>,
}

impl Gauge {
    /// A gauge for a stream of which nothing was read or written.
    pub fn new(meter: Meter) -> Self {
        Gauge {
            meter: RefCell::new(meter),
            sent: Cell::new(0),
            is_stalled: Cell::new(false),
            is_ending: Cell::new(false),
        }
    }

    /// What the connection must be given up for.
    pub fn offence(&self) -> Option<Offence> {
        self.meter.borrow().offence()
    }

    /// What it must be, or was, given up for: the codec finds offences of its own.
    pub fn verdict(&self) -> Option<Offence> {
        self.meter.borrow().verdict()
    }

    /// Whether something waits to be sent that the other side does not take; if so, how many bytes it took before.
    pub fn stalled_at(&self) -> Option<u64> {
        self.is_stalled.get().then_some(self.sent.get())
    }

    /// Whether the end was sent.
    pub fn is_ending(&self) -> bool {
        self.is_ending.get()
    }
}

impl Framed {
    /// A client's: reads `early` first, and then from the stream.
    pub fn of_client(stream: Stream, early: Vec<u8>, gauge: Rc<Gauge>) -> Self {
        Framed {
            stream,
            early,
            gauge: Some(gauge),
            linger: LINGER_BYTES,
        }
    }

    /// A backend's, whose frames are not counted.
    pub fn of_backend(stream: Stream) -> Self {
        Framed {
            stream,
            early: Vec::new(),
            gauge: None,
            linger: 0,
        }
    }

    /// Hands over what stands behind `known` in `buffer`. After an offence nothing is handed over any more.
    fn count(&self, known: usize, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(gauge) = &self.gauge else {
            return Poll::Ready(Ok(()));
        };
        let bytes = &buffer.filled()[known..];
        let mut meter = gauge.meter.borrow_mut();
        if meter.count(bytes, clock::now()).is_ok() {
            return Poll::Ready(Ok(()));
        }
        buffer.set_filled(known);
        Poll::Pending
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream.poll_write(cx, first, second);
        let Some(gauge) = &self.gauge else {
            return written;
        };
        gauge.is_stalled.set(written.is_pending());
        let count = ready!(written)?;
        gauge.sent.set(gauge.sent.get() + count as u64);
        let now = clock::now();
        let mut meter = gauge.meter.borrow_mut();
        let from_first = count.min(first.len());
        meter.count_sent(&first[..from_first], now);
        meter.count_sent(&second[..count - from_first], now);
        Poll::Ready(Ok(count))
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
        ready!(self.stream.poll_read_buf(cx, buffer))?;
        self.count(known, buffer)
    }
}

impl AsyncWrite for Framed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, bytes, &[])
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
        self.write(cx, first, second)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    /// Sends the end; to a client, and is done when it has sent its own.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_ending = |gauge: &Rc<Gauge>| gauge.is_ending.replace(true);
        if !self.gauge.as_ref().is_some_and(is_ending) {
            self.stream.shutdown_write();
        }
        let mut waste = [0; 4096];
        while self.linger > 0 {
            match ready!(self.stream.poll_read(cx, &mut waste)) {
                Ok(count @ 1..) => self.linger = self.linger.saturating_sub(count),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
