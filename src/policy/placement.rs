//! Placement: where a client goes that has no home yet, and when a client that has one is served elsewhere to spread the load.
//! It never moves a client whose session lives in the memory of servers; it keeps nothing and counts nothing itself.
//! The walk goes on in `balance/`, which it asks first, and back in `choose.rs`.

use super::balance::bound::{MIN_BUSY, Room};
use super::balance::{BackendIndex, Balancer, Eligible, Loads};
use super::choose::{Nowhere, PoolView, none_left};
use super::facts::Facts;
use super::persist::{Home, Sticky};
use super::rendezvous;
use crate::config::model::{OnFailure, Sessions};
use crate::rng::Rng;

/// How often the balancer is asked for a client before the emptiest backend takes it.
const ASKS: usize = 8;

/// Where other requests of a client went that has no home yet.
pub(super) struct Companions<'a> {
    /// Those that came before this one on its connection.
    pub surely: Option<BackendIndex>,
    /// Finds those that may be the same client's.
    pub maybe: &'a dyn Fn() -> Option<BackendIndex>,
}

/// Chooses a backend for a client that has none: where the balancer says, unless that backend has its part of the live sessions, and more than
/// `balance_factor` allows. Requests that may be one client's go together within the bound, and count as one; those that are go together.
///
/// # Errors
/// There is no backend to go to.
pub(super) fn place<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    companions: Companions<'_>,
    tried: &[BackendIndex],
    facts: &Facts<'_>,
    rng: &mut Rng,
) -> Result<BackendIndex, Nowhere> {
    let fresh = pool.sets.fresh();
    let eligible = Eligible::new(fresh, tried, pool.loads);
    if let Some(backend) = companions.surely.filter(|own| eligible.contains(*own)) {
        return Ok(backend);
    }
    if sticky.mode.is_by_key() {
        // It shows no key, so it is nobody who would stay.
        let picked = pool.balancer.pick(&eligible, facts, rng);
        return picked.ok_or_else(|| none_left(pool, tried));
    }
    let sessions = |backend| pool.loads.sessions(backend);
    let room = Room::new(fresh, sticky.bound, sessions);
    let has_room = |backend: BackendIndex| room.has(sessions(backend), fresh.weight(backend));
    let holds = |backend: BackendIndex| room.holds(sessions(backend), fresh.weight(backend));
    let maybe = (companions.maybe)();
    if let Some(backend) = maybe.filter(|maybe| eligible.contains(*maybe) && holds(*maybe)) {
        return Ok(backend);
    }
    let mut picked = pool
        .balancer
        .pick(&eligible, facts, rng)
        .ok_or_else(|| none_left(pool, tried))?;
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
    emptiest(&eligible, has_room).ok_or_else(|| none_left(pool, tried))
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

/// The backend that a client of `own` may move to for good: one that has room, while `own` has more than its part of the live sessions and
/// more than `balance_factor` allows.
pub(super) fn relief<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    own: BackendIndex,
    tried: &[BackendIndex],
) -> Option<BackendIndex> {
    let fresh = pool.sets.fresh();
    let sessions = |backend| pool.loads.sessions(backend);
    let room = Room::new(fresh, sticky.bound, sessions);
    if !fresh.contains(own) || room.holds(sessions(own), fresh.weight(own)) {
        return None;
    }
    let without = room.without_one();
    let has_room = |backend: BackendIndex| {
        backend != own && without.has(sessions(backend), fresh.weight(backend))
    };
    let eligible = Eligible::new(fresh, tried, pool.loads);
    emptiest(&eligible, has_room).filter(|backend| has_room(*backend))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{AdminState, BalancerKind, Cookie, SameSite, Secure};
    use crate::http::Sample;
    use crate::policy::balance::{AnyBalancer, Bound, Busy, EligibleSet, Member, Shared, facts};
    use crate::policy::choose::{StickyView, choose};
    use crate::policy::facts::RequestFacts;
    use crate::policy::health::Health;
    use crate::policy::health::slow_start::FULL;
    use crate::policy::persist::token::Secrets;
    use crate::policy::persist::{
        AnyPersistence, CookieHash, Header, Insert, InsertTimes, Route, Source, Stickiness,
    };
    use crate::policy::rendezvous::Rendezvous;
    use crate::rng::Rng;

    const KINDS: [BalancerKind; 4] = [
        BalancerKind::RoundRobin,
        BalancerKind::LeastConnections,
        BalancerKind::LeastSessions,
        BalancerKind::RandomTwo,
    ];

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("was{index}")).collect()
    }

    /// The modes in which a client is new until it was told.
    fn mode(number: usize, names: &[String]) -> AnyPersistence {
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
        let names = names.iter().map(String::as_str);
        let times = InsertTimes {
            idle: 1800,
            absolute: None,
            rehome_after: 600,
        };
        match number {
            0 => AnyPersistence::Insert(Insert::new(&cookie, &secrets, "p", names, times)),
            1 => AnyPersistence::CookieHash(CookieHash::new(&cookie, &secrets)),
            2 => AnyPersistence::Route(Route::new("JSESSIONID", names)),
            3 => AnyPersistence::Source(Source::new(32, 64)),
            _ => AnyPersistence::Header(Header::new("x-user")),
        }
    }

    fn sticky(mode: AnyPersistence, sessions: Sessions, factor: f64) -> Sticky {
        Sticky {
            mode,
            sessions,
            on_failure: OnFailure::Temporary,
            bound: Bound::new(factor),
            first_flight: false,
            rebalance: None,
            session_cookie: "JSESSIONID".into(),
        }
    }

    /// A pool whose sessions are as live as the test says.
    struct Fleet {
        names: Vec<String>,
        weights: Vec<u16>,
        shares: Vec<u16>,
        healthy: Vec<bool>,
        loads: Busy,
        balancer: AnyBalancer,
        sticky: Sticky,
        rng: Rng,
    }

    impl Fleet {
        fn new(weights: &[u16], balancer: BalancerKind, sticky: Sticky, seed: u64) -> Fleet {
            let count = weights.len();
            Fleet {
                names: names(count),
                weights: weights.to_vec(),
                shares: vec![FULL; count],
                healthy: vec![true; count],
                loads: Busy {
                    in_flight: vec![0; count],
                    sessions: vec![0; count],
                },
                balancer: AnyBalancer::new(&balancer, &Shared::default(), 0, 1, 0),
                sticky,
                rng: Rng::from_seed(seed),
            }
        }

        fn sets(&self) -> EligibleSet {
            let health = |&up: &bool| if up { Health::Up } else { Health::Down };
            let healths = self.healthy.iter().map(health);
            let members = self.weights.iter().zip(&self.shares).zip(healths);
            EligibleSet::new(members.map(|((&weight, &share), health)| Member {
                weight,
                share,
                admin: AdminState::Ready,
                health,
                since: None,
                ejected: false,
                backup: false,
            }))
        }

        fn ask(&mut self, fields: &[(&str, &str)], with: Option<u16>) -> (usize, Stickiness) {
            let sets = self.sets();
            self.ask_among(&sets, fields, with)
        }

        fn ask_among(
            &mut self,
            sets: &EligibleSet,
            fields: &[(&str, &str)],
            with: Option<u16>,
        ) -> (usize, Stickiness) {
            let names = self.names.iter().map(String::as_str);
            let ring = Rendezvous::new(names.zip(self.weights.iter().copied()));
            let sample = Sample::new("GET / HTTP/1.1", fields);
            let head = sample.request();
            let facts = Facts {
                request: Some(RequestFacts {
                    head: &head,
                    path: b"/",
                    secure: false,
                }),
                ..facts()
            };
            let view = PoolView {
                balancer: &self.balancer,
                ring: &ring,
                sets,
                loads: &self.loads,
            };
            let mut secure = self.rng.clone();
            let client = StickyView {
                sticky: &self.sticky,
                remembered: &mut None,
                told: None,
                companions: &|| with.map(BackendIndex),
                fill_secure: &mut |bytes| bytes.fill_with(|| secure.next_u64() as u8),
                patient: false,
                asks: true,
                gives_up: false,
                anew: false,
                watched: None,
                may_move: &|| false,
            };
            let choice = choose(&view, Some(client), &[], &facts, &mut self.rng).unwrap();
            (choice.backend.index(), choice.sticky.unwrap().stickiness)
        }

        /// What the design says, as it says it: the ceiling of the factor times the weighted mean, with the session to come.
        fn bound(&self, sets: &EligibleSet, backend: usize, factor: f64) -> u32 {
            let fresh = sets.fresh();
            let own = f64::from(fresh.weight(BackendIndex(backend as u16)));
            let list = fresh.list().iter();
            let all: u32 = list
                .map(|backend| self.loads.sessions[backend.index()])
                .sum();
            let mean = f64::from(all + 1) * own / f64::from(fresh.total_weight());
            ((1.0 + factor) * mean - 1e-9).ceil() as u32
        }
    }

    #[test]
    fn an_empty_pool_takes_clients_and_the_bound_is_rounded_up() {
        let room = |sessions: &[u32], weights: &[u16], factor: f64, own: usize| {
            let sets = EligibleSet::new(crate::policy::balance::up(weights));
            let room = Room::new(sets.fresh(), Bound::new(factor), |b| sessions[b.index()]);
            room.has(sessions[own], weights[own])
        };
        assert!(room(&[0, 0, 0], &[1; 3], 0.0, 0));
        // The mean of 3 + 1 over two is 2; a quarter more is 2.5, which is 3 rounded up.
        assert!(room(&[2, 1], &[1; 2], 0.25, 0));
        assert!(!room(&[3, 0], &[1; 2], 0.25, 0));
        assert!(room(&[3, 0], &[1; 2], 0.25, 1));
        assert!(room(&[3, 1], &[3, 1], 0.25, 0));
        // 1.1 * 10 is no more than 11.
        assert!(!room(&[11, 8], &[1; 2], 0.1, 0));
        assert!(room(&[u32::MAX, 0], &[1; 2], 1000.0, 0));
    }

    #[test]
    fn companions_are_followed_within_the_bound() {
        let sticky = sticky(mode(0, &names(3)), Sessions::Local, 0.25);
        let mut fleet = Fleet::new(&[1; 3], BalancerKind::RoundRobin, sticky, 1);
        fleet.loads.sessions = vec![10, 10, 11];
        for _ in 0..20 {
            assert_eq!(fleet.ask(&[], Some(2)).0, 2);
        }
        fleet.loads.sessions = vec![10, 10, 20];
        for _ in 0..20 {
            assert_ne!(fleet.ask(&[], Some(2)).0, 2);
        }
        fleet.healthy[1] = false;
        assert_ne!(fleet.ask(&[], Some(1)).0, 1);
    }

    #[test]
    fn a_busy_home_of_shared_sessions_is_spared_and_stays_home() {
        for sessions in [Sessions::Local, Sessions::Replicated, Sessions::Shared] {
            let sticky = sticky(mode(2, &names(4)), sessions, 0.25);
            let mut fleet = Fleet::new(&[1; 4], BalancerKind::RoundRobin, sticky, 1);
            let shown = [("Cookie", "JSESSIONID=abc.was1")];
            let mut ask = |in_flight: [u32; 4]| {
                fleet.loads.in_flight = in_flight.to_vec();
                fleet.ask(&shown, None)
            };
            let home = (1, Stickiness::Kept);
            // Little is never much, and the mean counts.
            assert_eq!(ask([0, 7, 0, 0]), home);
            assert_eq!(ask([20, 20, 20, 20]), home);
            if sessions != Sessions::Shared {
                assert_eq!(ask([0, 900, 0, 0]), home);
                continue;
            }
            let (other, result) = ask([0, 8, 0, 0]);
            assert_eq!(result, Stickiness::Moved);
            assert_ne!(other, 1);
            // It strays to the same place, as long as there is room.
            assert_eq!(ask([3, 9, 3, 3]), (other, Stickiness::Moved));
            let mut busy = [0, 40, 0, 0];
            busy[other] = 40;
            let (third, _) = ask(busy);
            assert!(third != 1 && third != other);
            assert_eq!(ask([0, 0, 0, 0]), home);
        }
    }

    /// Clients that are known by their key alone come to a server that warms up one by one, and each moves once.
    #[test]
    fn a_warming_backend_gets_clients_by_key_one_by_one() {
        for number in [3, 4] {
            let sticky = sticky(mode(number, &names(4)), Sessions::Local, 0.25);
            let mut fleet = Fleet::new(&[1, 1, 1, 2], BalancerKind::RoundRobin, sticky, 1);
            let clients: Vec<String> = (0..2000).map(|client| format!("u{client}")).collect();
            if number == 3 {
                // One address is one key.
                fleet.sticky.mode = mode(4, &names(4));
            }
            let homes = |fleet: &mut Fleet| -> Vec<usize> {
                let sets = fleet.sets();
                let ask = |client: &String| {
                    let (backend, result) = fleet.ask_among(&sets, &[("X-User", client)], None);
                    assert_eq!(result, Stickiness::Kept);
                    backend
                };
                clients.iter().map(ask).collect()
            };
            let warm = homes(&mut fleet);
            fleet.shares[3] = 0;
            let mut before = homes(&mut fleet);
            assert!(!before.contains(&3));
            for share in (25..=FULL).step_by(25) {
                fleet.shares[3] = share;
                let now = homes(&mut fleet);
                for (client, (&was, &is)) in before.iter().zip(&now).enumerate() {
                    assert!(is == was || is == 3 && warm[client] == 3);
                }
                let count = now.iter().filter(|&&home| home == 3).count() as f64;
                let fair = 2000.0 * 0.4 * f64::from(share) / f64::from(FULL);
                assert!((count - fair).abs() < 80.0, "{count} for {fair}");
                before = now;
            }
            assert_eq!(before, warm);
            // All that came up together are home to whom they are home to, at once.
            fleet.shares = vec![25; 4];
            assert_eq!(homes(&mut fleet), warm);
            // A route that wants no other home gets it at once.
            fleet.shares[3] = 1;
            fleet.sticky.on_failure = OnFailure::Error;
            assert_eq!(homes(&mut fleet), warm);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Whatever the balancer, mode, weights and shares: thousands of clients come and go while servers die, come back and join,
        /// and no new one goes to a server at or above its bound.
        #[test]
        fn the_bound_is_never_exceeded(
            kind in 0..KINDS.len(),
            number in 0..3_usize,
            weights in proptest::collection::vec(1..8_u16, 1..9),
            factor in proptest::sample::select(vec![0.0, 0.1, 0.25, 1.0, 7.5]),
            events in proptest::collection::vec((0..10_u8, 0..9_usize, 1..120_u32), 1..24),
            seed in any::<u64>(),
        ) {
            let count = weights.len();
            let sticky = sticky(mode(number, &names(count)), Sessions::Local, factor);
            let mut fleet = Fleet::new(&weights, KINDS[kind].clone(), sticky, seed);
            for (event, backend, clients) in events {
                let backend = backend % count;
                match event {
                    0 => {
                        fleet.healthy[backend] = false;
                        fleet.loads.sessions[backend] = 0;
                    }
                    1 | 2 => {
                        fleet.healthy[backend] = true;
                        fleet.shares[backend] = FULL / 10;
                    }
                    3 => fleet.shares = vec![FULL; count],
                    // Sessions end, or gather on one server, as they do when others move there.
                    4 => fleet.loads.sessions[backend] /= 2,
                    5 => fleet.loads.sessions[backend] += clients,
                    _ => fleet.loads.in_flight[backend] = clients,
                }
                if !fleet.healthy.contains(&true) {
                    continue;
                }
                let sets = fleet.sets();
                let mut last = None;
                for client in 0..clients {
                    // Now and then another request of the client before, which is counted already.
                    let with = last.filter(|_| client % 3 == 0);
                    let (chosen, result) = fleet.ask_among(&sets, &[], with);
                    prop_assert_eq!(result, Stickiness::New);
                    if with == Some(chosen as u16) {
                        fleet.loads.sessions[chosen] -= 1;
                    }
                    let bound = fleet.bound(&sets, chosen, factor);
                    prop_assert!(fleet.loads.sessions[chosen] < bound, "{:?} {bound}", fleet.loads);
                    fleet.loads.sessions[chosen] += 1;
                    last = Some(chosen as u16);
                }
            }
        }

        /// The same in a large pool, where balancers draw.
        #[test]
        fn the_bound_holds_for_many(kind in 0..KINDS.len(), full in 0..200_usize, seed in any::<u64>()) {
            let sticky = sticky(mode(2, &[]), Sessions::Local, 0.25);
            let mut fleet = Fleet::new(&[1; 200], KINDS[kind].clone(), sticky, seed);
            let crowded = fleet.loads.sessions.iter_mut().take(full);
            crowded.for_each(|sessions| *sessions = 30);
            let sets = fleet.sets();
            for _ in 0..200 {
                let (chosen, _) = fleet.ask_among(&sets, &[], None);
                let bound = fleet.bound(&sets, chosen, 0.25);
                prop_assert!(fleet.loads.sessions[chosen] < bound);
                fleet.loads.sessions[chosen] += 1;
            }
        }

        /// Every balancer gives a backend that warms up its share, and no more than half as much again.
        #[test]
        fn a_warming_backend_gets_its_share(kind in 0..KINDS.len(), seed in any::<u64>()) {
            let sticky = sticky(mode(2, &[]), Sessions::Local, 0.25);
            let mut fleet = Fleet::new(&[1; 4], KINDS[kind].clone(), sticky, seed);
            fleet.shares[0] = FULL / 10;
            let sets = fleet.sets();
            for _ in 0..1240 {
                let (chosen, _) = fleet.ask_among(&sets, &[], None);
                fleet.loads.sessions[chosen] += 1;
                fleet.loads.in_flight[chosen] += 1;
            }
            prop_assert!((20..=60).contains(&fleet.loads.sessions[0]), "{:?}", fleet.loads);
        }
    }
}
