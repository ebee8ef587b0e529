//! `peak-ewma`: of two backends drawn at random the one that is likely to answer sooner, by how long its answers took of late.
//! It keeps no state of its own: what answers took is kept where it is, over all workers.
//! The walk ends here; `policy/latency.rs` says how times are averaged.

use super::{BackendIndex, Balancer, Eligible, Loads};
use crate::policy::facts::Facts;
use crate::rng::Rng;

/// What a backend costs that has something in flight and has never answered: it gets one request at a time until it has.
const UNKNOWN: u64 = 1 << 40;

/// The cheaper, for its weight, of two different backends drawn in proportion to weight, where the cost is the peak-sensitive mean of what
/// its answers took, times one more than what it has in flight: the load that Finagle's `PeakEwma` and Linkerd's balancer are named for.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma;

impl Balancer for PeakEwma {
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<BackendIndex> {
        let (first, first_weight) = eligible.draw(None, rng)?;
        let Some((second, second_weight)) = eligible.draw(Some(first), rng) else {
            return Some(first);
        };
        let cost = |backend| {
            let in_flight = u64::from(eligible.in_flight(backend));
            match (eligible.latency(backend, facts.now), in_flight) {
                (0, 0) => 0,
                (0, in_flight) => u128::from(UNKNOWN + in_flight),
                (micros, in_flight) => u128::from(micros) * u128::from(in_flight + 1),
            }
        };
        let first_cost = cost(first) * u128::from(second_weight);
        let second_cost = cost(second) * u128::from(first_weight);
        Some(if second_cost < first_cost {
            second
        } else {
            first
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::balance::{EligibleSet, facts, up};
    use crate::rng::Rng;

    /// Backends with so much in flight, whose answers take so many microseconds.
    struct Timed(Vec<(u32, u32)>);

    impl Loads for Timed {
        fn in_flight(&self, backend: BackendIndex) -> u32 {
            self.0[backend.index()].0
        }

        fn sessions(&self, _: BackendIndex) -> u32 {
            0
        }

        fn latency(&self, backend: BackendIndex, _: Instant) -> u32 {
            self.0[backend.index()].1
        }
    }

    fn counts(weights: &[u16], loads: Vec<(u32, u32)>, tried: &[BackendIndex]) -> Vec<u32> {
        let sets = EligibleSet::new(up(weights));
        let loads = Timed(loads);
        let eligible = Eligible::new(sets.fresh(), tried, &loads);
        let (mut rng, mut counts) = (Rng::from_seed(5), vec![0; weights.len()]);
        for _ in 0..1000 {
            if let Some(picked) = PeakEwma.pick(&eligible, &facts(), &mut rng) {
                counts[picked.index()] += 1;
            }
        }
        counts
    }

    #[test]
    fn the_quick_and_idle_are_preferred() {
        // Slow, or quick and busy: it is the product that counts.
        assert_eq!(counts(&[1, 1], vec![(0, 9000), (0, 1000)], &[]), [0, 1000]);
        assert_eq!(counts(&[1, 1], vec![(0, 9000), (9, 1000)], &[]), [1000, 0]);
        // Twice the weight is worth twice the cost.
        assert_eq!(counts(&[4, 1], vec![(2, 1000), (0, 1000)], &[]), [1000, 0]);
        assert_eq!(counts(&[1], vec![(7, 1)], &[BackendIndex(0)]), [0]);
    }

    #[test]
    fn who_never_answered_gets_one_request_at_a_time() {
        assert_eq!(counts(&[1, 1], vec![(0, 0), (0, 1000)], &[]), [1000, 0]);
        assert_eq!(counts(&[1, 1], vec![(1, 0), (50, 1000)], &[]), [0, 1000]);
        assert_eq!(counts(&[1, 1], vec![(2, 0), (1, 0)], &[]), [0, 1000]);
    }

    #[test]
    fn work_settles_by_weight_and_speed() {
        // A fluid of requests: each is answered after its backend's time, in steps of a millisecond.
        let (weights, millis) = ([1_u16, 1, 2], [10_u32, 40, 20]);
        let sets = EligibleSet::new(up(&weights));
        let (mut rng, mut served) = (Rng::from_seed(9), [0_u32; 3]);
        let mut ends: Vec<(u32, usize)> = Vec::new();
        for now in 0..20_000 {
            ends.retain(|(end, _)| *end > now);
            let in_flight = |own| ends.iter().filter(|(_, at)| *at == own).count() as u32;
            let loads = Timed(
                (0..3)
                    .map(|own| (in_flight(own), millis[own] * 1000))
                    .collect(),
            );
            let eligible = Eligible::new(sets.fresh(), &[], &loads);
            let picked = PeakEwma
                .pick(&eligible, &facts(), &mut rng)
                .unwrap()
                .index();
            served[picked] += 1;
            ends.push((now + millis[picked], picked));
        }
        assert!(served[0] > 2 * served[1], "{served:?}");
        assert!(served[2] > 2 * served[1], "{served:?}");
    }

    proptest! {
        #[test]
        fn only_the_eligible_are_picked(
            backends in proptest::collection::vec((1..=256_u16, any::<u32>(), any::<u32>()), 1..40),
            tried in proptest::collection::vec(0..40_u16, 0..=3),
        ) {
            let weights: Vec<u16> = backends.iter().map(|own| own.0).collect();
            let tried: Vec<_> = tried.into_iter().map(BackendIndex).collect();
            let loads = backends.iter().map(|own| (own.1, own.2)).collect();
            let counts = counts(&weights, loads, &tried);
            let left = (0..weights.len()).any(|own| !tried.contains(&BackendIndex(own as u16)));
            prop_assert_eq!(counts.iter().sum::<u32>(), if left { 1000 } else { 0 });
            for (own, count) in counts.iter().enumerate() {
                prop_assert!(*count == 0 || !tried.contains(&BackendIndex(own as u16)));
            }
        }
    }
}
