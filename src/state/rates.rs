//! The buckets of a rate limit, one for every key that is busy, over all workers and within a fixed bound.
//! No bucket ever gives more than its rule allows, whoever it belongs to; nothing here waits, grows or asks the system for anything.
//! The walk goes on in `policy/limit.rs`, which has the rule, and comes from `rate_limit.rs`, which knows what a key is.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::clock;
use crate::policy::limit::{Bucket, Take};
use crate::rng;

/// Buckets that a key may lie in. They fill two cache lines, which a processor fetches as a pair.
const WAYS: usize = 8;

/// A set-associative table of buckets.
///
/// It is not `table.rs`, where a value that is being changed cannot be found for a moment: here that would be a new bucket, full to
/// the brim. A place keeps its tag while its time changes, and keeps its time when another key takes it over. So what a place
/// gives over any time is what one bucket may give, whatever keys come in whatever order.
#[derive(Debug)]
pub struct Rates {
    sets: Box<[Set]>,
    hash: RandomState,
    began: Instant,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Set([Place; WAYS]);

#[derive(Debug, Default)]
struct Place {
    /// A keyed hash of the key; 0: of none yet.
    tag: AtomicU64,
    /// When the bucket is full again, in nanoseconds since the table's beginning. In the past it is as good as new.
    full_at: AtomicU64,
}

/// What became of one who wanted to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// After what time the next may pass; `None`: this one may.
    pub wait: Option<Duration>,
    /// Whether every bucket of its set was busy, so that it took one over as it was.
    pub crowded: bool,
}

impl Rates {
    /// Places for `keys` that are busy at once and as many again, so that few sets are crowded before there are so many.
    pub fn new(keys: usize) -> Rates {
        let sets = keys.saturating_mul(2).div_ceil(WAYS).next_power_of_two();
        Rates {
            sets: (0..sets).map(|_| Set::default()).collect(),
            hash: rng::keyed_hash(),
            began: clock::now(),
        }
    }

    /// Takes a token out of the bucket of a key.
    ///
    /// A key without a bucket takes over the one of its set that has the most left, with what is left in it: that is a new one
    /// unless the whole set is busy.
    pub fn take(&self, bucket: &Bucket, key: impl Hash, now: Instant) -> Outcome {
        let now = now.saturating_duration_since(self.began).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let (place, crowded) = self.place(self.hash.hash_one(key).max(1), now);
        let mut full_at = place.full_at.load(Relaxed);
        loop {
            let next = match bucket.take(full_at, now) {
                Take::Taken(next) => next,
                Take::Refused(wait) => {
                    let wait = Some(wait);
                    return Outcome { wait, crowded };
                }
            };
            match place
                .full_at
                .compare_exchange_weak(full_at, next, Relaxed, Relaxed)
            {
                Ok(_) => {
                    let wait = None;
                    return Outcome { wait, crowded };
                }
                // Whoever was faster took one, so this ends.
                Err(found) => full_at = found,
            }
        }
    }

    /// The bucket of a tag, and whether it was taken over while it was busy.
    fn place(&self, tag: u64, now: u64) -> (&Place, bool) {
        let set = &self.sets[tag as usize & (self.sets.len() - 1)].0;
        // Another worker may be first at a place, perhaps with the same key; then this one looks again.
        for _ in 0..WAYS {
            let mut emptiest = (&set[0], u64::MAX, 0);
            for place in set {
                let found = place.tag.load(Relaxed);
                if found == tag {
                    return (place, false);
                }
                let full_at = place.full_at.load(Relaxed);
                if full_at < emptiest.1 {
                    emptiest = (place, full_at, found);
                }
            }
            let (place, full_at, old) = emptiest;
            let claim = place.tag.compare_exchange(old, tag, Relaxed, Relaxed);
            if claim.is_ok() {
                return (place, full_at > now);
            }
        }
        (&set[0], true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn passes(rates: &Rates, bucket: &Bucket, key: u64, now: Instant) -> bool {
        rates.take(bucket, key, now).wait.is_none()
    }

    #[test]
    fn every_key_has_a_bucket_of_its_own() {
        let rates = Rates::new(1000);
        let bucket = Bucket::new(10, SECOND, 5);
        let now = rates.began + SECOND;
        for key in 0..100 {
            let passed = (0..20)
                .filter(|_| passes(&rates, &bucket, key, now))
                .count();
            assert_eq!(passed, 5, "{key}");
        }
        let later = now + SECOND / 10;
        assert!(passes(&rates, &bucket, 7, later));
        assert_eq!(
            rates.take(&bucket, 7_u64, later).wait,
            Some(SECOND / 10),
            "one a tenth"
        );
    }

    #[test]
    fn its_size_is_fixed_under_any_number_of_keys() {
        let rates = Rates::new(1024);
        let bucket = Bucket::new(1, SECOND * 3600, 3);
        let places = rates.sets.len() * WAYS;
        assert_eq!(places, 2048);
        let now = rates.began;
        let passed = (0..1_000_000_u64)
            .filter(|key| passes(&rates, &bucket, *key, now))
            .count();
        assert_eq!(rates.sets.len() * WAYS, places);
        assert_eq!(passed, places * 3, "what the places hold, and not one more");
        assert!(rates.take(&bucket, 0_u64, now).crowded);
    }

    /// Nobody begins afresh by making others push it out: a bucket that is taken over keeps its debt.
    #[test]
    fn a_flood_of_keys_buys_nothing() {
        let rates = Rates::new(4);
        assert_eq!(rates.sets.len(), 1);
        let bucket = Bucket::new(1, SECOND, 10);
        let now = rates.began;
        let mut passed = 0;
        for round in 0..100_u64 {
            passed += (0..100).filter(|_| passes(&rates, &bucket, 1, now)).count();
            passed += (0..100)
                .filter(|key| passes(&rates, &bucket, 1000 * round + key, now))
                .count();
        }
        assert_eq!(passed, WAYS * 10);
        let rested = now + SECOND * 10;
        assert!(
            !rates.take(&bucket, 9_u64, rested).crowded,
            "all are full again"
        );
        assert!(passes(&rates, &bucket, 9, rested));
    }

    /// As many workers as there may be, on few keys: the rule holds for each of them.
    #[test]
    fn workers_share_a_bucket_exactly() {
        let rates = Rates::new(64);
        let bucket = Bucket::new(1, SECOND * 3600, 1000);
        let now = rates.began;
        let passed: usize = std::thread::scope(|scope| {
            let workers = (0..4).map(|_| {
                let (rates, bucket) = (&rates, &bucket);
                scope.spawn(move || {
                    (0..20_000_u64)
                        .filter(|turn| passes(rates, bucket, turn % 4, now))
                        .count()
                })
            });
            let workers: Vec<_> = workers.collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        // Two workers that see a key first at the same moment may each give it a place.
        assert!((4000..=4 * 1000 + 16).contains(&passed), "{passed}");
    }

    proptest! {
        /// Over any keys and times the whole table gives what its places may give.
        #[test]
        fn the_whole_is_bounded(takes in prop::collection::vec((0..40_u64, 0..5000_u64), 1..400)) {
            let rates = Rates::new(4);
            let bucket = Bucket::new(2, SECOND, 3);
            let at = |millis| rates.began + Duration::from_millis(millis);
            let passed = takes.iter().filter(|(key, millis)| passes(&rates, &bucket, *key, at(*millis))).count();
            let span = takes.iter().map(|take| take.1).max().unwrap() - takes.iter().map(|take| take.1).min().unwrap();
            prop_assert!(passed as u64 <= WAYS as u64 * (3 + span * 2 / 1000));
        }
    }
}
