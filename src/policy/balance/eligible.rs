//! Who may be chosen: the backends of a pool sorted out once for each change of state, and borrowed for each decision.
//! It never reads an atomic itself and never changes between two rebuilds.
//! The walk goes on in the algorithms beside it and in `policy/choose.rs`.

use std::time::Instant;

use super::BackendIndex;
use crate::config::model::AdminState;
use crate::policy::health::Health;
use crate::rng::Rng;

/// What eligibility follows from.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its share of new work; 0 counts as 1. The weight times the share must fit.
    pub weight: u16,
    /// How much of that it takes at present, beside the shares of the other members: equal ones, 1 say, while nobody warms up.
    pub share: u16,
    /// What the operator wants.
    pub admin: AdminState,
    /// What is observed.
    pub health: Health,
    /// Since when; absent: since ever.
    pub since: Option<Instant>,
    /// Whether it is ejected for what traffic showed of it, and the pool can do without it.
    pub ejected: bool,
}

/// How busy backends are at this moment.
pub trait Loads {
    /// Requests in flight at the backend, over all workers.
    fn in_flight(&self, backend: BackendIndex) -> u32;

    /// Live sessions at the backend, over all workers.
    fn sessions(&self, backend: BackendIndex) -> u32;

    /// How long the backend's answers take, in microseconds, as of `now`; 0: nobody knows. See `policy/latency.rs`.
    fn latency(&self, _backend: BackendIndex, _now: Instant) -> u32 {
        0
    }
}

/// A pool's backends sorted by what they may be chosen for. Each worker makes its own when the pool's state epoch changed.
#[derive(Debug, Default)]
pub struct EligibleSet {
    members: Vec<Member>,
    fresh: Subset,
    kept: Subset,
}

impl EligibleSet {
    /// Sorts the members, which come in pool order.
    ///
    /// *Fresh* may take new clients: ready, up and not ejected; when no ready backend is up, ready and unknown. *Kept* may serve the
    /// clients they have: the fresh ones, those that would be but are ejected, those that drain and are up, and when neither a ready nor
    /// a draining backend is up, those that drain and are unknown.
    pub fn new(members: impl IntoIterator<Item = Member>) -> EligibleSet {
        let members: Vec<Member> = members.into_iter().collect();
        let is = |member: &Member, admin, health| member.admin == admin && member.health == health;
        let any = |admin| members.iter().any(|m| is(m, admin, Health::Up));
        let ready = match any(AdminState::Ready) {
            true => Health::Up,
            false => Health::Unknown,
        };
        let drain = match ready == Health::Up || any(AdminState::Drain) {
            true => Health::Up,
            false => Health::Unknown,
        };
        let is_able = |member: &Member| is(member, AdminState::Ready, ready);
        let fresh = Subset::new(&members, |member| is_able(member) && !member.ejected);
        let kept = Subset::new(&members, |member| {
            is_able(member) || is(member, AdminState::Drain, drain)
        });
        EligibleSet {
            members,
            fresh,
            kept,
        }
    }

    /// Who may take new clients.
    #[inline]
    pub fn fresh(&self) -> &Subset {
        &self.fresh
    }

    /// Who may serve the clients it has; every fresh backend is one of them.
    #[inline]
    pub fn kept(&self) -> &Subset {
        &self.kept
    }

    /// Whether a fresh backend still takes less of its weight than another one.
    #[inline]
    pub fn is_any_warming(&self) -> bool {
        let shares = &self.fresh.shares;
        shares.iter().any(|&share| share < self.fresh.top_share)
    }

    /// Whether the backend takes the client at this point of all clients; see [`Subset::takes`]. One that is not fresh takes all.
    #[inline]
    pub fn takes(&self, backend: BackendIndex, point: u32) -> bool {
        !self.fresh.contains(backend) || self.fresh.takes(backend, point)
    }

    /// The health of a backend when this was made.
    #[inline]
    pub fn health(&self, backend: BackendIndex) -> Health {
        self.members
            .get(backend.index())
            .map_or(Health::Unknown, |member| member.health)
    }

    /// What was known of a backend when this was made.
    #[inline]
    pub fn member(&self, backend: BackendIndex) -> Option<&Member> {
        self.members.get(backend.index())
    }
}

/// Some backends of a pool: as a bitset to ask, as a list to walk, and as running sums of weight to draw from.
#[derive(Debug, Default)]
pub struct Subset {
    stamp: u64,
    words: Vec<u64>,
    list: Vec<BackendIndex>,
    weights: Vec<u16>,
    /// The weight of all before each position. The sum of 2^16 weights below 2^16 fits.
    before: Vec<u32>,
    total: u32,
    /// How much of its weight each takes at present, by position.
    shares: Vec<u16>,
    top_share: u16,
}

