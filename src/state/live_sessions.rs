//! The live sessions of a pool as one generation sees them: by backend, and within the longest idle timeout of its routes.
//! It is an index and nothing more; what it indexes outlives it.
//! The walk goes on in `l7/plan.rs`, which looks a session up, and `l7/session.rs`, which writes down what became of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::sessions::{News, Pace, Sessions, Slot};
use crate::http::cookie::Given;
use crate::policy::balance::BackendIndex;
use crate::policy::facts::{KnownSession, SessionFacts};
use crate::policy::persist::Lesson;

/// A session that was noted is not noted again for this part of the idle timeout, so that few requests write what others read.
const GRAIN: u32 = 256;

/// What others know of a session is told to them anew so often within the idle timeout.
const TERMS: u32 = 4;

/// A pool's live sessions.
#[derive(Clone, Debug)]
pub struct LiveSessions {
    sessions: Arc<Sessions>,
    /// Every name that has a number, by that number. A backend that comes back finds its sessions again.
    names: Arc<[Named]>,
    slots: Box<[Slot]>,
    /// Keeps the numbers of the backends from being given to others: a request may outlive its generation, and then note a session.
    _held: Arc<[Arc<()>]>,
    backends: Box<[Option<BackendIndex>]>,
    idle: Duration,
    is_local: bool,
}

/// Who has a number.
#[derive(Clone, Debug)]
struct Named {
    name: Arc<str>,
    /// The generations that may write under it.
    holders: Weak<()>,
}

impl LiveSessions {
    /// The live sessions of a pool whose backends' names come in pool order, after `previous`. `idle` is the longest time that a session
    /// may be idle on any of its routes; `is_local` says whether one of them leads to sessions in the memory of one server. They are noted
    /// from `now` on.
    pub fn new(
        previous: Option<&LiveSessions>,
        names: &[Arc<str>],
        capacity: usize,
        idle: Duration,
        is_local: bool,
        now: Instant,
    ) -> LiveSessions {
        let sessions = match previous.map(|known| &known.sessions) {
            Some(known) if known.capacity() == capacity => known.clone(),
            Some(known) => Arc::new(known.resized(capacity, now)),
            None => Arc::new(Sessions::new(capacity, now)),
        };
        let (names_by_slot, slots, held) = number(previous, names);
        let mut backends = vec![None; names_by_slot.len()];
        for (slot, index) in slots.iter().zip(0..=u16::MAX) {
            backends[usize::from(slot.0)] = Some(BackendIndex(index));
        }
        LiveSessions {
            sessions,
            names: names_by_slot.into(),
            slots: slots.into(),
            _held: held.into(),
            backends: backends.into(),
            idle,
            is_local,
        }
    }

    /// What a request shows of a session, and what is known of it.
    #[inline]
    pub fn look(&self, shown: &[u8], now: Instant) -> SessionFacts {
        let key = self.sessions.key(shown);
        let found = self.sessions.find(key, self.idle, now);
        SessionFacts {
            key,
            known: found.map(|session| KnownSession {
                backend: self
                    .backends
                    .get(usize::from(session.slot.0))
                    .copied()
                    .flatten(),
                idle: session.idle,
                age: session.age,
            }),
        }
    }

    /// The key of a session whose id is `shown`.
    #[inline]
    pub fn key(&self, shown: &[u8]) -> u64 {
        self.sessions.key(shown)
    }

    /// Notes that a backend accepted a session now, whichever had it before.
    #[inline]
    pub fn note(&self, key: u64, backend: BackendIndex, now: Instant) -> Option<News> {
        let slot = self.slots.get(backend.index())?;
        self.sessions.note(key, *slot, self.pace(), now)
    }

    /// Notes that a backend opened a session, so that no session which a client only speaks of pushes it out.
    pub fn open(&self, key: u64, backend: BackendIndex, now: Instant) -> Option<News> {
        let slot = self.slots.get(backend.index())?;
        self.sessions
            .open(key, *slot, Duration::ZERO, self.pace(), now)
    }

    /// Notes a session that another weir knows: which backend has it, and how old it is. Nothing if the pool has no such backend.
    pub fn adopt(&self, key: u64, backend: &str, age: Duration, now: Instant) {
        let name = |slot: &&Slot| &*self.names[usize::from(slot.0)].name == backend;
        if let Some(slot) = self.slots.iter().find(name) {
            self.sessions.open(key, *slot, age, self.pace(), now);
        }
    }

