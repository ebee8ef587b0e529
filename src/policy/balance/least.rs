//! What the balancers that look for a least backend share: the search, its ties and its bounds.
//! It knows no measure of its own: what is compared is an argument.
//! The walk goes on in `least_connections.rs` and `least_sessions.rs`.

use std::cmp::Ordering;

use super::{BackendIndex, Eligible, Loads};
use crate::rng::Rng;

/// Up to so many backends the choice is exact; one bit of a word stands for each.
const EXACT: usize = 64;
/// Above that, the best of so many draws: their figures lie in that many cache lines that other workers write.
const DRAWS: usize = 8;

/// How busy a backend would be. It is compared for its weight, `then` when `first` is equal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burden {
    /// What counts.
    pub first: u64,
    /// What decides when that is equal.
    pub then: u64,
}

/// The backend with the least burden for its weight, ties broken at random.
///
/// Exact up to 64 backends, the best of 8 random draws (in proportion to weight) above.
#[inline]
pub(super) fn least<L: Loads>(
    eligible: &Eligible<'_, L>,
    rng: &mut Rng,
    burden: impl Fn(BackendIndex) -> Burden,
) -> Option<BackendIndex> {
    let load = |backend, weight: u16| Load {
        burden: burden(backend),
        weight: u64::from(weight),
    };
    if eligible.subset().list().len() <= EXACT {
        least_of_all(eligible, rng, load)
    } else {
        least_of_draws(eligible, rng, load)
    }
}

/// A burden as a fraction.
#[derive(Clone, Copy)]
struct Load {
    burden: Burden,
    weight: u64,
}

impl Load {
    /// Beyond what any backend has.
    const MOST: Load = Load {
        burden: Burden {
            first: u64::MAX >> 16,
            then: 0,
        },
        weight: 1,
    };

    #[inline]
    fn compare(self, other: Load) -> Ordering {
        let (own, others) = (self.burden, other.burden);
        (own.first * other.weight)
            .cmp(&(others.first * self.weight))
            .then_with(|| (own.then * other.weight).cmp(&(others.then * self.weight)))
    }
}

fn least_of_all<L: Loads>(
    eligible: &Eligible<'_, L>,
    rng: &mut Rng,
    load: impl Fn(BackendIndex, u16) -> Load,
) -> Option<BackendIndex> {
    let mut least = Load::MOST;
    let mut ties = 0_u64;
    let subset = eligible.subset();
    for (position, (&backend, &weight)) in subset.list().iter().zip(subset.weights()).enumerate() {
        if eligible.is_out(backend) {
            continue;
        }
        let load = load(backend, weight);
        match load.compare(least) {
            Ordering::Less => {
                least = load;
                ties = 1 << position;
            }
            Ordering::Equal => ties |= 1 << position,
            Ordering::Greater => {}
        }
    }
    if ties.count_ones() > 1 {
        for _ in 0..rng.below(ties.count_ones()) {
            ties &= ties - 1;
        }
    }
    subset.list().get(ties.trailing_zeros() as usize).copied()
}

fn least_of_draws<L: Loads>(
    eligible: &Eligible<'_, L>,
    rng: &mut Rng,
    load: impl Fn(BackendIndex, u16) -> Load,
) -> Option<BackendIndex> {
    let (mut best, weight) = eligible.draw(None, rng)?;
    let mut least = load(best, weight);
    for _ in 1..DRAWS {
        let (backend, weight) = eligible.draw(None, rng)?;
        let load = load(backend, weight);
        if load.compare(least).is_lt() {
            (best, least) = (backend, load);
        }
    }
    Some(best)
}
