//! A client's HTTP/1 request in flight: its head and body as received, what is on its way to the backend, and what is known so far.
//! It never chooses a backend. No slice of a head lives across a wait; what must wait is kept in buffers of the worker.
//! The walk goes on in `answer.rs`, which brings the answer back, and `body.rs`, which moves bodies.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::http::HeaderMap;

use super::client::Client;
use super::filter::Filtered;
use super::grpc::Call;
use super::handshake::name_fault;
use super::head::Head;
use super::pace::Pace;
use super::reject::Failure;
use super::retry::Retrying;
use super::session::Shown;
use crate::clock;
use crate::config::model::{PoolProtocol, Timeouts};
use crate::http::chunk;
use crate::http::fault::Fault;
use crate::http::fields;
use crate::http::framing::Framing;
use crate::http::head::Version;
use crate::http::request;
use crate::metrics::rows::Hold;
use crate::net::backlog::Backlog;
use crate::net::turn::{GATHERED, turn};
use crate::policy::balance::BackendIndex;
use crate::policy::choose::Choice;
use crate::policy::persist::{Stickiness, Told};
use crate::state::backend::{Backend, ConnectionCounts, Slot, UpgradeLease};
use crate::state::flights::Flight;
use crate::upstream::generation::Generation;
use crate::upstream::http2::{self, BackendStream, Connections, Found};
use crate::upstream::side::BackendSide;

/// A request in flight.
#[derive(Debug)]
pub struct Exchange<'c> {
    pub(super) client: &'c mut Client,
    /// The generation that the request belongs to, whatever is published meanwhile.
    pub(super) generation: Rc<Generation>,
    pub(super) listener: usize,
    /// Head and first body bytes as received; kept so that another attempt can send them again.
    pub(super) received: Vec<u8>,
    pub(super) head: Option<Head>,
    /// The body that the client has not sent yet.
    pub(super) upload: Framing,
    /// What becomes of its framing on the way.
    pub(super) upload_coding: Coding,
    /// How fast it comes.
    pub(super) pace: Pace,
    pub(super) backend: Option<Upstream>,
    pub(super) answer: Answer,
    pub(super) facts: Facts,
    /// There when the backend switched protocols: counts the connection from then on.
    pub(super) switched: Option<UpgradeLease>,
    /// There when the request is a gRPC call.
    pub(super) call: Option<Box<Call>>,
    /// There when its route has rules for retries.
    pub(super) retrying: Option<Box<Retrying>>,
    /// There on routes with filters.
    pub(super) filtered: Option<Box<Filtered>>,
}

/// Where an attempt goes.
#[derive(Debug)]
pub(super) struct Plan {
    /// Ordinal of the pool.
    pub(super) pool: usize,
    /// The chosen backend.
    pub(super) backend: BackendIndex,
    /// Whether a client that has no home yet counts there until its answer.
    pub(super) counts: bool,
    /// What the other requests of such a client can find; boxed, since few have it and a request in flight is small.
    pub(super) flight: Option<Box<Flight>>,
}

/// The connection toward a backend.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: BackendSide,
    /// Its place among the connections that the backend may have.
    pub(super) slot: Option<Slot>,
    /// Whether any byte of the request was handed to the system.
    pub(super) sent: bool,
    /// Whether the backend no longer takes the body; its answer may still come.
    pub(super) deaf: bool,
    /// Whether its answer is a large one: a guess until the head is there.
    pub(super) is_large: bool,
    pub(super) backlog: Backlog,
    /// The answer's head while it is incomplete.
    pub(super) partial: Vec<u8>,
}

/// What is known of the answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// 0 until there is one.
    pub(super) status: u16,
    pub(super) body: Framing,
    /// On its way to the client.
    pub(super) backlog: Backlog,
    /// What becomes of its framing on the way.
    pub(super) coding: Coding,
    /// What follows the body, if it does not stand in it.
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// Whether both ends may go on after it.
    pub(super) client_goes_on: bool,
    pub(super) backend_goes_on: bool,
    /// What the backend says about how long it keeps an idle connection.
    pub(super) idle_hint: Option<Duration>,
    pub(super) interims: u32,
    /// Whether the client was told to send the body that it held back.
    pub(super) continued: bool,
}

/// What becomes of the framing of a body: it passes as it is wherever both sides speak the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Nothing.
    AsIs,
    /// The chunked coding is taken off, for who does not know it: HTTP/1.0 and HTTP/2.
    Decode,
    /// The chunked coding is put on, for a body of HTTP/2 whose length nobody knows.
    Encode,
}