    /// Notes that a known session was accepted now, whoever did it: it stays with the backend that it belongs to.
    #[inline]
    pub fn touch(&self, key: u64, now: Instant) -> Option<News> {
        self.sessions.touch(key, self.pace(), now)
    }

    /// Writes down what a backend's answer made of a session. A session is live when its application opened it or did not refuse it;
    /// a client that shows none is known by weir's token, from its second request on, lest one who keeps no cookies counts many times.
    ///
    /// `shown` is the key of the session that the request showed, `token` what the client's own token knows it by, `given` what the answer does to the session's id.
    pub fn answered(
        &self,
        backend: BackendIndex,
        shown: Option<u64>,
        token: Option<[u8; 8]>,
        given: Given<'_>,
        now: Instant,
    ) {
        let known = || shown.or_else(|| token.map(|token| self.key(&token)));
        match given {
            Given::Value(id) => {
                let key = self.key(id);
                let old = known().filter(|old| *old != key);
                old.inspect(|old| self.end(*old));
                self.open(key, backend, now);
            }
            Given::Deleted => {
                shown.inspect(|shown| self.end(*shown));
            }
            Given::Nothing => {
                if let Some(known) = known() {
                    self.note(known, backend, now);
                }
            }
        }
    }

    /// Writes down what an answer taught of the session whose key the request showed; what others may have to be told of it.
    pub fn learn(
        &self,
        lesson: Lesson<'_>,
        backend: BackendIndex,
        shown: Option<u64>,
        now: Instant,
    ) -> Option<News> {
        match (lesson, shown) {
            (Lesson::Opened(id), _) => self.open(self.key(id), backend, now),
            (Lesson::Used, Some(shown)) => self.touch(shown, now),
            (Lesson::Taken, Some(shown)) => self.note(shown, backend, now),
            (Lesson::Ended, Some(shown)) => {
                self.end(shown);
                None
            }
            (_, None) | (Lesson::Nothing, _) => None,
        }
    }

    /// The name of the backend that news are about.
    pub fn name(&self, news: &News) -> &str {
        let name = self.names.get(usize::from(news.slot.0));
        name.map_or("", |named| &named.name)
    }

    /// How long a store has to keep a session that this weir may still know.
    pub fn kept_for(&self) -> Duration {
        self.idle + self.pace().term
    }

    /// For how long what was accepted is known; `None`: for longer than a session lives.
    #[inline]
    pub fn watched(&self, now: Instant) -> Option<Duration> {
        let watched = self.sessions.watched(now);
        (watched < self.idle).then_some(watched)
    }

    fn pace(&self) -> Pace {
        Pace {
            grain: grain(self.idle),
            term: self.idle / TERMS,
        }
    }

    /// Forgets a session.
    pub fn end(&self, key: u64) {
        self.sessions.end(key);
    }

    /// How many live sessions a backend has.
    #[inline]
    pub fn count(&self, backend: BackendIndex) -> u32 {
        let slot = self.slots.get(backend.index());
        slot.map_or(0, |slot| self.sessions.count(*slot))
    }

    /// Whether they would be lost with their backends.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// How many live sessions would be lost with a backend.
    pub fn held(&self, backend: BackendIndex) -> u32 {
        match self.is_local {
            true => self.count(backend),
            false => 0,
        }
    }

    /// From now on it is known that another weir served before this one, whose sessions are not known here.
    pub fn follow(&self) {
        self.sessions.follow();
    }

    /// For how long a session may still turn up that would be lost with its backend and is not known, because weir has not served for that
    /// long; `None` when there is none.
    pub fn unseen_for(&self, now: Instant) -> Option<Duration> {
        let unseen = || self.sessions.unseen_for(self.idle, now);
        self.is_local.then(unseen).flatten()
    }

    /// When the last session of a backend will have expired, if none is used again; `None` when there is none. It costs a look at
    /// the whole table.
    pub fn expires_in(&self, backend: BackendIndex, now: Instant) -> Option<Duration> {
        let slot = self.slots.get(backend.index())?;
        let idle = self.sessions.last_seen(*slot, now)?;
        Some(self.idle.saturating_sub(idle))
    }

    /// Forgets what expired, all of it within an eighth of the idle timeout if asked once a second.
    pub fn sweep(&self, now: Instant) {
        let turn = (self.idle.as_secs_f64() / 8.0).clamp(1.0, 16.0);
        self.sessions.sweep(1.0 / turn, self.idle, now);
    }
}

/// How long a session may have been idle less than is known, where sessions may be idle for so long.
pub fn grain(idle: Duration) -> Duration {
    (idle / GRAIN).max(Duration::from_secs(1))
}

