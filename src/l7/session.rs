//! The session that a client shows: looked up once for a request, and written down when its answer is there.
//! It decides nothing: what is known of it is a fact for `policy/choose.rs`.
//! The walk goes on in `state/live_sessions.rs`.

use super::exchange::Exchange;
use crate::http::cookie::Given;
use crate::http::head::AnswerHead;
use crate::http::request;
use crate::policy::balance::BackendIndex;
use crate::policy::facts::{Facts, SessionFacts};
use crate::policy::persist::{AnyPersistence, Chosen, Learn, Lesson, Stickiness};
use crate::policy::retry::{self, MAX_RETRIES, NewId};
use crate::state::live_sessions::LiveSessions;
use crate::state::snapshot::{Route, Snapshot};
use crate::state::store::{Found, Request};

/// The session that a request showed; small, because it is kept while the request is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    key: [u8; 8],
    /// Who accepted it last, within the idle timeout.
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
    pub(super) fn key(self) -> u64 {
        u64::from_ne_bytes(self.key)
    }
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

    /// Writes down what became of the session.
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
        if let Some((route, AnyPersistence::Learn(mode))) =
            route.and_then(|route| Some((route, &route.sticky.as_ref()?.mode)))
        {
            let is_known = self.facts.session.map(|session| session.is_known);
            if chosen.stickiness == Stickiness::Expired {
                shown.inspect(|shown| sessions.end(*shown));
            }
            let lesson = mode.lesson(is_known, chosen, given);
            return self.learn(route, mode, sessions, lesson, backend);
        }
        sessions.answered(backend, shown, chosen.key, given, now);
    }

    /// Writes down what an answer taught, and tells the store of it when that is news.
    fn learn(
        &self,
        route: &Route,
        mode: &Learn,
        sessions: &LiveSessions,
        lesson: Lesson<'_>,
        backend: BackendIndex,
    ) {
        let now = self.facts.started;
        let shown = self.facts.session.map(Shown::key);
        let news = sessions.learn(lesson, backend, shown, now);
        let is_over = lesson == Lesson::Ended && shown.is_some();
        let (Some(store), Some(keys)) = (&route.store, mode.store()) else {
            return;
        };
        let names = || match lesson {
            Lesson::Opened(id) => Some(keys.of(id)),
            _ => self.shown_again(route, |id| keys.of(id)),
        };
        match news {
            Some(news) => store.tell(|| {
                let opened = self.facts.wall_millis / 1000 - news.age.as_secs();
                Some(Request::Put {
                    name: names()?.swap_remove(0),
                    found: Found {
                        backend: sessions.name(&news).to_owned(),
                        opened,
                    },
                    changed: news.changed,
                    kept_for: sessions.kept_for(),
                })
            }),
            None => is_over && store.tell(|| Some(Request::End { names: names()? })),
        };
    }

    /// The session id that the request showed, read again: nobody keeps it while the request is in flight.
    #[cold]
    fn shown_again<T>(&self, route: &Route, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let mut lines = Vec::new();
        let limits = &self.generation.snapshot.config.limits;
        let request = request::parse(&self.received, &mut lines, limits).ok()??;
        route.sticky.as_ref()?.session(&request.head).map(read)
    }
}
