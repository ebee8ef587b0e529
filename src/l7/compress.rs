//! Codes answers on routes that ask for it: a piece of the backend's body goes through a coder of the worker before it is sent.
//! It decides nothing (`policy/filter/compress.rs`), and holds nothing back while the backend pauses. Trailers are kept.
//! The walk goes back to `answer.rs` and `body.rs`.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::exchange::{Coding, Exchange};
use super::reject::Failure;
use crate::http::answer::Answer;
use crate::http::coding::Then;
use crate::http::edits::Edits;
use crate::http::framing::Framing;
use crate::http::{chunk, fields};
use crate::net::duplex::Duplex;
use crate::policy::filter::compress::code_head;

impl Exchange<'_> {
    /// Begins to code an answer if that is wanted. True when its client will be told of the end by the chunked coding.
    #[inline]
    pub(super) fn begin_coding(&mut self, answer: &Answer<'_>, edits: &mut Edits) -> bool {
        self.filtered.is_some() && self.choose_coding(answer, edits).is_some()
    }

    /// Whether more of the answer's body is to be coded.
    #[inline]
    pub(super) fn is_coded(&self) -> bool {
        let filtered = self.filtered.as_ref();
        filtered.is_some_and(|filtered| filtered.coder.is_some())
    }

    #[cold]
    fn choose_coding(&mut self, answer: &Answer<'_>, edits: &mut Edits) -> Option<()> {
        // An attempt before this one may have come as far.
        self.filtered.as_mut()?.coder = None;
        let generation = self.generation.clone();
        let route = &generation.snapshot.routes[self.facts.route?];
        let memory = &self.filtered.as_ref()?.memory;
        let length = match answer.body {
            Framing::Length(length) => Some(length),
            Framing::Chunked(_) | Framing::Close => None,
        };
        if self.answer.body.is_done() {
            return None;
        }
        let filters = route.filters.as_ref()?;
        let wish = filters.coding(memory, &answer.head, length, edits)?;
        let coders = &self.client.local.coders;
        let coder = coders.lend(wish.algorithm, wish.level)?;
        self.filtered.as_mut()?.coder = Some(coder);
        code_head(&answer.head, wish.algorithm, edits);
        if self.client.stream.is_http2() {
            return None;
        }
        let is_chunked = matches!(answer.body, Framing::Chunked(_));
        if !is_chunked && self.answer.coding != Coding::Encode {
            edits.append("Transfer-Encoding", b"chunked");
        }
        self.answer.coding = Coding::Encode;
        Some(())
    }

    /// Sends the head with what became of the body bytes that came with it.
    #[cold]
    pub(super) fn pass_coded(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Vec<u8>,
        body: &mut [u8],
        read: Instant,
    ) -> Result<(), Failure> {
        let kept = match self.take_payload(body) {
            Ok(kept) => kept,
            Err(failure) => {
                // Nothing was sent yet: it is weir that answers, and not in a coding.
                self.answer.status = 0;
                self.end_coder();
                return Err(failure);
            }
        };
        let local = self.client.local.clone();
        self.facts.bytes_out += head.len() as u64;
        if self.client.stream.is_http2() {
            let out = &mut *local.coders.out.borrow_mut();
            out.clear();
            self.code(&body[..kept], Then::Pause, out)?;
            self.pass_to_stream(cx, head, out)?;
        } else {
            self.code(&body[..kept], Then::Pause, head)?;
            (self.answer.backlog)
                .send(&mut self.client.stream, cx, head, &[])
                .map_err(|_| Failure::ClientGone)?;
        }
        self.note_passed(cx, read);
        Ok(())
    }

    /// Reads one piece of the answer's body, codes it and sends what came out of it.
    #[cold]
    pub(super) fn poll_coded_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(upstream) = &mut self.backend else {
            return Poll::Ready(Err(Failure::BackendClosed));
        };
        let local = self.client.local.clone();
        let memory = &mut *local.body.borrow_mut();
        let count = match ready!(upstream.stream.poll_read(cx, memory)) {
            Ok(0) => return Poll::Ready(self.end_of_backend()),
            Ok(count) => count,
            Err(_) => return Poll::Ready(Err(Failure::BackendClosed)),
        };
        let kept = self.take_payload(&mut memory[..count])?;
        let then = match count < memory.len() {
            // Nothing else is there.
            true => Then::Pause,
            false => Then::More,
        };
        let out = &mut *local.coders.out.borrow_mut();
        out.clear();
        self.code(&memory[..kept], then, out)?;
        let sent = match out.is_empty() {
            true => Ok(()),
            false => (self.answer.backlog).send(&mut self.client.stream, cx, out, &[]),
        };
        self.client.timer.set(cx, self.timeouts().response_idle);
        Poll::Ready(sent.map_err(|_| Failure::ClientGone))
    }

    /// Ends a coded answer whose end came by itself; false when there is nothing to end.
    #[inline]
    pub(super) fn end_coding(&mut self) -> Result<bool, Failure> {
        if !self.is_coded() {
            return Ok(false);
        }
        let mut last = Vec::new();
        self.code(b"", Then::End, &mut last)?;
        self.answer.backlog.push(&last);
        Ok(true)
    }

    /// Gives the coder back.
    fn end_coder(&mut self) {
        if let Some(filtered) = &mut self.filtered {
            filtered.coder = None;
        }
    }

    /// Moves the data of what arrived to its front, and says how much it is.
    fn take_payload(&mut self, bytes: &mut [u8]) -> Result<usize, Failure> {
        let (taken, kept) = self.decode(bytes).map_err(Failure::Answer)?;
        self.answer.backend_goes_on &= taken == bytes.len();
        Ok(kept)
    }

    /// Codes a piece and appends what comes out of it, framed as this client wants it, and at the end of the body what ends it.
    fn code(&mut self, bytes: &[u8], then: Then, out: &mut Vec<u8>) -> Result<(), Failure> {
        let is_end = then == Then::End || self.answer.body.is_done();
        let coder = (self.filtered.as_mut()).and_then(|filtered| filtered.coder.as_mut());
        let Some(coder) = coder else {
            return Ok(());
        };
        if bytes.is_empty() && !is_end {
            return Ok(());
        }
        let start = out.len();
        let is_framed = self.answer.coding == Coding::Encode;
        if is_framed {
            out.extend_from_slice(&[0; chunk::BEFORE]);
        }
        let then = if is_end { Then::End } else { then };
        // Only a coder that is broken says no; the client must not take what it has for all of it.
        coder
            .code(bytes, then, out)
            .map_err(|_| Failure::BackendClosed)?;
        if is_framed {
            chunk::close(out, start);
        }
        if is_end {
            self.end_coder();
            if is_framed {
                self.answer.coding = Coding::AsIs;
                fields::write_trailers(self.answer.trailers.take().as_deref(), out);
            }
        }
        self.facts.bytes_out += (out.len() - start) as u64;
        Ok(())
    }
}