/// A number for every name, and what holds it: the one that it had before, else one that nobody needs, else a new one.
fn number(
    previous: Option<&LiveSessions>,
    names: &[Arc<str>],
) -> (Vec<Named>, Vec<Slot>, Vec<Arc<()>>) {
    let mut by_slot = previous.map_or_else(Vec::new, |known| known.names.to_vec());
    let mut known: HashMap<Arc<str>, u16> = by_slot
        .iter()
        .map(|named| named.name.clone())
        .zip(0..=u16::MAX)
        .collect();
    let count = |slot| previous.map_or(0, |known| known.sessions.count(Slot(slot)));
    let wanted: HashSet<&Arc<str>> = names.iter().collect();
    let is_free = |(slot, named): &(u16, &Named)| {
        !wanted.contains(&named.name) && named.holders.strong_count() == 0 && count(*slot) == 0
    };
    let numbered = (0..=u16::MAX).zip(&by_slot);
    let mut free: Vec<u16> = numbered.filter(is_free).map(|(slot, _)| slot).collect();
    let mut held = Vec::with_capacity(names.len());
    let slots = names.iter().map(|name| {
        let slot = known.get(name).copied().unwrap_or_else(|| {
            free.pop().unwrap_or_else(|| {
                by_slot.push(Named {
                    name: name.clone(),
                    holders: Weak::new(),
                });
                (by_slot.len() - 1).min(usize::from(Slot::MAX.0)) as u16
            })
        });
        let named = &mut by_slot[usize::from(slot)];
        named.name = name.clone();
        let holder = named.holders.upgrade().unwrap_or_default();
        named.holders = Arc::downgrade(&holder);
        held.push(holder);
        known.insert(name.clone(), slot);
        Slot(slot)
    });
    let slots = slots.collect();
    (by_slot, slots, held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const IDLE: Duration = Duration::from_secs(1800);

    fn live_sessions(previous: Option<&LiveSessions>, names: &[&str]) -> LiveSessions {
        let names: Vec<Arc<str>> = names.iter().copied().map(Arc::from).collect();
        LiveSessions::new(previous, &names, 100, IDLE, true, clock::now())
    }

    #[test]
    fn a_session_belongs_to_a_name_through_every_reload() {
        let now = clock::now();
        let one = live_sessions(None, &["a", "b", "c"]);
        let shown =
            |live: &LiveSessions, id: &[u8]| live.look(id, now).known.map(|known| known.backend);
        one.note(one.key(b"1"), BackendIndex(1), now);
        one.note(one.key(b"2"), BackendIndex(2), now);
        assert_eq!(shown(&one, b"1"), Some(Some(BackendIndex(1))));
        assert_eq!(shown(&one, b"3"), None);

        let two = live_sessions(Some(&one), &["c", "d", "a"]);
        assert_eq!(shown(&two, b"1"), Some(None), "its backend is gone");
        assert_eq!(shown(&two, b"2"), Some(Some(BackendIndex(0))));
        assert_eq!(
            [0, 1, 2].map(|index| two.count(BackendIndex(index))),
            [1, 0, 0]
        );

        let three = live_sessions(Some(&two), &["b", "e"]);
        assert_eq!(
            shown(&three, b"1"),
            Some(Some(BackendIndex(0))),
            "it came back"
        );
        assert_eq!(three.held(BackendIndex(0)), 1);
        assert!(
            three.names.len() <= 5,
            "numbers are used again: {:?}",
            three.names
        );
    }

    #[test]
    fn a_request_that_outlives_its_generation_writes_under_no_other_name() {
        let now = clock::now();
        let one = live_sessions(None, &["a", "gone"]);
        let two = live_sessions(Some(&one), &["a"]);
        let three = live_sessions(Some(&two), &["a", "new"]);
        one.open(one.key(b"1"), BackendIndex(1), now);
        assert_eq!(three.count(BackendIndex(1)), 0);
        let back = live_sessions(Some(&three), &["gone"]);
        let known = back.look(b"1", now).known.map(|known| known.backend);
        assert_eq!(known, Some(Some(BackendIndex(0))));
    }

    #[test]
    fn numbers_do_not_run_out() {
        let mut last = live_sessions(None, &["a", "b"]);
        for reload in 0..1000 {
            let name = format!("was{reload}");
            last = live_sessions(Some(&last), &["a", &name]);
        }
        assert!(last.names.len() <= 4);
    }
}
