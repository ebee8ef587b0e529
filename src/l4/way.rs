//! The way of a connection among those of its route: its own pool, its canary's, or one that takes over.
//! It decides nothing that `policy/canary.rs` does not.
//! The walk goes back to `connection.rs`.

use crate::policy::canary::{Side, is_canary};
use crate::policy::facts::Facts;
use crate::state::snapshot::Snapshot;
use crate::upstream::local::Local;

/// The way that a connection takes on the route of this ordinal.
pub(super) fn way(local: &Local, snapshot: &Snapshot, ordinal: usize, facts: &Facts<'_>) -> usize {
    let Some(split) = &snapshot.routes[ordinal].canary else {
        return ordinal;
    };
    let side = |way: usize| {
        let route = &snapshot.routes[way];
        Some(Side {
            sticky: route.sticky.as_ref()?,
            ring: &snapshot.pools[route.pool].ring,
            facts,
        })
    };
    let sides = side(ordinal).zip(side(split.way));
    let known = sides.and_then(|(own, canary)| is_canary(split.share, &own, &canary));
    let by_chance = || split.share.takes(local.rng.borrow_mut().next_u64() as u32);
    match known.unwrap_or_else(by_chance) {
        true => split.way,
        false => ordinal,
    }
}
