//! The choice of a backend: persistence first, then the balancer.
//! It must cost a route that is not sticky nothing, and never chooses a backend that was tried.
//! The walk goes on in `l7/proxy.rs`, which takes a lease on the chosen backend.

use std::time::{Duration, Instant};

use super::balance::{AnyBalancer, BackendIndex, Balancer, Eligible, EligibleSet, Loads};
use super::facts::Facts;
use super::health::Health;
use super::persist::{
    AnyPersistence, Chosen, Home, Means, Persistence, Placed, Recall, Remembered, Stickiness,
    Sticky,
};
use super::placement;
use super::rebalance;
use super::rendezvous::Rendezvous;
use crate::config::model::{AdminState, OnFailure, Sessions};
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
    /// The route's stickiness.
    pub sticky: &'a Sticky,
    /// What the client's connection remembers.
    pub remembered: &'a mut Option<Remembered>,
    /// Where this client was sent last, if it shows nothing, and its home if it was told one: this request was on its way already.
    pub told: Option<(BackendIndex, Option<Home>)>,
    /// Finds where requests went that may be this client's; asked only for one without a home.
    pub companions: &'a dyn Fn() -> Option<BackendIndex>,
    /// Fills bytes from the system's CSPRNG.
    pub fill_secure: &'a mut dyn FnMut(&mut [u8]),
    /// Whether the request may still be held for its home.
    pub patient: bool,
    /// Whether a store may be asked for the request's session.
    pub asks: bool,
    /// Whether it has waited in vain for its home to have room.
    pub gives_up: bool,
    /// Whether its session turned out to be over: its client begins anew.
    pub anew: bool,
    /// How long the pool's sessions were watched; absent: for longer than one lives.
    pub watched: Option<Duration>,
    /// Whether one more client may move to even out; asked only for one that would.
    pub may_move: &'a dyn Fn() -> bool,
}

/// A chosen backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the request goes.
    pub backend: BackendIndex,
    /// On a sticky route: how that came about, and what to tell the client.
    pub sticky: Option<Chosen>,
}

/// Why no backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// No eligible one is left.
    NoBackend,
    /// The client's home cannot serve it, and the route wants no other to.
    HomeDown,
    /// The client's home cannot serve it, may be back soon, and the route wants the request held until then.
    HomeAway,
    /// A store may know the session's home.
    Ask,
    /// Every eligible one has all that it may have, or this one has, where the client must go.
    Full(Option<BackendIndex>),
}

/// Chooses a backend that is not in `tried`.
///
/// On a sticky route a client goes home while it can. While its home cannot serve, a client goes to its successor, the next in
/// its own order, on which every weir agrees, for a while or for good as the route says. Everyone else goes where the balancer says,
/// within the bounds of `placement.rs`.
///
/// # Errors
/// There is no backend to go to.
#[inline]
pub fn choose<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: Option<StickyView<'_>>,
    tried: &[BackendIndex],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> Result<Choice, Nowhere> {
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
) -> Result<BackendIndex, Nowhere> {
    let eligible = Eligible::new(pool.sets.fresh(), tried, pool.loads);
    pool.balancer
        .pick(&eligible, facts, rng)
        .ok_or_else(|| none_left(pool, tried))
}

/// Why a balancer found nobody.
#[cold]
pub(super) fn none_left<L: Loads>(pool: &PoolView<'_, L>, tried: &[BackendIndex]) -> Nowhere {
    match takers(pool, tried).any(|backend| pool.loads.is_full(backend)) {
        true => Nowhere::Full(None),
        false => Nowhere::NoBackend,
    }
}

/// What becomes of a client whose backend has all that it may have: where several know its session another one may serve it, at once
/// where stickiness is only a hint, and else when it has waited; in the memory of one server nobody else does.
#[cold]
fn instead_of<L: Loads>(
    pool: &PoolView<'_, L>,
    (sticky, gives_up): (&Sticky, bool),
    home: &Home,
    full: BackendIndex,
    tried: &[BackendIndex],
) -> Result<BackendIndex, Nowhere> {
    let waits = match sticky.sessions {
        Sessions::Local => true,
        Sessions::Replicated => !gives_up,
        Sessions::Shared => false,
    };
    if waits {
        return Err(Nowhere::Full(Some(full)));
    }
    let may =
        |backend| takers(pool, tried).any(|taker| taker == backend) && !pool.loads.is_full(backend);
    (pool.ring.first(home.key, may)).ok_or_else(|| none_left(pool, tried))
}

