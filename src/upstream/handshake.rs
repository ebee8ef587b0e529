//! What becomes of TLS handshakes, as both layers count and tell it: of clients that weir serves, and of backends that it talks to.
//! It waits for none and ends no connection.
//! The walk goes back to `l7/handshake.rs` and `l4/connection.rs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::local::Local;
use crate::clock;
use crate::metrics::worker::TlsFailure;
use crate::net::stream::Stream;
use crate::net::tls::handshake::{Handshake, Refusal};

/// Between two lines of one worker about backends whose handshakes fail.
const TELL: Duration = Duration::from_secs(1);

/// Counts the handshake of a client that is complete; what it came to. `None`: TLS is not spoken.
pub fn note(local: &Local, stream: &Stream) -> Option<Handshake> {
    let facts = stream.tls().and_then(Handshake::of)?;
    let kind = usize::from(facts.is_tls13) * 2 + usize::from(facts.is_resumed);
    local.counts.tls_handshakes[kind].increment();
    Some(facts)
}

/// Counts the handshake of a client that failed; without a refusal it was not complete in time.
pub fn note_failure(local: &Local, remote: SocketAddr, refusal: Option<&Refusal>) {
    let reason = refusal.map_or(TlsFailure::Timeout, Refusal::reason);
    local.counts.tls_failures[reason as usize].increment();
    match refusal {
        Some(refusal) => log::debug!("{remote}: no TLS: {refusal}"),
        None => log::debug!("{remote}: no TLS: not complete in time"),
    }
}

/// Tells the log of a backend whose handshake failed, seldom.
pub fn tell_of_backend(local: &Local, pool: &str, backend: &str, refusal: &Refusal) {
    let now = clock::now();
    let told = local.told_of_tls.get();
    if told.is_none_or(|told: Instant| now.saturating_duration_since(told) >= TELL) {
        local.told_of_tls.set(Some(now));
        log::warn!("backend {pool}/{backend}: no TLS: {refusal}");
    }
}
