//! `round-robin`: everyone in turn, as often as its weight says, and as evenly spread as can be.
//! It never looks at loads; its turn order is rebuilt when the backends change.
//! The walk ends here.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::{BackendIndex, Balancer, Eligible, Loads, Subset};
use crate::policy::facts::Facts;
use crate::rng::Rng;

/// Smooth weighted round robin.
///
/// A backend of weight `w` has its turns at the times `1/2w, 3/2w, 5/2w …` of each round, and whoever's turn comes first is
/// picked. So each gets exactly its weight in any round, evenly spread, and a pick costs O(log n). Each worker starts at its
/// own point of the round, so that workers do not march in step, and goes on from a random one when the backends change. With
/// each reload all of them start a golden section of the round further: reloads, however many, favour nobody.
///
/// When only weights change, as those of backends that warm up do every moment, the round goes on where it is: whose weight stayed
/// keeps its turn, and the others wait on for as much longer or shorter as their turns are further apart or closer.
///
/// A second try is no turn: it goes to any other backend, drawn in proportion to weight. If it took the next turn, the first tries of
/// a pool of two would all be at the one that fails, and if that one kept the turns that it was passed over in, it would get
/// them all at once when it is back.
#[derive(Debug)]
pub struct RoundRobin {
    turns: RefCell<Turns>,
}

/// The golden section of a round, in 2^-32 of it.
const GOLDEN: u64 = 0x9e37_79b9;

impl RoundRobin {
    /// For worker `worker` of `workers`, after `reloads` others.
    pub fn new(worker: usize, workers: usize, reloads: u64) -> RoundRobin {
        let phase = ((worker as u64) << 32).div_ceil(workers.max(1) as u64);
        let start = phase.wrapping_add(reloads.wrapping_mul(GOLDEN));
        RoundRobin {
            turns: RefCell::new(Turns {
                first_start: Some(start as u32),
                built_for: None,
                last: None,
                next: BinaryHeap::new(),
            }),
        }
    }
}

impl Balancer for RoundRobin {
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        _facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<BackendIndex> {
        if eligible.is_any_tried() {
            return eligible.draw(None, rng).map(|(backend, _)| backend);
        }
        let turns = &mut *self.turns.borrow_mut();
        if turns.built_for != Some(eligible.subset().stamp()) {
            turns.follow(eligible.subset(), rng);
        }
        turns.next()
    }
}

#[derive(Debug)]
struct Turns {
    /// Where to start, in 2^-32 of a round, until that was done.
    first_start: Option<u32>,
    /// The stamp of the backends that the turns are of.
    built_for: Option<u64>,
    /// The turn that was taken last.
    last: Option<Turn>,
    next: BinaryHeap<Reverse<Turn>>,
}

impl Turns {
    /// Goes on with other backends, or other weights.
    fn follow(&mut self, subset: &Subset, rng: &mut Rng) {
        let same = self.next.len() == subset.list().len()
            && self
                .next
                .iter()
                .all(|Reverse(turn)| subset.contains(turn.backend));
        match self.last.filter(|_| same) {
            Some(last) => self.reweigh(subset, last),
            None => self.rebuild(subset, rng),
        }
        self.built_for = Some(subset.stamp());
    }

    fn reweigh(&mut self, subset: &Subset, last: Turn) {
        let mut next = std::mem::take(&mut self.next).into_vec();
        for Reverse(turn) in &mut next {
            let weight = subset.weight(turn.backend);
            if weight != turn.weight {
                turn.reweigh(weight, &last);
            }
        }
        self.next = next.into();
    }

    fn rebuild(&mut self, subset: &Subset, rng: &mut Rng) {
        let first = self.first_start.take();
        let start = first.unwrap_or_else(|| rng.next_u64() as u32);
        let count = subset.list().len();
        let offset = (count * start as usize) >> 32;
        let ranks = (0..count).map(|position| (position + count - offset) % count);
        let backends = subset.list().iter().zip(subset.weights());
        let turns = backends.zip(ranks).map(|((&backend, &weight), rank)| {
            let (round, done) = first_turn(weight, start);
            Reverse(Turn {
                round,
                done,
                weight,
                rank: rank as u16,
                backend,
            })
        });
        let mut next = std::mem::take(&mut self.next).into_vec();
        next.clear();
        next.extend(turns);
        self.next = next.into();
        self.last = None;
    }

