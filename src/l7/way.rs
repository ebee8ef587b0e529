//! The way of a request among those of its route: its own pool, its canary's, or one that takes over.
//! It decides nothing that `policy/canary.rs` does not, and decides it once for all attempts of a request.
//! The walk goes back to `plan.rs`.

use super::plan::Attempts;
use super::session::look_up;
use crate::policy::canary::{Side, is_canary};
use crate::policy::facts::Facts;
use crate::state::snapshot::{Route, Snapshot, Split};
use crate::upstream::local::Local;

impl Attempts {
    /// The way that the request takes on the route of this ordinal.
    #[inline]
    pub(super) fn way<'a>(
        &mut self,
        local: &Local,
        snapshot: &'a Snapshot,
        ordinal: usize,
        facts: &Facts<'_>,
    ) -> (usize, &'a Route) {
        let way = match (
            self.way.map(|way| way as usize),
            &snapshot.routes[ordinal].canary,
        ) {
            (Some(way), _) => way,
            (None, None) => ordinal,
            (None, Some(split)) => {
                let way = side(local, snapshot, ordinal, split, facts);
                self.way = Some(way as u32);
                way
            }
        };
        (way, &snapshot.routes[way])
    }

    /// Takes the way that takes over, for a request that found nobody on the one it took; whether there is one. A request that was at a
    /// backend already stays where it was.
    pub(super) fn fall_back(&mut self, fallback: Option<usize>) -> bool {
        let fallback = fallback.filter(|_| self.is_untried());
        if fallback.is_some() {
            self.way = fallback.map(|way| way as u32);
            self.leave_queue();
        }
        fallback.is_some()
    }
}

#[cold]
fn side(
    local: &Local,
    snapshot: &Snapshot,
    ordinal: usize,
    split: &Split,
    facts: &Facts<'_>,
) -> usize {
    let routes = [ordinal, split.way].map(|way| &snapshot.routes[way]);
    let known = routes.map(|route| Facts {
        session: look_up(snapshot, route, facts),
        ..*facts
    });
    let side = |at: usize| {
        Some(Side {
            sticky: routes[at].sticky.as_ref()?,
            ring: &snapshot.pools[routes[at].pool].ring,
            facts: &known[at],
        })
    };
    let sides = side(0).zip(side(1));
    let known = sides.and_then(|(own, canary)| is_canary(split.share, &own, &canary));
    let by_chance = || split.share.takes(local.rng.borrow_mut().next_u64() as u32);
    match known.unwrap_or_else(by_chance) {
        true => split.way,
        false => ordinal,
    }
}
