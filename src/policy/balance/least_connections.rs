//! `least-connections`: the backend that would be least busy for its weight.
//! It keeps no state of its own: what is in flight is counted where it is, over all workers.
//! The walk goes on in `least.rs`.

use super::least::{Burden, least};
use super::{BackendIndex, Balancer, Eligible, Loads};
use crate::policy::facts::Facts;
use crate::rng::Rng;

/// The backend with the least `(in flight + 1) / weight`, ties broken at random.
///
/// Exact up to 64 backends, the best of 8 random draws (in proportion to weight) above.
#[derive(Clone, Copy, Debug)]
pub struct LeastConnections;

impl Balancer for LeastConnections {
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        _facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<BackendIndex> {
        least(eligible, rng, |backend| Burden {
            first: u64::from(eligible.in_flight(backend)) + 1,
            then: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::balance::EligibleSet;
    use crate::policy::balance::{facts, up};
    use crate::rng::Rng;

    fn pick(weights: &[u16], loads: &Vec<u32>, tried: &[BackendIndex], seed: u64) -> u16 {
        let sets = EligibleSet::new(up(weights));
        let eligible = Eligible::new(sets.fresh(), tried, loads);
        let picked = LeastConnections.pick(&eligible, &facts(), &mut Rng::from_seed(seed));
        picked.unwrap().0
    }

    #[test]
    fn weight_divides_the_load() {
        assert_eq!(pick(&[1, 2], &vec![0, 0], &[], 1), 1);
        assert_eq!(pick(&[1, 2], &vec![0, 2], &[], 1), 0);
        assert_eq!(pick(&[3, 3, 3], &vec![5, 4, 6], &[], 1), 1);
        assert_eq!(pick(&[3, 3, 3], &vec![5, 4, 6], &[BackendIndex(1)], 1), 0);
        assert_eq!(pick(&[1], &vec![u32::MAX], &[], 1), 0);
    }

    #[test]
    fn many_backends_fill_evenly() {
        let weights: Vec<u16> = (0..500).map(|index| 1 + index % 4).collect();
        let sets = EligibleSet::new(up(&weights));
        let mut rng = Rng::from_seed(3);
        let mut loads = vec![0_u32; weights.len()];
        for _ in 0..125_000 {
            let eligible = Eligible::new(sets.fresh(), &[], &loads);
            let picked = LeastConnections.pick(&eligible, &facts(), &mut rng);
            loads[picked.unwrap().index()] += 1;
        }
        for (&load, &weight) in loads.iter().zip(&weights) {
            let fair = 100 * u32::from(weight);
            assert!(load.abs_diff(fair) <= 8 * u32::from(weight), "{loads:?}");
        }
    }

    proptest! {
        #[test]
        fn the_choice_is_a_minimum_and_every_minimum_is_chosen(
            backends in proptest::collection::vec((1..5_u16, 0..4_u32), 1..=64),
            tried in proptest::collection::vec(0..64_u16, 0..=3),
        ) {
            let (weights, loads): (Vec<u16>, Vec<u32>) = backends.into_iter().unzip();
            let tried: Vec<_> = tried.into_iter().map(BackendIndex).collect();
            let allowed: Vec<usize> = (0..weights.len())
                .filter(|&index| !tried.contains(&BackendIndex(index as u16)))
                .collect();
            prop_assume!(!allowed.is_empty());
            let load = |index: usize| f64::from(loads[index] + 1) / f64::from(weights[index]);
            let least = allowed.iter().map(|&index| load(index)).fold(f64::INFINITY, f64::min);
            let minima: Vec<usize> = allowed.into_iter().filter(|&index| load(index) <= least + 1e-9).collect();
            let mut counts = vec![0_usize; weights.len()];
            let picks = minima.len() * 60;
            for seed in 0..picks {
                counts[pick(&weights, &loads, &tried, seed as u64) as usize] += 1;
            }
            prop_assert_eq!(minima.iter().map(|&index| counts[index]).sum::<usize>(), picks);
            prop_assert!(minima.iter().all(|&index| (15..=130).contains(&counts[index])), "{counts:?}");
        }
    }
}
