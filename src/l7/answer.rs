//! Brings an answer back: reads its head, passes interim ones on, writes the final one with what this hop changes, then its body.
//! Before the first byte of an answer a failure may lead to another attempt; from then on it can only end the connection.
//! The walk goes on in `record.rs`.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::client::Next;
use super::exchange::{Coding, Exchange, Plan};
use super::reject::Failure;
use super::upgrade::confirm_switch;
use crate::clock;
use crate::http::answer::{self, Answer};
use crate::http::edits::Edits;
use crate::http::fault::Fault;
use crate::http::fields;
use crate::http::forwarding;
use crate::http::framing::Framing;
use crate::http::head::{AnswerHead, Field, Version, list_members};
use crate::net::duplex::Duplex;
use crate::net::turn::{GATHERED, turn};
use crate::upstream::local::Scratch;
use crate::upstream::side::BackendSide;

/// Interim answers to one request; a backend that sends more is broken.
const MAX_INTERIMS: u32 = 32;

/// Bytes of an answer head that are gathered without looking at them; the limit proper is checked when they are read.
const MAX_PARTIAL: usize = 64 * 1024;

impl Exchange<'_> {
    /// Reads on until the final answer's head is there and passed on with the body bytes that came with it.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            if !self.answer.backlog.is_empty()
                && ready!(self.answer.backlog.poll_flush(&mut self.client.stream, cx)).is_err()
            {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            let local = self.client.local.clone();
            let body = &mut *local.body.borrow_mut();
            let room = self.first_read(body.len());
            let Some(upstream) = &mut self.backend else {
                return Poll::Ready(Err(Failure::BackendClosed));
            };
            let count = match ready!(upstream.stream.poll_read(cx, &mut body[..room])) {
                Ok(count @ 1..) => count,
                _ => {
                    let stream = upstream.stream.http2();
                    upstream.sent &= stream.is_none_or(|stream| !stream.is_unprocessed());
                    return Poll::Ready(Err(Failure::BackendClosed));
                }
            };
            let read = clock::now();
            let done = if upstream.partial.is_empty() {
                self.pass_heads(cx, body, count, read)?
            } else {
                upstream.partial.extend_from_slice(&body[..count]);
                // A head cannot end but with a line.
                if !body[..count].contains(&b'\n') && upstream.partial.len() < MAX_PARTIAL {
                    continue;
                }
                let mut bytes = std::mem::take(&mut upstream.partial);
                let count = bytes.len();
                self.pass_heads(cx, &mut bytes, count, read)?
            };
            if done {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Passes on every complete head at the front of the `count` bytes that are there; true when the final one was among them. What
    /// is left is kept.
    fn pass_heads(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
        count: usize,
        read: Instant,
    ) -> Result<bool, Failure> {
        let (local, generation) = (self.client.local.clone(), self.generation.clone());
        let limits = &generation.snapshot.config.limits;
        let is_head = self.head.is_some_and(|head| head.is_head);
        let Scratch {
            out, lines, edits, ..
        } = &mut *local.scratch.borrow_mut();
        let mut from = 0;
        while from < count {
            let parsed = answer::parse(&bytes[from..count], lines, limits, is_head);
            let Some(answer) = parsed.map_err(Failure::Answer)? else {
                break;
            };
            from += answer.head.bytes.len();
            edits.clear();
            out.clear();
            if answer.is_interim() && !self.is_switch(&answer.head) {
                self.pass_interim(cx, &answer, edits, out)?;
                continue;
            }
            if self.is_session_over(&answer.head) {
                return Err(Failure::SessionOver);
            }
            if self.is_tried_again(answer.head.status) {
                return Err(Failure::ErrorStatus(answer.head.status));
            }
            self.compose(&answer, edits, out);
            let end = self.gather(cx, bytes, from..count);
            return self
                .pass_final(cx, out, &mut bytes[..end], from, read)
                .map(|()| true);
        }
        if let Some(upstream) = &mut self.backend {
            upstream.partial.extend_from_slice(&bytes[from..count]);
        }
        Ok(false)
    }

    /// Passes an interim answer on (RFC 9110 section 15.2); HTTP/1.0 knows none.
    fn pass_interim(
        &mut self,
        cx: &mut Context<'_>,
        answer: &Answer<'_>,
        edits: &mut Edits,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let head = &answer.head;
        if head.status == 101 {
            return Err(Failure::Switched);
        }
        self.answer.interims += 1;
        if self.answer.interims > MAX_INTERIMS {
            return Err(Failure::Answer(Fault::TooManyLines));
        }
        if self.head.is_none_or(|head| head.version == Version::Http10) {
            return Ok(());
        }
        if head.status == 100 && !self.upload.is_done() {
            // From here on it is the client that is waited for.
            self.answer.continued = true;
            self.wait(cx, self.timeouts().body_idle);
        }
        forwarding::remove_hop_by_hop(head.bytes, head.lines, answer.connection_options, edits);
        remove_framing(head, edits);
        write_head(head, edits, out);
        self.facts.bytes_out += out.len() as u64;
        if let Some(stream) = self.client.stream.http2() {
            let interim = fields::read_answer(out).map(|interim| stream.interim(interim));
            return interim.map_or(Ok(()), |sent| sent.map_err(|_| Failure::ClientGone));
        }
        let sent = self
            .answer
            .backlog
            .send(&mut self.client.stream, cx, out, &[]);
        sent.map_err(|_| Failure::ClientGone)
    }

    /// Writes the answer's head as the client gets it to `out`, and notes what follows from it.
    fn compose(&mut self, answer: &Answer<'_>, edits: &mut Edits, out: &mut Vec<u8>) {
        let old_client = self
            .head
            .is_some_and(|head| head.version == Version::Http10);
        let head = &answer.head;
        self.answer.status = head.status;
        let is_switch = head.status == 101;
        self.answer.body = match is_switch {
            // All that follows is the other protocol's, to the end of the connection.
            true => Framing::Close,
            false => answer.body,
        };
        let is_http2 = self.client.stream.is_http2();
        self.answer.coding = match answer.body {
            Framing::Chunked(_) if old_client || is_http2 => Coding::Decode,
            _ => Coding::AsIs,
        };
        let is_open = self.reads_to_end(answer, edits) | self.begin_coding(answer, edits);
        self.answer.backend_goes_on = answer.keep_alive;
        self.answer.idle_hint = idle_hint(answer);
        // A client that reads the answer within its body may stop there, or not: where its next request begins, nobody knows.
        self.answer.client_goes_on = self.head.is_some_and(|head| head.keep_alive)
            && !self.client.view.is_closing()
            && self.answer.coding != Coding::Decode
            && self.upload.is_done()
            && (self.answer.body != Framing::Close || is_open);
        forwarding::remove_hop_by_hop(head.bytes, head.lines, answer.connection_options, edits);
        if head.status == 204 || is_switch {
            remove_framing(head, edits);
        } else if old_client {
            head.field(Field::TransferEncoding)
                .for_each(|(ordinal, _)| edits.remove(ordinal));
        }
        self.filter_answer(head, edits);
        self.remember(head, edits);
        if self.generation.snapshot.config.forwarding.via {
            forwarding::append_via(head.version, edits);
        }
        match self.answer.client_goes_on {
            _ if is_switch => confirm_switch(head, edits),
            true if old_client => edits.append("Connection", b"keep-alive"),
            true => {}
            false => edits.append("Connection", b"close"),
        }
        write_head(head, edits, out);
    }

    /// What the body of an answer of HTTP/2 is: all until the end of its stream, whatever its length. True when a client of HTTP/1 is
    /// told of the end in another way than by the end of its connection.
    fn reads_to_end(&mut self, answer: &Answer<'_>, edits: &mut Edits) -> bool {
        let stream = (self.backend.as_mut()).and_then(|upstream| upstream.stream.http2());
        let Some(stream) = stream.filter(|_| answer.body != Framing::NONE) else {
            return false;
        };
        let has_length = matches!(answer.body, Framing::Length(_));
        let is_ended = stream.is_ended();
        let is_http11 = self
            .head
            .is_some_and(|head| head.version == Version::Http11);
        self.answer.body = match is_ended {
            true => Framing::NONE,
            false => Framing::Close,
        };
        match (is_http11, has_length, is_ended) {
            (true, false, true) => edits.append("Content-Length", b"0"),
            (true, false, false) => {
                edits.append("Transfer-Encoding", b"chunked");
                self.answer.coding = Coding::Encode;
            }
            _ => {}
        }
        is_http11 || has_length
    }

    /// Sends the head with the body bytes that came with it, which begin at `from`. A head that fits takes the place of the one
    /// that came, so that all leaves from one address.
    fn pass_final(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        bytes: &mut [u8],
        from: usize,
        read: Instant,
    ) -> Result<(), Failure> {
        if self.is_coded() {
            return self.pass_coded(cx, out, &mut bytes[from..], read);
        }
        let body = &mut bytes[from..];
        let (taken, kept) = match self.answer.coding {
            Coding::Decode => self.decode(body),
            _ => self.answer.body.advance(body).map(|taken| (taken, taken)),
        }
        .map_err(|fault| {
            self.answer.status = 0;
            Failure::Answer(fault)
        })?;
        self.answer.backend_goes_on &= taken == body.len();
        self.facts.bytes_out += (out.len() + kept) as u64;
        if self.client.stream.is_http2() {
            self.pass_to_stream(cx, out, &bytes[from..from + kept])?;
            self.note_passed(cx, read);
            return Ok(());
        }
        self.hand_over_more(cx, bytes.len());
        if out.len() + kept <= GATHERED {
            let body = &bytes[from..from + kept];
            self.answer.backlog.gather(out, body);
        } else {
            let (first, second) = match from.checked_sub(out.len()) {
                Some(start) => {
                    bytes[start..from].copy_from_slice(out);
                    (&bytes[start..from + kept], &[][..])
                }
                None => (&out[..], &bytes[from..from + kept]),
            };
            (self.answer.backlog)
                .send(&mut self.client.stream, cx, first, second)
                .map_err(|_| Failure::ClientGone)?;
        }
        self.note_passed(cx, read);
        Ok(())
    }

    /// Sends the head and the first bytes of the body to a stream of HTTP/2.
    pub(super) fn pass_to_stream(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
    ) -> Result<(), Failure> {
        let Some(stream) = self.client.stream.http2() else {
            return Ok(());
        };
        let answer = fields::read_answer(head).ok_or(Failure::Answer(Fault::FieldLine))?;
        let is_whole = self.answer.body.is_done() && self.answer.trailers.is_none();
        let sent = stream.respond(answer, body, is_whole);
        let taken = sent.map_err(|_| Failure::ClientGone)?;
        match &body[taken..] {
            [] => Ok(()),
            rest => (self.answer.backlog)
                .send(&mut self.client.stream, cx, rest, &[])
                .map_err(|_| Failure::ClientGone),
        }
    }

    /// Notes that the answer is under way, and begins the wait for what is missing of it.
    pub(super) fn note_passed(&mut self, cx: &mut Context<'_>, read: Instant) {
        let is_kept = !self.answer.backlog.is_empty();
        // What is kept over this turn is still on its way through weir; `flush_head` looks at the clock.
        self.facts.ended = if is_kept { read } else { clock::now() };
        self.facts.overhead += self.facts.ended - read;
        if is_kept || !self.answer.body.is_done() {
            self.wait(cx, self.timeouts().response_idle);
        }
    }

    /// Moves what is left of both bodies, then gives the upstream connection back.
    pub(super) async fn relay(&mut self, plan: &Plan) -> Result<Next, Failure> {
        if self.answer.status == 101 {
            self.switch(plan);
            return Ok(Next::Close);
        }
        if !self.answer.backlog.is_empty() {
            turn().await;
            poll_fn(|cx| Poll::Ready(self.flush_head(cx))).await?;
        }
        if !self.answer.body.is_done() || !self.answer.backlog.is_empty() {
            poll_fn(|cx| self.poll_relay(cx)).await?;
            self.facts.ended = clock::now();
        }
        let trailers = self.answer.trailers.take();
        self.client.stream.end(trailers.map(|trailers| *trailers));
        let backend_goes_on =
            self.answer.backend_goes_on && self.upload.is_done() && !self.is_backend_behind();
        let is_own = self.generation.snapshot.pools[plan.pool].is_personal();
        let upstream = (self.backend.take()).filter(|_| backend_goes_on && !is_own);
        let upstream = upstream.map(|from| (from.stream, from.slot, from.is_large));
        if let Some((BackendSide::Http1(stream), slot, is_large)) = upstream {
            let snapshot = &*self.generation.snapshot;
            let idle = self
                .answer
                .idle_hint
                .unwrap_or(snapshot.config.timeouts.upstream_idle);
            let stack = self.generation.pool(plan.pool).idle(plan.backend);
            stack.expect_large(is_large);
            stack.put(stream, slot, self.facts.ended + idle);
        }
        // Who did not ask for the end may have sent more before it hears of it.
        let is_asked = self.head.is_some_and(|head| !head.keep_alive);
        Ok(match (self.upload.is_done(), self.answer.client_goes_on) {
            (true, true) => Next::Request,
            (true, false) if is_asked && self.client.is_quiet() => Next::Close,
            _ => Next::Linger,
        })
    }

    /// Sends what was kept of an answer over this turn.
    fn flush_head(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let flushed = self.answer.backlog.poll_flush(&mut self.client.stream, cx);
        let kept_since = std::mem::replace(&mut self.facts.ended, clock::now());
        self.facts.overhead += self.facts.ended - kept_since;
        match flushed {
            Poll::Ready(Err(_)) => Err(Failure::ClientGone),
            _ => Ok(()),
        }
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // What the client sends too late does not matter any more; that it went away does.
        let uploaded = self.poll_upload(cx)?;
        if let Poll::Ready(result) = self.poll_download(cx) {
            return Poll::Ready(result);
        }
        if uploaded.is_ready() || self.client.stream.is_http2() {
            self.watch_client(cx)?;
        }
        if self.client.timer.has_fired() {
            let client_is_slow = !self.answer.backlog.is_empty();
            return Poll::Ready(Err(self.overdue_or(match client_is_slow {
                true => Failure::ClientGone,
                false => Failure::ResponseTimeout,
            })));
        }
        Poll::Pending
    }
}

/// Copies a head out with its changes. The version is this hop's own (RFC 9110 section 6.2).
pub(super) fn write_head(head: &AnswerHead<'_>, edits: &mut Edits, out: &mut Vec<u8>) {
    let start = (head.lines.first()).map_or(head.bytes.len() - "\r\n".len(), |line| {
        line.name.start as usize
    });
    out.extend_from_slice(b"HTTP/1.1");
    out.extend_from_slice(&head.bytes["HTTP/1.1".len()..start]);
    edits.apply(head.bytes, head.lines, out);
    out.extend_from_slice(b"\r\n");
}

/// An interim answer or a 204 has no body, and must not speak of one (RFC 9110 section 8.6, RFC 9112 section 6.1).
fn remove_framing(head: &AnswerHead<'_>, edits: &mut Edits) {
    let lines = head.lines.iter().enumerate();
    lines
        .filter(|(_, line)| matches!(line.field, Field::ContentLength | Field::TransferEncoding))
        .for_each(|(ordinal, _)| edits.remove(ordinal));
}

/// The backend's `Keep-Alive: timeout=N`, one second less, so that weir closes first.
fn idle_hint(answer: &Answer<'_>) -> Option<Duration> {
    let (_, value) = answer.head.field(Field::KeepAlive).next()?;
    let seconds = list_members(value).find_map(|member| {
        let text = std::str::from_utf8(member).ok()?;
        let (name, seconds) = text.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("timeout")
            .then(|| seconds.trim().parse::<u32>().ok())?
    })?;
    Some(Duration::from_secs(u64::from(seconds.saturating_sub(1))))
}
