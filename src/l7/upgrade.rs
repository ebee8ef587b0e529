//! A connection that its backend switched to another protocol (RFC 9110 section 7.8), such as a WebSocket: bytes both ways until the end.
//! It knows nothing of what they mean, reads from no side while the other has not taken what came before, and keeps no generation.
//! The walk goes on in `record.rs`, which writes the line at the very end.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::client::{Client, Next};
use super::exchange::{Exchange, Facts, Plan};
use super::filter::Shown;
use super::head::Head;
use super::record::{self, Names, Subject};
use super::reject::Failure;
use crate::clock;
use crate::config::model::Limits;
use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, Field, Version};
use crate::http::upgrade;
use crate::net::backlog::Backlog;
use crate::net::duplex::Duplex;
use crate::net::splice::Pipes;
use crate::net::stream::Stream;
use crate::state::backend::UpgradeLease;
use crate::upstream::side::BackendSide;

/// Words in the access log for ends that no request has.
const IDLE: &str = "upgrade_idle";
const CUT_OFF: &str = "cut_off";

/// Bytes of a way from which on its large pieces go by way of a pipe. Until then it may be one that carries small messages only.
const BULK: u64 = 64 * 1024;

/// What counts as a large piece: one so large is copied at the cost of the one more look at the socket that a pipe takes.
const LARGE: usize = 8 * 1024;

/// Bytes that a pipe takes at once.
const MAX_SPLICED: usize = 256 * 1024;

impl Exchange<'_> {
    /// Whether an answer switches to what the client offered. The request must be complete: its body is not of the new protocol.
    pub(super) fn is_switch(&self, head: &AnswerHead<'_>) -> bool {
        head.status == 101
            && head.version == Version::Http11
            && self.upload.is_done()
            && !self.is_backend_behind()
            && self.head.is_some_and(|request| {
                let offer = request.upgrade.of(&self.received);
                let mut accepted = head.field(Field::Upgrade);
                matches!((accepted.next(), accepted.next()), (Some((_, protocols)), None)
                    if upgrade::is_accepted(offer, protocols))
            })
    }

    /// Counts the connection as switched from now on, while its request is still counted as in flight.
    pub(super) fn switch(&mut self, plan: &Plan) {
        let backends = &self.generation.snapshot.pools[plan.pool].backends;
        let backend = &backends[plan.backend.index()];
        self.switched = Some(backend.live.upgrade());
    }

    /// Whether the client has been told of a switch.
    pub(super) fn is_switched(&self) -> bool {
        self.switched.is_some()
    }
}

/// Tells the client of the switch.
pub(super) fn confirm_switch(head: &AnswerHead<'_>, edits: &mut Edits) {
    if let Some((_, protocols)) = head.field(Field::Upgrade).next() {
        upgrade::confirm(protocols, edits);
    }
}

/// Counts the request that led to the switch, then relays until both sides have ended, one is gone, or nothing moves any more.
pub(super) fn serve_upgraded(exchange: Exchange<'_>) -> impl Future<Output = Next> {
    record::count(&exchange);
    let mut upgraded = Upgraded::begin(exchange);
    async move {
        // By reference, because what is moved within a future is held twice.
        let Some(upgraded) = &mut upgraded else {
            return Next::Close;
        };
        let end = poll_fn(|cx| upgraded.poll_relay(cx)).await;
        upgraded.close(end)
    }
}

/// What is left of an exchange after the switch.
#[derive(Debug)]
struct Upgraded<'c> {
    client: &'c mut Client,
    backend: Stream,
    up: Way,
    down: Way,
    idle: Duration,
    /// How far both ways were when the deadline was set last.
    progress: Option<u64>,
    story: Story,
    _lease: UpgradeLease,
}

/// What the access log will tell.
#[derive(Debug)]
struct Story {
    facts: Facts,
    head: Option<Head>,
    received: Vec<u8>,
    limits: Limits,
    listener: Arc<str>,
    route: Arc<str>,
    pool: Arc<str>,
    backend: Arc<str>,
    home: Arc<str>,
    shown: Shown,
    error: &'static str,
}

/// One direction.
#[derive(Debug)]
struct Way {
    backlog: Backlog,
    /// Bytes read since the switch.
    bytes: u64,
    state: State,
    /// Whether the next piece goes by way of a pipe.
    is_bulk: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The source ended; the target was told when it had everything.
    Ended,
    SourceFailed,
    TargetFailed,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    Idle,
    ClientFailed,
    BackendFailed,
}

impl<'c> Upgraded<'c> {
    /// Takes over what came early on either side, and lets everything else of the exchange go.
    fn begin(exchange: Exchange<'c>) -> Option<Self> {
        let idle = exchange.timeouts().upgrade_idle;
        let story = Story::of(&exchange)?;
        let Exchange {
            client,
            received,
            backend,
            answer,
            switched,
            ..
        } = exchange;
        client.local.buffers.put(received);
        let mut up = Way::new(Backlog::default());
        let early = std::mem::take(&mut client.early);
        up.bytes = early.len() as u64;
        up.backlog.push(&early);
        let BackendSide::Http1(backend) = backend?.stream else {
            return None;
        };
        Some(Upgraded {
            client,
            backend,
            up,
            down: Way::new(answer.backlog),
            idle,
            progress: None,
            story,
            _lease: switched?,
        })
    }

