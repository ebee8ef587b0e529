//! What a client meets before its request is served: who may come in, how many connections it has, how often it asks.
//! It refuses and says so in the log, seldom; it decides nothing that `state/gate.rs` and `state/rate_limit.rs` do not.
//! The walk goes back to `worker.rs` (a connection) and `plan.rs` (a request).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::reject::Failure;
use crate::clock;
use crate::config::model::{Cidr, LimitKey};
use crate::http::forwarding::Source;
use crate::http::head::RequestHead;
use crate::state::gate::{Closed, Gate};
use crate::state::rate_limit::RateLimit;
use crate::state::refusals::Refusals;
use crate::state::snapshot::Snapshot;
use crate::state::sources::Seat;
use crate::upstream::local::ListenerView;

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

/// Lets a connection in; what comes back counts it for as long as it lives. `None`: it may not come in.
///
/// A trusted proxy speaks for many clients: its connections are not counted, and not it but each of its requests is judged.
pub fn admit(view: &ListenerView, remote: IpAddr) -> Option<Option<Seat>> {
    let generation = view.generation();
    let snapshot = &*generation.snapshot;
    let listener = &snapshot.listeners[view.listener()];
    let gate = &listener.gate;
    if !gate.asks() || is_trusted(remote, &snapshot.config.trusted_proxies) {
        return Some(None);
    }
    let closed = match gate.enter(remote) {
        Ok(seat) => return Some(seat),
        Err(closed) => closed,
    };
    let (refusals, why) = match closed {
        Closed::Denied => (&gate.counts.denied, "may not connect"),
        Closed::TooMany => (&gate.counts.connections, "has too many connections"),
    };
    let name = &listener.name;
    tell(refusals, clock::now(), || {
        format!("listener {name}: {remote} {why}")
    });
    None
}

fn is_trusted(remote: IpAddr, trusted: &[Cidr]) -> bool {
    trusted.iter().any(|network| network.contains(remote))
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
    match &gate.rate {
        None => Ok(()),
        Some(limit) => {
            let name = ("listener", &*snapshot.listeners[listener].name);
            take(limit, 0, name, source.client, head, now)
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

/// Takes a token for a request; `of` is what the limit belongs to, kind and name.
pub(super) fn take(
    limit: &RateLimit,
    by: u8,
    of: (&str, &str),
    client: IpAddr,
    head: &RequestHead<'_>,
    now: Instant,
) -> Result<(), Failure> {
    let Some(wait) = limit.take(client, head, now) else {
        return Ok(());
    };
    tell(&limit.refusals, now, || {
        format!(
            "{} {}: {client} is over the limit of {}",
            of.0, of.1, limit.label
        )
    });
    Err(Failure::Limited(Limited::new(by, wait)))
}

/// Counts a refusal, and writes a line if one is due.
pub(super) fn tell(refusals: &Refusals, now: Instant, what: impl FnOnce() -> String) {
    match refusals.count(now) {
        None => {}
        Some(1) => log::warn!("{}", what()),
        Some(count) => log::warn!("{}; {count} times since the last such line", what()),
    }
}

/// The fields that tell a client what it met: `Retry-After`, and those of draft-ietf-httpapi-ratelimit-headers-10. A policy is a quota that
/// comes back within a window, so that of a bucket is its burst in the time that it takes to fill.
pub(super) fn rate_fields(exchange: &Exchange<'_>, limited: Limited) -> String {
    let wait = limited.wait;
    let mut fields = format!("Retry-After: {wait}\r\n");
    let snapshot = &*exchange.generation.snapshot;
    if let Some(limit) = &snapshot.listeners[exchange.listener].gate.rate {
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
