//! Bounded loads: how much more than its part of the whole a backend may have, and who has room below that.
//! It counts nothing itself and knows no unit: what is in flight and what is a live session are bounded alike.
//! The walk goes back to `hash.rs` and `policy/placement.rs`, which ask it.

use super::{BackendIndex, Subset};

/// With fewer requests in flight a backend is never too busy for a client that belongs there.
///
/// The bound follows the mean, and small numbers stray far from their mean by chance alone: with two requests in a pool of three, one
/// backend is at twice the mean and above. A browser has up to six connections to a host, so below eight, one client could be
/// what makes its own home busy; its requests would be strewn over servers that do not have its session at hand, for
/// nothing. From eight on somebody waits, or may: most application servers have that many threads, or only one.
pub const MIN_BUSY: u32 = 8;

/// How far above its part of the whole a backend may be: `balance_factor`, in thousandths, so that nothing is lost to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound(u32);

impl Bound {
    /// Takes the factor, at least 0; what is behind the third decimal does not count.
    pub fn new(factor: f64) -> Bound {
        Bound((factor * 1000.0).round() as u32)
    }
}

/// Who has room: a backend that is below `(1 + factor) * (all + 1) * weight / weights`, where `all + 1` counts what is to come.
///
/// At least one backend always has room, and where there is nothing yet everyone has.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    all: u64,
    /// The sum of the weights, times a thousand.
    weights: u128,
    /// In thousandths.
    factor: u32,
}

impl Room {
    /// Sums up what the backends of `subset` have.
    pub fn new(subset: &Subset, bound: Bound, of: impl Fn(BackendIndex) -> u32) -> Room {
        let all: u64 = subset
            .list()
            .iter()
            .map(|&backend| u64::from(of(backend)))
            .sum();
        Room {
            all,
            weights: u128::from(subset.total_weight()) * 1000,
            factor: 1000 + bound.0,
        }
    }

    /// Whether a backend that has so much may take more. (A whole number is below a bound rounded up when it is below the bound.)
    pub fn has(&self, own: u32, weight: u16) -> bool {
        let most = u128::from(self.all + 1) * u128::from(self.factor);
        u128::from(own) * self.weights < most * u128::from(weight)
    }

    /// Whether there is room for one that is counted there already.
    pub fn holds(&self, own: u32, weight: u16) -> bool {
        self.without_one().has(own.saturating_sub(1), weight)
    }

    /// The room without one that is counted and about to move.
    pub fn without_one(self) -> Room {
        Room {
            all: self.all.saturating_sub(1),
            ..self
        }
    }
}
