//! One HTTP/2 connection of a client: takes its requests, gives each a task of its own, and ends it in the way that the client can see.
//! A client that sends too much of what costs weir more than itself is told to calm down and cut off.
//! The walk goes on in `l7/proxy.rs`, which every request of it goes through.

use std::cell::RefCell;
use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream, ext::Protocol};

use super::stream::ClientStream;
use crate::clock;
use crate::config::model::{Config, Timeouts};
use crate::http::fault::Fault;
use crate::http::fields::{self, Shape};
use crate::http::meter::{Meter, Offence};
use crate::l7::client::{Client, Next, Origin};
use crate::l7::proxy::proxy;
use crate::l7::side::Side;
use crate::net::duplex::Duplex;
use crate::net::framed::{Framed, Gauge};
use crate::net::introduction::{Introduction, ends_toward};
use crate::net::timer::Timer;
use crate::policy::persist::Remembered;
use crate::upstream::local::Local;

/// Bytes of one request's body that may wait for its backend; the default of RFC 9113 section 6.9.2.
const STREAM_WINDOW: u32 = 64 * 1024 - 1;

/// Bytes of one answer that may wait for the client's room.
const SEND_BUFFER: usize = 64 * 1024;

/// Requests under way, of streams or of what streams left behind, for each stream that may be open.
const TASKS_PER_STREAM: usize = 2;

/// Header lists of so many times what a head may have reach weir, to be refused in its own way and seen in logs and metrics. The codec
/// counts 32 bytes more for each field; what it refuses itself is answered 431, too, and nobody hears of it.
const MAX_LIST: u32 = 2;

/// How long a client may take to acknowledge that the connection ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves the connection to its end. `early` is what was read of it.
pub async fn serve(client: Client, early: Vec<u8>) {
    let mut origin = client.origin();
    let (Side::Http1(stream), timer) = (client.stream, client.timer) else {
        return;
    };
    // A stream of it cannot ask the socket.
    (origin.introduction)
        .get_or_insert_with(|| Rc::new(Introduction::own(ends_toward(origin.remote, &stream))));
    let config = origin.view.generation().snapshot.config.clone();
    let gauge = Rc::new(Gauge::new(Meter::new(&config.http2, clock::now())));
    let framed = Framed::of_client(stream, early, gauge.clone());
    let mut handshake = pin!(builder(&config).handshake(framed));
    let opened = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        // The deadline is that of a request head, from the accept on.
        Poll::Pending if timer.has_fired() => Poll::Ready(None),
        Poll::Pending => {
            timer.attach(cx);
            Poll::Pending
        }
        Poll::Ready(opened) => Poll::Ready(opened.ok()),
    })
    .await;
    let Some(codec) = opened else {
        return;
    };
    let mut multiplexed = Multiplexed {
        codec,
        gauge,
        timer,
        origin,
        remembered: Rc::default(),
        tasks: Rc::new(()),
        max_tasks: config.http2.streams as usize * TASKS_PER_STREAM,
        phase: Phase::Busy,
        has_served: false,
        is_judged: false,
    };
    poll_fn(|cx| multiplexed.poll(cx)).await;
}

fn builder(config: &Config) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(config.http2.streams)
        .max_header_list_size(config.limits.head as u32 * MAX_LIST)
        .initial_window_size(STREAM_WINDOW.min(config.http2.window))
        .initial_connection_window_size(config.http2.window)
        .max_send_buffer_size(SEND_BUFFER)
        // The meter's limit comes first.
        .max_pending_accept_reset_streams(config.http2.resets as usize)
        .enable_connect_protocol();
    builder
}

/// A connection with its streams.
struct Multiplexed {
    codec: Connection<Framed, Bytes>,
    gauge: Rc<Gauge>,
    timer: Timer,
    origin: Origin,
    /// The sticky token that was checked last on it.
    remembered: Rc<RefCell<Option<Remembered>>>,
    /// As many more owners as there are requests under way.
    tasks: Rc<()>,
    max_tasks: usize,
    phase: Phase,
    has_served: bool,
    /// Whether its end was counted.
    is_judged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has requests, or had some in the turn before.
    Busy,
    /// It has none, and the deadline is running.
    Idle,
    /// The client takes nothing of what is to be sent, after so many bytes of it, and the deadline is running.
    Stalled(u64),
    /// The client was told that no more requests are taken.
    Leaving,
    /// The client was told that it is over; nothing is taken any more.
    Ending,
}

