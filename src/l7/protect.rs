//! What a client meets before its request is served: who may come in, how often it asks.
//! It refuses and says so in the log, seldom; it decides nothing that `state/gate.rs` and `state/rate_limit.rs` do not.
//! The walk goes back to `plan.rs`; what a connection meets stands in `upstream/admission.rs`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::reject::Failure;
use crate::config::model::LimitKey;
use crate::http::forwarding::Source;
use crate::http::head::RequestHead;
use crate::policy::filter::{self, Limits};
use crate::state::gate::Gate;
use crate::state::rate_limit::RateLimit;
use crate::state::snapshot::{Route, Snapshot};
use crate::upstream::admission::tell;

/// Whose limit a request met, and when it may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// 0: the listener's; above it, that of the route's filter before this place.
    pub by: u8,
    /// After so many seconds the next one may pass, as far as this is told.
    pub wait: u16,
}

impl Limited {
    fn new(by: u8, wait: Duration) -> Limited {
        // Rounded up: who comes then is let in.
        let wait = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Limited {
            by,
            wait: u16::try_from(wait).unwrap_or(u16::MAX),
        }
    }
}

/// Asks a listener whether a request may come in. Its client is judged anew: it may stand behind a trusted proxy, or the lists may have
/// changed since it connected.
#[inline]
pub(super) fn ask_gate(
    snapshot: &Snapshot,
    listener: usize,
    source: &Source,
    head: &RequestHead<'_>,
    now: Instant,
) -> Result<(), Failure> {
    let gate = &snapshot.listeners[listener].gate;
    if !gate.permits(source.client) {
        return Err(deny(snapshot, listener, gate, source.client, now));
    }
    let limit = gate.rate.as_deref();
    match limit.and_then(|limit| Some((limit, limit.take(source.client, head, now)?))) {
        None => Ok(()),
        Some((limit, wait)) => {
            let name = &*snapshot.listeners[listener].name;
            tell_of(limit, ("listener", name), source.client, now);
            Err(Failure::Limited(Limited::new(0, wait)))
        }
    }
}

#[cold]
fn deny(
    snapshot: &Snapshot,
    listener: usize,
    gate: &Gate,
    client: IpAddr,
    now: Instant,
) -> Failure {
    let name = &snapshot.listeners[listener].name;
    tell(&gate.counts.denied, now, || {
        format!("listener {name}: {client} may not come in")
    });
    Failure::Denied
}

/// The rate limits of a route, for its filters.
#[derive(Debug)]
pub(super) struct Tokens<'a>(pub(super) &'a Route);

impl Limits for Tokens<'_> {
    fn take(&self, place: usize, request: &filter::Request<'_>) -> Option<Duration> {
        let limit = self.0.limits.at(place)?;
        limit.take(request.view.client, request.head, request.facts.now)
    }
}

/// A route does not let a client in: the failure, after it was counted.
#[cold]
pub(super) fn deny_on(route: &Route, client: IpAddr, now: Instant) -> Failure {
    if let Some(denied) = &route.limits.denied {
        let name = &route.name;
        tell(denied, now, || {
            format!("route {name}: {client} may not come in")
        });
    }
    Failure::Denied
}

/// A client met the rate limit of the filter at this place: the failure, after it was counted.
#[cold]
pub(super) fn limit_on(
    route: &Route,
    place: usize,
    wait: Duration,
    (client, now): (IpAddr, Instant),
) -> Failure {
    if let Some(limit) = route.limits.at(place) {
        tell_of(limit, ("route", &route.name), client, now);
    }
    let by = u8::try_from(place + 1).unwrap_or(u8::MAX);
    Failure::Limited(Limited::new(by, wait))
}

fn tell_of(limit: &RateLimit, (kind, name): (&str, &str), client: IpAddr, now: Instant) {
    tell(&limit.refusals, now, || {
        let label = &limit.label;
        format!("{kind} {name}: {client} is over the limit of {label}")
    });
}

/// The fields that tell a client what it met: `Retry-After`, and those of draft-ietf-httpapi-ratelimit-headers-10. A policy is a quota that
/// comes back within a window, so that of a bucket is its burst in the time that it takes to fill.
pub(super) fn rate_fields(exchange: &Exchange<'_>, limited: Limited) -> String {
    let wait = limited.wait;
    let mut fields = format!("Retry-After: {wait}\r\n");
    let snapshot = &*exchange.generation.snapshot;
    let limit = match limited.by {
        0 => snapshot.listeners[exchange.listener].gate.rate.as_deref(),
        by => (exchange.facts.route)
            .and_then(|route| snapshot.routes[route].limits.at(usize::from(by) - 1)),
    };
    if let Some(limit) = limit {
        let ((quota, window), name) = (limit.quota(), policy_name(limit));
        let window = window.as_secs() + u64::from(window.subsec_nanos() > 0);
        fields += &format!(
            "RateLimit-Policy: \"{name}\";q={quota};w={window}\r\nRateLimit: \"{name}\";r=0;t={wait}\r\n"
        );
    }
    fields
}

/// What a policy is called toward a client: by whom it counts, which needs no escape.
fn policy_name(limit: &RateLimit) -> &'static str {
    match limit.rule.key {
        LimitKey::Source => "source",
        LimitKey::Header(_) => "header",
        LimitKey::Cookie(_) => "cookie",
        LimitKey::Route => "route",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_when_it_was_told_to_is_let_in() {
        for (wait, told) in [(1, 1), (999, 1), (1000, 1), (1001, 2), (70_000_000, 65_535)] {
            let limited = Limited::new(0, Duration::from_millis(wait));
            assert_eq!(limited.wait, told, "{wait} ms");
        }
    }
}
