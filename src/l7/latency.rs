//! Times answers for the balancer that goes by them: `peak-ewma`. With any other it costs one branch.
//! It decides nothing, and blames no backend for what its client did.
//! The walk goes back to `proxy.rs`; the time is kept in `state/backend.rs`.

use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::reject::Failure;
use crate::clock;
use crate::config::model::BalancerKind;
use crate::state::backend::Backend;
use crate::state::snapshot::Pool;

/// What a failure counts as at least: a backend that fails at once must not look quick.
const FAILED: Duration = Duration::from_secs(1);

/// When an attempt begins, if its time is wanted.
#[inline]
pub(super) fn begin(pool: &Pool) -> Option<Instant> {
    (pool.balancer == BalancerKind::PeakEwma).then(clock::now)
}

impl Exchange<'_> {
    /// Notes how long the backend took to answer an attempt that began at `began`.
    #[inline]
    pub(super) fn note_latency(
        &self,
        backend: &Backend,
        began: Option<Instant>,
        result: Result<(), Failure>,
    ) {
        if let Some(began) = began {
            note(backend, began, result.map(|()| self.answer.status));
        }
    }
}

#[cold]
fn note(backend: &Backend, began: Instant, result: Result<u16, Failure>) {
    let now = clock::now();
    let took = now.saturating_duration_since(began);
    match result {
        Ok(..500) => backend.live.note_latency(took, now),
        Ok(_)
        | Err(
            Failure::Connect(_)
            | Failure::ConnectTimeout
            | Failure::Unproven
            | Failure::BackendClosed
            | Failure::Answer(_)
            | Failure::ResponseTimeout,
        ) => backend.live.note_latency(took.max(FAILED), now),
        Err(_) => {}
    }
}
