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
use crate::config::model::Config;
use crate::http::fault::Fault;
use crate::http::fields::{self, Shape};
use crate::http::meter::Meter;
use crate::l7::client::{Client, Next, Origin};
use crate::l7::proxy::proxy;
use crate::l7::side::Side;
use crate::net::duplex::Duplex;
use crate::net::framed::Framed;
use crate::net::timer::Timer;
use crate::policy::persist::Remembered;
use crate::upstream::local::Local;

/// Bytes of one request's body that may wait for its backend; the default of RFC 9113 section 6.9.2.
const STREAM_WINDOW: u32 = 64 * 1024 - 1;

/// Bytes of one answer that may wait for the client's room.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that a client may reset before they were even looked at.
const MAX_UNSEEN_RESETS: usize = 20;

/// How long a client may take to acknowledge that the connection ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves the connection to its end. `early` is what was read of it.
pub async fn serve(client: Client, early: Vec<u8>) {
    let origin = client.origin();
    let (Side::Http1(stream), timer) = (client.stream, client.timer) else {
        return;
    };
    let config = origin.view.generation().snapshot.config.clone();
    let meter = Rc::new(RefCell::new(Meter::new(&config.http2, clock::now())));
    let framed = Framed::of_client(stream, early, meter.clone());
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
        meter,
        timer,
        origin,
        remembered: Rc::default(),
        phase: Phase::Busy,
        has_served: false,
    };
    poll_fn(|cx| multiplexed.poll(cx)).await;
}

fn builder(config: &Config) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(config.http2.streams)
        .max_header_list_size(config.limits.head as u32)
        .initial_window_size(STREAM_WINDOW.min(config.http2.window))
        .initial_connection_window_size(config.http2.window)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .enable_connect_protocol();
    builder
}

/// A connection with its streams.
struct Multiplexed {
    codec: Connection<Framed, Bytes>,
    meter: Rc<RefCell<Meter>>,
    timer: Timer,
    origin: Origin,
    /// The sticky token that was checked last on it.
    remembered: Rc<RefCell<Option<Remembered>>>,
    phase: Phase,
    has_served: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has requests, or had some in the turn before.
    Busy,
    /// It has none, and the deadline is running.
    Idle,
    /// The client was told that no more requests are taken.
    Leaving,
    /// The client was told of its fault; nothing is taken any more.
    CutOff,
}

impl Multiplexed {
    /// Takes requests and moves frames until the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.codec.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.start(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    self.tell(&error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if self.cuts_off(cx) => {}
                Poll::Pending => break,
            }
        }
        self.keep_time(cx)
    }

    /// Whether the client must be cut off from now on, because of a flood.
    fn cuts_off(&mut self, cx: &mut Context<'_>) -> bool {
        let flood = self.meter.borrow().flood();
        let Some(flood) = flood.filter(|_| self.phase != Phase::CutOff) else {
            return false;
        };
        self.phase = Phase::CutOff;
        self.timer.set(cx, FAREWELL);
        self.origin.local.counts.floods[flood as usize].increment();
        let remote = self.origin.remote;
        log::debug!(
            "{remote}: too many {} on an HTTP/2 connection",
            flood.as_str()
        );
        self.codec.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        true
    }

    /// Notes why the codec gave the connection up; it has told the client.
    fn tell(&self, error: &h2::Error) {
        if error.is_library() {
            self.origin.local.counts.http2_errors.increment();
            log::debug!("{}: HTTP/2: {error}", self.origin.remote);
        }
    }

    /// Ends the connection when its listener closes or nothing was asked for long.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_idle = !self.codec.has_streams();
        match self.phase {
            Phase::Busy | Phase::Idle if self.origin.view.is_closing() => return self.leave(cx),
            Phase::Busy if is_idle => {
                self.phase = Phase::Idle;
                let generation = self.origin.view.generation();
                let timeouts = &generation.snapshot.config.timeouts;
                if self.has_served {
                    self.timer.set(cx, timeouts.keep_alive);
                }
            }
            Phase::Idle if !is_idle => self.phase = Phase::Busy,
            Phase::Idle if self.timer.has_fired() => return self.leave(cx),
            Phase::Leaving if is_idle && self.timer.has_fired() => return Poll::Ready(()),
            Phase::CutOff if self.timer.has_fired() => return Poll::Ready(()),
            _ => {}
        }
        self.timer.attach(cx);
        Poll::Pending
    }

    /// Tells the client to ask elsewhere from now on; what it asked before is answered (RFC 9113 section 6.8).
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.phase = Phase::Leaving;
        self.timer.set(cx, FAREWELL);
        self.codec.graceful_shutdown();
        self.poll(cx)
    }

    /// Gives a request a task of its own.
    fn start(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.has_served = true;
        let origin = self.origin.clone();
        let remembered = self.remembered.clone();
        tokio::task::spawn_local(async move {
            let _panic = CountsPanic(origin.local.clone());
            serve_stream(request, respond, origin, remembered).await;
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

/// Serves one request.
async fn serve_stream(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    origin: Origin,
    remembered: Rc<RefCell<Option<Remembered>>>,
) {
    let (parts, body) = request.into_parts();
    let mut head = origin.local.buffers.take();
    let read = read_head(&parts, &body, &origin.local, &mut head);
    let mut stream = ClientStream::new(body, respond, read.err());
    // Who gave up meanwhile costs no backend anything.
    if poll_fn(|cx| Poll::Ready(stream.is_gone(cx))).await {
        return;
    }
    let mut client = Client::new(Side::Http2(Box::new(stream)), origin);
    client.remembered = remembered.take();
    let next = proxy(&mut client, head).await;
    if let Some(known) = client.remembered.take() {
        remembered.replace(Some(known));
    }
    if next != Next::Request {
        client.stream.reset_on_close();
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
