//! How many checks ended how, per pool and address.
//! Counts live as long as the pool names the address, whatever happens to the settings in between.
//! The walk goes on in the collector, which exports them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Failure, Outcome};

/// The values of the `result` label.
pub const RESULTS: [&str; 8] = [
    "pass", "connect", "timeout", "status", "protocol", "local", "body", "drain",
];

/// Counts of every backend that is probed.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<Key, Arc<ProbeCounts>>>);

/// A pool and the address of one of its backends.
type Key = (Arc<str>, SocketAddr);

/// Checks of one backend by result, in the order of [`RESULTS`].
#[derive(Debug, Default)]
pub struct ProbeCounts([AtomicU64; RESULTS.len()]);

impl Ledger {
    /// The counts of a backend; `None` when it was never probed.
    pub fn counts(&self, pool: &Arc<str>, address: SocketAddr) -> Option<Arc<ProbeCounts>> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&(pool.clone(), address)).cloned()
    }

    /// The counts of a backend, made when there are none.
    pub(in crate::control) fn open(
        &self,
        pool: &Arc<str>,
        address: SocketAddr,
    ) -> Arc<ProbeCounts> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry((pool.clone(), address)).or_default().clone()
    }

    /// Forgets backends that are gone.
    pub(super) fn retain(&self, keeps: impl Fn(&Arc<str>, SocketAddr) -> bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|(pool, address), _| keeps(pool, *address));
    }
}

impl ProbeCounts {
    /// Checks so far, in the order of [`RESULTS`].
    pub fn values(&self) -> [u64; RESULTS.len()] {
        std::array::from_fn(|result| self.0[result].load(Relaxed))
    }

    /// Whether a check has ever passed.
    pub(super) fn any_passed(&self) -> bool {
        self.0[0].load(Relaxed) > 0 || self.0[7].load(Relaxed) > 0
    }

    pub(in crate::control) fn count(&self, outcome: &Outcome) {
        let result = match outcome {
            Ok(()) => 0,
            Err(Failure::Connect(_)) => 1,
            Err(Failure::Timeout(_)) => 2,
            Err(Failure::Status(_)) => 3,
            Err(Failure::Protocol(_)) => 4,
            Err(Failure::Local(_)) => 5,
            Err(Failure::Body(_)) => 6,
            Err(Failure::Drain(_)) => 7,
        };
        self.0[result].fetch_add(1, Relaxed);
    }
}
