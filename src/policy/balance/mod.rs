//! Balancers: which backend takes new work.
//! A balancer never sees health or stickiness, only who is eligible, and its state belongs to one worker.
//! Read `eligible.rs` (who may be chosen), then one algorithm.

pub mod bound;
pub mod eligible;
mod hash;
mod least;
mod least_connections;
mod least_sessions;
mod maglev;
mod peak_ewma;
mod random_two;
mod round_robin;

pub use bound::Bound;
pub use eligible::{Eligible, EligibleSet, Loads, Member, Subset};
pub use hash::Hash;
pub use least_connections::LeastConnections;
pub use least_sessions::LeastSessions;
pub use maglev::Maglev;
pub use peak_ewma::PeakEwma;
pub use random_two::RandomTwo;
pub use round_robin::RoundRobin;

use std::sync::Arc;

use super::facts::Facts;
use crate::config::model::BalancerKind;
use crate::rng::Rng;

/// The ordinal of a backend in its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(pub u16);

impl BackendIndex {
    /// The ordinal, for indexing.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Chooses a backend for new work.
pub trait Balancer {
    /// One of the eligible backends; `None` when there is none.
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<BackendIndex>;
}

/// Every balancer. One value serves one pool on one worker.
#[derive(Debug)]
pub enum AnyBalancer {
    /// See [`RoundRobin`].
    RoundRobin(RoundRobin),
    /// See [`LeastConnections`].
    LeastConnections(LeastConnections),
    /// See [`LeastSessions`].
    LeastSessions(LeastSessions),
    /// See [`RandomTwo`].
    RandomTwo(RandomTwo),
    /// See [`PeakEwma`].
    PeakEwma(PeakEwma),
    /// See [`Hash`]; the workers share it.
    Hash(Arc<Hash>),
    /// See [`Maglev`]; the workers share it.
    Maglev(Arc<Maglev>),
}

/// What the workers share of the balancer of a pool: tables, empty with other balancers.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Of `hash`.
    pub hash: Arc<Hash>,
    /// Of `maglev`.
    pub maglev: Arc<Maglev>,
}

impl AnyBalancer {
    /// A balancer of the configured kind for worker `worker` of `workers`, which has not picked yet, after `reloads` others.
    pub fn new(
        kind: &BalancerKind,
        shared: &Shared,
        worker: usize,
        workers: usize,
        reloads: u64,
    ) -> AnyBalancer {
        match kind {
            BalancerKind::RoundRobin => {
                AnyBalancer::RoundRobin(RoundRobin::new(worker, workers, reloads))
            }
            BalancerKind::LeastConnections => AnyBalancer::LeastConnections(LeastConnections),
            BalancerKind::LeastSessions => AnyBalancer::LeastSessions(LeastSessions),
            BalancerKind::RandomTwo => AnyBalancer::RandomTwo(RandomTwo),
            BalancerKind::PeakEwma => AnyBalancer::PeakEwma(PeakEwma),
            BalancerKind::Hash(_) => AnyBalancer::Hash(shared.hash.clone()),
            BalancerKind::Maglev => AnyBalancer::Maglev(shared.maglev.clone()),
        }
    }
}

impl Balancer for AnyBalancer {
    #[inline]
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<BackendIndex> {
        match self {
            AnyBalancer::RoundRobin(balancer) => balancer.pick(eligible, facts, rng),
            AnyBalancer::LeastConnections(balancer) => balancer.pick(eligible, facts, rng),
            AnyBalancer::LeastSessions(balancer) => balancer.pick(eligible, facts, rng),
            AnyBalancer::RandomTwo(balancer) => balancer.pick(eligible, facts, rng),
            AnyBalancer::PeakEwma(balancer) => balancer.pick(eligible, facts, rng),
            AnyBalancer::Hash(balancer) => balancer.pick(eligible, facts, rng),
            AnyBalancer::Maglev(balancer) => balancer.pick(eligible, facts, rng),
        }
    }
}

#[cfg(test)]
mod sample;
#[cfg(test)]
pub(crate) use sample::{Busy, facts, up};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::AdminState;
    use crate::policy::health::Health;
    use crate::rng::Rng;

    const KINDS: [BalancerKind; 5] = [
        BalancerKind::RoundRobin,
        BalancerKind::LeastConnections,
        BalancerKind::LeastSessions,
        BalancerKind::RandomTwo,
        BalancerKind::PeakEwma,
    ];

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let member = (1..=256_u16, 0..3_u8, 0..3_u8).prop_map(|(weight, admin, health)| Member {
            weight,
            share: 1,
            admin: [AdminState::Ready, AdminState::Drain, AdminState::Maint][admin as usize],
            health: Health::from_u8(health),
            since: None,
            ejected: false,
            backup: false,
        });
        proptest::collection::vec(member, 0..100)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Never an ineligible or tried backend, and none only when there is none.
        #[test]
        fn only_the_eligible_are_picked(
            members in members(),
            changed in members(),
            tried in proptest::collection::vec(0..100_u16, 0..=3),
            seed in any::<u64>(),
        ) {
            let tried: Vec<BackendIndex> = tried.into_iter().map(BackendIndex).collect();
            let mut rng = Rng::from_seed(seed);
            let loads: Vec<u32> = (0..100).map(|_| rng.below(4)).collect();
            for kind in KINDS {
                let balancer = AnyBalancer::new(&kind, &Shared::default(), 0, 1, 0);
                for members in [&members, &changed, &members] {
                    let sets = EligibleSet::new(members.iter().copied());
                    for subset in [sets.fresh(), sets.kept()] {
                        let eligible = Eligible::new(subset, &tried, &loads);
                        for _ in 0..5 {
                            match balancer.pick(&eligible, &facts(), &mut rng) {
                                Some(picked) => {
                                    prop_assert!(subset.contains(picked));
                                    prop_assert!(!tried.contains(&picked));
                                }
                                None => prop_assert!(subset.list().iter().all(|b| tried.contains(b))),
                            }
                        }
                    }
                }
            }
        }

        /// With all else equal, every backend gets work, in proportion to its weight where the algorithm says so.
        #[test]
        fn nobody_starves(count in 1..90_usize, seed in any::<u64>()) {
            let sets = EligibleSet::new(up(&vec![1; count]));
            let mut rng = Rng::from_seed(seed);
            let loads = vec![0; count];
            for kind in KINDS {
                let balancer = AnyBalancer::new(&kind, &Shared::default(), 0, 1, 0);
                let mut counts = vec![0; count];
                for _ in 0..count * 40 {
                    let eligible = Eligible::new(sets.fresh(), &[], &loads);
                    counts[balancer.pick(&eligible, &facts(), &mut rng).unwrap().index()] += 1;
                }
                prop_assert!(counts.iter().all(|&count| (5..=100).contains(&count)), "{kind:?} {counts:?}");
            }
        }
    }
}
