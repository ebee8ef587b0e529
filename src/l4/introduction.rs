//! Datagrams that a trusted proxy may, or must, introduce: reads the PROXY header that stands before each, and whose datagram it is from then on.
//! It reads nothing of whoever is not trusted; a datagram whose header does not count is counted and gone.
//! The walk goes back to `udp.rs`.

use crate::config::model::ProxyProtocol;
use crate::metrics::worker::ProxyFailure;
use crate::net::introduction::Introduction;
use crate::net::proxy_protocol::read_datagram;
use crate::net::udp::batch::Batch;
use crate::upstream::admission;
use crate::upstream::local::{ListenerView, Local};
use crate::upstream::strangers;

/// Leaves in the batch what may be served, each by itself with what its header says; how many datagrams were dropped.
pub(super) fn meet(
    batch: &mut Batch,
    wanted: ProxyProtocol,
    view: &ListenerView,
    local: &Local,
) -> u32 {
    let generation = view.generation();
    let trusted = &generation.snapshot.config.trusted_proxies;
    let is_required = wanted == ProxyProtocol::Require;
    let mut dropped = 0;
    batch.part(|from, bytes| {
        let failure = match admission::is_trusted(from.ip(), trusted) {
            false if is_required => ProxyFailure::Untrusted,
            false => return Some((0, None)),
            true => match read_datagram(bytes).map_err(strangers::failure_of) {
                Ok(header) => return Some((header.length, header.ends)),
                // The proxy speaks for itself.
                Err(ProxyFailure::Missing) if !is_required => return Some((0, None)),
                Err(failure) => failure,
            },
        };
        strangers::refuse(failure, from.ip(), view, local);
        dropped += 1;
        None
    });
    dropped
}

/// What the header before a datagram of the batch said, if there was one that told of a client.
pub(super) fn of(batch: &Batch, place: usize) -> Option<Introduction> {
    let header = read_datagram(batch.header(place)).ok()?;
    Introduction::of(&header)
}