    /// The backend whose turn is next.
    fn next(&mut self) -> Option<BackendIndex> {
        let mut first = self.next.peek_mut()?;
        let turn = first.0;
        first.0.advance();
        self.last = Some(turn);
        Some(turn.backend)
    }
}

/// A backend's next turn: the `done`th of its `weight` turns in a round.
#[derive(Clone, Copy, Debug)]
struct Turn {
    round: u32,
    done: u16,
    weight: u16,
    /// Who goes first of those whose turns come at one time: a rotation of the pool's order.
    rank: u16,
    backend: BackendIndex,
}

impl Turn {
    fn advance(&mut self) {
        self.done += 1;
        if self.done == self.weight {
            self.done = 0;
            self.round = self.round.wrapping_add(1);
        }
    }

    /// Takes another weight at the time of `last`. What is left of the wait for the turn grows or shrinks with the time between two
    /// turns, and the turn nearest to its end is the next: weights may change at every pick, and nobody gains or loses by it.
    fn reweigh(&mut self, weight: u16, last: &Turn) {
        // With t = (2 done + 1) / 2w for turn and last, the wait ends at t' = last + (t - last) * w / weight, in turn t' * weight.
        let [old, new, period] = [self.weight, weight, last.weight].map(i64::from);
        let rounds = i64::from(self.round.wrapping_sub(last.round) as i32);
        let now = 2 * i64::from(last.done) + 1;
        let twice = 2 * (old * rounds + i64::from(self.done)) + 1;
        let turn = ((new - old) * now + twice * period).div_euclid(2 * period);
        self.round = last.round.wrapping_add(turn.div_euclid(new) as u32);
        self.done = turn.rem_euclid(new) as u16;
        self.weight = weight;
    }

    fn compare_times(&self, other: &Turn) -> Ordering {
        // Rounds differ by one at most, so their difference tells the order even when the count wraps.
        let rounds = (self.round.wrapping_sub(other.round) as i32).cmp(&0);
        let time =
            |turn: &Turn, scale: &Turn| (2 * u64::from(turn.done) + 1) * u64::from(scale.weight);
        rounds.then_with(|| time(self, other).cmp(&time(other, self)))
    }
}

