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
        .ok_or(Nowhere::NoBackend)
}

fn choose_sticky<L: Loads>(
    pool: &PoolView<'_, L>,
    view: StickyView<'_>,
    tried: &[BackendIndex],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> Result<Choice, Nowhere> {
    let mode = &view.sticky.mode;
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
            let elsewhere = placement::elsewhere(pool, view.sticky, &home, place.backend, tried);
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
fn begin_anew<L>(
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{AdminState, BalancerKind, Cookie, SameSite, Secure};
    use crate::http::Sample;
    use crate::http::cookie::Given;
    use crate::http::edits::Edits;
    use crate::policy::balance::Member;
    use crate::policy::balance::facts;
    use crate::policy::facts::RequestFacts;
    use crate::policy::persist::token::Secrets;
    use crate::policy::persist::{CookieHash, Insert, InsertTimes};
    use crate::policy::placement::Bound;
    use crate::rng::Rng;
    use AdminState::{Drain, Maint, Ready};
    use Health::{Down, Unknown, Up};

    const ALL_UP: [(AdminState, Health); 4] = [(Ready, Up); 4];

    /// A pool of four, all asked through one sticky route.
    struct Pool {
        balancer: AnyBalancer,
        ring: Rendezvous,
        sets: EligibleSet,
        loads: Vec<u32>,
        sticky: Sticky,
        rng: Rng,
        remembered: Option<Remembered>,
        /// Wall time in seconds.
        now: u64,
        /// Monotonic time of the start.
        began: Instant,
        /// Since when every state holds.
        since: Option<Instant>,
        patient: bool,
        anew: bool,
        watched: Option<Duration>,
    }

    impl Pool {
        fn new(weights: [u16; 4]) -> Pool {
            Pool::keeping(weights, Sessions::Local, OnFailure::Temporary, false)
        }

        fn keeping(
            weights: [u16; 4],
            sessions: Sessions,
            on_failure: OnFailure,
            by_insert: bool,
        ) -> Pool {
            let cookie = Cookie {
                name: "w".to_owned(),
                path: "/".to_owned(),
                domain: None,
                same_site: SameSite::Lax,
                http_only: true,
                secure: Secure::Auto,
                max_age: None,
            };
            let secrets = Secrets::parse(&Secrets::new_file(|secret| secret.fill(1))).unwrap();
            let names = ["a", "b", "c", "d"];
            let times = InsertTimes {
                idle: 1800,
                absolute: None,
                rehome_after: 600,
            };
            let mode = match by_insert {
                true => AnyPersistence::Insert(Insert::new(&cookie, &secrets, "p", names, times)),
                false => AnyPersistence::CookieHash(CookieHash::new(&cookie, &secrets)),
            };
            Pool {
                balancer: AnyBalancer::new(BalancerKind::RoundRobin, 0, 1, 0),
                ring: Rendezvous::new(names.into_iter().zip(weights)),
                sets: EligibleSet::default(),
                loads: vec![0; 4],
                sticky: Sticky {
                    mode,
                    sessions,
                    on_failure,
                    bound: Bound::new(0.25),
                    first_flight: false,
                    rebalance: None,
                    session_cookie: "JSESSIONID".into(),
                },
                rng: Rng::from_seed(1),
                remembered: None,
                now: 1_700_000_000,
                began: facts().now,
                since: None,
                patient: true,
                anew: false,
                watched: None,
            }
            .with(ALL_UP)
        }

        fn with(mut self, states: [(AdminState, Health); 4]) -> Pool {
            self.set(states);
            self
        }

        fn set(&mut self, states: [(AdminState, Health); 4]) {
            self.sets = EligibleSet::new(states.into_iter().enumerate().map(
                |(index, (admin, health))| Member {
                    weight: index as u16 + 1,
                    share: 1,
                    admin,
                    health,
                    since: self.since,
                },
            ));
        }

        fn ask(&mut self, token: Option<&str>, tried: &[u16]) -> Option<Choice> {
            self.try_ask(token, tried).ok()
        }

        fn try_ask(&mut self, token: Option<&str>, tried: &[u16]) -> Result<Choice, Nowhere> {
            let shown = token.map_or("x=y".to_owned(), |token| format!("w={token}"));
            let sample = Sample::new("GET / HTTP/1.1", &[("Cookie", &shown)]);
            let head = sample.request();
            let request = RequestFacts {
                head: &head,
                path: b"/",
                secure: false,
            };
            let facts = Facts {
                request: Some(request),
                wall_millis: self.now * 1000,
                now: self.began,
                ..facts()
            };
            let tried: Vec<_> = tried.iter().copied().map(BackendIndex).collect();
            let view = PoolView {
                balancer: &self.balancer,
                ring: &self.ring,
                sets: &self.sets,
                loads: &self.loads,
            };
            let mut secure = self.rng.clone();
            let client = StickyView {
                sticky: &self.sticky,
                remembered: &mut self.remembered,
                told: None,
                companions: &|| None,
                fill_secure: &mut |bytes| bytes.fill_with(|| secure.next_u64() as u8),
                patient: self.patient,
                asks: true,
                anew: self.anew,
                watched: self.watched,
                may_move: &|| true,
            };
            let choice = choose(&view, Some(client), &tried, &facts, &mut self.rng);
            self.rng.next_u64();
            choice
        }

        fn new_client(&mut self) -> (u16, String) {
            let choice = self.ask(None, &[]).unwrap();
            let chosen = choice.sticky.unwrap();
            assert_eq!(chosen.stickiness, Stickiness::New);
            (choice.backend.0, token_of(&self.sticky, chosen).unwrap())
        }

        fn returns_to(&mut self, token: &str) -> (u16, Stickiness) {
            let choice = self.ask(Some(token), &[]).unwrap();
            (choice.backend.0, choice.sticky.unwrap().stickiness)
        }

        fn returns(&mut self, token: &str, tried: &[u16]) -> Option<(u16, Stickiness)> {
            let choice = self.ask(Some(token), tried)?;
            let chosen = choice.sticky.unwrap();
            assert!(chosen.tell.is_none() || chosen.only_with_session);
            Some((choice.backend.0, chosen.stickiness))
        }
    }

    /// A client that takes what it is told.
    fn visit(pool: &mut Pool, token: &mut String) -> (u16, Stickiness) {
        let choice = pool.ask(Some(token), &[]).unwrap();
        let chosen = choice.sticky.unwrap();
        if !chosen.only_with_session {
            *token = token_of(&pool.sticky, chosen).unwrap_or(std::mem::take(token));
        }
        (choice.backend.0, chosen.stickiness)
    }

    /// All up but one.
    fn but(backend: u16, state: (AdminState, Health)) -> [(AdminState, Health); 4] {
        let mut states = ALL_UP;
        states[usize::from(backend)] = state;
        states
    }

    #[test]
    fn an_outage_of_a_local_home_is_counted_once_and_ends_with_a_return() {
        let mut pool = Pool::keeping([1; 4], Sessions::Local, OnFailure::Temporary, true);
        for _ in 0..20 {
            pool.set(ALL_UP);
            let (home, mut token) = pool.new_client();
            pool.set(but(home, (Ready, Down)));
            let (refuge, result) = visit(&mut pool, &mut token);
            assert_eq!(result, Stickiness::Lost);
            assert_eq!(visit(&mut pool, &mut token), (refuge, Stickiness::Moved));
            pool.set(ALL_UP);
            assert_eq!(visit(&mut pool, &mut token), (home, Stickiness::Returned));
            assert_eq!(visit(&mut pool, &mut token), (home, Stickiness::Kept));
            // Away for too long, it stays.
            pool.set(but(home, (Maint, Up)));
            assert_eq!(visit(&mut pool, &mut token), (refuge, Stickiness::Moved));
            pool.now += 600;
            pool.set(ALL_UP);
            assert_eq!(visit(&mut pool, &mut token), (refuge, Stickiness::Moved));
            assert_eq!(visit(&mut pool, &mut token), (refuge, Stickiness::Kept));
        }
    }

    #[test]
    fn a_local_home_that_is_missed_is_left_in_passing_and_lost_with_a_new_session() {
        for by_insert in [true, false] {
            let mut pool = Pool::keeping([1; 4], Sessions::Local, OnFailure::Temporary, by_insert);
            let (home, token) = pool.new_client();
            let missed = pool.ask(Some(&token), &[home]).unwrap().sticky.unwrap();
            assert_eq!(missed.stickiness, Stickiness::Moved);
            // The token stays as it is, so that the next request tells the same way what became of the session.
            assert!(missed.in_passing && missed.only_with_session);
            let sample = Sample::new("HTTP/1.1 200 OK", &[]);
            let mut edits = Edits::default();
            for (given, result) in [
                (Given::Nothing, Stickiness::Moved),
                (Given::Value(b"new"), Stickiness::Lost),
            ] {
                let answer = sample.answer();
                let sticky = &pool.sticky;
                sticky.remember(&missed, &answer, given, false, &mut |_| {}, &mut edits);
                assert_eq!(missed.result(given), result);
            }
            // Whoever leaves a home that is down was counted when he left.
            pool.set(but(home, (Ready, Down)));
            let choice = pool.ask(Some(&token), &[]).unwrap().sticky.unwrap();
            assert_eq!(
                (choice.stickiness, choice.in_passing),
                (Stickiness::Lost, false)
            );
        }
    }

    #[test]
    fn sessions_that_several_know_move_for_good_and_are_handed_over() {
        for (sessions, by_insert) in [(Sessions::Replicated, true), (Sessions::Shared, false)] {
            let mut pool = Pool::keeping([1; 4], sessions, OnFailure::Permanent, by_insert);
            for state in [(Ready, Down), (Drain, Up), (Maint, Up)] {
                pool.set(ALL_UP);
                let (home, mut token) = pool.new_client();
                pool.set(but(home, state));
                let (refuge, result) = visit(&mut pool, &mut token);
                assert_eq!(result, Stickiness::Moved);
                assert_ne!(refuge, home);
                pool.set(ALL_UP);
                assert_eq!(visit(&mut pool, &mut token), (refuge, Stickiness::Kept));
            }
            // Before its first check nobody leaves a home for good.
            let (home, mut token) = pool.new_client();
            pool.set(but(home, (Ready, Unknown)));
            assert_ne!(visit(&mut pool, &mut token).0, home);
            pool.set(ALL_UP);
            assert_eq!(visit(&mut pool, &mut token).0, home);
            // Nobody to hand over to.
            pool.set([(Drain, Up); 4]);
            assert_eq!(visit(&mut pool, &mut token), (home, Stickiness::Kept));
        }
    }

    #[test]
    fn a_route_may_want_no_other_home() {
        let mut pool = Pool::keeping([1; 4], Sessions::Replicated, OnFailure::Error, true);
        let (home, mut token) = pool.new_client();
        assert_eq!(pool.try_ask(Some(&token), &[home]), Err(Nowhere::HomeDown));
        pool.set(but(home, (Ready, Down)));
        assert_eq!(pool.try_ask(Some(&token), &[]), Err(Nowhere::HomeDown));
        assert_ne!(pool.new_client().0, home);
        pool.set(but(home, (Drain, Up)));
        assert_ne!(
            visit(&mut pool, &mut token).0,
            home,
            "a drain is no failure"
        );
    }

    #[test]
    fn a_client_whose_session_is_over_leaves_a_draining_home() {
        for by_insert in [true, false] {
            let mut pool = Pool::keeping([1; 4], Sessions::Local, OnFailure::Temporary, by_insert);
            let (home, token) = pool.new_client();
            let may_leave = |pool: &mut Pool, tried: &[u16]| {
                let chosen = pool.ask(Some(&token), tried).unwrap().sticky.unwrap();
                chosen.may_leave
            };
            assert!(!may_leave(&mut pool, &[]), "its home does not drain");
            pool.set(but(home, (Drain, Up)));
            assert!(may_leave(&mut pool, &[]));
            let others: Vec<u16> = (0..4).filter(|other| *other != home).collect();
            assert!(!may_leave(&mut pool, &others), "nobody else is left");
            // A client of before a restart of weir may have a session that is not known.
            pool.now += 10;
            pool.watched = Some(Duration::from_secs(5));
            assert_eq!(may_leave(&mut pool, &[]), !by_insert);
            pool.watched = Some(Duration::from_secs(10));
            assert!(may_leave(&mut pool, &[]));
            pool.anew = true;
            let choice = pool.ask(Some(&token), &[home]).unwrap();
            let chosen = choice.sticky.unwrap();
            assert_eq!(chosen.stickiness, Stickiness::Moved);
            assert!(!chosen.may_leave && !chosen.only_with_session && chosen.key.is_none());
            assert_eq!(chosen.home, Some(BackendIndex(home)));
            let told = token_of(&pool.sticky, chosen).unwrap();
            pool.anew = false;
            let next = pool.returns(&told, &[]);
            assert_eq!(next, Some((choice.backend.0, Stickiness::Kept)));
            pool.set([(Drain, Up); 4]);
            assert!(!may_leave(&mut pool, &[]), "nobody takes new clients");
        }
        let mut shared = Pool::keeping([1; 4], Sessions::Shared, OnFailure::Permanent, true);
        let (home, token) = shared.new_client();
        shared.set(but(home, (Drain, Up)));
        let chosen = shared.ask(Some(&token), &[]).unwrap().sticky.unwrap();
        assert!(!chosen.may_leave, "it was handed over");
    }

    /// A pool whose requests are held for two seconds, and a client with its home.
    fn waiting() -> (Pool, u16, String) {
        let wait = OnFailure::Wait(Duration::from_secs(2));
        let mut pool = Pool::keeping([1; 4], Sessions::Local, wait, true);
        let (home, token) = pool.new_client();
        (pool, home, token)
    }

    #[test]
    fn a_request_is_held_for_a_home_that_failed_just_now() {
        let (mut pool, home, mut token) = waiting();
        for state in [(Ready, Down), (Ready, Unknown), (Drain, Down)] {
            pool.since = Some(pool.began);
            pool.set(but(home, state));
            assert_eq!(pool.try_ask(Some(&token), &[]), Err(Nowhere::HomeAway));
            pool.since = pool.began.checked_sub(Duration::from_secs(2));
            pool.set(but(home, state));
            let (refuge, _) = pool.returns_to(&token);
            assert_ne!(refuge, home, "nobody waits for what is down for long");
        }
        // Even if nobody else is there.
        pool.since = Some(pool.began);
        pool.set([(Ready, Down); 4]);
        assert_eq!(pool.try_ask(Some(&token), &[]), Err(Nowhere::HomeAway));
        pool.patient = false;
        assert_eq!(pool.try_ask(Some(&token), &[]), Err(Nowhere::NoBackend));
        pool.set(but(home, (Ready, Down)));
        let (refuge, result) = visit(&mut pool, &mut token);
        assert_eq!(result, Stickiness::Lost);
        pool.patient = true;
        assert_eq!(visit(&mut pool, &mut token), (refuge, Stickiness::Moved));
        pool.set(ALL_UP);
        assert_eq!(visit(&mut pool, &mut token), (home, Stickiness::Returned));
    }

    #[test]
    fn nobody_is_held_for_what_an_operator_took_out_of_service_or_what_failed_the_request() {
        let (mut pool, home, token) = waiting();
        pool.since = Some(pool.began);
        pool.set(but(home, (Maint, Up)));
        assert_ne!(pool.returns_to(&token).0, home);
        pool.set(but(home, (Drain, Up)));
        assert_eq!(pool.returns_to(&token), (home, Stickiness::Kept));
        pool.set(ALL_UP);
        assert_ne!(pool.ask(Some(&token), &[home]).unwrap().backend.0, home);
        pool.set(but(home, (Ready, Down)));
        assert_ne!(pool.new_client().0, home, "nor is a new client");
    }

    /// What a client is told on its answer.
    fn token_of(sticky: &Sticky, chosen: Chosen) -> Option<String> {
        let sample = Sample::new("HTTP/1.1 200 OK", &[]);
        let mut edits = Edits::default();
        let answer = sample.answer();
        sticky.remember(
            &chosen,
            &answer,
            sticky.given(&answer),
            false,
            &mut |bytes| bytes.fill(9),
            &mut edits,
        );
        let text = sample.edited(&mut edits);
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("Set-Cookie: w="))?;
        value.split(';').next().map(str::to_owned)
    }

    #[test]
    fn a_route_that_is_not_sticky_asks_the_balancer() {
        let pool = Pool::new([1, 2, 3, 4]);
        let view = PoolView {
            balancer: &pool.balancer,
            ring: &pool.ring,
            sets: &pool.sets,
            loads: &pool.loads,
        };
        let tried = [BackendIndex(0)];
        let choice = choose(&view, None, &tried, &facts(), &mut Rng::from_seed(0)).unwrap();
        assert_eq!(choice.sticky, None);
        assert_ne!(choice.backend, BackendIndex(0));
    }

    #[test]
    fn placement_is_the_balancers_and_clients_come_back() {
        let mut pool = Pool::new([1, 2, 3, 4]);
        let mut counts = [0; 4];
        let clients: Vec<_> = (0..100).map(|_| pool.new_client()).collect();
        for (backend, token) in clients {
            counts[backend as usize] += 1;
            for _ in 0..3 {
                assert_eq!(pool.returns(&token, &[]), Some((backend, Stickiness::Kept)));
            }
        }
        assert_eq!(counts, [10, 20, 30, 40]);
    }

    #[test]
    fn an_outage_moves_a_client_to_its_successor_and_back() {
        let mut pool = Pool::new([1; 4]);
        for _ in 0..50 {
            let (home, token) = pool.new_client();
            let with = |state| {
                let mut states = ALL_UP;
                states[home as usize] = state;
                states
            };
            let (successor, result) = pool.returns(&token, &[home]).unwrap();
            assert_eq!(result, Stickiness::Moved);
            for (state, result) in [
                ((Ready, Down), Stickiness::Lost),
                ((Drain, Down), Stickiness::Lost),
                ((Maint, Up), Stickiness::Moved),
                ((Ready, Unknown), Stickiness::Moved),
            ] {
                pool.set(with(state));
                assert_eq!(pool.returns(&token, &[]), Some((successor, result)));
            }
            pool.set(with((Drain, Up)));
            assert_eq!(pool.returns(&token, &[]), Some((home, Stickiness::Kept)));
            assert_ne!(pool.new_client().0, home);
            pool.set(ALL_UP);
            assert_eq!(pool.returns(&token, &[]), Some((home, Stickiness::Kept)));
        }
    }

    #[test]
    fn a_forged_token_makes_a_new_client() {
        let mut pool = Pool::new([1; 4]);
        let choice = pool.ask(Some(&"A".repeat(43)), &[]).unwrap();
        let chosen = choice.sticky.unwrap();
        assert_eq!(chosen.stickiness, Stickiness::Forged);
        let token = token_of(&pool.sticky, chosen).unwrap();
        assert_eq!(
            pool.returns(&token, &[]),
            Some((choice.backend.0, Stickiness::Kept))
        );
    }

    #[test]
    fn nobody_left_is_nobody() {
        let mut pool = Pool::new([1; 4]);
        let (_, token) = pool.new_client();
        assert_eq!(pool.ask(None, &[0, 1, 2, 3]), None);
        assert_eq!(pool.ask(Some(&token), &[0, 1, 2, 3]), None);
        pool.set([(Ready, Down), (Drain, Down), (Maint, Up), (Maint, Down)]);
        assert_eq!(pool.ask(None, &[]), None);
        assert_eq!(pool.ask(Some(&token), &[]), None);
        pool.set([(Drain, Up); 4]);
        assert_eq!(pool.ask(None, &[]), None);
        assert!(pool.returns(&token, &[]).is_some());
    }

    proptest! {
        /// Whatever the states: who is kept is at home, who is not goes to one who may serve, and everyone finds the same one again.
        #[test]
        fn choices_are_allowed_and_repeatable(
            states in proptest::array::uniform4((0..3_usize, 0..3_u8)),
            tried in proptest::collection::vec(0..4_u16, 0..=3),
        ) {
            let states = states.map(|(admin, health)| ([Ready, Drain, Maint][admin], Health::from_u8(health)));
            let mut pool = Pool::new([1, 2, 3, 4]);
            let (home, token) = pool.new_client();
            pool.set(states);
            let first = pool.returns(&token, &tried);
            prop_assert_eq!(pool.returns(&token, &tried), first);
            let served = |index: u16| {
                pool.sets.kept().contains(BackendIndex(index)) && !tried.contains(&index)
            };
            match first {
                None => prop_assert!(!(0..4).any(served)),
                Some((backend, result)) => {
                    prop_assert!(served(backend));
                    prop_assert_eq!(result == Stickiness::Kept, backend == home);
                    prop_assert_eq!(served(home), backend == home);
                }
            }
        }
    }
}
