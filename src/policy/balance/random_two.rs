//! `random-two`: draws two backends and takes the less busy one, which avoids the herding of an exact minimum over stale figures.
//! It never looks at more than two backends, however many there are.
//! The walk ends here; see Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).

use super::{BackendIndex, Balancer, Eligible, Loads};
use crate::policy::facts::Facts;
use crate::rng::Rng;

/// The less busy, for its weight, of two different backends drawn in proportion to weight.
#[derive(Clone, Copy, Debug)]
pub struct RandomTwo;

impl Balancer for RandomTwo {
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        _facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<BackendIndex> {
        let (first, first_weight) = eligible.draw(None, rng)?;
        let Some((second, second_weight)) = eligible.draw(Some(first), rng) else {
            return Some(first);
        };
        // Compared without the request to come, so that of two idle ones the first draw, which follows the weights exactly, stands.
        let first_load = u64::from(eligible.in_flight(first)) * u64::from(second_weight);
        let second_load = u64::from(eligible.in_flight(second)) * u64::from(first_weight);
        Some(if second_load < first_load {
            second
        } else {
            first
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::balance::EligibleSet;
    use crate::policy::balance::{facts, up};

    #[test]
    fn the_busy_one_of_two_is_left_alone() {
        let sets = EligibleSet::new(up(&[1, 1]));
        let mut rng = Rng::from_seed(1);
        let loads = vec![1, 0];
        for _ in 0..100 {
            let eligible = Eligible::new(sets.fresh(), &[], &loads);
            let picked = RandomTwo.pick(&eligible, &facts(), &mut rng);
            assert_eq!(picked, Some(BackendIndex(1)));
        }
    }

    #[test]
    fn long_requests_settle_in_proportion_to_weight() {
        let weights = [1, 2, 4, 1, 8];
        let sets = EligibleSet::new(up(&weights));
        let mut rng = Rng::from_seed(2);
        let mut loads = vec![0_u32; weights.len()];
        for _ in 0..16_000 {
            let eligible = Eligible::new(sets.fresh(), &[], &loads);
            let picked = RandomTwo.pick(&eligible, &facts(), &mut rng).unwrap();
            loads[picked.index()] += 1;
        }
        for (&load, &weight) in loads.iter().zip(&weights) {
            let fair = 1000 * u32::from(weight);
            assert!(
                load.abs_diff(fair) <= 25 * u32::from(weight) + 25,
                "{loads:?}"
            );
        }
    }
}
