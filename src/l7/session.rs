//! The session that a client shows: looked up once for a request, and written down when its answer is there.
//! It decides nothing: what is known of it is a fact for `policy/choose.rs`.
//! The walk goes on in `state/live_sessions.rs`.

use std::time::Instant;

use super::exchange::Exchange;
use crate::http::cookie::Given;
use crate::policy::balance::BackendIndex;
use crate::policy::facts::{Facts, SessionFacts};
use crate::policy::persist::{AnyPersistence, Chosen, Lesson, Stickiness};
use crate::state::live_sessions::LiveSessions;
use crate::state::snapshot::{Route, Snapshot};

/// The session that a request showed; small, because it is kept while the request is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    key: [u8; 8],
    /// Who accepted it last, within the idle timeout.
    #[expect(dead_code, reason = "the stale-session rule will read it")]
    pub(super) accepted_by: Option<BackendIndex>,
    /// Whether anyone did.
    is_known: bool,
}

impl From<SessionFacts> for Shown {
    fn from(facts: SessionFacts) -> Shown {
        Shown {
            key: facts.key.to_ne_bytes(),
            accepted_by: facts.known.and_then(|known| known.backend),
            is_known: facts.known.is_some(),
        }
    }
}

/// What a request shows of a session, on a sticky route.
#[inline]
pub(super) fn look_up(
    snapshot: &Snapshot,
    route: &Route,
    facts: &Facts<'_>,
) -> Option<SessionFacts> {
    let shown = route.sticky.as_ref()?.session(facts.request?.head)?;
    let sessions = snapshot.pools[route.pool].sessions.as_ref()?;
    Some(sessions.look(shown, facts.now))
}

impl Shown {
    fn key(self) -> u64 {
        u64::from_ne_bytes(self.key)
    }
}

impl Exchange<'_> {
    /// Writes down what became of the session. A session is live when its application opened it or did not refuse it; a client
    /// that shows none is known by weir's token, from its second request on, lest one who keeps no cookies counts many times.
    pub(super) fn note_session(&self, chosen: &Chosen, given: Given<'_>) {
        let generation = &*self.generation;
        let route = self
            .facts
            .route
            .map(|route| &generation.snapshot.routes[route]);
        let pool = route.map(|route| &generation.snapshot.pools[route.pool]);
        let Some(sessions) = pool.and_then(|pool| pool.sessions.as_ref()) else {
            return;
        };
        let Some(choice) = self.facts.choice else {
            return;
        };
        let (backend, now) = (choice.backend, self.facts.started);
        let shown = self.facts.session.map(Shown::key);
        if let Some(AnyPersistence::Learn(mode)) =
            route.and_then(|route| route.sticky.as_ref().map(|sticky| &sticky.mode))
        {
            let is_known = self.facts.session.map(|session| session.is_known);
            if chosen.stickiness == Stickiness::Expired {
                shown.inspect(|shown| sessions.end(*shown));
            }
            let lesson = mode.lesson(is_known, chosen, given);
            return learn(sessions, lesson, shown, backend, now);
        }
        let token = || chosen.key.map(|key| sessions.key(&key));
        match (given, shown) {
            (Given::Value(id), shown) => {
                let key = sessions.key(id);
                let old = shown.or_else(token).filter(|old| *old != key);
                old.inspect(|old| sessions.end(*old));
                sessions.open(key, backend, now);
            }
            (Given::Deleted, shown) => {
                shown.inspect(|shown| sessions.end(*shown));
            }
            (Given::Nothing, shown) => {
                let known = shown.or_else(token);
                known.inspect(|known| sessions.note(*known, backend, now));
            }
        }
    }
}

/// Writes down what an answer taught.
fn learn(
    sessions: &LiveSessions,
    lesson: Lesson<'_>,
    shown: Option<u64>,
    backend: BackendIndex,
    now: Instant,
) {
    match (lesson, shown) {
        (Lesson::Opened(id), _) => sessions.open(sessions.key(id), backend, now),
        (Lesson::Used, Some(shown)) => {
            sessions.touch(shown, now);
        }
        (Lesson::Taken, Some(shown)) => sessions.note(shown, backend, now),
        (Lesson::Ended, Some(shown)) => sessions.end(shown),
        (_, None) | (Lesson::Nothing, _) => {}
    }
}
