//! The live sessions of a pool: who accepted a session last, when it was opened and when it was seen, within a fixed bound.
//! What it forgets is never needed to serve a request rightly; it knows no session id, only keyed hashes of them.
//! The walk goes on in `live_sessions.rs`, which looks at it as one generation does, and in `table.rs`, which holds it.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::table::Table;
use crate::rng;

/// The number that a backend's name has in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u16);

impl Slot {
    /// The greatest one.
    pub const MAX: Slot = Slot((1 << 15) - 2);
}

/// Counters that are made at once.
const CHUNK: usize = 256;

/// Seconds are kept in so many bits: half a year, after which they begin anew. Nothing idle is kept for so long.
const SECONDS: u32 = 24;
const SECONDS_MASK: u64 = (1 << SECONDS) - 1;

/// A value is, from its lowest bit: when the session was seen, when it was opened, the slot and one, and this.
const PROVEN: u64 = 1 << 63;

/// The live sessions of one pool, over all workers. They survive reloads as long as there is a pool of that name.
///
/// At most twice `capacity` are held. A session beyond that pushes out the one that was idle longest among the 8 that might lie in
/// its place, so that counts are exact until the table is more than half full, and too low above.
///
/// A session is *proven* when weir saw a backend open it. Others are what a client says and a backend did not contradict: they are pushed
/// out first and push out none that is proven, so that who invents session ids drives nobody out.
#[derive(Debug)]
pub struct Sessions {
    table: Table,
    capacity: usize,
    hash: RandomState,
    began: Instant,
    /// Whether another weir before this one noted sessions, which are not known here.
    is_later: AtomicBool,
    counts: Box<[OnceLock<Box<[AtomicU32]>>]>,
    total: AtomicUsize,
    /// Where the next sweep begins.
    hand: AtomicUsize,
}

/// What is known of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who accepted it last.
    pub slot: Slot,
    /// How long ago it was opened, in whole seconds.
    pub age: Duration,
    /// How long ago it was seen, in whole seconds and within the grain that it was noted with.
    pub idle: Duration,
}

/// What others may have to be told of a session that was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Who has it.
    pub slot: Slot,
    /// How long ago it was opened, in whole seconds.
    pub age: Duration,
    /// Whether it is new or moved. If not, a term went by since they were told last.
    pub changed: bool,
}

/// How often what did not change is written down, and told to others.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A session that was noted is not noted again for so long.
    pub grain: Duration,
    /// Others are told again after so long, counted from when a session was opened: nobody has to remember when that was.
    pub term: Duration,
}

impl Pace {
    fn news(self, slot: Slot, before: Option<Session>) -> Option<News> {
        let term = self.term.as_secs().max(1);
        let turn = |age: Duration| age.as_secs() / term;
        let (age, changed) = match before {
            None => (Duration::ZERO, true),
            Some(known) => (known.age, known.slot != slot),
        };
        let is_due = before.is_some_and(|known| turn(age) > turn(age.saturating_sub(known.idle)));
        (changed || is_due).then_some(News { slot, age, changed })
    }
}

