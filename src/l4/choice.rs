//! The choice of a backend for bytes: persistence first, then the balancer, as for requests.
//! It decides nothing that `policy/` does not decide.
//! The walk goes back to `connection.rs`.

use crate::policy::balance::BackendIndex;
use crate::policy::choose::{Choice, Nowhere, PoolView, StickyView, choose};
use crate::policy::facts::Facts;
use crate::rng;
use crate::state::snapshot::Route;
use crate::upstream::generation::{Generation, PoolLoads};
use crate::upstream::local::Local;

/// Chooses a backend of the route's pool that is not in `tried`; `gives_up` is whether the client has waited in vain for its own.
///
/// # Errors
/// There is none to go to.
pub(super) fn choose_backend(
    local: &Local,
    generation: &Generation,
    route: &Route,
    facts: &Facts<'_>,
    tried: &[BackendIndex],
    gives_up: bool,
) -> Result<Choice, Nowhere> {
    let pool = &generation.snapshot.pools[route.pool];
    let own = generation.pool(route.pool);
    let (sets, view) = (own.eligible(pool), Some(own));
    let loads = PoolLoads { pool, view };
    let view = PoolView {
        balancer: &own.balancer,
        ring: &pool.ring,
        sets: &sets,
        loads: &loads,
    };
    let mut fill_secure = rng::fill_secure;
    // Who is kept by address needs none of what requests are kept by.
    let (mut remembered, companions, may_move) = (None, || None, || false);
    let sticky = route.sticky.as_ref().map(|sticky| StickyView {
        sticky,
        remembered: &mut remembered,
        told: None,
        companions: &companions,
        fill_secure: &mut fill_secure,
        patient: false,
        asks: false,
        gives_up,
        anew: false,
        watched: None,
        may_move: &may_move,
    });
    choose(&view, sticky, tried, facts, &mut local.rng.borrow_mut())
}
