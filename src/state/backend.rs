//! A backend: its configured face, which changes with the file, and its live words, which survive every reload.
//! The words are the only memory that workers and control both write; they sit on cache lines of their own.
//! The walk goes on in `snapshot.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::model::AdminState;
use crate::metrics::counter::Counter;
use crate::policy::health::Health;

/// A backend as one generation sees it.
#[derive(Debug)]
pub struct Backend {
    /// Its name; tokens and administrative state belong to it.
    pub name: Arc<str>,
    /// Share of new work.
    pub weight: u16,
    /// Its administrative state in the file.
    pub written: AdminState,
    /// The administrative state that was set over the file's, if any.
    pub over: Arc<Override>,
    /// What is known of the server at its address.
    pub live: Arc<Live>,
}

/// The administrative state that was set over the file's for one name of one pool. It survives reloads as long as the pool has
/// the name; what outlives that is control's to know.
#[derive(Debug, Default)]
pub struct Override(AtomicU8);

/// What is known of the server at one address of one pool. It survives reloads as long as the pool names the address.
#[derive(Debug)]
pub struct Live {
    /// Where it listens.
    pub address: SocketAddr,
    epoch: Arc<Epoch>,
    health: AtomicU8,
    /// When the health changed last, in milliseconds after `made`.
    changed: AtomicU64,
    made: Instant,
    load: Line<AtomicU32>,
    connections: Box<[Line<ConnectionCounts>]>,
}

/// Connections that one worker made toward a backend.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    /// Requests sent on a connection made for them.
    pub fresh: Counter,
    /// Requests sent on a pooled connection.
    pub reused: Counter,
    /// Attempts that failed.
    pub failed: Counter,
}

/// Counts the changes of a pool's state, so that a worker rebuilds its view only when something changed.
#[derive(Debug, Default)]
pub struct Epoch(AtomicU64);

/// Its own cache line (two, because processors fetch them in pairs), so that writers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

impl Epoch {
    /// The number of changes so far.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn advance(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Backend {
    /// What the operator wants of it.
    pub fn admin(&self) -> AdminState {
        let states = AdminState::ALL;
        let over = usize::from(self.over.0.load(Ordering::Relaxed));
        over.checked_sub(1)
            .and_then(|ordinal| states.get(ordinal).copied())
            .unwrap_or(self.written)
    }

    /// Sets a state over the file's, or with `None` lets the file's hold again, and makes every worker look again.
    pub fn set_over(&self, state: Option<AdminState>) {
        let over = state.map_or(0, |state| 1 + state as u8);
        if self.over.0.swap(over, Ordering::Relaxed) != over {
            self.live.epoch.advance();
        }
    }
}

impl Live {
    /// A server of which nothing is known but `health`, for `workers` workers.
    pub fn new(address: SocketAddr, health: Health, epoch: Arc<Epoch>, workers: usize) -> Self {
        Live {
            address,
            epoch,
            health: AtomicU8::new(health as u8),
            changed: AtomicU64::new(0),
            made: clock::now(),
            load: Line::default(),
            connections: (0..workers).map(|_| Line::default()).collect(),
        }
    }

    /// The observed state.
    #[inline]
    pub fn health(&self) -> Health {
        Health::from_u8(self.health.load(Ordering::Relaxed))
    }

    /// Since when that has been the observed state.
    pub fn health_since(&self) -> Instant {
        self.made + Duration::from_millis(self.changed.load(Ordering::Relaxed))
    }

    /// Records the observed state and makes every worker look again. Only control may call it.
    pub fn set_health(&self, health: Health) {
        if self.health() != health {
            let after = clock::now() - self.made;
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            self.changed.store(after, Ordering::Relaxed);
        }
        self.health.store(health as u8, Ordering::Relaxed);
        self.epoch.advance();
    }

    /// Requests in flight, over all workers.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.load.0.load(Ordering::Relaxed)
    }

    /// Counts a request in flight until the lease is dropped.
    #[inline]
    pub fn lease(&self) -> Lease<'_> {
        self.load.0.fetch_add(1, Ordering::Relaxed);
        Lease(self)
    }

    /// The connection counts of one worker, which alone may write them.
    #[inline]
    pub fn connections(&self, worker: usize) -> &ConnectionCounts {
        &self.connections[worker].0
    }

    /// The connection counts of every worker.
    pub fn all_connections(&self) -> impl Iterator<Item = &ConnectionCounts> {
        self.connections.iter().map(|line| &line.0)
    }
}

/// One request in flight on a backend.
#[derive(Debug)]
pub struct Lease<'a>(&'a Live);

impl Drop for Lease<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.load.0.fetch_sub(1, Ordering::Relaxed);
    }
}
