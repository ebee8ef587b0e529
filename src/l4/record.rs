//! What is known of a relayed connection, and what is written down of it at its end: counters, a line in the access log.
//! It never waits and never fails; the line is written however the connection ends.
//! The walk ends here.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::hello::Hello;
use crate::clock;
use crate::metrics::relays::{Ended, RelayCounts};
use crate::metrics::rows::RouteCounts;
use crate::policy::balance::BackendIndex;
use crate::policy::facts::Facts;
use crate::policy::persist::{Chosen, Stickiness};
use crate::state::access_log;
use crate::upstream::generation::Generation;
use crate::upstream::local::Local;

/// The story of one connection; the end is told when it is dropped.
#[derive(Debug)]
pub(super) struct Story {
    local: Rc<Local>,
    /// The id of its line.
    pub(super) id: u64,
    wall_millis: u64,
    pub(super) started: Instant,
    /// The client's address, past trusted proxies.
    pub(super) client: IpAddr,
    /// What it said that routes are chosen by.
    pub(super) hello: Option<Box<Hello>>,
    listener: Arc<str>,
    pub(super) route: Option<Arc<str>>,
    pub(super) pool: Option<Arc<str>>,
    pub(super) backend: Option<Arc<str>>,
    pub(super) tries: u8,
    /// How long it waited in its pool's queue.
    pub(super) queued: Duration,
    pub(super) stickiness: Option<Stickiness>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    counts: Option<Arc<RelayCounts>>,
    pub(super) ended: Ended,
    pub(super) failure: Option<Failure>,
}

impl Story {
    pub(super) fn begin(local: Rc<Local>, client: IpAddr, listener: Arc<str>) -> Self {
        let id = local.rng.borrow_mut().next_u64();
        Story {
            id,
            local,
            wall_millis: clock::wall_millis(),
            started: clock::now(),
            client,
            hello: None,
            listener,
            route: None,
            pool: None,
            backend: None,
            tries: 0,
            queued: Duration::ZERO,
            stickiness: None,
            bytes_in: 0,
            bytes_out: 0,
            counts: None,
            ended: Ended::CutOff,
            failure: None,
        }
    }

    /// Where it goes, or that it goes nowhere; what it counts is counted there from now on.
    pub(super) fn count_at(
        &mut self,
        generation: &Generation,
        listener: usize,
        route: Option<usize>,
        backend: Option<BackendIndex>,
    ) {
        let counts = generation.relay_counts(&self.local.rows, listener, route, backend);
        self.counts = Some(counts);
    }

    /// The name that the client asks for, as far as that was looked at.
    pub(super) fn server_name(&self) -> Option<&str> {
        let hello = self.hello.as_ref()?;
        let name = std::str::from_utf8(&hello.server_name).ok();
        name.filter(|name| !name.is_empty())
    }

    /// What a decision may look at.
    pub(super) fn facts(&self, listener: usize) -> Facts<'_> {
        Facts {
            client: self.client,
            listener,
            request: None,
            hello: self.hello.as_ref().map(|hello| hello.facts()),
            session: None,
            now: self.started,
            wall_millis: self.wall_millis,
        }
    }

    /// Counts what became of the client's stickiness, now that it has a backend.
    pub(super) fn keep(&mut self, chosen: Option<Chosen>, counts: &RouteCounts) {
        if let Some(chosen) = chosen {
            self.stickiness = Some(chosen.stickiness);
            counts.sticky[chosen.stickiness as usize].increment();
        }
    }

    /// Counts the bytes that have passed since the last time.
    #[inline]
    pub(super) fn note_bytes(&mut self, (up, down): (u64, u64)) {
        if let Some(counts) = &self.counts {
            counts.bytes_in.add(up - self.bytes_in);
            counts.bytes_out.add(down - self.bytes_out);
        }
        (self.bytes_in, self.bytes_out) = (up, down);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let duration = clock::now().saturating_duration_since(self.started);
        if let Some(counts) = &self.counts {
            counts.ends[self.ended as usize].increment();
            counts.duration.record(duration);
        }
        if !self.local.access_log.is_on() {
            return;
        }
        let name = |name: &Option<Arc<str>>| name.clone().unwrap_or_default();
        self.local
            .access_log
            .write_connection(&access_log::Connection {
                wall_millis: self.wall_millis,
                id: self.id,
                protocol: "tcp",
                listener: &self.listener,
                client: self.client,
                server_name: self.hello.as_ref().map_or(b"", |hello| &hello.server_name),
                datagrams: None,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                route: &name(&self.route),
                pool: &name(&self.pool),
                backend: &name(&self.backend),
                tries: self.tries,
                sticky: self.stickiness.map_or("", Stickiness::as_str),
                queued: self.queued,
                duration,
                end: self.ended.as_str(),
                error: self.failure.map_or("", Failure::as_str),
            });
    }
}
