//! What one worker counts beside its rows: open connections, refusals by reason, failures to accept.
//! It must have a single writing thread, like the counters it is made of.
//! The walk goes on in control's collector.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::counter::Counter;

/// Room for the reasons of `l7/reject.rs`.
pub const REASONS: usize = 48;

/// Kinds of floods of `http/meter.rs`.
pub const FLOODS: usize = 5;

/// The counts of one worker, shared with control.
#[derive(Debug)]
pub struct WorkerCounts {
    open: AtomicUsize,
    /// Requests and answers refused, by the ordinal of their reason.
    pub refused: [Counter; REASONS],
    /// Calls to accept that failed.
    pub accept_errors: Counter,
    /// Connection tasks that panicked: always a bug, never the end of the worker.
    pub panics: Counter,
    /// HTTP/2 connections that were cut off, by the kind of their flood.
    pub floods: [Counter; FLOODS],
    /// HTTP/2 connections that ended in an error of the client's.
    pub http2_errors: Counter,
}

impl Default for WorkerCounts {
    fn default() -> Self {
        WorkerCounts {
            open: AtomicUsize::new(0),
            refused: std::array::from_fn(|_| Counter::default()),
            accept_errors: Counter::default(),
            panics: Counter::default(),
            floods: std::array::from_fn(|_| Counter::default()),
            http2_errors: Counter::default(),
        }
    }
}

impl WorkerCounts {
    /// Client connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Tells control how many client connections are open. Only the owning worker may call it.
    #[inline]
    pub fn set_open(&self, connections: usize) {
        self.open.store(connections, Relaxed);
    }
}
