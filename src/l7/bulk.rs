//! Large bodies of known length between plain sockets: the kernel hands their pages from one socket to the other, uncopied.
//! It decides only which bytes go that way; small bodies, and those whose framing must be read or changed, are copied.
//! The walk goes back to `answer.rs` and `body.rs`.

use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::exchange::{Coding, Exchange};
use super::reject::Failure;
use super::retry::MAX_REPLAYED;
use crate::http::framing::Framing;
use crate::net::duplex::Duplex;

/// Bytes from which on a body, or what is left of it, is handed over rather than copied: below, the system calls that this takes
/// cost more than the copy does.
const LEAST: u64 = 32 * 1024;

/// Bytes that are handed over at once.
const MOST: u64 = 256 * 1024;

/// Bytes of an answer that is expected to be large that are read, and so copied, with its head.
const FIRST: usize = 4 * 1024;

impl Exchange<'_> {
    /// How much to read of an answer whose head is still to come. A read takes everything that is there, as long as the answers of
    /// this backend were small.
    #[inline]
    pub(super) fn first_read(&self, memory: usize) -> usize {
        match &self.backend {
            Some(upstream) if upstream.is_large => FIRST,
            _ => memory,
        }
    }

    /// Reads on behind the first bytes of a body that turned out to be one to copy; where all of them end. Notes what kind it is.
    #[inline]
    pub(super) fn gather(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
        first: Range<usize>,
    ) -> usize {
        let is_large = matches!(self.answer.body, Framing::Length(length) if length >= LEAST + FIRST as u64)
            && !self.is_coded()
            && self.client.stream.plain().is_some();
        let Some(upstream) = &mut self.backend else {
            return first.end;
        };
        let is_large = is_large && upstream.stream.plain().is_some();
        let was_expected = std::mem::replace(&mut upstream.is_large, is_large);
        // A failure or an end that this read meets is met again by the next one, and only there, where it ends the message, would
        // the second of two be told from the first.
        let goes_on = was_expected && !is_large && first.end == FIRST;
        if goes_on
            && self.answer.body != Framing::Close
            && let Poll::Ready(Ok(count)) = upstream.stream.poll_read(cx, &mut bytes[first.end..])
        {
            return first.end + count;
        }
        first.end
    }

    /// Takes what is there behind the first bytes of a large answer, so that it leaves with them in one go.
    #[inline]
    pub(super) fn hand_over_more(&mut self, cx: &mut Context<'_>, first: usize) {
        if first == FIRST && self.answer.backlog.is_empty() {
            // A failure is met again by the next read: the length says that the answer is incomplete.
            let _ = self.poll_hand_down(cx);
        }
    }

    /// Takes a piece of the answer's body off the backend, to be flushed to the client. `None`: it is to be copied.
    #[inline]
    pub(super) fn poll_hand_down(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), Failure>>> {
        let (Framing::Length(left @ LEAST..), Coding::AsIs, Some(upstream)) =
            (&mut self.answer.body, self.answer.coding, &self.backend)
        else {
            return Poll::Ready(None);
        };
        let (client, pipes) = (&self.client.stream, &self.client.local.pipes);
        let limit = (*left).min(MOST) as usize;
        let moved = (self.answer.backlog).poll_splice(cx, &upstream.stream, client, pipes, limit);
        let Some(moved) = ready!(moved) else {
            return Poll::Ready(None);
        };
        let count @ 1.. = moved.unwrap_or_default() else {
            return Poll::Ready(Some(Err(Failure::BackendClosed)));
        };
        *left -= count as u64;
        self.facts.bytes_out += count as u64;
        self.wait(cx, self.timeouts().response_idle);
        Poll::Ready(Some(Ok(())))
    }

    /// Takes a piece of the request's body off the client, to be flushed to the backend. `None`: it is to be copied.
    #[inline]
    pub(super) fn poll_hand_up(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), Failure>>> {
        // One that fits is copied to be kept.
        let keeps = |left: u64| self.received.len() as u64 + left <= MAX_REPLAYED as u64;
        if let Framing::Length(left) = self.upload
            && self.may_be_replayed()
            && keeps(left)
        {
            return Poll::Ready(None);
        }
        let (Framing::Length(left @ LEAST..), Coding::AsIs, Some(upstream)) =
            (&mut self.upload, self.upload_coding, &mut self.backend)
        else {
            return Poll::Ready(None);
        };
        let (client, pipes) = (&self.client.stream, &self.client.local.pipes);
        let limit = (*left).min(MOST) as usize;
        let moved = (upstream.backlog).poll_splice(cx, client, &upstream.stream, pipes, limit);
        let Some(moved) = ready!(moved) else {
            return Poll::Ready(None);
        };
        let count @ 1.. = moved.unwrap_or_default() else {
            return Poll::Ready(Some(Err(Failure::ClientGone)));
        };
        *left -= count as u64;
        self.facts.bytes_in += count as u64;
        Poll::Ready(Some(self.took_piece(cx)))
    }
}