fn choose_sticky<L: Loads>(
    pool: &PoolView<'_, L>,
    view: StickyView<'_>,
    tried: &[BackendIndex],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> Result<Choice, Nowhere> {
    let (mode, patience) = (&view.sticky.mode, (view.sticky, view.gives_up));
    let recall = mode.recall(facts, pool.ring, view.remembered);
    let mut means = Means {
        ring: pool.ring,
        facts,
        fill_secure: view.fill_secure,
    };
    let stickiness = match (recall, view.told) {
        (Recall::Keep(home), _) if view.anew => {
            return begin_anew(pool, mode, &home, tried, &mut means);
        }
        (Recall::Keep(home), _) | (Recall::New, Some((_, Some(home)))) => {
            let home = placement::warm_home(pool, view.sticky, home);
            let waits = view.patient.then_some(facts.now);
            let place = keep(pool, view.sticky, &home, tried, waits)?;
            let place = match place.relief(pool, view.sticky, facts, tried) {
                Some(other) if (view.may_move)() => other,
                _ => place,
            };
            let placed = mode.place(&home, place.backend, place.for_good, &mut means);
            // Who has waited for a home is told where he is, lest he wait for every request.
            let is_untold =
                place.in_passing && !matches!(view.sticky.on_failure, OnFailure::Wait(_));
            let placed = Placed {
                only_with_session: placed.only_with_session || is_untold,
                ..placed
            };
            let mut elsewhere =
                placement::elsewhere(pool, view.sticky, &home, place.backend, tried);
            let chosen = elsewhere.unwrap_or(place.backend);
            if pool.loads.is_full(chosen) {
                elsewhere = Some(instead_of(pool, patience, &home, chosen, tried)?);
            }
            let (backend, stickiness) = match elsewhere {
                Some(backend) => (backend, Stickiness::Moved),
                None => (place.backend, place.stickiness),
            };
            let may_leave = is_watched(&home, view.watched, facts)
                && may_leave(pool, view.sticky, backend, tried);
            let choice = Choice::new(backend, stickiness, placed, Some((&home, place.for_good)));
            return Ok(choice.leaving(may_leave).in_passing(place.in_passing));
        }
        (Recall::New, _) => Stickiness::New,
        (Recall::Expired, _) => Stickiness::Expired,
        (Recall::Forged, _) => Stickiness::Forged,
        (Recall::Ask, _) if view.asks => return Err(Nowhere::Ask),
        (Recall::Ask, _) => Stickiness::New,
    };
    let companions = placement::Companions {
        surely: view.told.map(|(backend, _)| backend),
        maybe: view.companions,
    };
    let backend = placement::place(pool, view.sticky, companions, tried, facts, rng)?;
    // The page before it gave the client its home: what comes without that must not put another in its place.
    let is_part_of_page = facts
        .request
        .is_some_and(|request| request.is_part_of_page());
    let placed = Placed {
        tell: mode.admit(backend, &mut means),
        only_with_session: is_part_of_page,
    };
    Ok(Choice::new(backend, stickiness, placed, None))
}

/// Where a client with a home goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// There.
    pub backend: BackendIndex,
    /// How that is counted.
    pub stickiness: Stickiness,
    /// Whether it is the home from now on.
    pub for_good: bool,
    /// See [`Chosen::in_passing`].
    pub in_passing: bool,
}

impl Place {
    /// This place, or the one that the load makes of it.
    fn foreseen<L: Loads>(
        self,
        pool: &PoolView<'_, L>,
        sticky: &Sticky,
        home: &Home,
        facts: &Facts<'_>,
    ) -> Place {
        let place = self.relief(pool, sticky, facts, &[]).unwrap_or(self);
        match placement::elsewhere(pool, sticky, home, place.backend, &[]) {
            Some(backend) => Place {
                backend,
                stickiness: Stickiness::Moved,
                for_good: false,
                ..place
            },
            None => place,
        }
    }

    /// The place that a client at home moves to for good, to even out.
    fn relief<L: Loads>(
        &self,
        pool: &PoolView<'_, L>,
        sticky: &Sticky,
        facts: &Facts<'_>,
        tried: &[BackendIndex],
    ) -> Option<Place> {
        if sticky.rebalance.is_none() || self.stickiness != Stickiness::Kept {
            return None;
        }
        let backend = rebalance::relief(pool, sticky, facts.session, self.backend, tried)?;
        Some(Place {
            backend,
            stickiness: Stickiness::Moved,
            for_good: true,
            in_passing: false,
        })
    }
}

