//! A backend: its configured face, which changes with the file, and its live words, which survive every reload.
//! The words are the only memory that workers and control both write; they sit on cache lines of their own.
//! The walk goes on in `snapshot.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::standing::Record;
use super::waiting::Waiting;
use crate::config::model::AdminState;
use crate::metrics::counter::Counter;
use crate::policy::health::Health;
use crate::policy::latency::Latency;

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
    /// Whether it serves only where no other can.
    pub backup: bool,
    /// How much it may have at once; absent: as much as comes.
    pub limits: Option<Limits>,
}

/// How much a backend may have at once; `u32::MAX`: as much as comes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests, and connections that are switched or relayed; at most as many as connections.
    pub in_flight: u32,
    /// Connections.
    pub connections: u32,
    /// Who is told when it has less.
    pub waiting: Arc<Waiting>,
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
    /// Whether it asks to be drained, by the status that answers its check.
    leaving: AtomicBool,
    /// What it says of its load, as the bits of a number.
    reported: AtomicU32,
    /// For how long it has been serving, in milliseconds, as far as that matters to its pool.
    warm: AtomicU32,
    load: Line<Load>,
    record: Line<Record>,
    /// When the health changed last, in milliseconds after `made`.
    changed: AtomicU64,
    made: Instant,
    connections: Box<[Line<ConnectionCounts>]>,
    /// Connections for requests over HTTP/1, idle ones too.
    open: AtomicU32,
}

/// What a backend has to do at the moment, over all workers; one line, because it is read together.
#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicU32,
    upgraded: AtomicU32,
    /// New clients whose first answer is not there yet.
    arriving: AtomicU32,
    /// A [`Latency`], where the balancer asks for it.
    latency: AtomicU64,
}

