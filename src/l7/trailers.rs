//! Trailers of an answer that leaves the chunked coding of its backend: they are kept, for whoever is told of the end in another way.
//! It knows no field by name, and holds no more than the limits of a head allow.
//! The walk goes back to `answer.rs` and `body.rs`.

use super::exchange::Exchange;
use crate::http::fault::Fault;
use crate::http::fields;

impl Exchange<'_> {
    /// Takes the framing off a piece of the answer's body: how much of it was taken, and how much data stands at its front now.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Fault> {
        let before = self.answer.body.trailer_bytes();
        let (taken, kept) = self.answer.body.advance_and_decode(bytes)?;
        let section = self.answer.body.trailer_bytes() - before;
        if section > 0 {
            self.keep_trailers(&bytes[taken - section..taken]);
        }
        Ok((taken, kept))
    }

    /// Keeps a piece of the trailer section where the head was kept before; at its end it is read.
    fn keep_trailers(&mut self, section: &[u8]) {
        let is_whole = self.answer.body.is_done();
        let Some(upstream) = &mut self.backend else {
            return;
        };
        let kept = &mut upstream.partial;
        if is_whole && kept.is_empty() && section == b"\r\n" {
            return;
        }
        kept.extend_from_slice(section);
        if is_whole {
            let section = std::mem::take(kept);
            self.answer.trailers = fields::read_trailers(&section).map(Box::new);
        }
    }
}