/// What [`choose`] would do for the first try of a request on a sticky route, as far as it follows from the request: what the
/// client is known by, and where one with a home goes. `None` is for the balancer to choose.
pub fn foresee<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    facts: &Facts<'_>,
) -> (Recall, Option<Result<Place, Nowhere>>) {
    let mut recall = sticky.mode.recall(facts, pool.ring, &mut None);
    let place = match &mut recall {
        Recall::Keep(home) => {
            *home = placement::warm_home(pool, sticky, *home);
            let place = keep(pool, sticky, home, &[], Some(facts.now));
            Some(place.map(|place| place.foreseen(pool, sticky, home, facts)))
        }
        _ => None,
    };
    (recall, place)
}

/// Where a client with a home goes.
///
/// Sessions in the memory of one server hold a client at a home that drains; all others are handed over at once, as long as
/// there is someone to take them. `waits` is the time of the request if it may be held.
fn keep<L>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    home: &Home,
    tried: &[BackendIndex],
    waits: Option<Instant>,
) -> Result<Place, Nowhere> {
    let is_untried = |backend: &BackendIndex| !tried.contains(backend);
    let hands_over =
        sticky.sessions != Sessions::Local && pool.sets.fresh().list().iter().any(is_untried);
    let allowed = match hands_over {
        true => pool.sets.fresh(),
        false => pool.sets.kept(),
    };
    let may_serve = |backend: BackendIndex| allowed.contains(backend) && is_untried(&backend);
    let refuge = home.refuge.filter(|refuge| may_serve(*refuge));
    match (home.backend.filter(|own| may_serve(*own)), refuge) {
        (_, Some(backend)) if home.settled => Ok(Place {
            backend,
            stickiness: Stickiness::Moved,
            for_good: true,
            in_passing: false,
        }),
        (Some(backend), _) => Ok(Place {
            backend,
            stickiness: match home.refuge {
                Some(_) => Stickiness::Returned,
                None => Stickiness::Kept,
            },
            for_good: false,
            in_passing: false,
        }),
        // Who found a refuge has waited before.
        (None, None) if waits.is_some_and(|now| awaits(pool, sticky, home, tried, now)) => {
            Err(Nowhere::HomeAway)
        }
        (None, refuge) => {
            let successor = || pool.ring.first(home.key, may_serve);
            leave(pool, sticky, home, tried, refuge.or_else(successor))
        }
    }
}

/// Whether a client need not stay at a backend that drains: its session lives there, but if it turns out to be over, another one
/// can take the client and tell it so.
fn may_leave<L>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    backend: BackendIndex,
    tried: &[BackendIndex],
) -> bool {
    let own = pool.sets.member(backend);
    own.is_some_and(|own| own.admin == AdminState::Drain)
        && sticky.sessions == Sessions::Local
        && !sticky.mode.is_by_key()
        && takers(pool, tried).any(|other| other != backend)
}

/// Whether it would be known if the client's session had been accepted: it came first when its pool's sessions were watched already.
/// Otherwise what is not known may live, as after a restart.
fn is_watched(home: &Home, watched: Option<Duration>, facts: &Facts<'_>) -> bool {
    let (Some(watched), [Some(issued), ..]) = (watched, home.times()) else {
        return true;
    };
    let since = (facts.wall_millis / 1000).saturating_sub(u64::from(issued));
    // Both are cut to whole seconds.
    since <= watched.as_secs() + 1
}

/// The backends that take new clients and were not tried.
fn takers<'a, L>(
    pool: &PoolView<'a, L>,
    tried: &'a [BackendIndex],
) -> impl Iterator<Item = BackendIndex> + use<'a, L> {
    let fresh = pool.sets.fresh().list().iter().copied();
    fresh.filter(move |backend| !tried.contains(backend))
}

/// A client whose session is over begins anew where its session was accepted last, if that was elsewhere, else at its successor, so
/// that all of its requests at the time go to one.
fn begin_anew<L: Loads>(
    pool: &PoolView<'_, L>,
    mode: &AnyPersistence,
    home: &Home,
    tried: &[BackendIndex],
    means: &mut Means<'_>,
) -> Result<Choice, Nowhere> {
    let takes = |backend: BackendIndex| takers(pool, tried).any(|taker| taker == backend);
    let session = means.facts.session;
    let known = session.and_then(|session| session.known?.backend);
    let backend = known
        .filter(|backend| takes(*backend))
        .or_else(|| pool.ring.first(home.key, takes))
        .ok_or(Nowhere::NoBackend)?;
    if pool.loads.is_full(backend) {
        return Err(Nowhere::Full(Some(backend)));
    }
    let placed = Placed {
        tell: mode.admit(backend, means),
        only_with_session: false,
    };
    let choice = Choice::new(backend, Stickiness::Moved, placed, Some((home, true)));
    Ok(choice.anew())
}

