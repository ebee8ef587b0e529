//! A counter with one writer and many readers.
//! It must have a single writing thread: an addition is a load and a store, not a locked instruction.
//! The walk goes on in `rows.rs`, which groups counters under labels.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A monotonic count, written by one worker and read by control.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the owning worker may call it: of two concurrent additions one would be lost.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Adds one; see [`Counter::add`].
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count so far.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
