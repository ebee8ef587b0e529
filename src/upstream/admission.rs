//! What a connection meets before anybody reads from it: who may come in, and how many connections one address has.
//! It refuses and says so in the log, seldom; it decides nothing that `state/gate.rs` does not.
//! The walk goes back to `worker.rs`.

use std::net::IpAddr;
use std::time::Instant;

use super::local::ListenerView;
use crate::clock;
use crate::config::model::Cidr;
use crate::state::gate::Closed;
use crate::state::refusals::Refusals;
use crate::state::sources::Seat;

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

/// Whether an address is one of a proxy that is trusted.
pub fn is_trusted(remote: IpAddr, trusted: &[Cidr]) -> bool {
    trusted.iter().any(|network| network.contains(remote))
}

/// Counts a refusal, and writes a line if one is due.
pub fn tell(refusals: &Refusals, now: Instant, what: impl FnOnce() -> String) {
    match refusals.count(now) {
        None => {}
        Some(1) => log::warn!("{}", what()),
        Some(count) => log::warn!("{}; {count} times since the last such line", what()),
    }
}