/// The bits of no number: nothing was reported.
const UNREPORTED: u32 = u32::MAX;

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

    /// Makes every worker look again.
    pub fn advance(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Backend {
    /// What is wanted of it: what the operator wants, or a drain if it asks for one itself.
    pub fn admin(&self) -> AdminState {
        match self.set() {
            AdminState::Ready if self.live.is_leaving() => AdminState::Drain,
            state => state,
        }
    }

    /// What the operator wants of it.
    pub fn set(&self) -> AdminState {
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

impl Backend {
    /// Whether it has all the requests that it may have.
    #[inline]
    pub fn is_full(&self) -> bool {
        (self.limits.as_ref()).is_some_and(|limits| self.live.load() >= limits.in_flight)
    }

    /// Whether it has all the connections that it may have.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        (self.limits.as_ref()).is_some_and(|limits| self.live.open() >= limits.connections)
    }

    /// Counts a request in flight until the lease is dropped; `None` when it has all that it may have.
    #[inline]
    pub fn lease(&self) -> Option<Lease<'_>> {
        let waiting = match &self.limits {
            None => {
                self.live.load.0.in_flight.fetch_add(1, Ordering::Relaxed);
                None
            }
            Some(limits) => {
                self.live.take_seat(limits.in_flight).then_some(())?;
                Some(&*limits.waiting)
            }
        };
        Some(Lease(&self.live, waiting))
    }

    /// Counts a relayed connection in flight until the lease is dropped; `None` when it has all that it may have. It holds no
    /// generation: such a connection may outlive many.
    pub fn lease_connection(&self) -> Option<ConnectionLease> {
        let Some(limits) = &self.limits else {
            return Some(self.live.lease_connection());
        };
        let waiting = Some(limits.waiting.clone());
        (self.live.take_seat(limits.in_flight)).then(|| ConnectionLease(self.live.clone(), waiting))
    }

    /// Counts a switched connection until the lease is dropped. It holds no generation: such a connection may outlive many.
    pub fn upgrade(&self) -> UpgradeLease {
        self.live.load.0.upgraded.fetch_add(1, Ordering::Relaxed);
        UpgradeLease(self.live.clone(), self.waiting())
    }

    /// Counts a connection until the slot is dropped; `None` when it has all that it may have.
    pub fn open(&self) -> Option<Slot> {
        let most = self
            .limits
            .as_ref()
            .map_or(u32::MAX, |limits| limits.connections);
        let take = |open: u32| (open < most).then(|| open + 1);
        let taken = self
            .live
            .open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        taken
            .is_ok()
            .then(|| Slot(self.live.clone(), self.waiting()))
    }

    fn waiting(&self) -> Option<Arc<Waiting>> {
        self.limits.as_ref().map(|limits| limits.waiting.clone())
    }
}

impl Live {
    /// A server of which nothing is known but `health` at `now`, for `workers` workers.
    pub fn new(
        address: SocketAddr,
        health: Health,
        epoch: Arc<Epoch>,
        workers: usize,
        now: Instant,
    ) -> Self {
        Live {
            address,
            epoch,
            health: AtomicU8::new(health as u8),
            leaving: AtomicBool::new(false),
            reported: AtomicU32::new(UNREPORTED),
            changed: AtomicU64::new(0),
            made: now,
            warm: AtomicU32::new(0),
            load: Line::default(),
            record: Line(Record::new(now)),
            connections: (0..workers).map(|_| Line::default()).collect(),
            open: AtomicU32::new(0),
        }
    }

    /// The observed state.
    #[inline]
    pub fn health(&self) -> Health {
        Health::from_u8(self.health.load(Ordering::Relaxed))
    }

    /// Whether it asks to be drained.
    #[inline]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// What it says of its load, in a unit of its own; `None`: it said nothing when it was last asked.
    pub fn reported(&self) -> Option<f32> {
        let load = f32::from_bits(self.reported.load(Ordering::Relaxed));
        (!load.is_nan()).then_some(load)
    }

    /// Records what it says of its load. Only control may call it.
    pub fn set_reported(&self, load: Option<f32>) {
        let bits = load.map_or(UNREPORTED, f32::to_bits);
        self.reported.store(bits, Ordering::Relaxed);
    }

    /// Records whether it asks to be drained; whether that is news, by which every worker looks again. Only control may call it.
    pub fn set_leaving(&self, is_leaving: bool) -> bool {
        let is_news = self.leaving.swap(is_leaving, Ordering::Relaxed) != is_leaving;
        if is_news {
            self.epoch.advance();
        }
        is_news
    }

    /// Since when that has been the observed state.
    pub fn health_since(&self) -> Instant {
        self.made + Duration::from_millis(self.changed.load(Ordering::Relaxed))
    }

    /// Records the state observed at `now` and makes every worker look again. One that is not up grows cold. Only control may call it.
    pub fn set_health(&self, health: Health, now: Instant) {
        if health != Health::Up {
            self.warm.store(0, Ordering::Relaxed);
        }
        if self.health() != health {
            let after = now.saturating_duration_since(self.made);
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            self.changed.store(after, Ordering::Relaxed);
        }
        self.health.store(health as u8, Ordering::Relaxed);
        self.epoch.advance();
    }

    /// What traffic has shown of it.
    #[inline]
    pub fn record(&self) -> &Record {
        &self.record.0
    }

    /// Makes every worker look again at the pool's backends.
    pub fn advance_epoch(&self) {
        self.epoch.advance();
    }

    /// For how long it has been serving, as far as [`set_warm`](Self::set_warm) was told.
    pub fn warm(&self) -> Duration {
        Duration::from_millis(self.warm.load(Ordering::Relaxed).into())
    }

    /// Records for how long it has been serving; no worker looks again by this.
    pub fn set_warm(&self, warm: Duration) {
        let millis = u32::try_from(warm.as_millis()).unwrap_or(u32::MAX);
        self.warm.store(millis, Ordering::Relaxed);
    }

    /// Requests and relayed connections in flight, over all workers.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.load.0.in_flight.load(Ordering::SeqCst)
    }

    /// Connections that were switched to another protocol and are open, over all workers.
    #[inline]
    pub fn upgraded(&self) -> u32 {
        self.load.0.upgraded.load(Ordering::SeqCst)
    }

    /// What a balancer weighs: a switched connection is work like a request.
    #[inline]
    pub fn load(&self) -> u32 {
        self.in_flight().saturating_add(self.upgraded())
    }

    /// How long its answers take, in microseconds, as of `now`; 0: nobody knows.
    #[inline]
    pub fn latency(&self, now: Instant) -> u32 {
        let word = self.load.0.latency.load(Ordering::Relaxed);
        Latency::from_word(word).micros(self.millis(now))
    }

    /// Takes an answer into account that came at `now` and took so long.
    pub fn note_latency(&self, took: Duration, now: Instant) {
        let word = &self.load.0.latency;
        let with = |known| {
            Some(
                Latency::from_word(known)
                    .with(took, self.millis(now))
                    .word(),
            )
        };
        // It never fails: there always is a next word.
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with);
    }

    /// Milliseconds since it was made, as many of them as the word has room for: it wraps around after seven weeks.
    #[inline]
    fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.made).as_millis() as u32
    }

    /// New clients that were sent here and whose first answer is not there yet, over all workers.
    #[inline]
    pub fn arriving(&self) -> u32 {
        self.load.0.arriving.load(Ordering::Relaxed)
    }

    /// Counts a new client until the arrival is dropped.
    #[inline]
    pub fn arrival(&self) -> Arrival<'_> {
        self.load.0.arriving.fetch_add(1, Ordering::Relaxed);
        Arrival(self)
    }

    /// Connections for requests over HTTP/1, idle ones too, over all workers.
    #[inline]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    /// Counts a relayed connection in flight, whatever the limits, until the lease is dropped.
    pub fn lease_connection(self: &Arc<Self>) -> ConnectionLease {
        self.load.0.in_flight.fetch_add(1, Ordering::Relaxed);
        ConnectionLease(self.clone(), None)
    }

    /// Counts one more in flight, unless there are `most`.
    fn take_seat(&self, most: u32) -> bool {
        let upgraded = self.upgraded();
        let take = |in_flight: u32| {
            let load = in_flight.saturating_add(upgraded);
            (load < most).then(|| in_flight + 1)
        };
        let word = &self.load.0.in_flight;
        word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
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
pub struct Lease<'a>(&'a Live, Option<&'a Waiting>);

impl Drop for Lease<'_> {
    #[inline]
    fn drop(&mut self) {
        end(&self.0.load.0.in_flight, self.1);
    }
}

