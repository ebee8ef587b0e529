//! Rebalancing: an idle client whose home has more than its part of the live sessions gets another home, so that a new server fills up.
//! It moves nobody whose session lives in the memory of one server, nobody who is active, and not more than the rate allows.
//! The walk goes back to `choose.rs`, which asks it for clients that are at home.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::balance::{BackendIndex, Loads};
use super::choose::PoolView;
use super::facts::SessionFacts;
use super::persist::Sticky;
use super::placement;

/// How many clients of a pool moved of late, over all workers: a token bucket with room for one.
#[derive(Debug)]
pub struct Moves {
    began: Instant,
    /// Before this many microseconds after the beginning nobody may move.
    next: AtomicU64,
}

impl Moves {
    /// None so far.
    pub fn new(began: Instant) -> Moves {
        Moves {
            began,
            next: AtomicU64::new(0),
        }
    }

    /// Whether one more client may move now, at most `rate` of them a second. It may not when another one moves at this very moment.
    pub fn take(&self, rate: u32, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.began).as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let gap = 1_000_000_u64.div_ceil(u64::from(rate.max(1)));
        let next = self.next.load(Relaxed);
        let taken = || {
            self.next
                .compare_exchange(next, now.saturating_add(gap), Relaxed, Relaxed)
        };
        now >= next && taken().is_ok()
    }
}

