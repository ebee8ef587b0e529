//! First flights: requests of clients without a home that are under way, so that parallel ones of one browser find one another.
//! It remembers a client for as long as its first answer is outstanding and no longer, and counts nothing.
//! The walk goes on in `table.rs`, which holds them, and `l7/arrival.rs`, which opens and closes them.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::table::Table;
use crate::clock;
use crate::policy::balance::BackendIndex;
use crate::rng;

/// Flights at once in a pool; beyond about as many the longest ones are forgotten first.
const MOST: usize = 4096;

/// A first answer that takes longer than this is no longer what a page load waits for: others of the same address go their own way.
const LONGEST: Duration = Duration::from_secs(10);

/// A value is a backend's ordinal plus one, a time in seconds, and bits that tell two flights apart.
const BACKEND_BITS: u32 = 17;
const SECONDS_BITS: u32 = 24;
const SECONDS_MASK: u64 = (1 << SECONDS_BITS) - 1;

/// The first flights of a pool, over all workers.
#[derive(Debug)]
pub struct Flights {
    table: Table,
    hash: RandomState,
    began: Instant,
}

/// A flight that may be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    key: u64,
    value: u64,
}

impl Default for Flights {
    fn default() -> Flights {
        Flights {
            table: Table::new(MOST),
            hash: rng::keyed_hash(),
            began: clock::now(),
        }
    }
}

impl Flights {
    /// What requests that may be one client's have in common. Ordinals of backends hold for one generation.
    pub fn key(&self, generation: u64, client: IpAddr, user_agent: &[u8]) -> u64 {
        self.hash.hash_one((generation, client, user_agent))
    }

    /// The flight under a key, and where it goes.
    pub fn find(&self, key: u64, now: Instant) -> Option<(Flight, BackendIndex)> {
        let value = self.table.get(key)?;
        let backend = (value & ((1 << BACKEND_BITS) - 1)).checked_sub(1)?;
        (self.age(value, now) <= LONGEST.as_secs() as u32)
            .then_some((Flight { key, value }, BackendIndex(backend as u16)))
    }

    /// Opens a flight in place of the one under its key, if any. `salt` is any number that is not used twice.
    pub fn open(&self, key: u64, backend: BackendIndex, salt: u64, now: Instant) -> Flight {
        let time = self.seconds(now) << BACKEND_BITS;
        let value = salt << (BACKEND_BITS + SECONDS_BITS) | time | (u64::from(backend.0) + 1);
        self.table.put(key, value, |value| self.age(value, now));
        Flight { key, value }
    }

    /// Closes a flight; one that is closed, or was taken the place of, stays what it is.
    pub fn close(&self, flight: Flight) {
        let set = flight.key as usize;
        self.table.sweep(set, |value| value != flight.value, |_| {});
    }

    fn age(&self, value: u64, now: Instant) -> u32 {
        let then = value >> BACKEND_BITS;
        (self.seconds(now).wrapping_sub(then) & SECONDS_MASK) as u32
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() & SECONDS_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_flight_is_found_until_it_is_closed() {
        let flights = Flights::default();
        let now = clock::now();
        let key = flights.key(1, CLIENT, b"browser");
        assert_eq!(flights.find(key, now), None);
        let flight = flights.open(key, BackendIndex(u16::MAX), 7, now);
        let other = flights.key(1, CLIENT, b"other");
        assert_ne!(key, other);
        assert_ne!(key, flights.key(2, CLIENT, b"browser"));
        assert_eq!(flights.find(other, now), None);
        let found = Some((flight, BackendIndex(u16::MAX)));
        assert_eq!(flights.find(key, now), found);
        assert_eq!(flights.find(key, now + LONGEST), found);
        assert_eq!(
            flights.find(key, now + LONGEST + Duration::from_secs(2)),
            None
        );
        flights.close(flight);
        assert_eq!(flights.find(key, now), None);
        flights.close(flight);
    }

    #[test]
    fn a_flight_that_was_replaced_closes_nothing_else() {
        let flights = Flights::default();
        let now = clock::now();
        let first = flights.open(3, BackendIndex(0), 1, now);
        let second = flights.open(3, BackendIndex(0), 2, now);
        flights.close(first);
        assert_eq!(flights.find(3, now), Some((second, BackendIndex(0))));
    }

    #[test]
    fn there_is_room_for_so_many_and_the_oldest_go_first() {
        let flights = Flights::default();
        let now = clock::now();
        for key in 0..100_000 {
            let key = flights.key(key, CLIENT, b"");
            flights.open(key, BackendIndex(1), key, now);
        }
        let key = flights.key(0, CLIENT, b"late");
        let later = now + Duration::from_secs(1);
        let flight = flights.open(key, BackendIndex(2), 0, later);
        assert_eq!(flights.find(key, later), Some((flight, BackendIndex(2))));
    }
}
