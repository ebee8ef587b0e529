//! The session that a client shows: looked up once for a request, and written down when its answer is there.
//! It decides nothing: what is known of it is a fact for `policy/choose.rs`.
//! The walk goes on in `state/live_sessions.rs`.

use super::exchange::Exchange;
use crate::http::cookie::Given;
use crate::http::head::AnswerHead;
use crate::policy::balance::BackendIndex;
use crate::policy::facts::{Facts, SessionFacts};
use crate::policy::persist::Chosen;
use crate::policy::retry::{self, MAX_RETRIES, NewId};
use crate::state::snapshot::{Route, Snapshot};

/// The session that a request showed; small, because it is kept while the request is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    key: [u8; 8],
    /// Who accepted it last, within the idle timeout.
    pub(super) accepted_by: Option<BackendIndex>,
}

impl From<SessionFacts> for Shown {
    fn from(facts: SessionFacts) -> Shown {
        Shown {
            key: facts.key.to_ne_bytes(),
            accepted_by: facts.known.and_then(|known| known.backend),
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

impl Exchange<'_> {
    /// Whether the answer shows that the client's session is over, and the client need not stay for that.
    pub(super) fn is_session_over(&self, answer: &AnswerHead<'_>) -> bool {
        let choice = self.facts.choice.zip(self.facts.session);
        let Some((choice, shown)) = choice.filter(|(choice, _)| {
            let chosen = choice.sticky;
            chosen.is_some_and(|chosen| chosen.may_leave)
        }) else {
            return false;
        };
        let snapshot = &*self.generation.snapshot;
        let route = self.facts.route.map(|route| &snapshot.routes[route]);
        let sticky = route.and_then(|route| route.sticky.as_ref());
        let sessions = route.and_then(|route| snapshot.pools[route.pool].sessions.as_ref());
        let is_other = sticky.zip(sessions).is_some_and(|(sticky, sessions)| {
            matches!(sticky.given(answer), Given::Value(id)
                if sessions.key(id).to_ne_bytes() != shown.key)
        });
        retry::is_over(NewId {
            may_leave: self.facts.tries <= MAX_RETRIES,
            is_harmless: self.head.is_some_and(|head| head.is_plain),
            is_passed_on: self.answer.interims > 0,
            is_other,
            was_accepted: shown.accepted_by == Some(choice.backend),
        })
    }

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
        let shown = self
            .facts
            .session
            .map(|session| u64::from_ne_bytes(session.key));
        let token = || chosen.key.map(|key| sessions.key(&key));
        match (given, shown) {
            (Given::Value(id), shown) => {
                let key = sessions.key(id);
                let old = shown.or_else(token).filter(|old| *old != key);
                old.inspect(|old| sessions.end(*old));
                sessions.note(key, backend, now);
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
