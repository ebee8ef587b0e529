//! How often somebody was turned away, and when that is worth a line of the log: a flood must fill neither disk nor attention.
//! It writes nothing; whoever counts is told whether to say so.
//! Here the walk ends; it comes from `gate.rs` and `rate_limit.rs`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::clock;

/// Between two lines about the same limit.
const PAUSE: Duration = Duration::from_secs(10);

/// The refusals of one limit, over all workers.
#[derive(Debug)]
pub struct Refusals {
    total: AtomicU64,
    /// How many there were at the last line.
    told: AtomicU64,
    /// Before this many milliseconds after the beginning there is no line.
    next: AtomicU64,
    began: Instant,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            total: AtomicU64::new(0),
            told: AtomicU64::new(0),
            next: AtomicU64::new(0),
            began: clock::now(),
        }
    }
}

impl Refusals {
    /// Counts one. If a line is due: how many there were since the last one, this one among them.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let total = self.total.fetch_add(1, Relaxed) + 1;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.began));
        let next = self.next.load(Relaxed);
        let later = now.saturating_add(millis(PAUSE));
        let is_due =
            now >= next && (self.next.compare_exchange(next, later, Relaxed, Relaxed)).is_ok();
        is_due.then(|| total.saturating_sub(self.told.swap(total, Relaxed)))
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_pause_tells_of_all() {
        let refusals = Refusals::default();
        let at = |millis| refusals.began + Duration::from_millis(millis);
        assert_eq!(refusals.count(at(5)), Some(1));
        for millis in 6..10_005 {
            assert_eq!(refusals.count(at(millis)), None);
        }
        assert_eq!(refusals.count(at(10_005)), Some(10_000));
        assert_eq!(refusals.count(at(10_006)), None);
        assert_eq!(refusals.total(), 10_002);
    }
}