/// Whether a request is held for its home: one that should be there, that failed less than the route's wait ago, and that did not
/// fail this very request. What an operator took out of service is not waited for.
fn awaits<L>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    home: &Home,
    tried: &[BackendIndex],
    now: Instant,
) -> bool {
    let OnFailure::Wait(wait) = sticky.on_failure else {
        return false;
    };
    let own = home.backend.filter(|own| !tried.contains(own));
    own.and_then(|own| pool.sets.member(own))
        .is_some_and(|own| {
            let is_wanted = match own.admin {
                AdminState::Ready => true,
                AdminState::Drain => sticky.sessions == Sessions::Local,
                AdminState::Maint => false,
            };
            let is_recent = |since| now.saturating_duration_since(since) < wait;
            is_wanted && own.since.is_some_and(is_recent)
        })
}

/// Where a client goes whose home does not take it. It is *lost* when what its session held was in the memory of a server that
/// is down or gone, and *moved* otherwise: in maintenance, handed over, not yet judged, just now out of reach, or lost before.
fn leave<L>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    home: &Home,
    tried: &[BackendIndex],
    to: Option<BackendIndex>,
) -> Result<Place, Nowhere> {
    let is_able = |own: BackendIndex| pool.sets.kept().contains(own) && !tried.contains(&own);
    let is_failure = home.backend.is_some_and(|own| !is_able(own));
    if is_failure && sticky.on_failure == OnFailure::Error {
        return Err(Nowhere::HomeDown);
    }
    let backend = to.ok_or(Nowhere::NoBackend)?;
    // Until its first check a home that exists has not failed for good.
    let health = home.backend.map(|own| pool.sets.health(own));
    let is_gone = health.is_none_or(|health| health == Health::Down);
    let is_permanent = sticky.on_failure == OnFailure::Permanent && health != Some(Health::Unknown);
    let is_local = sticky.sessions == Sessions::Local;
    // Out of reach just now: what became of its sessions is not known yet.
    let is_missed = home
        .backend
        .is_some_and(|own| pool.sets.kept().contains(own) && tried.contains(&own));
    let is_given_up = is_gone || (is_missed && is_permanent);
    let is_lost = is_given_up && is_local && home.refuge != Some(backend);
    Ok(Place {
        backend,
        stickiness: match is_lost {
            true => Stickiness::Lost,
            false => Stickiness::Moved,
        },
        for_good: !is_failure || is_permanent,
        in_passing: is_missed && is_local && !is_permanent,
    })
}

impl Choice {
    /// Whether it was made for a client of a sticky route that has no home yet.
    pub fn is_new(&self) -> bool {
        self.sticky.is_some_and(|chosen| chosen.stickiness.is_new())
    }

    fn new(
        backend: BackendIndex,
        stickiness: Stickiness,
        placed: Placed,
        kept: Option<(&Home, bool)>,
    ) -> Choice {
        let home = kept.map(|(home, _)| home);
        Choice {
            backend,
            sticky: Some(Chosen {
                stickiness,
                tell: placed.tell,
                only_with_session: placed.only_with_session,
                for_good: kept.is_some_and(|(_, for_good)| for_good),
                home: home.and_then(|home| home.backend),
                in_passing: false,
                key: home.map(|home| home.key.to_ne_bytes()),
                may_leave: false,
            }),
        }
    }

    /// The choice for a client that need not stay if its session turns out to be over.
    fn leaving(mut self, may_leave: bool) -> Choice {
        if let Some(chosen) = &mut self.sticky {
            chosen.may_leave = may_leave;
        }
        self
    }

    /// The choice for a client that leaves its home for this request alone.
    fn in_passing(mut self, in_passing: bool) -> Choice {
        if let Some(chosen) = &mut self.sticky {
            chosen.in_passing = in_passing;
        }
        self
    }

    /// The choice for a client that is known by something else from now on.
    fn anew(mut self) -> Choice {
        if let Some(chosen) = &mut self.sticky {
            chosen.key = None;
        }
        self
    }
}

#[cfg(test)]
mod tests;
