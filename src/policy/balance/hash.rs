//! `hash`: requests with the same value meet at one backend, as long as that does not have too much to do beside the others.
//! It keeps nothing: every weir with the same pool finds the same order of backends for a value.
//! The walk goes on in `policy/rendezvous.rs` (the order) and `bound.rs` (how much is too much).

use super::bound::{Bound, MIN_BUSY, Room};
use super::maglev::client_key;
use super::{BackendIndex, Balancer, Eligible, LeastConnections, Loads};
use crate::config::model::HashKey;
use crate::http::cookie;
use crate::policy::facts::Facts;
use crate::policy::rendezvous::{self, Rendezvous};
use crate::rng::Rng;

/// Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016), over
/// rendezvous hashing instead of a ring: a backend that comes takes its part of the values from all others, and moves none between them.
///
/// The first eligible backend in the order of the value takes a request, unless it has at least eight in flight and more than its part
/// of all that is, and `balance_factor` of that besides; then the next in the same order does. A request without a value, such as one
/// without the header, goes where the least is in flight.
#[derive(Debug)]
pub struct Hash {
    key: Key,
    bound: Bound,
    ring: Rendezvous,
}

#[derive(Debug)]
enum Key {
    Source,
    Uri,
    Header(Box<str>),
    Cookie(Box<cookie::Name>),
}

impl Hash {
    /// Takes the names and weights of a pool's backends in pool order.
    pub fn new<'a>(
        key: &HashKey,
        bound: Bound,
        backends: impl IntoIterator<Item = (&'a str, u16)>,
    ) -> Hash {
        Hash {
            key: match key {
                HashKey::Source => Key::Source,
                HashKey::Uri => Key::Uri,
                HashKey::Header(name) => Key::Header(name.as_str().into()),
                HashKey::Cookie(name) => Key::Cookie(Box::new(name.as_str().into())),
            },
            bound,
            ring: Rendezvous::new(backends),
        }
    }

    /// What the value of the request comes to; absent: it has none.
    pub fn key(&self, facts: &Facts<'_>) -> Option<u64> {
        let head = || facts.request.as_ref().map(|request| request.head);
        let value = match &self.key {
            Key::Source => return Some(client_key(facts.client)),
            Key::Uri => head()?.path_and_query,
            Key::Header(name) => head()?.values(name).find(|value| !value.is_empty())?,
            Key::Cookie(name) => cookie::values(head()?, name).find(|value| !value.is_empty())?,
        };
        Some(rendezvous::key(value))
    }
}

impl Default for Hash {
    /// One without backends.
    fn default() -> Self {
        Hash::new(&HashKey::Source, Bound::new(0.0), [])
    }
}

