//! Holds a request for a moment, because its client's home may be back soon: `on_failure = "wait"`.
//! It decides nothing: it only passes time, on the worker's wheel, until another plan may come out differently.
//! The walk goes back to `plan.rs`.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::ask::await_answer;
use super::authenticate::await_verdict;
use super::exchange::Exchange;
use super::plan::{Attempts, Held, patience};
use super::queue::await_room;
use super::reject::Failure;
use crate::clock;
use crate::metrics::rows::Hold;

/// How often a held request looks whether the state of its pool changed.
const LOOK: Duration = Duration::from_millis(20);

/// From a refused connection to the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits for a store's answer, or for room at a backend; or until the state of the pool changed, or after a refused connection for a pause, at most until the
/// route's wait is over.
///
/// # Errors
/// The client went away.
pub(super) async fn hold(
    exchange: &mut Exchange<'_>,
    attempts: &mut Attempts,
) -> Result<(), Failure> {
    let (Some(held), Some(route)) = (attempts.held.take(), exchange.facts.route) else {
        return Ok(());
    };
    let held = match held {
        Held::Answer(question) => return await_answer(exchange, question).await,
        Held::Verdict(awaited) => return await_verdict(exchange, awaited).await,
        Held::Room(want) => return await_room(exchange, attempts, want).await,
        held => held,
    };
    let generation = exchange.generation.clone();
    let route = &generation.snapshot.routes[route];
    let Some(until) = patience(route, exchange.facts.started) else {
        return Ok(());
    };
    let Some(_place) = generation.pool(route.pool).hold() else {
        exchange.facts.hold.get_or_insert(Hold::Full);
        attempts.is_impatient = true;
        return Ok(());
    };
    exchange.facts.hold = Some(Hold::Over);
    let pool = &generation.snapshot.pools[route.pool];
    let began = clock::now();
    let mut is_first = true;
    let result = poll_fn(|cx| {
        exchange.watch_client(cx)?;
        if !exchange.client.timer.has_fired() && !std::mem::take(&mut is_first) {
            return Poll::Pending;
        }
        let now = clock::now();
        let is_over = match held {
            Held::Change(epoch) => pool.epoch.value() != epoch,
            Held::Pause | Held::Answer(_) | Held::Verdict(_) | Held::Room(_) => {
                now - began >= PAUSE
            }
        };
        if is_over || now >= until {
            return Poll::Ready(Ok(()));
        }
        exchange.client.timer.set(cx, LOOK.min(until - now));
        Poll::Pending
    })
    .await;
    exchange.facts.held += clock::now() - began;
    result
}
