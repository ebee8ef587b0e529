//! HTTP/2 toward backends: the connections of one worker toward one backend, which its requests share, and a request's stream on one.
//! A connection is opened when the others are full, by one request while those that come meanwhile wait for it and for the backend to say
//! how many it takes.
//! The walk goes on in `side.rs`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Request};
use bytes::{Buf, Bytes};
use h2::client::{self, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};

use crate::http::fields;
use crate::net::framed::Framed;
use crate::net::room::{self, error};
use crate::net::stream::Stream;

/// Bytes of one answer that may wait for the client, and of all answers on a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes of one request that may wait for the backend's room.
const SEND_BUFFER: usize = 64 * 1024;

/// Bytes that the head of an answer may have at most; the file's limit is checked when it is read.
const MAX_HEAD: u32 = 1024 * 1024;

/// Connections of one worker toward one backend. Beyond them requests wait on those for a place.
const MAX_CONNECTIONS: usize = 64;

/// What stands for the number of requests that a backend takes at once until it said so; none can say this.
const UNSAID: usize = usize::MAX - 1;

/// The connections of one worker toward one backend.
#[derive(Debug, Default)]
pub struct Connections {
    open: RefCell<Vec<Shared>>,
    /// Whether one is being opened.
    opening: Cell<bool>,
    /// Who waits for that.
    waiting: RefCell<Vec<Waker>>,
}

struct Shared {
    sender: SendRequest<Bytes>,
    /// Requests on it.
    active: Rc<Cell<usize>>,
    used: Instant,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Shared")
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// A place on a connection, taken until it is dropped.
pub struct Place {
    sender: SendRequest<Bytes>,
    active: Rc<Cell<usize>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.active.set(self.active.get() - 1);
    }
}

/// What a request finds.
pub enum Found {
    /// A connection with a place.
    Place(Place),
    /// None, and it is this request's turn to open one.
    Open(Opening),
}

/// The right to open a connection; others wait until it is dropped.
pub struct Opening(Rc<Connections>);

impl Connections {
    /// A place on a connection, or the turn to open one. The one that was opened last comes first, so that the others become idle.
    pub fn poll_place(self: &Rc<Self>, cx: &mut Context<'_>, now: Instant) -> Poll<Found> {
        let mut open = self.open.borrow_mut();
        open.retain_mut(|shared| is_alive(&mut shared.sender));
        let mut with_room = open.iter_mut().rev().filter(|shared| shared.has_room());
        if let Some(shared) = with_room.next() {
            return Poll::Ready(Found::Place(shared.place(now)));
        }
        let is_full = open.len() >= MAX_CONNECTIONS;
        let is_unsaid = open.iter().any(|shared| shared.room() == UNSAID);
        if is_unsaid || !is_full && self.opening.replace(true) {
            self.waiting.borrow_mut().push(cx.waker().clone());
            return Poll::Pending;
        }
        let least = open.iter_mut().min_by_key(|shared| shared.active.get());
        Poll::Ready(match least.filter(|_| is_full) {
            Some(shared) => Found::Place(shared.place(now)),
            None => Found::Open(Opening(self.clone())),
        })
    }

    /// Wakes who waits for a connection to come about.
    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Lets go of what was not used for `idle`; connections with requests stay.
    pub fn sweep(&self, now: Instant, idle: Duration) {
        self.open.borrow_mut().retain_mut(|shared| {
            let is_used = shared.active.get() > 0;
            is_alive(&mut shared.sender)
                && (is_used || now.saturating_duration_since(shared.used) < idle)
        });
    }

    /// Lets go of all of them; requests on them end as they would have.
    pub fn clear(&self) {
        self.open.borrow_mut().clear();
    }
}

impl Shared {
    /// How many requests the backend takes at once on it.
    fn room(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// Until the backend said how many it takes, it is sent one.
    fn has_room(&self) -> bool {
        let active = self.active.get();
        match self.room() {
            UNSAID => active == 0,
            room => active < room,
        }
    }

    fn place(&mut self, now: Instant) -> Place {
        self.used = now;
        self.active.set(self.active.get() + 1);
        Place {
            sender: self.sender.clone(),
            active: self.active.clone(),
        }
    }
}

/// Whether the backend takes more requests on a connection.
fn is_alive(sender: &mut SendRequest<Bytes>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    !matches!(sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
}

impl Opening {
    /// Begins HTTP/2 on a connection, and keeps it for others.
    ///
    /// # Errors
    /// What the backend sent is not HTTP/2, or it closed the connection.
    pub async fn begin(self, stream: Stream, now: Instant) -> io::Result<Place> {
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(UNSAID)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD);
        let handshake = builder.handshake(Framed::of_backend(stream));
        let (sender, connection) = handshake.await.map_err(error)?;
        tokio::task::spawn_local(drive(connection, Rc::downgrade(&self.0)));
        let mut shared = Shared {
            sender,
            active: Rc::default(),
            used: now,
        };
        let place = shared.place(now);
        self.0.open.borrow_mut().push(shared);
        Ok(place)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(false);
        self.0.wake();
    }
}

/// Moves a connection's frames until it has ended. Who waits for an answer is told of that; nobody else needs to know.
async fn drive(connection: Connection<Framed, Bytes>, connections: Weak<Connections>) {
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx);
        // What came may have been how many requests the backend takes.
        if let Some(connections) = connections.upgrade() {
            connections.wake();
        }
        ended.map(drop)
    })
    .await;
}

