//! A connection that its backend switched to another protocol (RFC 9110 section 7.8), such as a WebSocket: bytes both ways until the end.
//! It knows nothing of what they mean, and keeps no generation.
//! The walk goes on in `net/relay.rs`, which moves them, and in `record.rs`, which writes the line at the very end.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};

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
use crate::net::relay::{End, Means, Party, Relay};
use crate::net::stream::Stream;
use crate::state::backend::{Slot, UpgradeLease};
use crate::upstream::side::BackendSide;

/// Words in the access log for ends that no request has.
const IDLE: &str = "upgrade_idle";
const CUT_OFF: &str = "cut_off";

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
        self.switched = Some(backend.upgrade());
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
    relay: Relay,
    story: Story,
    _lease: UpgradeLease,
    _slot: Option<Box<Slot>>,
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
        let mut early = Backlog::default();
        early.push(&std::mem::take(&mut client.early));
        let backend = backend?;
        let slot = backend.slot;
        let BackendSide::Http1(backend) = backend.stream else {
            return None;
        };
        Some(Upgraded {
            client,
            backend,
            relay: Relay::new(early, answer.backlog, idle),
            story,
            _lease: switched?,
            _slot: slot.map(Box::new),
        })
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let local = self.client.local.clone();
        let means = Means {
            timer: &self.client.timer,
            pipes: &local.pipes,
            memory: &mut local.body.borrow_mut(),
        };
        (self.relay).poll(cx, &mut self.client.stream, &mut self.backend, means)
    }

    /// Shows both sides how it ended.
    fn close(&mut self, end: End) -> Next {
        self.story.error = match end {
            End::Clean(_) => "",
            End::Idle => IDLE,
            End::Failed(Party::Client) => Failure::ClientGone.row().reason,
            End::Failed(Party::Backend) => Failure::BackendClosed.row().reason,
        };
        match (self.relay).show(end, &mut self.client.stream, &mut self.backend) {
            true => Next::Abort,
            false => Next::Close,
        }
    }
}

/// The line is written however it ends, also when the worker stops at the deadline of a drain.
impl Drop for Upgraded<'_> {
    fn drop(&mut self) {
        let story = &mut self.story;
        let (up, down) = self.relay.bytes();
        story.facts.bytes_in += up;
        story.facts.bytes_out += down;
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
