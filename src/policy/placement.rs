//! Placement: where a client goes that has no home yet, and when a client that has one is served elsewhere to spread the load.
//! It never moves a client whose session lives in the memory of servers; it keeps nothing and counts nothing itself.
//! The walk goes on in `balance/`, which it asks first, and back in `choose.rs`.

use super::balance::{BackendIndex, Balancer, Eligible, Loads, Subset};
use super::choose::{Nowhere, PoolView};
use super::facts::Facts;
use super::persist::{Home, Sticky};
use super::rendezvous;
use crate::config::model::{OnFailure, Sessions};
use crate::rng::Rng;

/// How often the balancer is asked for a client before the emptiest backend takes it.
const ASKS: usize = 8;

/// With fewer requests in flight a home is never too busy for its client.
///
/// The bound follows the mean, and small numbers stray far from their mean by chance alone: with two requests in a pool of three, one
/// backend is at twice the mean and above. A browser has up to six connections to a host, so below eight, one client could be
/// what makes its own home busy; its requests would be strewn over servers that do not have its session at hand, for
/// nothing. From eight on somebody waits, or may: most application servers have that many threads, or only one.
const MIN_BUSY: u32 = 8;

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
struct Room {
    /// `(1 + factor) * (all + 1)`, in thousandths.
    most: u128,
    /// The sum of the weights, times a thousand.
    weights: u128,
}

impl Room {
    fn new(subset: &Subset, bound: Bound, of: impl Fn(BackendIndex) -> u32) -> Room {
        let all: u64 = subset
            .list()
            .iter()
            .map(|&backend| u64::from(of(backend)))
            .sum();
        Room {
            most: u128::from(all + 1) * u128::from(1000 + u64::from(bound.0)),
            weights: u128::from(subset.total_weight()) * 1000,
        }
    }

    /// Whether a backend that has so much may take more. (A whole number is below a bound rounded up when it is below the bound.)
    fn has(&self, own: u32, weight: u16) -> bool {
        u128::from(own) * self.weights < self.most * u128::from(weight)
    }
}

/// Chooses a backend for a client that has none: where the balancer says, unless that backend has its part of the live sessions, and more than
/// `balance_factor` allows. `with` is where others went that may be the same client.
///
/// # Errors
/// There is no backend to go to.
pub(super) fn place<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    with: Option<BackendIndex>,
    tried: &[BackendIndex],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> Result<BackendIndex, Nowhere> {
    let fresh = pool.sets.fresh();
    let eligible = Eligible::new(fresh, tried, pool.loads);
    let sessions = |backend| pool.loads.sessions(backend);
    let room = Room::new(fresh, sticky.bound, sessions);
    let has_room = |backend: BackendIndex| room.has(sessions(backend), fresh.weight(backend));
    if let Some(backend) = with.filter(|with| eligible.contains(*with) && has_room(*with)) {
        return Ok(backend);
    }
    let mut picked = pool
        .balancer
        .pick(&eligible, facts, rng)
        .ok_or(Nowhere::NoBackend)?;
    if has_room(picked) {
        return Ok(picked);
    }
    let mut out = tried.to_vec();
    for _ in 1..ASKS {
        out.push(picked);
        let rest = Eligible::new(fresh, &out, pool.loads);
        match pool.balancer.pick(&rest, facts, rng) {
            Some(next) if has_room(next) => return Ok(next),
            Some(next) => picked = next,
            None => break,
        }
    }
    emptiest(&eligible, has_room).ok_or(Nowhere::NoBackend)
}

/// The backend with the fewest live sessions for its weight among those that have room, or among all if those with room were tried.
fn emptiest<L: Loads>(
    eligible: &Eligible<'_, L>,
    has_room: impl Fn(BackendIndex) -> bool,
) -> Option<BackendIndex> {
    let rank = |&(backend, weight): &(BackendIndex, u16)| {
        let next = u64::from(eligible.sessions(backend)) + 1;
        (!has_room(backend), next * (1 << 24) / u64::from(weight))
    };
    eligible.iter().min_by_key(rank).map(|(backend, _)| backend)
}

/// Where a client is served this once instead of at `own`, where it belongs: with sessions in a store apart stickiness is only a hint,
/// and a backend that has its part of all that is in flight, and more than `balance_factor` allows, is left alone. The next in the
/// client's own order takes the request, so that what strays strays to the same place. Its home stays what it is.
pub(super) fn elsewhere<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    home: &Home,
    own: BackendIndex,
    tried: &[BackendIndex],
) -> Option<BackendIndex> {
    let fresh = pool.sets.fresh();
    let in_flight = |backend| pool.loads.in_flight(backend);
    if sticky.sessions != Sessions::Shared || in_flight(own) < MIN_BUSY || !fresh.contains(own) {
        return None;
    }
    let room = Room::new(fresh, sticky.bound, in_flight);
    let has_room = |backend| room.has(in_flight(backend), fresh.weight(backend));
    if has_room(own) {
        return None;
    }
    pool.ring.first(home.key, |backend| {
        fresh.contains(backend) && !tried.contains(&backend) && has_room(backend)
    })
}

/// The home of a client that is placed by its key alone, while a backend warms up: those that the backend does not take yet
/// have the home that they would have without it. So clients come one by one as its share grows, and each moves once.
///
/// A route that wants no other home than the one (`on_failure = "error"`) gets it at once.
pub(super) fn warm_home<L>(pool: &PoolView<'_, L>, sticky: &Sticky, mut home: Home) -> Home {
    let by_key = sticky.mode.is_by_key() && sticky.on_failure != OnFailure::Error;
    if !by_key || !pool.sets.is_any_warming() {
        return home;
    }
    let point = (rendezvous::key(&home.key.to_be_bytes()) >> 32) as u32;
    let takes = |backend| pool.sets.takes(backend, point);
    home.backend = pool.ring.first(home.key, takes);
    home
}
