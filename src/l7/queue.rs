//! A request in its pool's queue: every backend that may take it has all that it may have.
//! It decides nothing: it passes time until it is called, and then another plan may come out differently.
//! The walk goes back to `plan.rs`; the queue is in `upstream/queue.rs`.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use super::exchange::Exchange;
use super::plan::Attempts;
use super::reject::Failure;
use crate::clock;
use crate::config::model::Sessions;
use crate::state::waiting::Shed;
use crate::upstream::queue::{Place, Want};

/// What a request keeps that waits in a queue, or did.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// Its place, until it has a backend.
    pub(super) place: Option<Place>,
    /// Until when it waits.
    until: Option<Instant>,
    /// Whether it has waited in vain for its home to have room.
    pub(super) gives_up: bool,
}

impl Attempts {
    /// Makes way for those behind it.
    #[inline]
    pub(super) fn leave_queue(&mut self) {
        if let Some(queued) = &mut self.queued {
            queued.place = None;
        }
    }
}

/// Waits until the request is called, at most until the pool's wait is over. A client whose session several know does not wait for its
/// own backend any more then.
///
/// # Errors
/// The client went away, as many wait as may, or the wait is over.
pub(super) async fn await_room(
    exchange: &mut Exchange<'_>,
    attempts: &mut Attempts,
    want: Want,
) -> Result<(), Failure> {
    let (generation, local) = (exchange.generation.clone(), exchange.client.local.clone());
    let Some(route) = exchange
        .facts
        .route
        .map(|route| &generation.snapshot.routes[route])
    else {
        return Ok(());
    };
    let pool = &generation.snapshot.pools[route.pool];
    let began = clock::now();
    let queued = attempts.queued.get_or_insert_default();
    let place = match queued.place.take() {
        Some(place) => {
            place.stay(want, began);
            place
        }
        None => {
            Place::take(&local, &generation, route.pool, want, began).ok_or(Failure::QueueFull)?
        }
    };
    let until = *(queued.until).get_or_insert(began + pool.queue.timeout);
    let mut is_first = true;
    let called = poll_fn(|cx| {
        exchange.watch_client(cx)?;
        if std::mem::take(&mut is_first) {
            exchange.wait(cx, until.saturating_duration_since(began));
        }
        match place.poll_called(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(true)),
            Poll::Pending if exchange.client.timer.has_fired() => Poll::Ready(Ok(false)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    exchange.facts.queued += clock::now() - began;
    if called? {
        queued.place = Some(place);
        return Ok(());
    }
    let sessions = route.sticky.as_ref().map(|sticky| sticky.sessions);
    let may_leave = want != Want::Any && sessions.is_some_and(|own| own != Sessions::Local);
    if may_leave && !queued.gives_up {
        (queued.gives_up, queued.place) = (true, Some(place));
        return Ok(());
    }
    pool.waiting.shed(Shed::Timeout);
    Err(exchange.overdue_or(Failure::QueueTimeout))
}