/// The first of `weight` turns at or after `start` / 2^32 of a round, as its round and its number there.
fn first_turn(weight: u16, start: u32) -> (u32, u16) {
    // Turn n comes at (2n + 1) / 2w, so those with n < w * start - 1/2 are over.
    let over = (u64::from(weight) * u64::from(start) + (1 << 31) - 1) >> 32;
    match over as u16 {
        over if over >= weight => (1, 0),
        over => (0, over),
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Turn) -> Ordering {
        self.compare_times(other)
            .then_with(|| self.rank.cmp(&other.rank))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Turn) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Turn) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::balance::EligibleSet;
    use crate::policy::balance::{facts, up};
    use crate::rng::Rng;

    const WORKERS: usize = 60;

    fn picks(weights: &[u16], count: usize, worker: usize) -> Vec<u16> {
        let sets = EligibleSet::new(up(weights));
        let balancer = RoundRobin::new(worker, WORKERS, 0);
        let mut rng = Rng::from_seed(0);
        let loads = Vec::new();
        let eligible = Eligible::new(sets.fresh(), &[], &loads);
        (0..count)
            .map(|_| balancer.pick(&eligible, &facts(), &mut rng).unwrap().0)
            .collect()
    }

    #[test]
    fn equal_weights_rotate() {
        for worker in 0..20 {
            let picks = picks(&[5; 7], 70, worker);
            assert!(picks.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 7));
        }
    }

    #[test]
    fn workers_start_at_their_own_phase() {
        let mut seen: Vec<Vec<u16>> = (0..WORKERS)
            .map(|worker| picks(&[3, 2, 1], 6, worker))
            .collect();
        seen.sort();
        seen.dedup();
        assert!(seen.len() >= 5);
        let firsts = (0..WORKERS).map(|worker| picks(&[1; 30], 1, worker)[0] as usize);
        assert!(firsts.eq((0..WORKERS).map(|worker| worker / 2)));
    }

    #[test]
    fn rounds_may_wrap() {
        let turn = |round, done| Turn {
            round,
            done,
            weight: 3,
            rank: 0,
            backend: BackendIndex(0),
        };
        assert!(turn(u32::MAX, 2) < turn(0, 0));
        assert!(turn(0, 0) < turn(0, 1));
    }

    #[test]
    fn second_tries_are_no_turns() {
        let sets = EligibleSet::new(up(&[1, 1, 1]));
        let balancer = RoundRobin::new(0, 1, 0);
        let mut rng = Rng::from_seed(0);
        let loads = Vec::new();
        let mut pick = |tried: &[BackendIndex]| {
            let eligible = Eligible::new(sets.fresh(), tried, &loads);
            balancer.pick(&eligible, &facts(), &mut rng)
        };
        let first = pick(&[]).unwrap().0;
        let next = |by| BackendIndex((first + by) % 3);
        let mut counts = [0; 3];
        for turn in 1..=3000 {
            let picked = pick(&[]).unwrap();
            assert_eq!(picked, next(turn));
            // The first one of all fails every time.
            if picked == next(0) {
                counts[pick(&[picked]).unwrap().index()] += 1;
            }
        }
        let others = [1, 2].map(|by| counts[next(by).index()]);
        assert!(
            others.iter().all(|count| (400..=600).contains(count)),
            "{counts:?}"
        );
        assert_eq!(others.iter().sum::<i32>(), 1000);
        let all: Vec<_> = (0..3).map(BackendIndex).collect();
        assert_eq!(pick(&all), None);
        assert_eq!(pick(&[]), Some(next(1)));
    }

    proptest! {
        /// Backends whose weights grow every few picks have what their weights gave them, and those beside them stay even.
        #[test]
        fn weights_that_change_often_count_as_they_are(
            steady in 1..6_usize,
            warming in 1..3_usize,
            picks in 1..200_usize,
            every in 1..200_usize,
            worker in 0..WORKERS,
        ) {
            let balancer = RoundRobin::new(worker, WORKERS, 0);
            let mut rng = Rng::from_seed(7);
            let loads = Vec::new();
            let mut counts = vec![0_u32; steady + warming];
            let mut fair = vec![0.0; steady + warming];
            for step in 0..picks * 32 / every.min(picks) {
                let weights: Vec<u16> = (0..steady + warming).map(|backend| match backend < steady {
                    true => 250,
                    false => (25 + 7 * (step + 5 * backend) as u16).min(250),
                }).collect();
                let sets = EligibleSet::new(up(&weights));
                let eligible = Eligible::new(sets.fresh(), &[], &loads);
                let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
                for _ in 0..every.min(picks) {
                    counts[balancer.pick(&eligible, &facts(), &mut rng).unwrap().index()] += 1;
                    for (fair, &weight) in fair.iter_mut().zip(&weights) {
                        *fair += f64::from(weight) / total;
                    }
                }
            }
            for (&count, &fair) in counts.iter().zip(&fair) {
                // A few turns are decided by what the weights were before.
                prop_assert!((f64::from(count) - fair).abs() <= 10.0 + fair / 20.0, "{counts:?}, one {count} for {fair}");
            }
            let even = &counts[..steady];
            prop_assert!(even.iter().max().unwrap() - even.iter().min().unwrap() <= 1, "{counts:?}");
        }

        #[test]
        fn exact_over_any_period_and_smooth(
            weights in proptest::collection::vec(1..=256_u16, 1..12),
            worker in 0..WORKERS,
        ) {
            let period: usize = weights.iter().map(|&weight| weight as usize).sum();
            let picks = picks(&weights, period * 2 + 1, worker);
            for start in [0, 1, period / 3, period] {
                for (index, &weight) in weights.iter().enumerate() {
                    let window = &picks[start..start + period];
                    let count = window.iter().filter(|&&picked| picked as usize == index).count();
                    prop_assert_eq!(count, weight as usize);
                }
            }
            // Smooth: in any stretch a backend is never further from its share than a turn for each of the others.
            for (index, &weight) in weights.iter().enumerate() {
                let mut count = 0.0;
                let slack = weights.len() as f64 / 2.0 + 1.0;
                for (at, &picked) in picks.iter().enumerate() {
                    count += f64::from(u8::from(picked as usize == index));
                    let fair = (at + 1) as f64 * f64::from(weight) / period as f64;
                    prop_assert!((count - fair).abs() <= slack, "{count} for {fair} at {at}");
                }
            }
        }
    }
}
