//! Moves bodies: bytes pass through the worker's scratch, and a connection owns a buffer only while the other side is slow.
//! It never reads from one side while the other has not taken what came before: that is the back-pressure.
//! The walk goes back to `exchange.rs` (before the answer) and `answer.rs` (after it).

use std::task::{Context, Poll, ready};

use super::exchange::{Coding, Exchange};
use super::reject::Failure;
use super::retry::MAX_REPLAYED;
use super::side::Side;
use crate::http::framing::Framing;
use crate::http::{chunk, fields};
use crate::net::duplex::Duplex;
use crate::upstream::http2::BackendStream;

/// Bytes of a request that are kept while a backend that speaks HTTP/2 may still say that it did nothing for it.
const MAX_KEPT: usize = 16 * 1024;

/// Bytes of later requests that are read while an answer is awaited, to notice a client that goes away; more stays in the kernel.
const MAX_EARLY: usize = 16 * 1024;

impl Exchange<'_> {
    /// Moves the request body on; ready when the backend has all of it, or wants no more.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            let Some(upstream) = &mut self.backend else {
                return Poll::Ready(Err(Failure::BackendClosed));
            };
            if upstream.deaf {
                return Poll::Ready(Ok(()));
            }
            if !upstream.backlog.is_empty() {
                let before = upstream.backlog.len();
                let flushed = upstream.backlog.poll_flush(&mut upstream.stream, cx);
                upstream.deaf = matches!(flushed, Poll::Ready(Err(_)));
                if upstream.backlog.len() < before {
                    upstream.sent = true;
                    self.await_upload(cx);
                }
                let _ = ready!(flushed);
                continue;
            }
            if self.upload.is_done() {
                upstream.stream.end(None);
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_upload_piece(cx))?;
        }
    }

    /// Reads one piece of the body and sends it.
    fn poll_upload_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.upload == Framing::Close {
            return self.poll_upload_open(cx);
        }
        if let Some(handed) = ready!(self.poll_hand_up(cx)) {
            return Poll::Ready(handed);
        }
        let local = self.client.local.clone();
        let body = &mut *local.body.borrow_mut();
        let count = match ready!(self.client.stream.poll_read(cx, body)) {
            Ok(count @ 1..) => count,
            _ => return Poll::Ready(Err(Failure::ClientGone)),
        };
        let (taken, kept) = match self.upload_coding {
            Coding::Decode => self.upload.advance_and_decode(&mut body[..count]),
            _ => (self.upload.advance(&body[..count])).map(|taken| (taken, taken)),
        }
        .map_err(Failure::Request)?;
        self.facts.bytes_in += taken as u64;
        if self.upload_coding == Coding::AsIs {
            self.keep(&body[..taken]);
        }
        // Decoded data moved to the front; what follows the body stands where it was.
        self.client.early.extend_from_slice(&body[taken..count]);
        if self.facts.route.is_some_and(|route| {
            self.upload
                .exceeds(self.generation.snapshot.routes[route].max_body)
        }) {
            return Poll::Ready(Err(Failure::BodyTooLarge));
        }
        if let Some(upstream) = &mut self.backend
            && kept > 0
        {
            // A backend that answers early may stop reading: its answer is what counts then.
            upstream.deaf = upstream
                .backlog
                .send(&mut upstream.stream, cx, &body[..kept], &[])
                .is_err();
        }
        Poll::Ready(self.took_piece(cx))
    }

    /// Reads one piece of a body whose length nobody knows and sends it, or its end.
    fn poll_upload_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let local = self.client.local.clone();
        let memory = &mut *local.body.borrow_mut();
        let room = chunk::room(memory);
        let count = match ready!(self.client.stream.poll_read(cx, &mut memory[room.clone()])) {
            Ok(count) => count,
            Err(_) => return Poll::Ready(Err(Failure::ClientGone)),
        };
        self.facts.bytes_in += count as u64;
        let head = self.head.map_or(0, |head| head.length as u64);
        if self.facts.route.is_some_and(|route| {
            self.facts.bytes_in - head > self.generation.snapshot.routes[route].max_body
        }) {
            return Poll::Ready(Err(Failure::BodyTooLarge));
        }
        if count == 0 {
            return self.poll_upload_end(cx);
        }
        self.keep(&memory[room.start..][..count]);
        let framed = match self.upload_coding {
            Coding::Encode => chunk::frame(memory, count),
            _ => room.start..room.start + count,
        };
        let framed = &memory[framed];
        if let Some(upstream) = &mut self.backend {
            upstream.deaf = upstream
                .backlog
                .send(&mut upstream.stream, cx, framed, &[])
                .is_err();
        }
        Poll::Ready(self.took_piece(cx))
    }

    /// Keeps the next bytes of a body for another attempt, if all before them were kept. Without rules for retries only a backend of HTTP/2
    /// can say that it did nothing with what it got.
    fn keep(&mut self, piece: &[u8]) {
        let is_http2 = || (self.backend.as_ref()).is_some_and(|own| own.stream.is_http2());
        let most = match () {
            () if self.may_be_replayed() => MAX_REPLAYED,
            () if is_http2() => MAX_KEPT,
            () => return,
        };
        if self.received.len() + piece.len() <= most {
            self.received.extend_from_slice(piece);
        }
    }

    /// Waits on after a piece of the body, unless the client brings them too slowly.
    pub(super) fn took_piece(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.is_too_slow() {
            return Err(Failure::BodyTooSlow);
        }
        self.await_upload(cx);
        Ok(())
    }

    /// Sends the end of a body whose length nobody knew, with its trailers.
    fn poll_upload_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let trailers = match self.client.stream.http2() {
            Some(stream) => ready!(stream.poll_trailers(cx)).map_err(|_| Failure::ClientGone)?,
            None => None,
        };
        self.upload = Framing::NONE;
        if let Some(upstream) = &mut self.backend {
            match trailers {
                trailers if self.upload_coding == Coding::Encode => {
                    let mut last = Vec::new();
                    fields::write_trailers(trailers.as_ref(), &mut last);
                    // They are not kept for another attempt.
                    self.facts.bytes_in += trailers.map_or(0, |trailers| trailers.len()) as u64;
                    upstream.deaf = (upstream.backlog)
                        .send(&mut upstream.stream, cx, &last, &[])
                        .is_err();
                }
                Some(mut trailers) => {
                    // They are not kept for another attempt.
                    self.facts.bytes_in += trailers.len() as u64;
                    fields::clean_trailers(&mut trailers);
                    upstream.stream.end(Some(trailers));
                }
                None => {}
            }
        }
        self.await_upload(cx);
        Poll::Ready(Ok(()))
    }

    /// Begins the wait after the head: for the backend, when the client holds its body back until it is asked for it.
    pub(super) fn await_first(&self, cx: &mut Context<'_>) {
        match self.head.is_some_and(|head| head.expects_continue) {
            true => self.wait(cx, self.response_wait()),
            false => self.await_upload(cx),
        }
    }

    /// Begins the wait for whoever must move next: the backend when it has all of the body, or has not taken what came; else the client.
    pub(super) fn await_upload(&self, cx: &mut Context<'_>) {
        let timeouts = self.timeouts();
        let is_done = self.upload.is_done();
        if !is_done {
            self.time_client(self.answer.status == 0 && !self.is_backend_behind());
        }
        let wait = match self.answer.status {
            0 if is_done || self.is_backend_behind() => self.response_wait(),
            // Who streams calls speaks when there is something to say.
            0 if self.is_call_of_http2() => timeouts.response_idle,
            0 => timeouts.body_idle,
            _ => timeouts.response_idle,
        };
        self.wait(cx, wait);
    }

    /// Whether the backend has not taken what the client sent.
    pub(super) fn is_backend_behind(&self) -> bool {
        let upstream = self.backend.as_ref();
        upstream.is_some_and(|upstream| upstream.deaf || !upstream.backlog.is_empty())
    }

    /// Notices a client that goes away while it has nothing to send, and keeps what it sends before its turn. A stream of HTTP/2 may be watched at
    /// any time.
    pub(super) fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if let Side::Http2(stream) = &mut self.client.stream {
            return match stream.is_gone(cx) {
                true => Err(Failure::ClientGone),
                false => Ok(()),
            };
        }
        while self.upload.is_done() && self.client.early.len() < MAX_EARLY {
            let local = self.client.local.clone();
            let body = &mut *local.body.borrow_mut();
            match self.client.stream.poll_read(cx, &mut body[..MAX_EARLY]) {
                Poll::Ready(Ok(count @ 1..)) => self.client.early.extend_from_slice(&body[..count]),
                Poll::Ready(_) => return Err(Failure::ClientGone),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Moves the answer's body on; ready when the client has all of it.
    pub(super) fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            if !self.answer.backlog.is_empty() {
                let before = self.answer.backlog.len();
                let flushed = self.answer.backlog.poll_flush(&mut self.client.stream, cx);
                if self.answer.backlog.len() < before {
                    self.wait(cx, self.timeouts().response_idle);
                }
                if ready!(flushed).is_err() {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
            }
            if !self.answer.body.is_done() {
                ready!(self.poll_download_piece(cx))?;
            } else if !self.end_coding()? && !self.seal() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Puts the end of the chunked coding behind an answer that is sent in it; false when nothing is to be put there, or was.
    pub(super) fn seal(&mut self) -> bool {
        let is_open = self.answer.coding == Coding::Encode;
        if is_open {
            self.answer.coding = Coding::AsIs;
            let mut last = Vec::new();
            fields::write_trailers(self.answer.trailers.take().as_deref(), &mut last);
            self.facts.bytes_out += last.len() as u64;
            self.answer.backlog.push(&last);
        }
        is_open
    }

    /// Reads one piece of the answer's body and sends it.
    fn poll_download_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.is_coded() {
            return self.poll_coded_piece(cx);
        }
        if let Some(handed) = ready!(self.poll_hand_down(cx)) {
            return Poll::Ready(handed);
        }
        let Some(upstream) = &mut self.backend else {
            return Poll::Ready(Err(Failure::BackendClosed));
        };
        let local = self.client.local.clone();
        let memory = &mut *local.body.borrow_mut();
        let room = match self.answer.coding {
            Coding::Encode => chunk::room(memory),
            _ => 0..memory.len(),
        };
        let body = &mut memory[room];
        let count = match ready!(upstream.stream.poll_read(cx, body)) {
            Ok(0) => return Poll::Ready(self.end_of_backend()),
            Ok(count) => count,
            Err(_) => return Poll::Ready(Err(Failure::BackendClosed)),
        };
        let piece = &mut body[..count];
        let (taken, kept) = match self.answer.coding {
            Coding::Decode => self.decode(piece),
            _ => self.answer.body.advance(piece).map(|taken| (taken, taken)),
        }
        .map_err(Failure::Answer)?;
        // What follows an answer belongs to nobody: the connection cannot be used again.
        self.answer.backend_goes_on &= taken == count;
        let framed = match self.answer.coding {
            Coding::Encode if kept > 0 => {
                let chunk = chunk::frame(memory, kept);
                &memory[chunk]
            }
            _ => &piece[..kept],
        };
        self.facts.bytes_out += framed.len() as u64;
        let sent = match framed.is_empty() {
            true => Ok(()),
            false => (self.answer.backlog).send(&mut self.client.stream, cx, framed, &[]),
        };
        self.wait(cx, self.timeouts().response_idle);
        Poll::Ready(sent.map_err(|_| Failure::ClientGone))
    }

    /// The end of the backend's stream ends a close-delimited answer and breaks any other.
    pub(super) fn end_of_backend(&mut self) -> Result<(), Failure> {
        if self.answer.body != Framing::Close {
            return Err(Failure::BackendClosed);
        }
        let stream = (self.backend.as_mut()).and_then(|upstream| upstream.stream.http2());
        if let Some(mut trailers) = stream.and_then(BackendStream::take_trailers) {
            fields::clean_trailers(&mut trailers);
            self.answer.trailers = Some(Box::new(trailers));
        }
        self.answer.body = Framing::NONE;
        Ok(())
    }
}