impl Multiplexed {
    /// Takes requests and moves frames until the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.codec.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.start(request, respond),
                Poll::Ready(_) => {
                    self.note_verdict();
                    return Poll::Ready(());
                }
                Poll::Pending if self.cuts_off(cx) => {}
                Poll::Pending => break,
            }
        }
        self.note_verdict();
        self.keep_time(cx)
    }

    /// Whether the client must be cut off from now on.
    fn cuts_off(&mut self, cx: &mut Context<'_>) -> bool {
        let offence = self.gauge.offence();
        let Some(offence) = offence.filter(|_| self.phase != Phase::Ending) else {
            return false;
        };
        let reason = match offence {
            Offence::Flood(_) => Reason::ENHANCE_YOUR_CALM,
            Offence::FrameSize => Reason::FRAME_SIZE_ERROR,
            Offence::Other => Reason::PROTOCOL_ERROR,
        };
        self.end(cx, reason);
        true
    }

    /// Counts, once, what the client is cut off for, by weir or by the codec.
    fn note_verdict(&mut self) {
        let verdict = self.gauge.verdict().filter(|_| !self.is_judged);
        let Some(verdict) = verdict else { return };
        self.is_judged = true;
        let (counts, remote) = (&self.origin.local.counts, self.origin.remote);
        match verdict {
            Offence::Flood(flood) => {
                counts.floods[flood as usize].increment();
                let what = flood.as_str();
                log::debug!("{remote}: too many {what} on an HTTP/2 connection");
            }
            Offence::FrameSize | Offence::Other => {
                counts.http2_errors.increment();
                log::debug!("{remote}: an HTTP/2 connection that breaks the protocol");
            }
        }
    }

    /// Looks what the connection is up to, and ends it when its time has come.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_idle = !self.codec.has_streams();
        let has_fired = self.timer.has_fired();
        match (self.phase, self.gauge.stalled_at()) {
            (Phase::Ending, _) if has_fired => return Poll::Ready(()),
            (Phase::Ending, _) => {}
            _ if self.gauge.is_ending() => self.enter(cx, Phase::Ending, FAREWELL),
            (Phase::Stalled(before), Some(sent)) if before == sent && has_fired => {
                return Poll::Ready(());
            }
            (Phase::Stalled(before), Some(sent)) if before == sent => {}
            (_, Some(sent)) => {
                let wait = self.timeouts().response_idle;
                self.enter(cx, Phase::Stalled(sent), wait);
            }
            (Phase::Stalled(_), None) => {
                self.phase = Phase::Busy;
                return self.keep_time(cx);
            }
            (Phase::Leaving, None) if is_idle && has_fired => {
                self.end(cx, Reason::NO_ERROR);
                return self.poll(cx);
            }
            // A client that is new here would come back with the request that it was about to send.
            (Phase::Busy | Phase::Idle, None)
                if self.origin.view.has_ended()
                    || self.has_served && self.origin.view.is_closing() =>
            {
                return self.leave(cx);
            }
            (Phase::Idle, None) if !is_idle => self.phase = Phase::Busy,
            (Phase::Idle, None) if has_fired => return self.leave(cx),
            (Phase::Busy, None) if is_idle && self.has_served => {
                let wait = self.timeouts().keep_alive;
                self.enter(cx, Phase::Idle, wait);
            }
            // The deadline of a head is that of the first request, too.
            (Phase::Busy, None) if is_idle => self.phase = Phase::Idle,
            _ => {}
        }
        self.timer.attach(cx);
        Poll::Pending
    }

    fn timeouts(&self) -> Timeouts {
        let generation = self.origin.view.generation();
        generation.snapshot.config.timeouts
    }

    fn enter(&mut self, cx: &mut Context<'_>, phase: Phase, wait: Duration) {
        self.phase = phase;
        self.timer.set(cx, wait);
    }

    /// Tells the client to ask elsewhere from now on; what it asked before is answered (RFC 9113 section 6.8).
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.enter(cx, Phase::Leaving, FAREWELL);
        self.codec.graceful_shutdown();
        self.poll(cx)
    }

    /// Tells the client that it is over, and why.
    fn end(&mut self, cx: &mut Context<'_>, reason: Reason) {
        self.enter(cx, Phase::Ending, FAREWELL);
        self.codec.abrupt_shutdown(reason);
    }

    /// Gives a request a task of its own, unless the client has no right to another one.
    fn start(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.has_served = true;
        let is_late = self.phase == Phase::Leaving && self.timer.has_fired();
        if is_late || Rc::strong_count(&self.tasks) > self.max_tasks {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        // Made here, so that what the runtime moves about is small.
        let request = Received::new(request, respond, self.origin.clone());
        let remembered = self.remembered.clone();
        let task = self.tasks.clone();
        tokio::task::spawn_local(async move {
            let _task = task;
            let _panic = CountsPanic(request.client.local.clone());
            request.serve(&remembered).await;
        });
    }
}

/// Counts a request that ends in a panic.
struct CountsPanic(Rc<Local>);

impl Drop for CountsPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.counts.panics.increment();
        }
    }
}

/// A request whose head has come.
struct Received {
    client: Client,
    head: Vec<u8>,
}

impl Received {
    fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>, origin: Origin) -> Self {
        let (parts, body) = request.into_parts();
        let mut head = origin.local.buffers.take();
        let fault = read_head(&parts, &body, &origin.local, &mut head).err();
        let stream = Box::new(ClientStream::new(body, respond, fault));
        let client = Client::new(Side::Http2(stream), origin);
        Received { client, head }
    }

    /// Serves it.
    async fn serve(mut self, remembered: &RefCell<Option<Remembered>>) {
        let side = &mut self.client.stream;
        let mut is_gone =
            |cx: &mut Context<'_>| side.http2().is_some_and(|stream| stream.is_gone(cx));
        // Who gave up meanwhile costs no backend anything.
        if poll_fn(|cx| Poll::Ready(is_gone(cx))).await {
            return;
        }
        self.client.remembered = remembered.borrow().clone();
        // Boxed, so that what the runtime moves about is small.
        let next = Box::pin(proxy(&mut self.client, self.head)).await;
        if self.client.remembered.is_some() {
            remembered.replace(self.client.remembered.take());
        }
        if next != Next::Request {
            self.client.stream.reset_on_close();
        }
    }
}

/// Writes the request's head as HTTP/1.1 has it.
fn read_head(
    parts: &::http::request::Parts,
    body: &RecvStream,
    local: &Local,
    head: &mut Vec<u8>,
) -> Result<(), Fault> {
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    let key = protocol.map(|_| {
        let mut rng = local.rng.borrow_mut();
        let random = [rng.next_u64(), rng.next_u64()].map(u64::to_ne_bytes);
        BASE64.encode(random.as_flattened())
    });
    let shape = Shape {
        has_body: !body.is_end_stream(),
        protocol,
        key: key.as_deref().unwrap_or_default(),
    };
    fields::write_request(parts, shape, head)
}
