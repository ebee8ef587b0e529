//! A client and a backend that are connected: bytes both ways until the end, which comes by themselves or when their time is up.
//! It holds no generation, and looks after every reload whether its backend and its listener are still there.
//! The walk goes on in `net/relay.rs`.

use std::task::{Context, Poll};
use std::time::Instant;

use super::connection::Connection;
use super::record::Story;
use crate::clock;
use crate::metrics::relays::Ended;
use crate::net::relay::{End, Means, Party, Relay};
use crate::net::stream::Stream;
use crate::state::backend::ConnectionLease;
use crate::upstream::local::ListenerView;

/// The side of a backend.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) backend: Stream,
    pub(super) relay: Relay,
    pub(super) lease: ConnectionLease,
    /// The generation that was looked at last.
    pub(super) generation: u64,
    /// When its time is up, since its backend or listener was removed.
    pub(super) until: Option<Instant>,
}

impl Connection {
    /// Moves what can be moved between the client and its backend.
    pub(super) fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(link) = &mut self.link else {
            return Poll::Ready(Ended::CutOff);
        };
        loop {
            let left = (link.until).map(|until| until.saturating_duration_since(clock::now()));
            match left {
                Some(left) if left.is_zero() => {
                    (link.relay).show(End::Idle, &mut self.client, &mut link.backend);
                    return Poll::Ready(Ended::Drained);
                }
                Some(left) => link.relay.hurry(left),
                None => {}
            }
            let means = Means {
                timer: &self.timer,
                pipes: &self.local.pipes,
                memory: &mut self.local.body.borrow_mut(),
            };
            let end = (link.relay).poll(cx, &mut self.client, &mut link.backend, means);
            self.story.note_bytes(link.relay.bytes());
            match end {
                Poll::Ready(End::Idle) if link.until.is_some() => {}
                Poll::Ready(end) => {
                    (link.relay).show(end, &mut self.client, &mut link.backend);
                    return Poll::Ready(ended(end));
                }
                Poll::Pending if link.must_end(&self.view, &self.story) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Link {
    /// Whether its time is limited from now on: its backend or its listener is gone.
    #[inline]
    fn must_end(&mut self, view: &ListenerView, story: &Story) -> bool {
        let number = view.generation_number();
        if self.until.is_some() || self.generation == number && !view.has_deadline() {
            return false;
        }
        self.generation = number;
        let generation = view.generation();
        let mut pools = generation.snapshot.pools.iter();
        let is_kept = pools.any(|pool| {
            story.pool.as_ref() == Some(&pool.name) && self.lease.is_of(&pool.backends)
        });
        if is_kept && !view.has_deadline() {
            return false;
        }
        self.until = Some(clock::now() + generation.snapshot.config.drain_timeout);
        true
    }
}

fn ended(end: End) -> Ended {
    match end {
        End::Clean(Party::Client) => Ended::Client,
        End::Clean(Party::Backend) => Ended::Backend,
        End::Failed(Party::Client) => Ended::ClientReset,
        End::Failed(Party::Backend) => Ended::BackendReset,
        End::Idle => Ended::Idle,
    }
}