/// What the log and the metrics want to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) id: u64,
    pub(super) wall_millis: u64,
    pub(super) started: Instant,
    pub(super) client: std::net::IpAddr,
    pub(super) overhead: Duration,
    /// How long it was held for its home, and what became of that.
    pub(super) held: Duration,
    pub(super) hold: Option<Hold>,
    /// How long it waited in its pool's queue.
    pub(super) queued: Duration,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) tries: u8,
    pub(super) reused: bool,
    pub(super) route: Option<usize>,
    pub(super) choice: Option<Choice>,
    pub(super) stickiness: Option<Stickiness>,
    /// The application's session that the request shows, on a sticky route.
    pub(super) session: Option<Shown>,
    /// Whether the client came by TLS.
    pub(super) secure: bool,
    pub(super) failure: Option<Failure>,
    /// When the last byte was written.
    pub(super) ended: Instant,
}

impl<'c> Exchange<'c> {
    /// A request whose first bytes are `received`.
    pub(super) fn new(client: &'c mut Client, received: Vec<u8>) -> Self {
        let started = clock::now();
        let facts = Facts {
            id: client.local.rng.borrow_mut().next_u64(),
            wall_millis: clock::wall_millis(),
            started,
            client: client.remote.ip().to_canonical(),
            overhead: Duration::ZERO,
            held: Duration::ZERO,
            hold: None,
            queued: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            tries: 0,
            reused: false,
            route: None,
            choice: None,
            stickiness: None,
            session: None,
            secure: false,
            failure: None,
            ended: started,
        };
        let answer = Answer {
            status: 0,
            body: Framing::NONE,
            backlog: Backlog::default(),
            coding: Coding::AsIs,
            trailers: None,
            client_goes_on: false,
            backend_goes_on: false,
            idle_hint: None,
            interims: 0,
            continued: false,
        };
        let (generation, listener) = (client.view.generation(), client.view.listener());
        let upload = Framing::NONE;
        Exchange {
            client,
            generation,
            listener,
            received,
            head: None,
            upload,
            upload_coding: Coding::AsIs,
            pace: Pace::default(),
            backend: None,
            answer,
            facts,
            switched: None,
            call: None,
            retrying: None,
            filtered: None,
        }
    }

    /// The waits of the request's route, or of the file before it has one.
    pub(super) fn timeouts(&self) -> &Timeouts {
        let snapshot = &*self.generation.snapshot;
        self.facts.route.map_or(&snapshot.config.timeouts, |route| {
            &snapshot.routes[route].timeouts
        })
    }

    /// Waits until the head is complete.
    pub(super) async fn read_head(&mut self) -> Result<(), Failure> {
        let mut is_first = true;
        while !self.find_head()? {
            poll_fn(|cx| self.poll_more_head(cx, std::mem::take(&mut is_first))).await?;
        }
        self.facts.started = if is_first {
            self.facts.started
        } else {
            clock::now()
        };
        Ok(())
    }

    /// Reads the head if it is complete, and takes the first bytes of the body off what came with it.
    fn find_head(&mut self) -> Result<bool, Failure> {
        let stream = self.client.stream.http2();
        if let Some(fault) = stream.and_then(|stream| stream.fault()) {
            return Err(Failure::Request(fault));
        }
        request::skip_empty_lines(&mut self.received);
        let local = self.client.local.clone();
        let lines = &mut local.scratch.borrow_mut().lines;
        let limits = &self.generation.snapshot.config.limits;
        let parsed = request::parse(&self.received, lines, limits)
            .map_err(|fault| name_fault(&self.received, Failure::Request(fault)))?;
        let Some(request) = parsed else {
            return Ok(false);
        };
        let mut head = Head::of(&self.received, &request);
        let mut upload = request.body;
        if self.client.stream.is_http2() {
            head.version = Version::Http2;
            self.call = Call::of(&request.head, self.facts.started);
            if matches!(upload, Framing::Chunked(_)) {
                // What ends it is the end of the stream.
                upload = Framing::Close;
            }
        }
        let taken = upload
            .advance(&self.received[head.length..])
            .map_err(Failure::Request)?;
        let end = head.length + taken;
        if end < self.received.len() {
            self.client.early = self.received.split_off(end);
        }
        Told::begin_request(&mut self.client.told, end);
        self.facts.bytes_in = end as u64;
        self.upload = upload;
        self.head = Some(head);
        Ok(true)
    }

