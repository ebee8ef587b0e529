//! Open connections by the address that they come from, over all workers and within a fixed bound.
//! A count that is in use is never given to another address, and every connection takes back exactly what it added.
//! The walk goes on in `gate.rs`, which asks at the accept.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::cidr::network_of;
use crate::rng;

/// Counts that an address may lie in. They fill two cache lines, which a processor fetches as a pair.
const WAYS: usize = 16;

/// Sets. With so many, a machine with 65,536 addresses connected at once has one in 250 that finds no place.
const SETS: usize = 8192;

/// Bits of an IPv6 address that count: what a provider gives to one customer at least.
const PREFIX_V6: u8 = 64;

/// A count is, from its lowest bit: how many connections are open, and a keyed hash of whose they are. At 0 it is free.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The open connections of a listener, by address.
#[derive(Debug)]
pub struct Sources {
    sets: Box<[Set]>,
    hash: RandomState,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Set([AtomicU64; WAYS]);

/// What becomes of a connection.
#[derive(Debug)]
pub enum Admission {
    /// It is counted for as long as this lives.
    Counted(Seat),
    /// Every count of its set is in use by others: it passes uncounted.
    Uncounted,
    /// Its address has as many as it may.
    Refused,
}

/// A counted connection.
#[derive(Debug)]
pub struct Seat {
    sources: Arc<Sources>,
    place: u32,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources {
            sets: (0..SETS).map(|_| Set::default()).collect(),
            hash: rng::keyed_hash(),
        }
    }
}

impl Sources {
    /// Counts a connection of this address if it has fewer than `most`.
    pub fn admit(self: &Arc<Self>, address: IpAddr, most: usize) -> Admission {
        let hash = self.hash.hash_one(network_of(address, 32, PREFIX_V6));
        let set = hash as usize % SETS;
        let (tag, most) = (hash & !COUNT_MASK, (most as u64).min(COUNT_MASK - 1));
        // Each round that fails is one that another worker won.
        for _ in 0..WAYS * 4 {
            let Some((way, found)) = self.sets[set].look(tag) else {
                return Admission::Uncounted;
            };
            let count = found & COUNT_MASK;
            if count >= most {
                return Admission::Refused;
            }
            let word = &self.sets[set].0[way];
            let next = tag | (count + 1);
            if word.compare_exchange(found, next, Relaxed, Relaxed).is_ok() {
                let place = (set * WAYS + way) as u32;
                let sources = self.clone();
                return Admission::Counted(Seat { sources, place });
            }
        }
        Admission::Uncounted
    }

    fn word(&self, place: u32) -> &AtomicU64 {
        let place = place as usize;
        &self.sets[place / WAYS].0[place % WAYS]
    }
}

impl Set {
    /// The count of a tag, else a free one; `None` when all are in use.
    fn look(&self, tag: u64) -> Option<(usize, u64)> {
        let mut free = None;
        for (way, word) in self.0.iter().enumerate() {
            let found = word.load(Relaxed);
            if found & COUNT_MASK == 0 {
                free = free.or(Some((way, found)));
            } else if found & !COUNT_MASK == tag {
                return Some((way, found));
            }
        }
        free
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // While it counts this connection nobody else can have taken it over.
        self.sources.word(self.place).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn seat(sources: &Arc<Sources>, address: IpAddr, most: usize) -> Option<Seat> {
        match sources.admit(address, most) {
            Admission::Counted(seat) => Some(seat),
            Admission::Uncounted => panic!("a crowded set"),
            Admission::Refused => None,
        }
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn is_empty(sources: &Sources) -> bool {
        let mut words = sources.sets.iter().flat_map(|set| &set.0);
        words.all(|word| word.load(Relaxed) & COUNT_MASK == 0)
    }

    #[test]
    fn an_address_has_as_many_as_it_may() {
        let sources = Arc::new(Sources::default());
        let mut seats: Vec<_> = (0..3).map_while(|_| seat(&sources, v4(1), 3)).collect();
        assert_eq!(seats.len(), 3);
        assert!(seat(&sources, v4(1), 3).is_none());
        let more = seat(&sources, v4(1), 4);
        assert!(more.is_some(), "a reload may raise it");
        assert!(seat(&sources, v4(2), 1).is_some(), "another address");
        drop(more);
        seats.pop();
        assert!(seat(&sources, v4(1), 3).is_some());
        drop(seats);
        assert!(is_empty(&sources));
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let sources = Arc::new(Sources::default());
        let one = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1).into();
        let _first = seat(&sources, one(1), 1).unwrap();
        assert!(seat(&sources, one(2), 1).is_none());
        assert!(seat(&sources, other, 1).is_some());
        let mapped = Ipv4Addr::new(192, 0, 2, 1);
        let _second = seat(&sources, mapped.into(), 1).unwrap();
        assert!(seat(&sources, mapped.to_ipv6_mapped().into(), 1).is_none());
    }

    /// When every count of a set is in use, connections pass uncounted, and no count is disturbed.
    #[test]
    fn a_crowd_disturbs_no_count() {
        let sources = Arc::new(Sources::default());
        let mut seats = Vec::new();
        let mut uncounted = 0;
        for number in 0..1_000_000 {
            match sources.admit(v4(number), 1) {
                Admission::Counted(seat) => seats.push(seat),
                Admission::Uncounted => uncounted += 1,
                Admission::Refused => panic!("nobody has one"),
            }
        }
        assert_eq!(seats.len(), SETS * WAYS, "all places are in use");
        assert_eq!(seats.len() + uncounted, 1_000_000);
        for number in 0..1000 {
            assert!(!matches!(
                sources.admit(v4(number), 1),
                Admission::Counted(_)
            ));
        }
        drop(seats);
        assert!(is_empty(&sources));
    }

    /// Whatever workers do at once: nothing is left when all are gone, and nobody has more than it may.
    #[test]
    fn nothing_leaks() {
        let sources = Arc::new(Sources::default());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let sources = &sources;
                scope.spawn(move || {
                    let mut rng = crate::rng::Rng::from_seed(thread);
                    let mut seats = Vec::new();
                    for _ in 0..50_000 {
                        seats.extend(seat(sources, v4(rng.below(8)), 20));
                        if rng.below(3) == 0 && !seats.is_empty() {
                            let at = rng.below(seats.len() as u32) as usize;
                            seats.swap_remove(at);
                        }
                        let counts = sources.sets.iter().flat_map(|set| &set.0);
                        let highest = || counts.map(|word| word.load(Relaxed) & COUNT_MASK).max();
                        if rng.below(5000) == 0 {
                            assert!(highest() <= Some(20));
                        }
                    }
                });
            }
        });
        assert!(is_empty(&sources));
    }
}
