//! How long a backend's answers take, as one number that rises at once and falls slowly.
//! It is a word that fits into an atomic, and the arithmetic on it; it reads no clock.
//! The walk goes on in `balance/peak_ewma.rs`, which compares such numbers, and `state/backend.rs`, which keeps the word.

use std::time::Duration;

/// In so long without an answer the number falls to 1/e of itself, so that a backend that was slow is tried again.
const DECAY: f64 = 10_000.0;

/// The peak-sensitive exponentially weighted moving average of answer times.
///
/// An answer that took longer than the average is the average from then on; a shorter one moves it by as much as time has passed since
/// the one before, with a time constant of 10 s. Without answers it falls as if they took no time. This is the definition of Finagle's
/// `PeakEwma` (com.twitter.finagle.loadbalancer), which Linkerd's tower balancer shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Microseconds; 0: nothing is known.
    micros: u32,
    /// When that was, in milliseconds of a clock that wraps around.
    at: u32,
}

impl Latency {
    /// Reads the word.
    #[inline]
    pub fn from_word(word: u64) -> Latency {
        Latency {
            micros: (word >> 32) as u32,
            at: word as u32,
        }
    }

    /// The word.
    #[inline]
    pub fn word(self) -> u64 {
        u64::from(self.micros) << 32 | u64::from(self.at)
    }

    /// The average in microseconds, as of `now` in milliseconds; 0: nothing is known any more.
    #[inline]
    pub fn micros(self, now: u32) -> u32 {
        (f64::from(self.micros) * self.kept(now)) as u32
    }

    /// Takes an answer into account that came at `now` and took so long.
    pub fn with(self, took: Duration, now: u32) -> Latency {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let micros = match took >= self.micros {
            true => took,
            false => {
                let kept = self.kept(now);
                let mean = f64::from(self.micros) * kept + f64::from(took) * (1.0 - kept);
                (mean as u32).max(1)
            }
        };
        Latency { micros, at: now }
    }

    /// How much of the average is left. Answers of two workers may be noted in another order than they came.
    fn kept(self, now: u32) -> f64 {
        let passed = now.wrapping_sub(self.at) as i32;
        (-f64::from(passed.max(0)) / DECAY).exp()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let quick = Latency::default().with(millis(5), 0);
        assert_eq!(quick.micros(0), 5_000);
        let peak = quick.with(millis(500), 10);
        assert_eq!(peak.micros(10), 500_000);
        let after = peak.with(millis(5), 20);
        assert!((499_000..500_000).contains(&after.micros(20)));
        let later = peak.with(millis(5), 10_010);
        assert!(
            (180_000..190_000).contains(&later.micros(10_010)),
            "{later:?}"
        );
        assert!((183_000..185_000).contains(&peak.micros(10_010)));
        assert_eq!(peak.micros(300_000), 0);
        assert_eq!(Latency::default().micros(7), 0);
    }

    #[test]
    fn the_clock_may_wrap_around_and_step_back() {
        let last = Latency::default().with(millis(50), u32::MAX - 1);
        assert!(last.micros(3) > 49_000);
        assert_eq!(last.micros(u32::MAX - 10), 50_000);
        assert_eq!(last.with(Duration::MAX, 0).micros(0), u32::MAX);
    }

    proptest! {
        #[test]
        fn it_stays_between_what_was_seen(
            answers in proptest::collection::vec((1..10_000_u32, 0..60_000_u32), 1..50),
        ) {
            let (mut latency, mut now, mut most) = (Latency::default(), 0_u32, 0);
            for (took, passed) in answers {
                now = now.wrapping_add(passed);
                latency = latency.with(Duration::from_micros(took.into()), now);
                most = most.max(took);
                prop_assert!((1..=most).contains(&latency.micros(now)));
                prop_assert!(latency.micros(now) + 1 >= took.min(latency.micros(now)));
                prop_assert_eq!(Latency::from_word(latency.word()), latency);
            }
        }
    }
}