/// One relayed connection at a backend, from the attempt to connect on.
#[derive(Debug)]
pub struct ConnectionLease(Arc<Live>, Option<Arc<Waiting>>);

impl ConnectionLease {
    /// Whether the pool still names the backend that it is at.
    pub fn is_of(&self, backends: &[Backend]) -> bool {
        let mut known = backends.iter().map(|backend| &backend.live);
        known.any(|live| Arc::ptr_eq(live, &self.0))
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        end(&self.0.load.0.in_flight, self.1.as_deref());
    }
}

/// One switched connection at a backend.
#[derive(Debug)]
pub struct UpgradeLease(Arc<Live>, Option<Arc<Waiting>>);

impl Drop for UpgradeLease {
    fn drop(&mut self) {
        end(&self.0.load.0.upgraded, self.1.as_deref());
    }
}

/// One connection for requests over HTTP/1.
#[derive(Debug)]
pub struct Slot(Arc<Live>, Option<Arc<Waiting>>);

impl Drop for Slot {
    fn drop(&mut self) {
        end(&self.0.open, self.1.as_deref());
    }
}

/// Counts one less, and tells who waits for that. That comes after, in an order that all threads see: who joins the line and then finds
/// no room is told (see [`Waiting::join`]).
#[inline]
fn end(count: &AtomicU32, waiting: Option<&Waiting>) {
    match waiting {
        None => drop(count.fetch_sub(1, Ordering::Relaxed)),
        Some(waiting) => {
            count.fetch_sub(1, Ordering::SeqCst);
            waiting.freed();
        }
    }
}

/// One new client on its way to a backend, whose session is not counted yet.
#[derive(Debug)]
pub struct Arrival<'a>(&'a Live);

impl Drop for Arrival<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.load.0.arriving.fetch_sub(1, Ordering::Relaxed);
    }
}