impl Balancer for Hash {
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        facts: &Facts<'_>,
        rng: &mut Rng,
    ) -> Option<BackendIndex> {
        let Some(key) = self.key(facts) else {
            return LeastConnections.pick(eligible, facts, rng);
        };
        let subset = eligible.subset();
        // A backend that warms up takes a part of the values that are its own, more of them as its share grows.
        let point = (rendezvous::key(&key.to_le_bytes()) >> 32) as u32;
        let may = |backend| eligible.contains(backend) && subset.takes(backend, point);
        let any = || self.ring.first(key, |backend| eligible.contains(backend));
        let first = self.ring.first(key, may).or_else(any)?;
        if eligible.in_flight(first) < MIN_BUSY {
            return Some(first);
        }
        let room = Room::new(subset, self.bound, |backend| eligible.in_flight(backend));
        let has_room = |backend| room.has(eligible.in_flight(backend), subset.weight(backend));
        if has_room(first) {
            return Some(first);
        }
        let next = self
            .ring
            .first(key, |backend| may(backend) && has_room(backend));
        next.or(Some(first))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::http::Sample;
    use crate::policy::balance::{EligibleSet, Member, facts, up};
    use crate::policy::facts::RequestFacts;
    use crate::policy::health::Health;
    use crate::rng::Rng;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.0.{n}:8080")).collect()
    }

    fn hash(names: &[String], weights: &[u16], factor: f64) -> Hash {
        let names = names.iter().map(String::as_str);
        let backends = names.zip(weights.iter().copied());
        Hash::new(&HashKey::Source, Bound::new(factor), backends)
    }

    fn client(number: u32) -> Facts<'static> {
        Facts {
            client: IpAddr::V4(Ipv4Addr::from_bits(number)),
            ..facts()
        }
    }

    fn pick(
        hash: &Hash,
        members: impl Iterator<Item = Member>,
        tried: &[BackendIndex],
        number: u32,
    ) -> Option<usize> {
        let sets = EligibleSet::new(members);
        let loads = vec![0; 64];
        let eligible = Eligible::new(sets.fresh(), tried, &loads);
        let picked = hash.pick(&eligible, &client(number), &mut Rng::from_seed(0));
        picked.map(BackendIndex::index)
    }

    #[test]
    fn values_of_requests_meet() {
        let key = |key: &HashKey, target: &str, fields: &[(&str, &str)]| {
            let hash = Hash::new(key, Bound::new(0.25), [("a", 1), ("b", 1)]);
            let sample = Sample::new(&format!("GET {target} HTTP/1.1"), fields);
            let head = sample.request();
            hash.key(&Facts {
                request: Some(RequestFacts {
                    head: &head,
                    path: b"/",
                    secure: false,
                }),
                ..facts()
            })
        };
        let uri = |target| key(&HashKey::Uri, target, &[]);
        assert_eq!(uri("/a?b=1"), uri("/a?b=1"));
        assert_ne!(uri("/a?b=1"), uri("/a?b=2"));
        let user = HashKey::Header("x-user".into());
        let header = |value| key(&user, "/", &[("X-User", value)]);
        assert_eq!(header("ada"), key(&user, "/other", &[("x-user", "ada")]));
        assert_ne!(header("ada"), header("bob"));
        assert_eq!(header(""), None);
        let cookie = HashKey::Cookie("cart".into());
        let cookies = |line| key(&cookie, "/", &[("Cookie", line)]);
        assert_eq!(cookies("a=1; cart=7"), cookies("cart=7"));
        assert_eq!(cookies("cart2=7"), None);
        assert_eq!(Hash::new(&cookie, Bound::new(0.0), []).key(&facts()), None);
    }

    #[test]
    fn without_a_value_the_least_busy_takes_it() {
        let user = HashKey::Header("x-user".into());
        let hash = Hash::new(&user, Bound::new(0.25), [("a", 1), ("b", 1)]);
        let sets = EligibleSet::new(up(&[1, 1]));
        let loads = vec![3, 2];
        let eligible = Eligible::new(sets.fresh(), &[], &loads);
        for seed in 0..20 {
            let picked = hash.pick(&eligible, &facts(), &mut Rng::from_seed(seed));
            assert_eq!(picked, Some(BackendIndex(1)));
        }
    }

    #[test]
    fn one_hot_value_spreads_no_more_than_it_must() {
        let names = names(4);
        let hash = hash(&names, &[1; 4], 0.25);
        let sets = EligibleSet::new(up(&[1; 4]));
        let mut loads = vec![0_u32; 4];
        let mut rng = Rng::from_seed(0);
        for so_far in 0..1000_u32 {
            let eligible = Eligible::new(sets.fresh(), &[], &loads);
            let picked = hash.pick(&eligible, &client(7), &mut rng).unwrap();
            // The bound, as the paper says it: the ceiling of (1 + factor) times the mean with the one to come.
            let most = (1.25 * f64::from(so_far + 1) / 4.0).ceil() as u32;
            assert!(loads[picked.index()] < most.max(MIN_BUSY), "{loads:?}");
            loads[picked.index()] += 1;
        }
        loads.sort_unstable();
        // 1000 * 1.25 / 4 for as many as can have that, and the rest for the last.
        assert!(
            loads[3] <= 314 && loads[1] >= 310 && loads[0] >= 55,
            "{loads:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Values go where their weights say, to a few standard deviations.
        #[test]
        fn shares_follow_the_weights(weights in proptest::collection::vec(1..=16_u16, 1..10)) {
            let hash = hash(&names(weights.len()), &weights, 0.25);
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            let mut counts = vec![0_u32; weights.len()];
            for number in 0..2000 {
                counts[pick(&hash, up(&weights), &[], number).unwrap()] += 1;
            }
            for (count, weight) in counts.into_iter().zip(&weights) {
                let share = f64::from(*weight) / total;
                let deviation = (2000.0 * share * (1.0 - share)).sqrt();
                prop_assert!((f64::from(count) - 2000.0 * share).abs() <= 5.0 * deviation + 1.0);
            }
        }

        /// A backend that leaves moves its own values only, and one that is out or was tried is never picked.
        #[test]
        fn only_who_must_moves(
            weights in proptest::collection::vec(1..=256_u16, 2..12),
            out in proptest::collection::vec(any::<bool>(), 12),
            tried in proptest::collection::vec(0..12_u16, 0..=2),
            seed in any::<u32>(),
        ) {
            let hash = hash(&names(weights.len()), &weights, 0.25);
            let tried: Vec<_> = tried.into_iter().map(BackendIndex).collect();
            let members = || up(&weights).zip(&out).map(|(member, &out)| Member {
                health: if out { Health::Down } else { member.health },
                ..member
            });
            let is_eligible = |own: usize| !out[own] && !tried.contains(&BackendIndex(own as u16));
            for number in 0..40 {
                let number = seed.wrapping_add(number);
                let first = pick(&hash, up(&weights), &[], number).unwrap();
                match pick(&hash, members(), &tried, number) {
                    Some(picked) if is_eligible(first) => prop_assert_eq!(picked, first),
                    Some(picked) => prop_assert!(is_eligible(picked)),
                    None => prop_assert!(!(0..weights.len()).any(is_eligible)),
                }
            }
        }

        /// A new backend takes values from the others, and moves none between them; the order of the file does not matter.
        #[test]
        fn a_new_backend_only_takes(count in 1..20_usize, seed in any::<u32>()) {
            let all = names(count + 1);
            let (before, after) = (hash(&all[..count], &vec![1; count], 0.25), hash(&all, &vec![1; count + 1], 0.25));
            let mut turned = all.clone();
            turned.reverse();
            let turned = hash(&turned, &vec![1; count + 1], 0.25);
            for number in 0..60 {
                let number = seed.wrapping_add(number);
                let was = pick(&before, up(&vec![1; count]), &[], number).unwrap();
                let is = pick(&after, up(&vec![1; count + 1]), &[], number).unwrap();
                prop_assert!(is == was || is == count);
                let other = pick(&turned, up(&vec![1; count + 1]), &[], number).unwrap();
                prop_assert_eq!(count - other, is);
            }
        }

        /// However loads are, nobody is picked who is above the bound while another is below, and small loads move nobody.
        #[test]
        fn loads_are_bounded(
            backends in proptest::collection::vec((1..=4_u16, 0..40_u32), 1..12),
            factor in 0..200_u32,
            number in any::<u32>(),
        ) {
            let (weights, loads): (Vec<u16>, Vec<u32>) = backends.into_iter().unzip();
            let factor = f64::from(factor) / 100.0;
            let hash = hash(&names(weights.len()), &weights, factor);
            let sets = EligibleSet::new(up(&weights));
            let eligible = Eligible::new(sets.fresh(), &[], &loads);
            let picked = hash.pick(&eligible, &client(number), &mut Rng::from_seed(0)).unwrap().index();
            let all: u32 = loads.iter().sum();
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            let most = (1.0 + factor) * f64::from(all + 1) * f64::from(weights[picked]) / total;
            let first = pick(&hash, up(&weights), &[], number).unwrap();
            prop_assert!(picked == first || loads[first] >= MIN_BUSY);
            prop_assert!(loads[picked] < MIN_BUSY || f64::from(loads[picked]) < most + 1e-6);
        }
    }
}
