//! `least-sessions`: the backend that would have the fewest live sessions for its weight.
//! It keeps no state of its own: live sessions are counted where they are, over all workers.
//! The walk goes on in `least.rs`.

use super::least::{Burden, least};
use super::{BackendIndex, Balancer, Eligible, Loads};
use crate::policy::facts::Facts;
use crate::rng::Rng;

/// The backend with the least `(sessions + 1) / weight`; of several the one with the least in flight for its weight, then any.
///
/// Exact up to 64 backends, the best of 8 random draws (in proportion to weight) above. In a pool that no sticky route leads to there
/// are no sessions, and what is in flight decides.
#[derive(Clone, Copy, Debug)]
pub struct LeastSessions;

impl Balancer for LeastSessions {
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        _facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<BackendIndex> {
        least(eligible, rng, |backend| Burden {
            first: u64::from(eligible.sessions(backend)) + 1,
            then: u64::from(eligible.in_flight(backend)) + 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::balance::EligibleSet;
    use crate::policy::balance::{Busy, facts, up};
    use crate::rng::Rng;

    fn pick(weights: &[u16], loads: &Busy, tried: &[BackendIndex], seed: u64) -> u16 {
        let sets = EligibleSet::new(up(weights));
        let eligible = Eligible::new(sets.fresh(), tried, loads);
        let picked = LeastSessions.pick(&eligible, &facts(), &mut Rng::from_seed(seed));
        picked.unwrap().0
    }

    fn busy(sessions: &[u32], in_flight: &[u32]) -> Busy {
        Busy {
            sessions: sessions.to_vec(),
            in_flight: in_flight.to_vec(),
        }
    }

    #[test]
    fn sessions_count_before_requests() {
        let loads = busy(&[3, 4, 5], &[90, 0, 0]);
        assert_eq!(pick(&[1, 1, 1], &loads, &[], 1), 0);
        assert_eq!(pick(&[1, 1, 1], &loads, &[BackendIndex(0)], 1), 1);
        // (5 + 1) / 2 < (3 + 1) / 1
        assert_eq!(pick(&[1, 1, 2], &loads, &[], 1), 2);
        assert_eq!(pick(&[1], &busy(&[u32::MAX], &[u32::MAX]), &[], 1), 0);
    }

    #[test]
    fn requests_decide_between_equals() {
        assert_eq!(pick(&[1, 1, 1], &busy(&[7; 3], &[2, 1, 3]), &[], 1), 1);
        // Without sessions the weight tells, and of equal weights the requests.
        assert_eq!(pick(&[1, 2, 2], &busy(&[0; 3], &[0, 9, 8]), &[], 1), 2);
    }

    /// A server that comes back empty gets all new clients until it has as many as the others.
    #[test]
    fn an_empty_backend_fills_up_first() {
        let mut loads = busy(&[40, 50, 0], &[0; 3]);
        for seed in 0..60 {
            let picked = pick(&[1; 3], &loads, &[], seed);
            loads.sessions[usize::from(picked)] += 1;
            assert!(loads.sessions[1] == 50, "{loads:?}");
        }
        assert_eq!(loads.sessions, [50, 50, 50]);
    }

    #[test]
    fn many_backends_fill_evenly() {
        let weights: Vec<u16> = (0..500).map(|index| 1 + index % 4).collect();
        let sets = EligibleSet::new(up(&weights));
        let mut rng = Rng::from_seed(3);
        let mut loads = busy(&vec![0; weights.len()], &vec![0; weights.len()]);
        for _ in 0..125_000 {
            let eligible = Eligible::new(sets.fresh(), &[], &loads);
            let picked = LeastSessions.pick(&eligible, &facts(), &mut rng);
            loads.sessions[picked.unwrap().index()] += 1;
        }
        for (&sessions, &weight) in loads.sessions.iter().zip(&weights) {
            let fair = 100 * u32::from(weight);
            assert!(
                sessions.abs_diff(fair) <= 8 * u32::from(weight),
                "{loads:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_choice_is_a_minimum_and_every_minimum_is_chosen(
            backends in proptest::collection::vec((1..4_u16, 0..3_u32, 0..3_u32), 1..=64),
            tried in proptest::collection::vec(0..64_u16, 0..=3),
        ) {
            let weights: Vec<u16> = backends.iter().map(|&(weight, ..)| weight).collect();
            let loads = Busy {
                sessions: backends.iter().map(|&(_, sessions, _)| sessions).collect(),
                in_flight: backends.iter().map(|&(.., in_flight)| in_flight).collect(),
            };
            let tried: Vec<_> = tried.into_iter().map(BackendIndex).collect();
            let allowed: Vec<usize> = (0..weights.len())
                .filter(|&index| !tried.contains(&BackendIndex(index as u16)))
                .collect();
            prop_assume!(!allowed.is_empty());
            // A common multiple of the weights makes the fractions whole.
            let load = |index: usize| {
                let per_weight = |count: u32| (count + 1) * (12 / u32::from(weights[index]));
                (per_weight(loads.sessions[index]), per_weight(loads.in_flight[index]))
            };
            let least = allowed.iter().map(|&index| load(index)).min();
            let minima: Vec<usize> = allowed.into_iter().filter(|&index| Some(load(index)) == least).collect();
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
