//! `maglev`: the client's address finds its backend in a table that every weir builds alike from the pool's names and weights.
//! It never looks at load, and its hash never changes: a change would move every client.
//! The walk ends here; see Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4.

use std::net::IpAddr;

use super::{BackendIndex, Balancer, Eligible, Loads};
use crate::policy::facts::Facts;
use crate::policy::rendezvous::{self, Rendezvous};
use crate::rng::Rng;

/// Places in the table. A prime, so that every permutation visits all of them, and a hundred for each of 655 backends.
const PLACES: u32 = 65_537;

/// A pool's table.
///
/// Backends take turns in the order of their names' hashes, more of them the more they weigh, and each takes the next free place of its own
/// permutation. So the shares are those of the weights to a place or two, and when a backend comes or goes nearly all others keep their places.
///
/// The table is of all backends, whatever their health. A client whose backend is not eligible goes where rendezvous hashing among the
/// eligible leads it: nobody else moves, and it is back when its backend is.
#[derive(Debug, Default)]
pub struct Maglev {
    /// By place; empty when there is no backend.
    table: Box<[BackendIndex]>,
    /// Who serves in place of whom.
    successors: Option<Rendezvous>,
}

impl Maglev {
    /// The table for the names and weights of a pool's backends in pool order; a weight of 0 counts as 1. It takes a few milliseconds.
    pub fn new<'a>(backends: impl IntoIterator<Item = (&'a str, u16)> + Clone) -> Maglev {
        let successors = Rendezvous::new(backends.clone());
        let mut turns: Vec<Turn> = (0..=u16::MAX)
            .zip(backends)
            .map(|(index, (name, weight))| Turn::new(BackendIndex(index), name, weight))
            .collect();
        turns.sort_unstable_by_key(|turn| turn.name_hash);
        Maglev {
            table: fill(&mut turns),
            successors: Some(successors),
        }
    }

    /// Whom the table names for a key, eligible or not.
    #[inline]
    pub fn first(&self, key: u64) -> Option<BackendIndex> {
        let place = key % u64::from(PLACES);
        self.table.get(place as usize).copied()
    }
}

impl Balancer for Maglev {
    fn pick<L: Loads>(
        &self,
        eligible: &Eligible<'_, L>,
        facts: &Facts<'_>,
        _rng: &mut Rng,
    ) -> Option<BackendIndex> {
        let key = client_key(facts.client);
        // Other bits than those that find the place: a backend that warms up takes clients from all of its places.
        let point = (rendezvous::key(&key.to_le_bytes()) >> 32) as u32;
        let is_warm = |backend| eligible.subset().takes(backend, point);
        if let Some(first) = self.first(key)
            && eligible.contains(first)
            && is_warm(first)
        {
            return Some(first);
        }
        let successors = self.successors.as_ref()?;
        successors
            .first(key, |backend| {
                eligible.contains(backend) && is_warm(backend)
            })
            .or_else(|| successors.first(key, |backend| eligible.contains(backend)))
    }
}

/// What a client is known by: its address, and of an IPv6 address the first 64 bits, since the rest is the client's to change.
pub(super) fn client_key(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => rendezvous::key(&address.octets()),
        IpAddr::V6(address) => rendezvous::key(&address.octets()[..8]),
    }
}

/// A backend while the table is filled.
#[derive(Debug)]
struct Turn {
    backend: BackendIndex,
    name_hash: u64,
    weight: u32,
    /// What it has saved for its next turn.
    credit: u32,
    /// The next place of its permutation.
    place: u32,
    skip: u32,
}

impl Turn {
    fn new(backend: BackendIndex, name: &str, weight: u16) -> Turn {
        let name_hash = rendezvous::key(name.as_bytes());
        let skip_hash = rendezvous::key(&name_hash.to_le_bytes());
        Turn {
            backend,
            name_hash,
            weight: u32::from(weight.max(1)),
            credit: 0,
            place: (name_hash % u64::from(PLACES)) as u32,
            skip: (skip_hash % u64::from(PLACES - 1)) as u32 + 1,
        }
    }

    fn advance(&mut self) -> u32 {
        let place = self.place;
        self.place = (place + self.skip) % PLACES;
        place
    }
}