/// The new home of a client that is at `home`, if it is to have one: its session was idle for long enough, its home is above the bound
/// of `placement.rs`, and another backend that takes new clients has room and would still have less.
pub(super) fn relief<L: Loads>(
    pool: &PoolView<'_, L>,
    sticky: &Sticky,
    session: Option<SessionFacts>,
    home: BackendIndex,
    tried: &[BackendIndex],
) -> Option<BackendIndex> {
    let rebalance = sticky.rebalance?;
    let known = session?.known?;
    // A session that was accepted elsewhere since does not count at home.
    if known.idle < rebalance.idle || known.backend != Some(home) {
        return None;
    }
    placement::relief(pool, sticky, home, tried)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{BalancerKind, OnFailure, Rebalance, Sessions};
    use crate::policy::balance::Bound;
    use crate::policy::balance::{AnyBalancer, Busy, EligibleSet, facts, up};
    use crate::policy::facts::KnownSession;
    use crate::policy::persist::{AnyPersistence, Route};
    use crate::policy::rendezvous::Rendezvous;

    const IDLE: Duration = Duration::from_secs(60);
    const RATE: u32 = 10;

    fn sticky(rebalance: Option<Rebalance>) -> Sticky {
        Sticky {
            mode: AnyPersistence::Route(Route::new("S", ["a", "b", "c", "d"])),
            sessions: Sessions::Replicated,
            on_failure: OnFailure::Temporary,
            bound: Bound::new(0.25),
            first_flight: false,
            rebalance,
            session_cookie: "S".into(),
        }
    }

    fn on() -> Sticky {
        sticky(Some(Rebalance {
            idle: IDLE,
            rate: RATE,
        }))
    }

    fn session(backend: usize, idle: Duration) -> Option<SessionFacts> {
        Some(SessionFacts {
            key: 0,
            known: Some(KnownSession {
                backend: Some(BackendIndex(backend as u16)),
                idle,
                age: idle,
            }),
        })
    }

    /// Where a client of `home` is to go that was idle for so long.
    fn asked(
        sticky: &Sticky,
        weights: &[u16],
        sessions: &[u32],
        home: usize,
        idle: Duration,
    ) -> Option<usize> {
        let names = ["a", "b", "c", "d"]
            .into_iter()
            .zip(weights.iter().copied());
        let loads = Busy {
            in_flight: vec![0; weights.len()],
            sessions: sessions.to_vec(),
        };
        let view = PoolView {
            balancer: &AnyBalancer::new(
                &BalancerKind::RoundRobin,
                &crate::policy::balance::Shared::default(),
                0,
                1,
                0,
            ),
            ring: &Rendezvous::new(names),
            sets: &EligibleSet::new(up(weights)),
            loads: &loads,
        };
        let own = BackendIndex(home as u16);
        relief(&view, sticky, session(home, idle), own, &[]).map(BackendIndex::index)
    }

    #[test]
    fn only_an_idle_client_of_a_backend_above_the_bound_moves() {
        let even = [1; 4];
        let after = [100, 100, 100, 0];
        assert_eq!(asked(&on(), &even, &after, 0, IDLE), Some(3));
        assert_eq!(
            asked(&on(), &even, &after, 0, IDLE - Duration::from_secs(1)),
            None
        );
        assert_eq!(asked(&sticky(None), &even, &after, 0, IDLE), None);
        // 400 of 4 with a factor of 0.25: the bound is 125.
        assert_eq!(asked(&on(), &even, &[125, 92, 92, 91], 0, IDLE), None);
        assert_eq!(asked(&on(), &even, &[126, 92, 92, 90], 0, IDLE), Some(3));
        // By weight: the third has its part with 200 of 400.
        assert_eq!(
            asked(&on(), &[1, 1, 2, 0], &[100, 100, 200, 0], 2, IDLE),
            None
        );
        assert_eq!(asked(&on(), &[1, 1, 2, 1], &[2, 0, 0, 0], 0, IDLE), Some(2));
    }

    #[test]
    fn the_rate_is_kept_whatever_comes() {
        let began = facts().now;
        let moves = Moves::new(began);
        let at = |millis| began + Duration::from_millis(millis);
        let taken = (0..10_000)
            .filter(|&millis| moves.take(RATE, at(millis)))
            .count();
        assert_eq!(taken, 100);
        assert!(moves.take(RATE, at(60_000)));
        assert!(!moves.take(RATE, at(60_099)), "what was not used is gone");
        assert!(moves.take(1_000_000, at(60_100)));
    }

    /// A client, its home, and how often it comes.
    struct Client {
        home: usize,
        seen: u64,
        every: u64,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        /// A fourth server joins three with a hundred sessions each. The numbers even out at the given rate, nobody active moves, and
        /// nobody moves twice.
        #[test]
        fn a_scale_out_evens_out(seed in 0..1000_u64) {
            let sticky = on();
            let moves = Moves::new(facts().now);
            let began = facts().now;
            let mut sessions = [100_u32, 100, 100, 0];
            let mut clients: Vec<Client> = (0..300_u64)
                .map(|number| match number % 3 {
                    // A third never rests.
                    0 => Client { home: 0, seen: 66_000 + number * 31 % 4_000, every: 5_000 },
                    home => Client {
                        home: home as usize,
                        seen: number * 31 % 70_000,
                        every: 65_000 + (number * 977 + seed * 131) % 30_000,
                    },
                })
                .collect();
            let mut moved = Vec::new();
            for now in (70_000..400_000_u64).step_by(50) {
                for (number, client) in clients.iter_mut().enumerate() {
                    if now < client.seen + client.every {
                        continue;
                    }
                    let idle = Duration::from_millis(now - client.seen);
                    client.seen = now;
                    let to = asked(&sticky, &[1; 4], &sessions, client.home, idle);
                    let to = to.filter(|_| moves.take(RATE, began + Duration::from_millis(now)));
                    if let Some(to) = to {
                        prop_assert!(idle >= IDLE);
                        sessions[client.home] -= 1;
                        sessions[to] += 1;
                        client.home = to;
                        moved.push((now, number));
                    }
                }
            }
            // The mean is 75, and the bound 93.75.
            prop_assert!(sessions[1..3].iter().all(|&count| count <= 94), "{sessions:?}");
            prop_assert_eq!(sessions[0], 100, "its clients never rest");
            prop_assert!(sessions[3] >= 12, "{:?}", sessions);
            let mut who: Vec<usize> = moved.iter().map(|(_, number)| *number).collect();
            who.sort_unstable();
            who.dedup();
            prop_assert_eq!(who.len(), moved.len(), "nobody moves twice");
            for (now, _) in &moved {
                let within = moved.iter().filter(|(at, _)| (*now..*now + 1000).contains(at));
                prop_assert!(within.count() <= RATE as usize);
            }
        }
    }
}
