//! What a try says of its backend, for passive health: whether it did well, failed or was late, or whether that was not its doing.
//! It judges only where the pool has rules for it, and changes nothing of the exchange.
//! The walk goes on in `upstream/verdict.rs`.

use super::client::Next;
use super::exchange::{Exchange, Plan};
use super::reject::Failure;
use crate::policy::health::passive::{Fault, Verdict};
use crate::upstream::verdict;

/// Judges a try whose answer was passed on, or broke off.
#[inline]
pub(super) fn judge_answer(exchange: &Exchange<'_>, plan: &Plan, relayed: &Result<Next, Failure>) {
    let pool = &exchange.generation.snapshot.pools[plan.pool];
    let Some(passive) = &pool.passive else {
        return;
    };
    let verdict = match relayed {
        Ok(_) => Some(verdict::of_status(passive, exchange.answer.status)),
        Err(failure) => verdict_of(*failure),
    };
    let backend = &pool.backends[plan.backend.index()];
    verdict
        .into_iter()
        .for_each(|verdict| verdict::take(pool, backend, verdict));
}

/// Judges a try without an answer. That a connection which had rested is closed when it is used again is nobody's fault, nor is it that
/// a backend of HTTP/2 says that it did nothing for a request.
pub(super) fn judge_failure(exchange: &Exchange<'_>, plan: &Plan, failure: Failure) {
    let pool = &exchange.generation.snapshot.pools[plan.pool];
    let Some(passive) = &pool.passive else {
        return;
    };
    let is_stale = failure == Failure::BackendClosed && is_stale(exchange);
    let backend = &pool.backends[plan.backend.index()];
    let verdict = match failure {
        Failure::ErrorStatus(status) => Some(verdict::of_status(passive, status)),
        failure => verdict_of(failure).filter(|_| !is_stale),
    };
    verdict
        .into_iter()
        .for_each(|verdict| verdict::take(pool, backend, verdict));
}

fn is_stale(exchange: &Exchange<'_>) -> bool {
    let Some(upstream) = &exchange.backend else {
        return false;
    };
    match upstream.stream.is_http2() {
        true => !upstream.sent,
        false => {
            exchange.facts.reused && exchange.answer.interims == 0 && upstream.partial.is_empty()
        }
    }
}

/// What a failure says of the backend; `None`: nothing.
fn verdict_of(failure: Failure) -> Option<Verdict> {
    let fault = match failure {
        Failure::Connect(_) | Failure::ConnectTimeout | Failure::Unproven => Fault::Connect,
        Failure::BackendClosed => Fault::Closed,
        Failure::Answer(_) | Failure::Switched => Fault::Answer,
        Failure::ResponseTimeout => return Some(Verdict::Timeout),
        _ => return None,
    };
    Some(Verdict::Error(fault))
}