/// Every backend has a turn in the first round; from then on one with half of the greatest weight has one in every second round.
fn fill(turns: &mut [Turn]) -> Box<[BackendIndex]> {
    let Some(greatest) = turns.iter().map(|turn| turn.weight).max() else {
        return Box::default();
    };
    for turn in turns.iter_mut() {
        turn.credit = greatest - turn.weight;
    }
    let mut table: Vec<Option<BackendIndex>> = vec![None; PLACES as usize];
    let mut left = table.len();
    while left > 0 {
        for turn in turns.iter_mut() {
            turn.credit += turn.weight;
            if turn.credit < greatest || left == 0 {
                continue;
            }
            turn.credit -= greatest;
            // A permutation visits every place, so that it meets a free one while there is any.
            while table[turn.place as usize].is_some() {
                turn.advance();
            }
            table[turn.advance() as usize] = Some(turn.backend);
            left -= 1;
        }
    }
    table.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::balance::{EligibleSet, Member, facts, up};
    use crate::rng::Rng;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.0.{n}:8080")).collect()
    }

    fn table(names: &[String], weights: &[u16]) -> Maglev {
        let names = names.iter().map(String::as_str);
        Maglev::new(names.zip(weights.iter().copied()))
    }

    fn counts(maglev: &Maglev, backends: usize) -> Vec<u32> {
        let mut counts = vec![0; backends];
        for backend in &maglev.table {
            counts[backend.index()] += 1;
        }
        counts
    }

    fn pick(
        maglev: &Maglev,
        members: impl Iterator<Item = Member>,
        tried: &[BackendIndex],
        client: IpAddr,
    ) -> Option<BackendIndex> {
        let sets = EligibleSet::new(members);
        let loads = Vec::new();
        let eligible = Eligible::new(sets.fresh(), tried, &loads);
        let facts = Facts { client, ..facts() };
        maglev.pick(&eligible, &facts, &mut Rng::from_seed(0))
    }

    fn client(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn the_table_never_changes() {
        let maglev = Maglev::new([("was1", 1), ("was2", 2), ("was3", 4)]);
        let found = (0..16).map(|n| maglev.first(client_key(client(n))).unwrap().index());
        assert_eq!(found.collect::<Vec<_>>(), FOUND);
        assert!(Maglev::default().first(0).is_none());
        assert!(Maglev::new([]).first(0).is_none());
    }

    const FOUND: [usize; 16] = [1, 2, 0, 2, 2, 2, 1, 2, 0, 1, 2, 2, 1, 2, 2, 2];

    #[test]
    fn what_a_client_is_known_by() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("192.0.2.7"), key("::ffff:192.0.2.7"));
        assert_ne!(key("192.0.2.7"), key("192.0.2.8"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    }

    #[test]
    fn many_backends_of_any_weight_all_have_a_place() {
        let weights: Vec<u16> = (0..3000).map(|n| n % 256 + 1).collect();
        let counts = counts(&table(&names(3000), &weights), 3000);
        assert!(counts.iter().all(|&count| count > 0));
    }

    #[test]
    fn a_backend_that_warms_up_takes_its_share() {
        let maglev = table(&names(4), &[1; 4]);
        let members = |share| {
            up(&[1; 4]).enumerate().map(move |(index, member)| Member {
                share: if index == 0 { share } else { 100 },
                ..member
            })
        };
        let taken = |share| -> Vec<u32> {
            let takes =
                |&n: &u32| pick(&maglev, members(share), &[], client(n)) == Some(BackendIndex(0));
            (0..4000).filter(takes).collect()
        };
        let (some, half, all) = (taken(10), taken(50), taken(100));
        assert!((60..140).contains(&some.len()), "{}", some.len());
        assert!((400..600).contains(&half.len()), "{}", half.len());
        assert!((850..1150).contains(&all.len()), "{}", all.len());
        assert!(some.iter().all(|client| half.contains(client)));
        assert!(half.iter().all(|client| all.contains(client)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Within 2 % of the weights, or two places where these are more.
        #[test]
        fn shares_follow_the_weights(weights in proptest::collection::vec(1..=256_u16, 1..60)) {
            let maglev = table(&names(weights.len()), &weights);
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (count, weight) in counts(&maglev, weights.len()).into_iter().zip(&weights) {
                let fair = f64::from(PLACES) * f64::from(*weight) / total;
                prop_assert!((f64::from(count) - fair).abs() <= (fair * 0.02).max(2.0), "{count} for {fair}");
            }
        }

        /// The order of the file does not matter, and a backend that leaves moves few of the others' clients.
        #[test]
        fn two_weirs_agree_and_few_clients_move(
            weight in 1..=256_u16,
            count in 2..40_usize,
            at in any::<proptest::sample::Index>(),
        ) {
            let (names, weights) = (names(count), vec![weight; count]);
            let all = table(&names, &weights);
            let reversed: Vec<String> = names.iter().rev().cloned().collect();
            let other = table(&reversed, &weights);
            for (one, other) in all.table.iter().zip(&other.table) {
                prop_assert_eq!(count - 1 - other.index(), one.index());
            }
            let at = at.index(count);
            let mut fewer_names = names.clone();
            fewer_names.remove(at);
            let fewer = table(&fewer_names, &weights[1..]);
            let places = all.table.iter().zip(&fewer.table);
            let moved = places.filter(|(before, after)| {
                before.index() != at && names[before.index()] != fewer_names[after.index()]
            });
            let moved = moved.count() as f64 / f64::from(PLACES);
            prop_assert!(moved < 0.05, "{moved}");
        }

        /// Only who was at a backend that is out moves, to one that is eligible, and comes back to the same.
        #[test]
        fn an_outage_moves_nobody_else(
            weights in proptest::collection::vec(1..=256_u16, 2..12),
            out in proptest::collection::vec(any::<bool>(), 12),
            tried in proptest::collection::vec(0..12_u16, 0..=2),
            seed in any::<u32>(),
        ) {
            let maglev = table(&names(weights.len()), &weights);
            let tried: Vec<_> = tried.into_iter().map(BackendIndex).collect();
            let members = || up(&weights).zip(&out).map(|(member, &out)| Member {
                health: if out { crate::policy::health::Health::Down } else { member.health },
                ..member
            });
            let is_eligible = |backend: BackendIndex| {
                backend.index() < weights.len() && !out[backend.index()] && !tried.contains(&backend)
            };
            for number in 0..40 {
                let client = client(seed.wrapping_add(number));
                let first = maglev.first(client_key(client)).unwrap();
                let picked = pick(&maglev, members(), &tried, client);
                match picked {
                    Some(picked) => prop_assert!(is_eligible(picked)),
                    None => prop_assert!(!(0..12).map(BackendIndex).any(is_eligible)),
                }
                if is_eligible(first) {
                    prop_assert_eq!(picked, Some(first));
                }
                prop_assert_eq!(pick(&maglev, up(&weights), &[], client), Some(first));
            }
        }
    }
}