impl Sessions {
    /// Room for `capacity` sessions, noted from `now` on.
    pub fn new(capacity: usize, now: Instant) -> Sessions {
        let chunks = usize::from(u16::MAX).div_ceil(CHUNK);
        Sessions {
            table: Table::new(capacity),
            capacity,
            hash: rng::keyed_hash(),
            began: now,
            is_later: AtomicBool::new(false),
            counts: (0..chunks).map(|_| OnceLock::new()).collect(),
            total: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// The same sessions, with room for `capacity`.
    pub fn resized(&self, capacity: usize, now: Instant) -> Sessions {
        let resized = Sessions {
            hash: self.hash.clone(),
            began: self.began,
            is_later: AtomicBool::new(self.is_later.load(Relaxed)),
            ..Sessions::new(capacity, now)
        };
        for (key, value) in (0..self.table.sets()).flat_map(|set| self.table.pairs(set)) {
            resized.count_up(slot_of(value));
            if let Some(displaced) = resized.table.put(key, value, |value| self.rank(value, now)) {
                resized.count_down(displaced);
            }
        }
        resized
    }

    /// For how long sessions have been noted here.
    #[inline]
    pub fn watched(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// From now on it is known that another weir noted sessions before.
    pub fn follow(&self) {
        self.is_later.store(true, Relaxed);
    }

    /// For how long a session that may be idle for `idle` may still turn up which another weir noted, and this one does not know.
    pub fn unseen_for(&self, idle: Duration, now: Instant) -> Option<Duration> {
        let left = idle.saturating_sub(self.watched(now));
        (self.is_later.load(Relaxed) && !left.is_zero()).then_some(left)
    }

    /// What it was made for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The key of what a client shows.
    #[inline]
    pub fn key(&self, shown: &[u8]) -> u64 {
        self.hash.hash_one(shown)
    }

    /// What is known of a session that was seen within `idle`.
    #[inline]
    pub fn find(&self, key: u64, idle: Duration, now: Instant) -> Option<Session> {
        let session = self.unpack(self.table.get(key)?, now);
        (session.idle <= idle).then_some(session)
    }

    /// Notes that the backend accepted a session now. Nothing is written if it is the one that did so just now.
    #[inline]
    pub fn note(&self, key: u64, slot: Slot, pace: Pace, now: Instant) -> Option<News> {
        let old = self.table.get(key);
        let session = old.map(|old| self.unpack(old, now));
        if session.is_some_and(|known| known.slot == slot && known.idle < pace.grain) {
            return None;
        }
        let age = session.map_or(Duration::ZERO, |known| known.age);
        let proven = old.is_some_and(|old| old & PROVEN != 0);
        self.write(key, slot, proven, age, now);
        pace.news(slot, session)
    }

    /// Notes that the backend has a proven session, which is `age` old if it was not known. Nothing is written if that was
    /// noted just now: many applications set their cookie on every answer.
    pub fn open(
        &self,
        key: u64,
        slot: Slot,
        age: Duration,
        pace: Pace,
        now: Instant,
    ) -> Option<News> {
        let old = self.table.get(key);
        let session = old.map(|old| self.unpack(old, now));
        let is_proven = old.is_some_and(|old| old & PROVEN != 0);
        if is_proven && session.is_some_and(|known| known.slot == slot && known.idle < pace.grain) {
            return None;
        }
        self.write(key, slot, true, session.map_or(age, |known| known.age), now);
        pace.news(slot, session)
    }

    /// Notes that a session was seen now, wherever it is.
    #[inline]
    pub fn touch(&self, key: u64, pace: Pace, now: Instant) -> Option<News> {
        let old = self.table.get(key)?;
        let known = self.unpack(old, now);
        let new = old & !SECONDS_MASK | self.seconds(now);
        // Who is first at it has the news.
        let is_noted = known.idle >= pace.grain && self.table.replace(key, old, new);
        is_noted.then(|| pace.news(known.slot, Some(known)))?
    }

    #[cold]
    fn write(&self, key: u64, slot: Slot, proven: bool, age: Duration, now: Instant) {
        let seen = self.seconds(now);
        let opened = seen.wrapping_sub(age.as_secs()) & SECONDS_MASK;
        let proof = if proven { PROVEN } else { 0 };
        let value = proof | (u64::from(slot.0) + 1) << (2 * SECONDS) | opened << SECONDS | seen;
        self.count_up(slot);
        if let Some(displaced) = self.table.put(key, value, |value| self.rank(value, now)) {
            self.count_down(displaced);
        }
    }

    /// The higher, the sooner it makes room.
    fn rank(&self, value: u64, now: Instant) -> u32 {
        let idle = self.unpack(value, now).idle.as_secs() as u32;
        if value & PROVEN == 0 {
            idle | 1 << SECONDS
        } else {
            idle
        }
    }

    /// Forgets a session.
    pub fn end(&self, key: u64) {
        if let Some(value) = self.table.remove(key) {
            self.count_down(value);
        }
    }

    /// How many sessions a backend has.
    #[inline]
    pub fn count(&self, slot: Slot) -> u32 {
        self.counter(slot).load(Relaxed)
    }

    /// How many sessions all backends have.
    #[inline]
    pub fn total(&self) -> usize {
        self.total.load(Relaxed)
    }

    /// Forgets the sessions among the next `share` of the table that were not seen within `idle`.
    pub fn sweep(&self, share: f64, idle: Duration, now: Instant) {
        if self.total() == 0 {
            return;
        }
        let sets = (self.table.sets() as f64 * share).ceil() as usize;
        let from = self.hand.fetch_add(sets, Relaxed);
        for set in from..from.wrapping_add(sets) {
            let stays = |value| self.unpack(value, now).idle <= idle;
            self.table.sweep(set, stays, |value| self.count_down(value));
        }
    }

    /// The shortest time for which any session of the backend has been idle; `None` when it has none. It looks at the whole table.
    pub fn last_seen(&self, slot: Slot, now: Instant) -> Option<Duration> {
        let sets = 0..self.table.sets();
        let sessions = sets.flat_map(|set| self.table.pairs(set));
        sessions
            .map(|(_, value)| self.unpack(value, now))
            .filter(|session| session.slot == slot)
            .map(|session| session.idle)
            .min()
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() & SECONDS_MASK
    }

    #[inline]
    fn unpack(&self, value: u64, now: Instant) -> Session {
        let now = self.seconds(now);
        let since = |then: u64| {
            let ago = now.wrapping_sub(then) & SECONDS_MASK;
            // Another thread's clock was read a moment later.
            Duration::from_secs(if ago > SECONDS_MASK / 2 { 0 } else { ago })
        };
        Session {
            slot: slot_of(value),
            age: since(value >> SECONDS),
            idle: since(value),
        }
    }

    fn counter(&self, slot: Slot) -> &AtomicU32 {
        let slot = usize::from(slot.0);
        let chunk = self.counts[slot / CHUNK]
            .get_or_init(|| (0..CHUNK).map(|_| AtomicU32::new(0)).collect());
        &chunk[slot % CHUNK]
    }

    fn count_up(&self, slot: Slot) {
        self.counter(slot).fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
    }

    fn count_down(&self, value: u64) {
        self.counter(slot_of(value)).fetch_sub(1, Relaxed);
        self.total.fetch_sub(1, Relaxed);
    }
}

fn slot_of(value: u64) -> Slot {
    Slot((((value & !PROVEN) >> (2 * SECONDS)) as u16).wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const IDLE: Duration = Duration::from_secs(60);
    const NO_GRAIN: Pace = pace(0);

    const fn pace(grain: u64) -> Pace {
        Pace {
            grain: Duration::from_secs(grain),
            term: Duration::from_secs(10),
        }
    }

    fn after(sessions: &Sessions, seconds: u64) -> Instant {
        sessions.began + Duration::from_secs(seconds)
    }

    #[test]
    fn sessions_are_opened_seen_moved_and_ended() {
        let sessions = Sessions::new(100, clock::now());
        let at = |seconds| after(&sessions, seconds);
        let (a, b) = (Slot(0), Slot(7));
        let key = sessions.key(b"1.was1");
        assert_eq!(sessions.find(key, IDLE, at(0)), None);
        sessions.note(key, a, NO_GRAIN, at(1));
        sessions.note(key, a, pace(10), at(5));
        let found = sessions.find(key, IDLE, at(9)).unwrap();
        let secs = Duration::from_secs;
        assert_eq!((found.slot, found.age, found.idle), (a, secs(8), secs(8)));
        sessions.note(key, b, pace(10), at(9));
        let found = sessions.find(key, IDLE, at(10)).unwrap();
        assert_eq!((found.slot, found.age, found.idle), (b, secs(9), secs(1)));
        assert_eq!((sessions.count(a), sessions.count(b)), (0, 1));
        assert_eq!(sessions.last_seen(b, at(19)), Some(secs(10)));
        assert_eq!(sessions.last_seen(a, at(19)), None);
        assert_eq!(sessions.find(key, IDLE, at(70)), None);
        sessions.end(key);
        sessions.end(key);
        assert_eq!((sessions.count(b), sessions.total()), (0, 0));
    }

    #[test]
    fn what_clients_invent_drives_no_proven_session_out() {
        let sessions = Sessions::new(100, clock::now());
        let now = after(&sessions, 0);
        let key = |id: u32| sessions.key(&id.to_ne_bytes());
        for id in 0..100 {
            sessions.open(key(id), Slot(1), Duration::ZERO, NO_GRAIN, now);
        }
        let proven = sessions.count(Slot(1));
        let later = after(&sessions, 30);
        for id in 1000..10_000 {
            sessions.note(key(id), Slot(2), NO_GRAIN, later);
        }
        assert_eq!(sessions.count(Slot(1)), proven);
        assert!(sessions.count(Slot(2)) > 0);
        // A real one finds a place among them, and stays proven when it moves.
        for id in 100..200 {
            sessions.open(key(id), Slot(1), Duration::ZERO, NO_GRAIN, later);
        }
        let more = sessions.count(Slot(1));
        assert!(more > proven + 80, "{more}");
        for id in 0..200 {
            sessions.note(key(id), Slot(3), NO_GRAIN, later);
        }
        for id in 10_000..20_000 {
            sessions.note(key(id), Slot(2), NO_GRAIN, later);
        }
        assert!(sessions.count(Slot(3)) >= more);
    }

    #[test]
    fn a_touch_moves_nothing() {
        let sessions = Sessions::new(100, clock::now());
        let at = |seconds| after(&sessions, seconds);
        let grain = pace(2);
        assert_eq!(sessions.touch(7, grain, at(0)), None);
        sessions.open(7, Slot(3), Duration::from_secs(50), grain, at(60));
        assert_eq!(sessions.touch(7, grain, at(65)), None);
        let found = sessions.find(7, IDLE, at(66)).unwrap();
        let secs = Duration::from_secs;
        assert_eq!(
            (found.slot, found.age, found.idle),
            (Slot(3), secs(56), secs(1))
        );
        // A session that is opened again is as old as it was.
        sessions.open(7, Slot::MAX, Duration::ZERO, grain, at(70));
        let found = sessions.find(7, IDLE, at(70)).unwrap();
        assert_eq!((found.slot, found.age), (Slot::MAX, secs(60)));
        assert_eq!((sessions.count(Slot(3)), sessions.count(Slot::MAX)), (0, 1));
    }

    #[test]
    fn others_are_told_of_what_is_new_or_moved_and_once_a_term() {
        let sessions = Sessions::new(100, clock::now());
        let told = |slot, age, changed| {
            let age = Duration::from_secs(age);
            Some(News {
                slot: Slot(slot),
                age,
                changed,
            })
        };
        let (at, grain) = (|seconds| after(&sessions, seconds), pace(2));
        assert_eq!(sessions.note(7, Slot(1), grain, at(5)), told(1, 0, true));
        assert_eq!(sessions.note(7, Slot(1), grain, at(8)), None);
        assert_eq!(sessions.touch(7, grain, at(14)), None);
        assert_eq!(sessions.touch(7, grain, at(15)), None, "within the grain");
        assert_eq!(sessions.touch(7, grain, at(16)), told(1, 11, false));
        assert_eq!(sessions.touch(7, grain, at(24)), None);
        assert_eq!(
            sessions.open(7, Slot(2), Duration::ZERO, grain, at(24)),
            told(2, 19, true)
        );
        assert_eq!(
            sessions.open(7, Slot(2), Duration::ZERO, grain, at(48)),
            told(2, 43, false)
        );
    }

    #[test]
    fn what_was_idle_is_swept() {
        // So much room that no set is full, whatever the hash.
        let sessions = Sessions::new(10_000, clock::now());
        for id in 0..500_u32 {
            let slot = Slot((id % 5) as u16);
            let now = after(&sessions, u64::from(id % 100));
            sessions.note(sessions.key(&id.to_ne_bytes()), slot, NO_GRAIN, now);
        }
        assert_eq!((sessions.total(), sessions.count(Slot(3))), (500, 100));
        for _ in 0..4 {
            sessions.sweep(0.25, IDLE, after(&sessions, 109));
        }
        // Seen at 49 and later.
        assert_eq!(sessions.total(), 255);
    }

    #[test]
    fn counts_are_exact_below_the_bound_and_follow_into_another_size() {
        let sessions = Sessions::new(10_000, clock::now());
        let now = after(&sessions, 0);
        for id in 0..10_000_u32 {
            sessions.note(sessions.key(&id.to_ne_bytes()), Slot(1), NO_GRAIN, now);
        }
        let counted = sessions.count(Slot(1));
        assert!((9_900..=10_000).contains(&counted), "{counted}");
        let large = sessions.resized(40_000, clock::now());
        assert_eq!(large.count(Slot(1)), counted);
        let known = (0..10_000_u32).filter(|id| {
            let key = large.key(&id.to_ne_bytes());
            large.find(key, IDLE, now).is_some()
        });
        assert_eq!(known.count() as u32, counted);
        // However many come, no more are held than there is room for.
        for id in 0..100_000_u32 {
            sessions.note(sessions.key(&id.to_ne_bytes()), Slot(2), NO_GRAIN, now);
        }
        assert_eq!(
            sessions.total(),
            (sessions.count(Slot(1)) + sessions.count(Slot(2))) as usize
        );
        assert!(sessions.total() <= sessions.table.sets() * 8);
    }

    #[test]
    fn seconds_begin_anew_without_harm() {
        let sessions = Sessions::new(10, clock::now());
        let end = 1 << SECONDS;
        sessions.note(5, Slot(0), NO_GRAIN, after(&sessions, end - 2));
        let found = sessions.find(5, IDLE, after(&sessions, end + 3)).unwrap();
        assert_eq!(found.idle, Duration::from_secs(5));
    }
}
