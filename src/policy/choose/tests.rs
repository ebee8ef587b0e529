//! The choice of a backend, told by states, tokens and what was tried.
//! It is compiled for tests only.
//! Nothing follows from here.

use proptest::prelude::*;

use super::*;
use crate::config::model::{AdminState, BalancerKind, Cookie, SameSite, Secure};
use crate::http::Sample;
use crate::http::cookie::Given;
use crate::http::edits::Edits;
use crate::policy::balance::Bound;
use crate::policy::balance::Member;
use crate::policy::balance::facts;
use crate::policy::facts::RequestFacts;
use crate::policy::persist::token::Secrets;
use crate::policy::persist::{CookieHash, Insert, InsertTimes};
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
    /// Who is ejected.
    ejected: Option<u16>,
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
            balancer: AnyBalancer::new(
                &BalancerKind::RoundRobin,
                &crate::policy::balance::Shared::default(),
                0,
                1,
                0,
            ),
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
            ejected: None,
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
                backup: false,
                weight: index as u16 + 1,
                share: 1,
                admin,
                health,
                since: self.since,
                ejected: self.ejected == Some(index as u16),
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
            gives_up: false,
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
fn an_ejected_home_keeps_local_sessions_and_gets_no_new_clients() {
    let to = |choice: Choice| (choice.backend.0, choice.sticky.unwrap().stickiness);
    for by_insert in [true, false] {
        for (sessions, stays) in [(Sessions::Local, true), (Sessions::Replicated, false)] {
            let mut pool = Pool::keeping([1; 4], sessions, OnFailure::Temporary, by_insert);
            let (home, token) = pool.new_client();
            pool.ejected = Some(home);
            pool.set(ALL_UP);
            let (backend, stickiness) = to(pool.ask(Some(&token), &[]).unwrap());
            let wanted = match stays {
                true => Stickiness::Kept,
                false => Stickiness::Moved,
            };
            assert_eq!((backend == home, stickiness), (stays, wanted));
            for _ in 0..50 {
                let (backend, _) = to(pool.ask(None, &[]).unwrap());
                assert_ne!(backend, home, "no new clients");
            }
            let (elsewhere, _) = to(pool.ask(Some(&token), &[home]).unwrap());
            assert_ne!(elsewhere, home, "a refused connection moves it");
            pool.set(but(home, (Ready, Down)));
            let (elsewhere, _) = to(pool.ask(Some(&token), &[]).unwrap());
            assert_ne!(elsewhere, home, "a failed check moves it");
        }
    }
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
