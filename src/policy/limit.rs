//! Token buckets, pure: whether one more may pass, and when the next may.
//! A bucket is one word, the time at which it is full again (the generic cell rate algorithm, ITU-T I.371); it never reads a clock.
//! The walk goes on in `state/rates.rs`, which keeps a word for every client.

use std::time::Duration;

/// The rule of a bucket: how fast it fills, and how much it holds. Times are nanoseconds since a beginning of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// How long one token takes to come.
    interval: u64,
    /// How long an empty bucket takes to fill: `burst` intervals.
    depth: u64,
    burst: u32,
}

/// What becomes of one who wants a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// There was one; the bucket is full again at this time.
    Taken(u64),
    /// There is none; the first comes after this time.
    Refused(Duration),
}

impl Bucket {
    /// A bucket that `count` tokens flow into in each `period`, and that holds `burst` of them; both at least one.
    ///
    /// The time of a token is rounded up: never more than `count` come in a period.
    pub fn new(count: u32, period: Duration, burst: u32) -> Bucket {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval = period.div_ceil(u64::from(count.max(1))).max(1);
        let burst = burst.max(1);
        Bucket {
            interval,
            depth: interval.saturating_mul(u64::from(burst)),
            burst,
        }
    }

    /// Takes a token at `now` out of a bucket that is full again at `full_at`; 0 is a bucket that nobody took from yet.
    ///
    /// However the times follow one another, no more than `burst` and what flows in from the earliest to the latest of them is taken.
    #[inline]
    pub fn take(&self, full_at: u64, now: u64) -> Take {
        let next = full_at.max(now).saturating_add(self.interval);
        let over = next.saturating_sub(now).saturating_sub(self.depth);
        match over {
            0 => Take::Taken(next),
            over => Take::Refused(Duration::from_nanos(over)),
        }
    }

    /// How many it holds: the quota that a client is told.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// How long it takes to fill: the window that a client is told.
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.depth)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of the takes at these times succeed.
    fn taken(bucket: Bucket, times: impl IntoIterator<Item = u64>) -> usize {
        let mut full_at = 0;
        let takes = times
            .into_iter()
            .filter(|now| match bucket.take(full_at, *now) {
                Take::Taken(next) => {
                    full_at = next;
                    true
                }
                Take::Refused(_) => false,
            });
        takes.count()
    }

    #[test]
    fn a_burst_at_once_and_then_the_rate() {
        let bucket = Bucket::new(10, Duration::from_secs(1), 20);
        assert_eq!(taken(bucket, vec![5 * SECOND; 100]), 20);
        let steady = (0..1000).map(|step| SECOND + step * SECOND / 100);
        assert_eq!(taken(bucket, steady), 20 + 99);
        assert_eq!(bucket.window(), Duration::from_secs(2));
        let one = Bucket::new(1, Duration::from_secs(3600), 1);
        assert_eq!(taken(one, (0..7200).map(|second| second * SECOND)), 2);
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let bucket = Bucket::new(2, Duration::from_secs(1), 1);
        let Take::Taken(full_at) = bucket.take(0, SECOND) else {
            panic!("a bucket that nobody took from is full");
        };
        let Take::Refused(wait) = bucket.take(full_at, SECOND + SECOND / 10) else {
            panic!("there is only one");
        };
        assert_eq!(wait, Duration::from_millis(400));
        let then = SECOND + SECOND / 10 + wait.as_nanos() as u64;
        assert!(matches!(bucket.take(full_at, then - 1), Take::Refused(_)));
        assert!(matches!(bucket.take(full_at, then), Take::Taken(_)));
    }

    #[test]
    fn no_time_is_too_large() {
        let hour = Duration::from_secs(3600);
        let bucket = Bucket::new(1, hour, 1_000_000);
        assert!(
            bucket.window() == hour * 1_000_000,
            "the most that a file can say"
        );
        assert!(matches!(bucket.take(u64::MAX, 0), Take::Refused(_)));
        assert!(matches!(bucket.take(0, u64::MAX), Take::Taken(u64::MAX)));
        assert!(matches!(
            Bucket::new(1, Duration::MAX, 1).take(0, 0),
            Take::Taken(_)
        ));
    }

    proptest! {
        /// Whatever the clock does, also backwards: the burst, and what flows in between the earliest and the latest time.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            count in 1..2000_u32,
            period in prop::sample::select(vec![1_u64, 60, 3600]),
            burst in 1..50_u32,
            times in prop::collection::vec(0..100 * SECOND, 1..300),
        ) {
            let bucket = Bucket::new(count, Duration::from_secs(period), burst);
            let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
            let flown = u128::from(last - first) * u128::from(count) / u128::from(period * SECOND);
            let most = u128::from(burst) + flown;
            prop_assert!(taken(bucket, times.clone()) as u128 <= most);
        }

        /// A client that stays under the rate is never refused, however its clock stumbles forward.
        #[test]
        fn who_keeps_the_rate_is_never_refused(
            count in 1..1000_u32,
            gaps in prop::collection::vec(0..1000_u64, 1..200),
        ) {
            let bucket = Bucket::new(count, Duration::from_secs(1), 1);
            let times: Vec<u64> = gaps.iter().scan(0, |now, gap| {
                *now += bucket.interval + gap;
                Some(*now)
            }).collect();
            prop_assert_eq!(taken(bucket, times.clone()), times.len());
        }
    }
}