    /// Moves pieces in turns, so that one busy way does not hold the other up.
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let local = self.client.local.clone();
        let memory = &mut *local.body.borrow_mut();
        let (client, backend) = (&mut self.client.stream, &mut self.backend);
        loop {
            let up = self
                .up
                .poll_piece(cx, client, backend, &local.pipes, memory);
            let down = (self.down).poll_piece(cx, backend, client, &local.pipes, memory);
            if let Some(end) = end(self.up.state, self.down.state) {
                return Poll::Ready(end);
            }
            if up.is_pending() && down.is_pending() {
                break;
            }
        }
        let progress = self.up.progress().wrapping_add(self.down.progress());
        if self.progress.replace(progress) != Some(progress) {
            self.client.timer.set(cx, self.idle);
        } else if self.client.timer.has_fired() {
            return Poll::Ready(End::Idle);
        }
        Poll::Pending
    }

    /// What one side did the other sees: an end is an end, a failure a reset.
    fn close(&mut self, end: End) -> Next {
        let (error, next) = match end {
            End::Clean => ("", Next::Close),
            End::Idle => (IDLE, Next::Close),
            End::ClientFailed => (Failure::ClientGone.row().reason, Next::Abort),
            End::BackendFailed => (Failure::BackendClosed.row().reason, Next::Abort),
        };
        self.story.error = error;
        if next == Next::Abort {
            self.backend.reset_on_close();
        }
        next
    }
}

/// The line is written however it ends, also when the worker stops at the deadline of a drain.
impl Drop for Upgraded<'_> {
    fn drop(&mut self) {
        let story = &mut self.story;
        story.facts.bytes_in += self.up.bytes;
        story.facts.bytes_out += self.down.bytes;
        story.facts.ended = clock::now();
        if self.client.local.access_log.is_on() {
            record::log(&story.subject(self.client));
        }
    }
}

impl Story {
    fn of(exchange: &Exchange<'_>) -> Option<Self> {
        let names = Names::of(exchange);
        let head = exchange.head?;
        // The buffer has room for more; only the head is told of.
        let received = exchange.received.get(..head.length)?.to_vec();
        Some(Story {
            facts: exchange.facts,
            head: Some(head),
            received,
            limits: exchange.generation.snapshot.config.limits,
            listener: names.listener.into(),
            route: names.route.into(),
            pool: names.pool.into(),
            backend: names.backend.into(),
            home: names.home.into(),
            shown: exchange.shown(),
            error: CUT_OFF,
        })
    }

    fn subject<'a>(&'a self, client: &'a Client) -> Subject<'a> {
        Subject {
            client,
            facts: &self.facts,
            head: self.head.as_ref(),
            received: &self.received,
            limits: &self.limits,
            names: Names {
                listener: &self.listener,
                route: &self.route,
                pool: &self.pool,
                backend: &self.backend,
                home: &self.home,
            },
            shown: self.shown.clone(),
            status: 101,
            error: self.error,
        }
    }
}

impl Way {
    fn new(backlog: Backlog) -> Self {
        Way {
            backlog,
            bytes: 0,
            state: State::Open,
            is_bulk: false,
        }
    }

    /// Moves what is kept, or else one piece; pending when neither is possible now, and for good when the way has come to its end.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Duplex,
        target: &mut impl Duplex,
        pipes: &Rc<Pipes>,
        memory: &mut [u8],
    ) -> Poll<()> {
        if self.state != State::Open {
            return Poll::Pending;
        }
        if !self.backlog.is_empty() {
            if ready!(self.backlog.poll_flush(target, cx)).is_err() {
                self.state = State::TargetFailed;
            }
            return Poll::Ready(());
        }
        let spliced = match self.is_bulk {
            true => ready!((self.backlog).poll_splice(cx, source, target, pipes, MAX_SPLICED)),
            false => None,
        };
        let is_copied = spliced.is_none();
        let moved = match spliced {
            Some(moved) => moved,
            None => ready!(source.poll_read(cx, memory)),
        };
        let Ok(count) = moved else {
            self.state = State::SourceFailed;
            return Poll::Ready(());
        };
        self.bytes += count as u64;
        self.is_bulk = self.bytes >= BULK && count >= LARGE;
        if count == 0 {
            target.shutdown_write();
            self.state = State::Ended;
        } else if is_copied && (self.backlog.send(target, cx, &memory[..count], &[])).is_err() {
            self.state = State::TargetFailed;
        }
        Poll::Ready(())
    }

    /// Grows with every byte that is read, and with every byte that is taken.
    fn progress(&self) -> u64 {
        (self.bytes * 2).wrapping_sub(self.backlog.len() as u64)
    }
}

/// Whether it is over. Who takes no more bytes may have sent some before, which are passed on to their end.
fn end(up: State, down: State) -> Option<End> {
    match (up, down) {
        (State::SourceFailed, _) => Some(End::ClientFailed),
        (_, State::SourceFailed) => Some(End::BackendFailed),
        (State::Open, _) | (_, State::Open) => None,
        (State::TargetFailed, _) => Some(End::BackendFailed),
        (_, State::TargetFailed) => Some(End::ClientFailed),
        (State::Ended, State::Ended) => Some(End::Clean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be many of them, and most are idle.
    #[test]
    fn a_switched_connection_is_small() {
        fn size_of_future<'a, F: Future + 'a>(_: impl FnOnce(Exchange<'a>) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(serve_upgraded);
        assert!(size <= 768, "{size} bytes");
    }
}
