//! Retries by the rules of a route: whether one may follow, its place in the pool's budget, and the waits that the rules bound.
//! It decides nothing that `policy/retry.rs` does not; without rules a request has none of this, and asks for none of it.
//! The walk goes back to `plan.rs`, which makes the next plan, and `answer.rs`, which passes on what is not tried again.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::reject::Failure;
use crate::clock;
use crate::config::model::{Retry as Rules, Sessions};
use crate::http::head::RequestHead;
use crate::policy::retry::{self, Retry, Try, affordable};
use crate::state::retries::Place;

/// Bytes of a request that are kept for another try; one that has more is not made again once they left.
pub(super) const MAX_REPLAYED: usize = 64 * 1024;

/// What a request on a route with rules remembers over its tries.
#[derive(Debug)]
pub(super) struct Retrying {
    rules: Rules,
    /// Whether it says by a key that it may be done twice.
    is_keyed: bool,
    /// When its answer must have begun.
    until: Option<Instant>,
    /// Whether the present try has all the time that an answer may take, since no other can follow.
    is_last: bool,
    place: Option<Place>,
    /// Whether there was no place for it, as is counted once a try.
    is_denied: bool,
}

impl Retrying {
    /// Takes the rules of the route, if it has some, for a request of which nothing was tried yet.
    #[inline]
    pub(super) fn begin(
        retrying: &mut Option<Box<Retrying>>,
        rules: Option<Rules>,
        head: &RequestHead<'_>,
        started: Instant,
    ) {
        if let (Some(rules), None) = (rules, &retrying) {
            *retrying = Some(Retrying::new(rules, head, started));
        }
    }

    /// When the answer must have begun.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    fn new(rules: Rules, head: &RequestHead<'_>, started: Instant) -> Box<Retrying> {
        let is_keyed = || head.values("idempotency-key").next().is_some();
        Box::new(Retrying {
            is_keyed: rules.idempotency_key && is_keyed(),
            until: (rules.total_timeout).and_then(|total| started.checked_add(total)),
            is_last: false,
            place: None,
            is_denied: false,
            rules,
        })
    }
}

impl Exchange<'_> {
    /// What is known of a try that failed so, for the rules.
    pub(super) fn failed(&self, failure: retry::Failure, retries: u8) -> Try {
        let upstream = self.backend.as_ref();
        Try {
            failure,
            idempotent: self.is_repeatable(),
            sent: upstream.is_some_and(|upstream| upstream.sent),
            replayable: self.is_replayable(),
            retries,
            led_by: None,
            patient: false,
            bound: self.is_bound(),
            rules: self.retrying.as_ref().map(|retrying| retrying.rules),
        }
    }

    /// Whether doing it twice is the same as doing it once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.head.is_some_and(|head| head.is_idempotent)
            || (self.retrying.as_ref()).is_some_and(|retrying| retrying.is_keyed)
    }

    /// Whether more of its body is to be kept for another try.
    pub(super) fn may_be_replayed(&self) -> bool {
        self.retrying.is_some() && self.is_repeatable()
    }

    /// Whether the client's session is in the memory of the backend that it was sent to.
    fn is_bound(&self) -> bool {
        let route = self
            .facts
            .route
            .map(|route| &self.generation.snapshot.routes[route]);
        let sticky = route.and_then(|route| route.sticky.as_ref());
        let chosen = self.facts.choice.and_then(|choice| choice.sticky);
        sticky.is_some_and(|sticky| sticky.sessions == Sessions::Local)
            && chosen.is_some_and(|chosen| !chosen.stickiness.is_new())
    }

    /// Whether the answer of class 5xx that has just come is thrown away for another try. The rest of the tries may fail otherwise: the
    /// answer of the last one that answers is the client's.
    #[inline]
    pub(super) fn is_tried_again(&mut self, status: u16) -> bool {
        status >= 500 && self.retrying.is_some() && self.secure_retry(retry::Failure::ErrorStatus)
    }

    /// Whether a failure leads to another try; if so, its place in the budget is taken.
    fn secure_retry(&mut self, failure: retry::Failure) -> bool {
        // Tries that were not retries, such as those of a request that is held, make this no larger.
        let retries = self.facts.tries.saturating_sub(1);
        self.answer.interims == 0
            && retry::after(self.failed(failure, retries)) == Retry::IfAffordable
            && self.has_other_backend()
            && self.afford()
    }

    /// Whether a backend is left that was not tried: there are more than tries.
    fn has_other_backend(&self) -> bool {
        let Some(route) = self.facts.route else {
            return false;
        };
        let snapshot = &self.generation.snapshot;
        let pool = snapshot.routes[route].pool;
        let sets = self.generation.pool(pool).eligible(&snapshot.pools[pool]);
        sets.fresh().list().len() > usize::from(self.facts.tries)
    }

    /// Takes a place in the budget, once for a request; false when there is none.
    pub(super) fn afford(&mut self) -> bool {
        let generation = self.generation.clone();
        let (Some(retrying), Some(route)) = (&mut self.retrying, self.facts.route) else {
            return false;
        };
        if retrying.place.is_some() || retrying.is_denied {
            return retrying.place.is_some();
        }
        let pool = &generation.snapshot.pools[generation.snapshot.routes[route].pool];
        let in_flight = pool.backends.iter().map(|backend| backend.live.in_flight());
        let active = in_flight.fold(0, u32::saturating_add);
        retrying.place = pool.retries.begin(affordable(&retrying.rules, active));
        retrying.is_denied = retrying.place.is_none();
        if retrying.is_denied {
            let rows = &self.client.local.rows;
            generation
                .route_counts(rows, route)
                .unaffordable
                .increment();
        }
        !retrying.is_denied
    }

    /// Begins another try.
    pub(super) fn begin_retry(&mut self) {
        self.backend = None;
        if let Some(retrying) = &mut self.retrying {
            (retrying.is_last, retrying.is_denied) = (false, false);
        }
    }

    /// How long the answer may take to begin: less while another try can follow.
    pub(super) fn response_wait(&self) -> Duration {
        let whole = self.timeouts().response;
        self.try_wait().map_or(whole, |wait| wait.min(whole))
    }

    fn try_wait(&self) -> Option<Duration> {
        let retrying = self
            .retrying
            .as_ref()
            .filter(|retrying| !retrying.is_last)?;
        let wait = retrying.rules.try_timeout?;
        let retries = self.facts.tries.saturating_sub(1);
        let next = retry::after(self.failed(retry::Failure::Timeout, retries));
        (next == Retry::IfAffordable).then_some(wait)
    }

    /// What becomes of a request whose backend did not answer in time. Where that was the time of one try and another one cannot follow
    /// after all, the backend has the rest of the time that an answer may take.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let failure = self.overdue_or(self.overdue());
        if failure != Failure::ResponseTimeout || self.retrying.is_none() {
            return Poll::Ready(failure);
        }
        let wait = self.try_wait();
        if self.secure_retry(retry::Failure::Timeout) {
            return Poll::Ready(failure);
        }
        let left = (self.timeouts().response).saturating_sub(wait.unwrap_or(Duration::MAX));
        if left.is_zero() {
            return Poll::Ready(failure);
        }
        if let Some(retrying) = &mut self.retrying {
            retrying.is_last = true;
        }
        self.wait(cx, left);
        Poll::Pending
    }

    /// What a wait that took too long comes to, where all tries together have a time.
    pub(super) fn is_out_of_time(&self) -> bool {
        let until = self.retrying.as_ref().and_then(|retrying| retrying.until);
        self.answer.status == 0 && until.is_some_and(|until| until <= clock::now())
    }
}