/// Waits for a place, or the turn to open a connection.
pub fn place(connections: &Rc<Connections>, now: Instant) -> impl Future<Output = Found> {
    poll_fn(move |cx| connections.poll_place(cx, now))
}

/// One request's stream.
pub struct BackendStream {
    place: Place,
    upload: Option<SendStream<Bytes>>,
    answer: State,
    /// What arrived and was not taken.
    piece: Bytes,
    /// How much of it is payload, for which the backend gets new room.
    payload: bool,
    trailers: Option<HeaderMap>,
    /// Whether the backend said that it did nothing for the request.
    is_unprocessed: bool,
}

enum State {
    /// Nothing was sent.
    New,
    /// An answer is awaited.
    Head(ResponseFuture),
    /// Its payload is coming.
    Body(RecvStream),
}

impl std::fmt::Debug for BackendStream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("BackendStream").finish_non_exhaustive()
    }
}

impl BackendStream {
    /// A place on a connection.
    pub fn new(place: Place) -> Self {
        BackendStream {
            place,
            upload: None,
            answer: State::New,
            piece: Bytes::new(),
            payload: false,
            trailers: None,
            is_unprocessed: true,
        }
    }

    /// Sends the request's head, which is all of it when `is_whole`.
    ///
    /// # Errors
    /// The connection is of no more use; the backend saw nothing of the request.
    pub fn start(&mut self, request: Request<()>, is_whole: bool) -> io::Result<()> {
        let sent = self.place.sender.send_request(request, is_whole);
        let (answer, upload) = sent.map_err(error)?;
        self.is_unprocessed = false;
        self.answer = State::Head(answer);
        self.upload = (!is_whole).then_some(upload);
        Ok(())
    }

    /// Ends the request.
    pub fn end(&mut self, trailers: Option<HeaderMap>) {
        let Some(mut upload) = self.upload.take() else {
            return;
        };
        // It fails only when the stream is gone, which its answer will tell.
        let _ = match trailers {
            Some(trailers) => upload.send_trailers(trailers),
            None => upload.send_data(Bytes::new(), true),
        };
    }

    /// Whether the backend said that it did nothing for the request, so that another try does it once (RFC 9113 section 8.7).
    pub fn is_unprocessed(&self) -> bool {
        self.is_unprocessed
    }

    /// Whether the answer ended with what was read.
    pub fn is_ended(&self) -> bool {
        self.piece.is_empty() && matches!(&self.answer, State::Body(body) if body.is_end_stream())
    }

    /// What followed the payload, once its end was read.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Reads what is there of the answer: each head as HTTP/1 has it, then the payload; 0 is the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        while self.piece.is_empty() {
            if !ready!(self.poll_piece(cx))? {
                return Poll::Ready(Ok(0));
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        if let State::Body(body) = &mut self.answer
            && self.payload
        {
            body.flow_control().release_capacity(count).map_err(error)?;
        }
        Poll::Ready(Ok(count))
    }

    /// Waits for the next head or piece of payload; false at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match &mut self.answer {
            State::New => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            State::Head(answer) => {
                if let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
                    self.piece = head(&interim.into_parts().0)?;
                    return Poll::Ready(Ok(true));
                }
                let answer = ready!(Pin::new(answer).poll(cx));
                let (parts, body) = answer.map_err(|error| self.broken(error))?.into_parts();
                self.piece = head(&parts)?;
                self.answer = State::Body(body);
                Poll::Ready(Ok(true))
            }
            State::Body(body) => {
                self.payload = true;
                match ready!(body.poll_data(cx)) {
                    Some(piece) => self.piece = piece.map_err(error)?,
                    None => {
                        self.trailers = ready!(body.poll_trailers(cx)).map_err(error)?;
                        return Poll::Ready(Ok(false));
                    }
                }
                Poll::Ready(Ok(true))
            }
        }
    }

    /// Takes as much as the backend has room for.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(upload) = &mut self.upload else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        room::write(upload, cx, first, second)
    }

    fn broken(&mut self, broken: h2::Error) -> io::Error {
        let reason = broken.reason();
        let is_leaving = broken.is_go_away() && reason == Some(Reason::NO_ERROR);
        let is_refused = reason == Some(Reason::REFUSED_STREAM);
        self.is_unprocessed = broken.is_remote() && (is_refused || is_leaving);
        error(broken)
    }
}

/// An answer's head as HTTP/1 has it.
fn head(answer: &::http::response::Parts) -> io::Result<Bytes> {
    let mut head = Vec::with_capacity(512);
    match fields::write_answer(answer, &mut head) {
        Ok(()) => Ok(head.into()),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}
