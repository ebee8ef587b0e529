//! One stream of an HTTP/2 connection as the client's side of an exchange: its body in, its answer out.
//! It gives the client room to send only for what was taken from it, and takes no more of an answer than the client has room for.
//! The walk goes on in `side.rs`.

use std::io;
use std::task::{Context, Poll, ready};

use ::http::{HeaderMap, Response};
use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use crate::http::fault::Fault;
use crate::net::room::{self, error};

/// One stream.
pub struct ClientStream {
    body: RecvStream,
    /// What arrived and was not taken.
    piece: Bytes,
    respond: SendResponse<Bytes>,
    /// There once the answer's head was sent.
    answer: Option<SendStream<Bytes>>,
    /// Whether all of the answer was sent.
    is_ended: bool,
    /// What is wrong with its head.
    fault: Option<Fault>,
}

impl std::fmt::Debug for ClientStream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ClientStream")
            .field("id", &self.respond.stream_id())
            .finish_non_exhaustive()
    }
}

impl ClientStream {
    /// A stream whose request head was read, or refused.
    pub fn new(body: RecvStream, respond: SendResponse<Bytes>, fault: Option<Fault>) -> Self {
        ClientStream {
            body,
            piece: Bytes::new(),
            respond,
            answer: None,
            is_ended: false,
            fault,
        }
    }

    /// What is wrong with the request's head, if anything.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether the client gave the request up, or the connection is gone.
    pub fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_ended {
            return false;
        }
        match &mut self.answer {
            Some(answer) => answer.poll_reset(cx).is_ready(),
            None => self.respond.poll_reset(cx).is_ready(),
        }
    }

    /// Sends an interim answer.
    ///
    /// # Errors
    /// The client is gone.
    pub fn interim(&mut self, answer: Response<()>) -> io::Result<()> {
        self.respond.send_informational(answer).map_err(error)
    }

    /// Sends an answer's head; with it all of its body, if `is_whole` says that `body` is that and the client has room for it. Returns how many bytes
    /// were taken.
    ///
    /// # Errors
    /// The client is gone.
    pub fn respond(
        &mut self,
        answer: Response<()>,
        body: &[u8],
        is_whole: bool,
    ) -> io::Result<usize> {
        let is_end = is_whole && body.is_empty();
        let mut answer = self.respond.send_response(answer, is_end).map_err(error)?;
        self.is_ended = is_end;
        let mut taken = 0;
        if is_whole && !is_end {
            answer.reserve_capacity(body.len());
            if answer.capacity() >= body.len() {
                let body = Bytes::copy_from_slice(body);
                taken = body.len();
                answer.send_data(body, true).map_err(error)?;
                self.is_ended = true;
            }
        }
        self.answer = Some(answer);
        Ok(taken)
    }

    /// Ends the answer. It does nothing for one that ended, or had no head.
    pub fn end(&mut self, trailers: Option<HeaderMap>) {
        let Some(answer) = self.answer.as_mut().filter(|_| !self.is_ended) else {
            return;
        };
        self.is_ended = true;
        // It fails only when the client is gone.
        let _ = match trailers {
            Some(trailers) => answer.send_trailers(trailers),
            None => answer.send_data(Bytes::new(), true),
        };
    }

    /// Breaks the answer off, so that the client does not take what it has for all of it.
    pub fn abort(&mut self) {
        if !std::mem::replace(&mut self.is_ended, true) {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    /// The trailers of a request whose body was read to its end.
    ///
    /// # Errors
    /// The client is gone.
    pub fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<HeaderMap>>> {
        self.body.poll_trailers(cx).map_err(error)
    }

    /// Reads what is there of the body; 0 is its end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        while self.piece.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(piece) => self.piece = piece.map_err(error)?,
                None => return Poll::Ready(Ok(0)),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        let released = self.body.flow_control().release_capacity(count);
        Poll::Ready(released.map(|()| count).map_err(error))
    }

    /// Takes as much as the client has room for.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(answer) = self.answer.as_mut().filter(|_| !self.is_ended) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        room::write(answer, cx, first, second)
    }
}
