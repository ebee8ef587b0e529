//! Moves bodies: bytes pass through the worker's scratch, and a connection owns a buffer only while the other side is slow.
//! It never reads from one side while the other has not taken what came before: that is the back-pressure.
//! The walk goes back to `exchange.rs` (before the answer) and `answer.rs` (after it).

use std::task::{Context, Poll, ready};

use super::exchange::Exchange;
use super::reject::Failure;
use crate::http::framing::Framing;

/// (first read, least to splice, most at once)
pub(super) fn knobs() -> (usize, u64, u64) {
    static KNOBS: std::sync::OnceLock<(usize, u64, u64)> = std::sync::OnceLock::new();
    *KNOBS.get_or_init(|| {
        let of = |name: &str, default: u64| {
            std::env::var(name).map_or(default, |text| text.parse().unwrap_or(default))
        };
        (
            of("K_FIRST", 16384) as usize,
            of("K_MIN", 32768),
            of("K_MOST", 262_144),
        )
    })
}

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
                    self.await_upload(cx);
                }
                let _ = ready!(flushed);
                continue;
            }
            if self.upload.is_done() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_upload_piece(cx))?;
        }
    }

    /// Reads one piece of the body and sends it.
    fn poll_upload_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let local = self.client.local.clone();
        let body = &mut *local.body.borrow_mut();
        let count = match ready!(self.client.stream.poll_read(cx, body)) {
            Ok(count @ 1..) => count,
            _ => return Poll::Ready(Err(Failure::ClientGone)),
        };
        let taken = self
            .upload
            .advance(&body[..count])
            .map_err(Failure::Request)?;
        self.facts.bytes_in += taken as u64;
        self.client.early.extend_from_slice(&body[taken..count]);
        if self.facts.route.is_some_and(|route| {
            self.upload
                .exceeds(self.generation.snapshot.routes[route].max_body)
        }) {
            return Poll::Ready(Err(Failure::BodyTooLarge));
        }
        if let Some(upstream) = &mut self.backend {
            // A backend that answers early may stop reading: its answer is what counts then.
            upstream.deaf = upstream
                .backlog
                .send(&mut upstream.stream, cx, &body[..taken], &[])
                .is_err();
        }
        self.await_upload(cx);
        Poll::Ready(Ok(()))
    }

    /// Begins the wait for whoever must move next: the backend when it has all of the body, or has not taken what came; else the client.
    pub(super) fn await_upload(&self, cx: &mut Context<'_>) {
        let timeouts = self.timeouts();
        let wait = match self.answer.status {
            0 if self.upload.is_done() || self.is_backend_behind() => timeouts.response,
            0 => timeouts.body_idle,
            _ => timeouts.response_idle,
        };
        self.client.timer.set(cx, wait);
    }

    /// Whether the backend has not taken what the client sent.
    pub(super) fn is_backend_behind(&self) -> bool {
        let upstream = self.backend.as_ref();
        upstream.is_some_and(|upstream| upstream.deaf || !upstream.backlog.is_empty())
    }

    /// Notices a client that goes away while it has nothing to send, and keeps what it sends before its turn.
    pub(super) fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
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
                    self.client.timer.set(cx, self.timeouts().response_idle);
                }
                if ready!(flushed).is_err() {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
            }
            if self.answer.body.is_done() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_download_piece(cx))?;
        }
    }

    /// Takes what has arrived of a large answer whose length is known off the backend without copying it; it is kept to be sent.
    /// `None`: the answer is to be copied.
    pub(super) fn poll_splice_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), Failure>>> {
        let (Framing::Length(left), Some(upstream)) = (&mut self.answer.body, &self.backend) else {
            return Poll::Ready(None);
        };
        if *left < knobs().1 {
            return Poll::Ready(None);
        }
        let limit = (*left).min(knobs().2) as usize;
        let (client, pipes) = (&self.client.stream, &self.client.local.pipes);
        let backlog = &mut self.answer.backlog;
        let Some(moved) = ready!(backlog.poll_splice(cx, &upstream.stream, client, pipes, limit))
        else {
            return Poll::Ready(None);
        };
        let count @ 1.. = moved.unwrap_or_default() else {
            return Poll::Ready(Some(Err(Failure::BackendClosed)));
        };
        *left -= count as u64;
        self.facts.bytes_out += count as u64;
        self.client.timer.set(cx, self.timeouts().response_idle);
        Poll::Ready(Some(Ok(())))
    }

    /// Reads one piece of the answer's body and sends it.
    fn poll_download_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Some(spliced) = ready!(self.poll_splice_piece(cx)) {
            return Poll::Ready(spliced);
        }
        let Some(upstream) = &mut self.backend else {
            return Poll::Ready(Err(Failure::BackendClosed));
        };
        let local = self.client.local.clone();
        let body = &mut *local.body.borrow_mut();
        let count = match ready!(upstream.stream.poll_read(cx, body)) {
            Ok(0) => return Poll::Ready(self.end_of_backend()),
            Ok(count) => count,
            Err(_) => return Poll::Ready(Err(Failure::BackendClosed)),
        };
        let piece = &mut body[..count];
        let (taken, kept) = match self.answer.decode {
            true => self.answer.body.advance_and_decode(piece),
            false => self.answer.body.advance(piece).map(|taken| (taken, taken)),
        }
        .map_err(Failure::Answer)?;
        // What follows an answer belongs to nobody: the connection cannot be used again.
        self.answer.backend_goes_on &= taken == count;
        self.facts.bytes_out += kept as u64;
        let sent = self
            .answer
            .backlog
            .send(&mut self.client.stream, cx, &piece[..kept], &[]);
        self.client.timer.set(cx, self.timeouts().response_idle);
        Poll::Ready(sent.map_err(|_| Failure::ClientGone))
    }

    /// The end of the backend's stream ends a close-delimited answer and breaks any other.
    fn end_of_backend(&mut self) -> Result<(), Failure> {
        if self.answer.body != Framing::Close {
            return Err(Failure::BackendClosed);
        }
        self.answer.body = Framing::NONE;
        Ok(())
    }
}
