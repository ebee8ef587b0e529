//! First flights: requests of clients without a home that are under way, so that parallel ones of one browser find one another.
//! It remembers a client for as long as its first answer is outstanding and no longer, and counts nothing.
//! The walk goes on in `table.rs`, which holds them, and `l7/arrival.rs`, which opens and closes them.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::table::Table;
use crate::policy::balance::BackendIndex;
use crate::rng;

/// Flights at once in a pool; beyond about as many the longest ones are forgotten first.
const MOST: usize = 4096;

/// A first answer that takes longer than this is no longer what a page load waits for: others of the same address go their own way.
const LONGEST: Duration = Duration::from_secs(10);

/// Requests of one flight: a browser has up to six connections to a host. Who comes after so many is probably another client behind the
/// same address, and begins a flight of its own.
const TOGETHER: u64 = 8;

/// A value is, from the lowest bit on: how many requests, a backend's ordinal plus one, a time in seconds, and bits that tell two
/// flights apart. All but the first are what a flight is known by.
const COUNT_BITS: u32 = 4;
const BACKEND_BITS: u32 = 17;
const SECONDS_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const BACKEND_MASK: u64 = (1 << BACKEND_BITS) - 1;
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

impl Flights {
    /// None so far.
    pub fn new(now: Instant) -> Flights {
        Flights {
            table: Table::new(MOST),
            hash: rng::keyed_hash(),
            began: now,
        }
    }

    /// What requests that may be one client's have in common. Ordinals of backends hold for one generation.
    pub fn key(&self, generation: u64, client: IpAddr, user_agent: &[u8]) -> u64 {
        self.hash.hash_one((generation, client, user_agent))
    }

    /// Where the flight under a key goes, if there is one with room.
    pub fn destination(&self, key: u64, now: Instant) -> Option<BackendIndex> {
        let value = self.open_to_more(key, now)?;
        let backend = (value >> COUNT_BITS & BACKEND_MASK).checked_sub(1)?;
        Some(BackendIndex(backend as u16))
    }

    /// Joins the flight under a key, if it goes to that backend and has room.
    pub fn join(&self, key: u64, backend: BackendIndex, now: Instant) -> Option<Flight> {
        while self.destination(key, now) == Some(backend) {
            let value = self.open_to_more(key, now)?;
            // Whoever is faster leaves one place less, so this ends.
            if self.table.replace(key, value, value + 1) {
                return Some(Flight { key, value });
            }
        }
        None
    }

    /// Opens a flight in place of the one under its key, unless that has room, which is `None`. `salt` is any number that is not used
    /// twice.
    pub fn open(&self, key: u64, backend: BackendIndex, salt: u64, now: Instant) -> Option<Flight> {
        let parts = [
            (1, 0),
            (u64::from(backend.0) + 1, COUNT_BITS),
            (self.seconds(now), COUNT_BITS + BACKEND_BITS),
            (salt, COUNT_BITS + BACKEND_BITS + SECONDS_BITS),
        ];
        let value = parts
            .iter()
            .fold(0, |value, (part, shift)| value | part << shift);
        let age = |value| self.age(value, now);
        let stays = |value| self.has_room(value, now);
        let put = self.table.put_unless(key, value, age, stays);
        put.is_ok().then_some(Flight { key, value })
    }

    /// Closes a flight; one that is closed, or was taken the place of, stays what it is.
    pub fn close(&self, flight: &Flight) {
        let is_other = |value| (value ^ flight.value) & !COUNT_MASK != 0;
        self.table.sweep(flight.key as usize, is_other, |_| {});
    }

    fn open_to_more(&self, key: u64, now: Instant) -> Option<u64> {
        let value = self.table.get(key)?;
        self.has_room(value, now).then_some(value)
    }

    fn has_room(&self, value: u64, now: Instant) -> bool {
        let is_late = self.age(value, now) > LONGEST.as_secs() as u32;
        value & COUNT_MASK < TOGETHER && !is_late
    }

    fn age(&self, value: u64, now: Instant) -> u32 {
        let then = value >> (COUNT_BITS + BACKEND_BITS);
        (self.seconds(now).wrapping_sub(then) & SECONDS_MASK) as u32
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() & SECONDS_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::net::Ipv4Addr;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_flight_is_found_until_it_is_closed() {
        let flights = Flights::new(clock::now());
        let now = clock::now();
        let key = flights.key(1, CLIENT, b"browser");
        assert_eq!(flights.destination(key, now), None);
        let last = BackendIndex(u16::MAX);
        let flight = flights.open(key, last, 7, now).unwrap();
        let other = flights.key(1, CLIENT, b"other");
        assert_ne!(key, other);
        assert_ne!(key, flights.key(2, CLIENT, b"browser"));
        assert_eq!(flights.destination(other, now), None);
        assert_eq!(flights.destination(key, now), Some(last));
        assert_eq!(flights.destination(key, now + LONGEST), Some(last));
        let late = now + LONGEST + Duration::from_secs(2);
        assert_eq!(flights.destination(key, late), None);
        flights.close(&flight);
        assert_eq!(flights.destination(key, now), None);
        flights.close(&flight);
    }

    #[test]
    fn so_many_go_together_and_any_of_them_ends_it() {
        let flights = Flights::new(clock::now());
        let (now, at) = (clock::now(), BackendIndex(2));
        assert!(flights.open(3, at, 1, now).is_some());
        assert_eq!(flights.open(3, at, 4, now), None, "it has room");
        assert_eq!(flights.join(3, BackendIndex(1), now), None);
        let joined: Vec<_> = (1..TOGETHER).map(|_| flights.join(3, at, now)).collect();
        assert!(joined.iter().all(Option::is_some));
        assert_eq!(flights.join(3, at, now), None);
        assert_eq!(flights.destination(3, now), None);
        let second = flights.open(3, at, 2, now).unwrap();
        flights.close(&joined[4].unwrap());
        assert_eq!(flights.destination(3, now), Some(at), "another one");
        let joined = flights.join(3, at, now).unwrap();
        flights.close(&joined);
        assert_eq!(flights.destination(3, now), None);
        flights.close(&second);
    }

    /// Workers that choose at the same time, each a backend of its own. The system may stop one between the two stores of an entry, and
    /// the other cannot know.
    #[test]
    fn one_of_many_leads() {
        let (now, mut twice) = (clock::now(), 0);
        let flights = Flights::new(now);
        for key in 1..2_000 {
            let together = std::sync::Barrier::new(2);
            let leads = |backend: u16| {
                together.wait();
                let salt = u64::from(backend);
                flights
                    .open(key, BackendIndex(backend), salt, now)
                    .is_some()
            };
            let leaders = std::thread::scope(|scope| {
                let other = scope.spawn(|| leads(1));
                usize::from(leads(2)) + usize::from(other.join().unwrap())
            });
            assert_ne!(leaders, 0, "of {key}");
            twice += leaders - 1;
        }
        assert!(twice < 20, "{twice} times");
    }

    #[test]
    fn there_is_room_for_so_many_and_the_oldest_go_first() {
        let flights = Flights::new(clock::now());
        let now = clock::now();
        for key in 0..100_000 {
            let key = flights.key(key, CLIENT, b"");
            flights.open(key, BackendIndex(1), key, now);
        }
        let key = flights.key(0, CLIENT, b"late");
        let later = now + Duration::from_secs(1);
        flights.open(key, BackendIndex(2), 0, later);
        assert_eq!(flights.destination(key, later), Some(BackendIndex(2)));
    }
}
