//! Who comes without the PROXY header that he must have, or with one that is none: why, for counters and the log.
//! It closes nothing and drops nothing, and tells of no stranger often.
//! The walk goes back to `worker/introduction.rs` (connections) and `l4/introduction.rs` (datagrams).

use std::net::IpAddr;

use super::admission;
use super::local::{ListenerView, Local};
use crate::clock;
use crate::metrics::worker::ProxyFailure;
use crate::net::proxy_protocol::Fault;

/// What is counted of bytes that are no header.
pub fn failure_of(fault: Fault) -> ProxyFailure {
    match fault {
        Fault::Absent => ProxyFailure::Missing,
        Fault::Broken | Fault::TooLong => ProxyFailure::Malformed,
        Fault::Checksum => ProxyFailure::Checksum,
    }
}

/// Counts a connection or a datagram that is not served, and says so, seldom.
pub fn refuse(failure: ProxyFailure, remote: IpAddr, view: &ListenerView, local: &Local) {
    local.counts.proxy_failures[failure as usize].increment();
    let generation = view.generation();
    let listener = &generation.snapshot.listeners[view.listener()];
    let why = match failure {
        ProxyFailure::Untrusted => {
            "is not among trusted_proxies, which alone may send a PROXY header"
        }
        ProxyFailure::Missing => "sent no PROXY header",
        ProxyFailure::Malformed => "sent a PROXY header that is none",
        ProxyFailure::Checksum => "sent a PROXY header with a wrong checksum",
        ProxyFailure::Timeout => "did not complete its PROXY header in time",
        ProxyFailure::Closed => "went away within its PROXY header",
    };
    let name = &listener.name;
    admission::tell(&listener.gate.counts.strangers, clock::now(), || {
        format!("listener {name}: {remote} {why}")
    });
}
