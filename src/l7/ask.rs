//! Asks a store for a session that this weir does not know: the question is sent at once, the answer is waited for a moment only.
//! It decides nothing: what the store knows goes into the pool's live sessions, where the next plan finds it.
//! The walk goes back to `plan.rs`; the question goes by `state/store.rs` to control.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;

use super::exchange::Exchange;
use super::reject::Failure;
use crate::clock;
use crate::http::head::RequestHead;
use crate::policy::persist::AnyPersistence;
use crate::state::snapshot::Route;
use crate::state::store::{Found, Outcome, StoreEnd};

/// How long a request waits for a store.
const PATIENCE: Duration = Duration::from_millis(50);

/// A question that was sent.
#[derive(Debug)]
pub(super) struct Question {
    store: Arc<StoreEnd>,
    answer: oneshot::Receiver<Option<Found>>,
}

/// Asks the route's store for the session that the request shows. `None`: there will be no answer.
pub(super) fn ask(route: &Route, head: &RequestHead<'_>) -> Option<Question> {
    let (sticky, store) = (route.sticky.as_ref()?, route.store.as_ref()?);
    let AnyPersistence::Learn(mode) = &sticky.mode else {
        return None;
    };
    let (session, keys) = (sticky.session(head)?, mode.store()?);
    let answer = store.find(|| keys.of(session))?;
    Some(Question {
        store: store.clone(),
        answer,
    })
}

/// Waits for the answer, and notes it among the live sessions. Without one in time the client is new.
///
/// # Errors
/// The client went away.
pub(super) async fn await_answer(
    exchange: &mut Exchange<'_>,
    mut question: Question,
) -> Result<(), Failure> {
    let mut is_first = true;
    let answer = poll_fn(|cx| {
        exchange.watch_client(cx)?;
        if std::mem::take(&mut is_first) {
            exchange.client.timer.set(cx, PATIENCE);
        }
        match Pin::new(&mut question.answer).poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer.ok())),
            Poll::Pending if exchange.client.timer.has_fired() => {
                question.store.health.count(Outcome::Late);
                Poll::Ready(Ok(None))
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await?;
    if let Some(found) = answer.flatten() {
        exchange.adopt_session(&found);
    }
    Ok(())
}

impl Exchange<'_> {
    /// Notes what a store knows of the session that the request showed.
    fn adopt_session(&self, found: &Found) {
        let snapshot = &*self.generation.snapshot;
        let route = self.facts.route.map(|route| &snapshot.routes[route]);
        let sessions = route.and_then(|route| snapshot.pools[route.pool].sessions.as_ref());
        if let (Some(sessions), Some(shown)) = (sessions, self.facts.session) {
            let age = (self.facts.wall_millis / 1000).saturating_sub(found.opened);
            let age = Duration::from_secs(age);
            sessions.adopt(shown.key(), &found.backend, age, clock::now());
        }
    }
}
