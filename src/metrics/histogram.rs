//! A histogram with one bucket per power of two of time: 1.024 µs, 2.048 µs, … 137 s.
//! It must have a single writing thread, like the counters it is made of.
//! The walk goes on in `rows.rs`.

use std::time::Duration;

use super::counter::Counter;

/// Number of finite buckets.
pub const BUCKETS: usize = 28;

/// Durations in log-scaled buckets, written by one worker and read by control.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS + 1],
    nanoseconds: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            nanoseconds: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts one duration. Only the owning worker may call it.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let nanoseconds = duration.as_nanos() as u64;
        let bits = 64 - (nanoseconds.saturating_sub(1) >> 10).leading_zeros() as usize;
        self.buckets[bits.min(BUCKETS)].increment();
        self.nanoseconds.add(nanoseconds);
    }

    /// Counts per bucket, not cumulative; the last one is everything above [`upper_bound`] of the last finite bucket.
    pub fn counts(&self) -> [u64; BUCKETS + 1] {
        std::array::from_fn(|bucket| self.buckets[bucket].value())
    }

    /// Sum of all durations in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.nanoseconds.value() as f64 / 1e9
    }
}

/// Upper bound of a finite bucket in seconds, inclusive.
pub fn upper_bound(bucket: usize) -> f64 {
    (1024u64 << bucket) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_bucket_whose_bound_it_does_not_exceed() {
        for bucket in 0..BUCKETS {
            let histogram = Histogram::default();
            let bound = 1024u64 << bucket;
            histogram.record(Duration::from_nanos(bound));
            assert_eq!(histogram.counts()[bucket], 1, "bound {bound}");
            histogram.record(Duration::from_nanos(bound + 1));
            assert_eq!(histogram.counts()[bucket + 1], 1, "above {bound}");
        }
    }

    #[test]
    fn the_extremes_have_a_bucket() {
        let histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::from_secs(1 << 30));
        assert_eq!(histogram.counts()[0], 1);
        assert_eq!(histogram.counts()[BUCKETS], 1);
    }
}