impl Subset {
    fn new(members: &[Member], belongs: impl Fn(&Member) -> bool) -> Subset {
        let mut subset = Subset {
            words: vec![0; members.len().div_ceil(64)],
            ..Subset::default()
        };
        let indices = 0..=u16::MAX;
        for (index, member) in indices.zip(members).filter(|(_, member)| belongs(member)) {
            let weight = member.weight.max(1).saturating_mul(member.share.max(1));
            subset.words[index as usize / 64] |= 1 << (index % 64);
            subset.list.push(BackendIndex(index));
            subset.shares.push(member.share);
            subset.top_share = subset.top_share.max(member.share);
            subset.weights.push(weight);
            subset.before.push(subset.total);
            subset.total += u32::from(weight);
            let pair = u64::from(index) << 16 | u64::from(weight);
            subset.stamp = (subset.stamp ^ pair)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
        subset
    }

    /// A fingerprint of the backends and their weights: while it stays, so may what was derived from them.
    #[inline]
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Whether the backend is one of these.
    #[inline]
    pub fn contains(&self, backend: BackendIndex) -> bool {
        self.words
            .get(backend.index() / 64)
            .is_some_and(|word| word & (1 << (backend.0 % 64)) != 0)
    }

    /// The backends in pool order.
    #[inline]
    pub fn list(&self) -> &[BackendIndex] {
        &self.list
    }

    /// Their weights, each at least 1, by position in the list.
    #[inline]
    pub fn weights(&self) -> &[u16] {
        &self.weights
    }

    /// Whether the backend takes the client at this point of all clients, which lie evenly from 0 to 2^32: one that takes half
    /// of its weight takes those below the middle, and goes on taking them as its share grows. One that is none of these takes nobody.
    #[inline]
    pub fn takes(&self, backend: BackendIndex, point: u32) -> bool {
        self.position(backend).is_some_and(|position| {
            let share = u64::from(self.shares[position]) << 32;
            u64::from(point) * u64::from(self.top_share) < share
        })
    }

    /// The sum of the weights.
    #[inline]
    pub fn total_weight(&self) -> u32 {
        self.total
    }

    /// The weight of the backend; 0 when it is none of these.
    #[inline]
    pub fn weight(&self, backend: BackendIndex) -> u16 {
        self.position(backend)
            .map_or(0, |position| self.weights[position])
    }

    /// Where in the list the backend stands.
    #[inline]
    fn position(&self, backend: BackendIndex) -> Option<usize> {
        if !self.contains(backend) {
            return None;
        }
        self.list.binary_search(&backend).ok()
    }
}

/// The backends that one decision may choose from: a subset without those that this request was tried at, and how busy they are.
#[derive(Debug)]
pub struct Eligible<'a, L> {
    subset: &'a Subset,
    tried: &'a [BackendIndex],
    loads: &'a L,
}

impl<L> Clone for Eligible<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Eligible<'_, L> {}

impl<'a, L: Loads> Eligible<'a, L> {
    /// A view of `subset` without `tried`, which is short: it is searched by walking.
    #[inline]
    pub fn new(subset: &'a Subset, tried: &'a [BackendIndex], loads: &'a L) -> Eligible<'a, L> {
        Eligible {
            subset,
            tried,
            loads,
        }
    }

    /// What it is a view of.
    #[inline]
    pub fn subset(&self) -> &'a Subset {
        self.subset
    }

    /// Whether this request was tried anywhere.
    #[inline]
    pub fn is_any_tried(&self) -> bool {
        !self.tried.is_empty()
    }

    /// Whether this request was tried there.
    #[inline]
    pub fn is_tried(&self, backend: BackendIndex) -> bool {
        self.tried.contains(&backend)
    }

    /// Whether the backend may be chosen.
    #[inline]
    pub fn contains(&self, backend: BackendIndex) -> bool {
        self.subset.contains(backend) && !self.is_tried(backend)
    }

    /// Requests in flight at the backend.
    #[inline]
    pub fn in_flight(&self, backend: BackendIndex) -> u32 {
        self.loads.in_flight(backend)
    }

    /// Live sessions at the backend.
    #[inline]
    pub fn sessions(&self, backend: BackendIndex) -> u32 {
        self.loads.sessions(backend)
    }

    /// How long the backend's answers take, in microseconds; 0: nobody knows.
    #[inline]
    pub fn latency(&self, backend: BackendIndex, now: Instant) -> u32 {
        self.loads.latency(backend, now)
    }