    /// Reads on until a line is complete; a head cannot end elsewhere.
    fn poll_more_head(
        &mut self,
        cx: &mut Context<'_>,
        is_first: bool,
    ) -> Poll<Result<(), Failure>> {
        let limits = self.generation.snapshot.config.limits;
        if is_first && self.client.requests > 0 {
            self.client.timer.set(cx, self.timeouts().header);
        }
        loop {
            if self.client.timer.has_fired() {
                return Poll::Ready(Err(Failure::HeadTimeout));
            }
            let known = self.received.len();
            if known == self.received.capacity() {
                self.received.reserve(known.clamp(256, limits.head));
            }
            match ready!(self.client.stream.poll_read_into(cx, &mut self.received)) {
                Ok(1..) => {}
                _ => return Poll::Ready(Err(Failure::ClientGone)),
            }
            if self.received.len() >= limits.head || self.received[known..].contains(&b'\n') {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Tries one backend: connection, request, answer head. The composed request head is in the worker's scratch.
    pub(super) async fn attempt(
        &mut self,
        plan: &Plan,
        backend: &Backend,
        fresh: bool,
    ) -> Result<(), Failure> {
        let local = self.client.local.clone();
        let mut head = std::mem::take(&mut local.scratch.borrow_mut().out);
        let has_waited = self.facts.hold.is_some() || !self.facts.queued.is_zero();
        let began = if self.facts.tries == 0 && !has_waited {
            self.facts.started
        } else {
            clock::now()
        };
        self.facts.tries = self.facts.tries.saturating_add(1);
        let pool = &self.generation.snapshot.pools[plan.pool];
        let is_http2 = pool.protocol == PoolProtocol::Http2;
        let scheme = if pool.tls.is_some() { "https" } else { "http" };
        let idle = self.generation.pool(plan.pool).idle(plan.backend).clone();
        let kept = match fresh || is_http2 || pool.is_personal() {
            true => None,
            false => idle.take(began),
        };
        let kept = kept.map(|(stream, slot)| (BackendSide::Http1(stream), slot));
        self.facts.reused = kept.is_some();
        let counts = backend.live.connections(local.index);
        let mut waited = Duration::ZERO;
        let (stream, slot) = match kept {
            Some(kept) => {
                counts.reused.increment();
                kept
            }
            None => {
                let before = clock::now();
                // Boxed, so that the many requests that find a connection do not carry the state of making one.
                let stream = match is_http2 {
                    true => Box::pin(self.join(idle.shared(), plan.pool, backend))
                        .await
                        .map(|stream| (stream, None)),
                    false => Box::pin(self.open(plan.pool, backend)).await,
                };
                let stream = stream.inspect_err(|failure| count_failed(counts, *failure))?;
                match self.facts.reused {
                    true => counts.reused.increment(),
                    false => counts.fresh.increment(),
                }
                waited = clock::now() - before;
                stream
            }
        };
        self.backend = Some(Upstream::new(stream, slot, idle.expects_large()));
        match is_http2 {
            true => poll_fn(|cx| Poll::Ready(self.send_to_stream(cx, scheme, &head))).await?,
            false => poll_fn(|cx| Poll::Ready(self.send(cx, &head))).await?,
        }
        head.clear();
        local.scratch.borrow_mut().out = head;
        if self.is_backend_behind() {
            turn().await;
        }
        poll_fn(|cx| Poll::Ready(self.flush_first(cx))).await?;
        self.facts.overhead += (clock::now() - began).saturating_sub(waited);
        poll_fn(|cx| self.poll_attempt(cx)).await
    }

    /// Opens a connection, if the backend may have one more.
    async fn open(
        &mut self,
        pool: usize,
        backend: &Backend,
    ) -> Result<(BackendSide, Option<Slot>), Failure> {
        let slot = backend.open().ok_or(Failure::Crowded)?;
        let stream = self.connect(pool, backend).await?;
        Ok((BackendSide::Http1(stream), Some(slot)))
    }

    /// Finds a place on a connection that requests share, or opens one, within the route's time to connect.
    async fn join(
        &mut self,
        shared: &Rc<Connections>,
        pool: usize,
        backend: &Backend,
    ) -> Result<BackendSide, Failure> {
        let now = clock::now();
        let found = self.within_connect(http2::place(shared, now)).await?;
        let place = match found {
            Found::Place(place) => {
                self.facts.reused = true;
                place
            }
            Found::Open(opening) => {
                let stream = self.connect(pool, backend).await?;
                let begun = self.within_connect(opening.begin(stream, now)).await?;
                begun.map_err(|error| Failure::Connect(error.kind()))?
            }
        };
        Ok(BackendSide::Http2(Box::new(BackendStream::new(place))))
    }

    /// Waits for what belongs to connecting, at most for the route's time.
    pub(super) async fn within_connect<T>(
        &mut self,
        wait: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut wait = pin!(wait);
        let mut is_first = true;
        poll_fn(|cx| {
            if std::mem::take(&mut is_first) {
                self.wait(cx, self.timeouts().connect);
            }
            match wait.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Ok(result)),
                Poll::Pending if self.client.timer.has_fired() => {
                    Poll::Ready(Err(self.overdue_or(Failure::ConnectTimeout)))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Sends the head as a request of HTTP/2, with the body bytes that came with it.
    fn send_to_stream(
        &mut self,
        cx: &mut Context<'_>,
        scheme: &str,
        head: &[u8],
    ) -> Result<(), Failure> {
        let (Some(upstream), Some(facts)) = (&mut self.backend, &self.head) else {
            return Err(Failure::BackendClosed);
        };
        let Some(stream) = upstream.stream.http2() else {
            return Err(Failure::BackendClosed);
        };
        let request = fields::read_request(head, scheme).ok_or(Failure::Request(Fault::Target))?;
        let mut body = self
            .received
            .get(facts.length..)
            .unwrap_or_default()
            .to_vec();
        let mut framing = facts.framing(&self.generation.snapshot.config.limits);
        let kept = match self.client.stream.is_http2() {
            // A body of HTTP/2 has no framing; what was kept of it is all that is here.
            true => body.len(),
            false => {
                (framing.advance_and_decode(&mut body))
                    .map_err(Failure::Request)?
                    .1
            }
        };
        self.upload_coding = match self.upload {
            Framing::Chunked(_) => Coding::Decode,
            _ => Coding::AsIs,
        };
        let is_whole = self.upload.is_done() && kept == 0;
        let started = stream.start(request, is_whole);
        started.map_err(|_| Failure::BackendClosed)?;
        upstream.sent = true;
        if kept > 0 {
            let sent = (upstream.backlog).send(&mut upstream.stream, cx, &body[..kept], &[]);
            sent.map_err(|_| Failure::BackendClosed)?;
        }
        Ok(())
    }

    /// Sends the head and the body bytes that came with it, or keeps them over this turn.
    fn send(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Result<(), Failure> {
        let (Some(upstream), Some(facts)) = (&mut self.backend, &self.head) else {
            return Err(Failure::BackendClosed);
        };
        let mut body = self.received.get(facts.length..).unwrap_or_default();
        let framed;
        if self.client.stream.is_http2() && facts.is_open() {
            // What is kept of a body of HTTP/2 for another attempt has no framing.
            framed = chunk::framed(body, self.upload.is_done());
            body = &framed;
        }
        self.upload_coding = match self.upload {
            Framing::Close => Coding::Encode,
            _ => Coding::AsIs,
        };
        if head.len() + body.len() <= GATHERED {
            upstream.backlog.gather(head, body);
            return Ok(());
        }
        let result = upstream.backlog.send(&mut upstream.stream, cx, head, body);
        // What is kept stands behind bytes that may have left already: only a first write that fails has sent nothing.
        upstream.sent = result.is_ok() || !upstream.backlog.is_empty();
        result.map_err(|_| Failure::BackendClosed)
    }

    /// Sends what was kept, and begins the wait for what comes next.
    fn flush_first(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(upstream) = &mut self.backend else {
            return Err(Failure::BackendClosed);
        };
        let kept = upstream.backlog.len();
        let flushed = upstream.backlog.poll_flush(&mut upstream.stream, cx);
        upstream.sent |= upstream.backlog.len() < kept;
        if let Poll::Ready(Err(_)) = flushed {
            return Err(Failure::BackendClosed);
        }
        self.await_first(cx);
        Ok(())
    }

    /// Moves the body on until the answer's head is there and passed on.
    fn poll_attempt(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let uploaded = self.poll_upload(cx)?;
        if let Poll::Ready(result) = self.poll_answer(cx) {
            return Poll::Ready(result);
        }
        if uploaded.is_ready() || self.client.stream.is_http2() {
            self.watch_client(cx)?;
        }
        match self.client.timer.has_fired() {
            true => self.poll_overdue(cx).map(Err),
            false => Poll::Pending,
        }
    }

    /// Who is to blame for a wait that took too long before the answer.
    pub(super) fn overdue(&self) -> Failure {
        let client_waits = self.head.is_some_and(|head| head.expects_continue)
            && !self.answer.continued
            && self.is_replayable();
        if self.upload.is_done() || self.is_backend_behind() || client_waits {
            Failure::ResponseTimeout
        } else {
            Failure::BodyTimeout
        }
    }

    /// Whether everything that was read of the request is still at hand.
    pub(super) fn is_replayable(&self) -> bool {
        self.facts.bytes_in == self.received.len() as u64
    }
}

fn count_failed(counts: &ConnectionCounts, failure: Failure) {
    // No connection was tried.
    if !matches!(failure, Failure::Crowded | Failure::NoSocket) {
        counts.failed.increment();
    }
}

impl Upstream {
    fn new(stream: BackendSide, slot: Option<Slot>, is_large: bool) -> Self {
        Upstream {
            stream,
            slot,
            sent: false,
            deaf: false,
            is_large,
            backlog: Backlog::default(),
            partial: Vec::new(),
        }
    }
}
