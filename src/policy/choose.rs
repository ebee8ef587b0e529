//! The choice of a backend: persistence first, then the balancer.
//! It must cost a route that is not sticky nothing, and never chooses a backend that was tried.
//! The walk goes on in `l7/proxy.rs` and `l4/connection.rs`, which take a lease on the chosen backend.

use super::balance::{AnyBalancer, BackendIndex, Balancer, Eligible, EligibleSet, Loads};
use super::facts::Facts;
use super::health::Health;
use super::persist::{
    AnyPersistence, Chosen, Home, Persistence, Recall, Remembered, Stickiness, Token,
};
use super::rendezvous::Rendezvous;
use crate::rng::Rng;

/// A pool as a decision sees it.
#[derive(Debug)]
pub struct PoolView<'a, L> {
    /// The worker's balancer of the pool.
    pub balancer: &'a AnyBalancer,
    /// The backends ranked for every client.
    pub ring: &'a Rendezvous,
    /// The worker's view of who is eligible, of the present epoch.
    pub sets: &'a EligibleSet,
    /// How busy the backends are.
    pub loads: &'a L,
}

/// A sticky route as a decision sees it.
pub struct StickyView<'a> {
    /// The route's mode.
    pub persistence: &'a AnyPersistence,
    /// What the client's connection remembers.
    pub remembered: &'a mut Option<Remembered>,
    /// Fills bytes from the system's CSPRNG.
    pub fill_secure: &'a mut dyn FnMut(&mut [u8]),
}

/// A chosen backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the request goes.
    pub backend: BackendIndex,
    /// On a sticky route: how that came about, and what to tell the client.
    pub sticky: Option<Chosen>,
}

/// Chooses a backend that is not in `tried`; `None` when no eligible one is left.
///
/// On a sticky route a client goes home while its home is among the *kept* and was not tried, else to the next of the kept in
/// its own order, and home again as soon as that is possible, since its token stays. Everyone else goes where the balancer says.
#[inline]
pub fn choose<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: Option<StickyView<'_>>,
    tried: &[BackendIndex],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> Option<Choice> {
    match sticky {
        Some(sticky) => choose_sticky(pool, sticky, tried, facts, rng),
        None => balance(pool, tried, facts, rng).map(|backend| Choice {
            backend,
            sticky: None,
        }),
    }
}

#[inline]
fn balance<L: Loads>(
    pool: &PoolView<'_, L>,
    tried: &[BackendIndex],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> Option<BackendIndex> {
    let eligible = Eligible::new(pool.sets.fresh(), tried, pool.loads);
    pool.balancer.pick(&eligible, facts, rng)
}

fn choose_sticky<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: StickyView<'_>,
    tried: &[BackendIndex],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> Option<Choice> {
    let persistence = sticky.persistence;
    let stickiness = match persistence.recall(facts, pool.ring, sticky.remembered) {
        Recall::Keep(home) => return keep(pool, home, tried),
        Recall::New => Stickiness::New,
        Recall::Forged => Stickiness::Forged,
    };
    let backend = balance(pool, tried, facts, rng)?;
    let token = persistence.admit(backend, pool.ring, sticky.fill_secure);
    Some(Choice::new(backend, stickiness, token))
}

/// Where a client with a home goes. Away from it, it is *lost* once its home is down, for what a `local` session held was in that
/// server's memory, and *moved* otherwise: in maintenance, not yet judged, or just now out of reach.
fn keep<L>(pool: &PoolView<'_, L>, home: Home, tried: &[BackendIndex]) -> Option<Choice> {
    let allowed = |backend| pool.sets.kept().contains(backend) && !tried.contains(&backend);
    if allowed(home.backend) {
        return Some(Choice::new(home.backend, Stickiness::Kept, None));
    }
    let successor = pool.ring.first(home.key, allowed)?;
    let stickiness = match pool.sets.health(home.backend) {
        Health::Down => Stickiness::Lost,
        Health::Up | Health::Unknown => Stickiness::Moved,
    };
    Some(Choice::new(successor, stickiness, None))
}

impl Choice {
    fn new(backend: BackendIndex, stickiness: Stickiness, token: Option<Token>) -> Choice {
        Choice {
            backend,
            sticky: Some(Chosen { stickiness, token }),
        }
    }
}
