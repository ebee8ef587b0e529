//! The choice of a backend: persistence first, then the balancer.
//! It must cost a route that is not sticky nothing, and never chooses a backend that was tried.
//! The walk goes on in `l7/proxy.rs`, which takes a lease on the chosen backend.

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{AdminState, BalancerKind, Cookie, SameSite, Secure};
    use crate::http::Sample;
    use crate::policy::balance::Member;
    use crate::policy::balance::facts;
    use crate::policy::facts::RequestFacts;
    use crate::policy::persist::CookieHash;
    use crate::policy::persist::token::Secrets;
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
        persistence: AnyPersistence,
        rng: Rng,
        remembered: Option<Remembered>,
    }

    impl Pool {
        fn new(weights: [u16; 4]) -> Pool {
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
            Pool {
                balancer: AnyBalancer::new(BalancerKind::RoundRobin, 0, 1, 0),
                ring: Rendezvous::new(names.into_iter().zip(weights)),
                sets: EligibleSet::default(),
                loads: vec![0; 4],
                persistence: AnyPersistence::CookieHash(CookieHash::new(&cookie, &secrets)),
                rng: Rng::from_seed(1),
                remembered: None,
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
                    admin,
                    health,
                },
            ));
        }

        fn ask(&mut self, token: Option<Token>, tried: &[u16]) -> Option<Choice> {
            let shown = token.map_or("x=y".to_owned(), |token| {
                format!("w={}", String::from_utf8_lossy(&token))
            });
            let sample = Sample::new("GET / HTTP/1.1", &[("Cookie", &shown)]);
            let head = sample.request();
            let request = RequestFacts {
                head: &head,
                path: b"/",
                secure: false,
            };
            let facts = Facts {
                request: Some(request),
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
                persistence: &self.persistence,
                remembered: &mut self.remembered,
                fill_secure: &mut |bytes| bytes.fill_with(|| secure.next_u64() as u8),
            };
            let choice = choose(&view, Some(client), &tried, &facts, &mut self.rng);
            self.rng.next_u64();
            choice
        }

        fn new_client(&mut self) -> (u16, Token) {
            let choice = self.ask(None, &[]).unwrap();
            let chosen = choice.sticky.unwrap();
            assert_eq!(chosen.stickiness, Stickiness::New);
            (choice.backend.0, chosen.token.unwrap())
        }

        fn returns(&mut self, token: Token, tried: &[u16]) -> Option<(u16, Stickiness)> {
            let choice = self.ask(Some(token), tried)?;
            let chosen = choice.sticky.unwrap();
            assert_eq!(chosen.token, None);
            Some((choice.backend.0, chosen.stickiness))
        }
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
                assert_eq!(pool.returns(token, &[]), Some((backend, Stickiness::Kept)));
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
            let (successor, result) = pool.returns(token, &[home]).unwrap();
            assert_eq!(result, Stickiness::Moved);
            for (state, result) in [
                ((Ready, Down), Stickiness::Lost),
                ((Drain, Down), Stickiness::Lost),
                ((Maint, Up), Stickiness::Moved),
                ((Ready, Unknown), Stickiness::Moved),
            ] {
                pool.set(with(state));
                assert_eq!(pool.returns(token, &[]), Some((successor, result)));
            }
            pool.set(with((Drain, Up)));
            assert_eq!(pool.returns(token, &[]), Some((home, Stickiness::Kept)));
            assert_ne!(pool.new_client().0, home);
            pool.set(ALL_UP);
            assert_eq!(pool.returns(token, &[]), Some((home, Stickiness::Kept)));
        }
    }

    #[test]
    fn a_forged_token_makes_a_new_client() {
        let mut pool = Pool::new([1; 4]);
        let choice = pool.ask(Some([b'A'; 43]), &[]).unwrap();
        let chosen = choice.sticky.unwrap();
        assert_eq!(chosen.stickiness, Stickiness::Forged);
        let token = chosen.token.unwrap();
        assert_eq!(
            pool.returns(token, &[]),
            Some((choice.backend.0, Stickiness::Kept))
        );
    }

    #[test]
    fn nobody_left_is_nobody() {
        let mut pool = Pool::new([1; 4]);
        let (_, token) = pool.new_client();
        assert_eq!(pool.ask(None, &[0, 1, 2, 3]), None);
        assert_eq!(pool.ask(Some(token), &[0, 1, 2, 3]), None);
        pool.set([(Ready, Down), (Drain, Down), (Maint, Up), (Maint, Down)]);
        assert_eq!(pool.ask(None, &[]), None);
        assert_eq!(pool.ask(Some(token), &[]), None);
        pool.set([(Drain, Up); 4]);
        assert_eq!(pool.ask(None, &[]), None);
        assert!(pool.returns(token, &[]).is_some());
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
            let first = pool.returns(token, &tried);
            prop_assert_eq!(pool.returns(token, &tried), first);
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