    /// The backends that may be chosen with their weights, in pool order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (BackendIndex, u16)> {
        let (subset, tried) = (self.subset, self.tried);
        let pairs = subset.list.iter().zip(&subset.weights);
        pairs
            .map(|(&backend, &weight)| (backend, weight))
            .filter(move |(backend, _)| !tried.contains(backend))
    }

    /// Draws a backend other than `besides`, each with a chance in exact proportion to its weight.
    pub fn draw(
        &self,
        besides: Option<BackendIndex>,
        rng: &mut Rng,
    ) -> Option<(BackendIndex, u16)> {
        let subset = self.subset;
        // The next position from `from` on that is left out. Few are, so walking beats sorting.
        let next_out = |from: usize| {
            let out = self.tried.iter().chain(&besides);
            out.filter_map(|&backend| subset.position(backend))
                .filter(|&position| position >= from)
                .min()
        };
        let mut out_weight = 0;
        let mut from = 0;
        while let Some(position) = next_out(from) {
            out_weight += u32::from(subset.weights[position]);
            from = position + 1;
        }
        let choices = subset.total - out_weight;
        if choices == 0 {
            return None;
        }
        let mut point = rng.below(choices);
        from = 0;
        while let Some(position) = next_out(from) {
            if point < subset.before[position] {
                break;
            }
            point += u32::from(subset.weights[position]);
            from = position + 1;
        }
        let position = subset.before.partition_point(|&before| before <= point) - 1;
        Some((subset.list[position], subset.weights[position]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::balance::up;
    use crate::rng::Rng;
    use AdminState::{Drain, Maint, Ready};
    use Health::{Down, Unknown, Up};

    fn sorted(members: &[(AdminState, Health)]) -> (Vec<u16>, Vec<u16>) {
        let sets = EligibleSet::new(members.iter().map(|&(admin, health)| Member {
            weight: 1,
            share: 1,
            admin,
            health,
            since: None,
            ejected: false,
        }));
        let numbers = |subset: &Subset| subset.list.iter().map(|backend| backend.0).collect();
        (numbers(&sets.fresh), numbers(&sets.kept))
    }

    #[test]
    fn who_takes_what() {
        let all = [
            (Ready, Up),
            (Drain, Up),
            (Maint, Up),
            (Ready, Unknown),
            (Drain, Unknown),
            (Ready, Down),
            (Drain, Down),
        ];
        assert_eq!(sorted(&all), (vec![0], vec![0, 1]));
        // No ready one is up: unknown ones take new clients and keep them, and the draining one keeps its own.
        assert_eq!(sorted(&all[1..]), (vec![2], vec![0, 2]));
        // None that counts is up.
        assert_eq!(sorted(&all[2..]), (vec![1], vec![1, 2]));
        assert_eq!(sorted(&all[4..]), (vec![], vec![0]));
        assert_eq!(sorted(&all[5..]), (vec![], vec![]));
        assert_eq!(sorted(&[]), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn kept_includes_fresh(members in proptest::collection::vec((0..3_usize, 0..3_u8), 0..200)) {
            let members: Vec<_> = members
                .into_iter()
                .map(|(admin, health)| ([Ready, Drain, Maint][admin], Health::from_u8(health)))
                .collect();
            let (fresh, kept) = sorted(&members);
            prop_assert!(fresh.iter().all(|backend| kept.contains(backend)));
            for &backend in &kept {
                let (admin, health) = members[backend as usize];
                prop_assert!(admin != Maint && health != Down);
            }
            prop_assert!(fresh.iter().all(|&backend| members[backend as usize].0 == Ready));
        }

        #[test]
        fn draws_follow_the_weights(
            weights in proptest::collection::vec(1..20_u16, 1..12),
            tried in proptest::collection::vec(0..14_u16, 0..=3),
            besides in proptest::option::of(0..14_u16),
            seed in any::<u64>(),
        ) {
            let tried: Vec<_> = tried.into_iter().map(BackendIndex).collect();
            let besides = besides.map(BackendIndex);
            let sets = EligibleSet::new(up(&weights));
            let loads = Vec::new();
            let eligible = Eligible::new(sets.fresh(), &tried, &loads);
            let allowed = |index: usize| {
                let backend = BackendIndex(index as u16);
                !tried.contains(&backend) && besides != Some(backend)
            };
            let total: u32 = (0..weights.len()).filter(|&i| allowed(i)).map(|i| u32::from(weights[i])).sum();
            let mut rng = Rng::from_seed(seed);
            let mut counts = vec![0_u32; weights.len()];
            let draws = 4000;
            for _ in 0..draws {
                match eligible.draw(besides, &mut rng) {
                    Some((backend, weight)) => {
                        prop_assert!(allowed(backend.0 as usize));
                        prop_assert_eq!(weight, weights[backend.index()]);
                        counts[backend.index()] += 1;
                    }
                    None => prop_assert_eq!(total, 0),
                }
            }
            for index in (0..weights.len()).filter(|&index| allowed(index)) {
                let share = f64::from(weights[index]) / f64::from(total);
                let expected = share * f64::from(draws);
                let deviation = (expected * (1.0 - share)).sqrt();
                prop_assert!((f64::from(counts[index]) - expected).abs() <= 6.0 * deviation + 1.0);
            }
        }
    }
}
