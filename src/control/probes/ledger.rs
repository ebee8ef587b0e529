//! How many checks ended how, per pool and address, and what the last of them say.
//! Both live as long as the pool names the address, whatever happens to the settings in between.
//! The walk goes on in the collector, which exports the counts, and in `control/because.rs`, which tells the rest.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Failure, Outcome};

/// The values of the `result` label.
pub const RESULTS: [&str; 8] = [
    "pass", "connect", "timeout", "status", "protocol", "local", "body", "drain",
];

/// What is said of a backend that has no verdict yet.
pub(super) const NO_VERDICT: &str = "no check has ended yet";
/// What is said of a backend whose pool has no check.
pub(super) const NOT_CHECKED: &str = "not checked";
/// What is said of one that is well.
pub(super) const PASSES: &str = "the check passes";

/// Letters of a reason that are kept.
const LETTERS: usize = 200;

/// Counts of every backend that is probed.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<Key, Arc<ProbeCounts>>>);

/// A pool and the address of one of its backends.
type Key = (Arc<str>, SocketAddr);

/// Checks of one backend by result, in the order of [`RESULTS`], and what they say.
#[derive(Debug, Default)]
pub struct ProbeCounts {
    results: [AtomicU64; RESULTS.len()],
    verdict: Mutex<Verdict>,
}

/// What the checks of one backend say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Since when its health is what it is, in milliseconds since the epoch; `None`: it was so before this process.
    pub since_wall_millis: Option<u64>,
    /// Why it is so, as a line of at most 200 letters.
    pub because: Box<str>,
    /// The status by which it asks to be drained, and since when, in milliseconds since the epoch.
    pub leaving: Option<(u16, u64)>,
}

impl Verdict {
    /// Before there is any.
    pub fn none() -> Verdict {
        Verdict {
            since_wall_millis: None,
            because: NO_VERDICT.into(),
            leaving: None,
        }
    }
}

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
        std::array::from_fn(|result| self.results[result].load(Relaxed))
    }

    /// Whether a check has ever passed.
    pub(super) fn any_passed(&self) -> bool {
        self.results[0].load(Relaxed) > 0 || self.results[7].load(Relaxed) > 0
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
        self.results[result].fetch_add(1, Relaxed);
    }

    /// What the checks say.
    pub fn verdict(&self) -> Verdict {
        self.lock().clone()
    }

    /// Takes why the health is what it is. Without a time it is so since when it was.
    pub(in crate::control) fn tell(&self, because: &str, since_wall_millis: Option<u64>) {
        let mut verdict = self.lock();
        verdict.since_wall_millis = since_wall_millis.or(verdict.since_wall_millis);
        if *verdict.because != *because {
            verdict.because = line(because);
        }
    }

    /// Takes by what status the backend asks to be drained, or that it does not.
    pub(in crate::control) fn tell_leaving(&self, leaving: Option<(u16, u64)>) {
        self.lock().leaving = leaving;
    }

    fn lock(&self) -> MutexGuard<'_, Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What fits on a line of a terminal, whoever wrote it.
fn line(text: &str) -> Box<str> {
    let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().take(LETTERS).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_short_line() {
        let counts = ProbeCounts::default();
        counts.tell("first", Some(5));
        counts.tell(&format!("a\x1b[2J\n{}", "é".repeat(1000)), None);
        let verdict = counts.verdict();
        assert_eq!(verdict.since_wall_millis, Some(5));
        assert!(verdict.because.starts_with("a [2J é"));
        assert_eq!(verdict.because.chars().count(), LETTERS);
    }
}
