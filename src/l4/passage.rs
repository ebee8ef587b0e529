//! One flow's way to its backend: a socket of its own, a lease, and what its line in the log will say.
//! It never waits; the line is written when the flow is over, however that came about.
//! The walk ends here.

use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::aim::Target;
use super::flow::Ended;
use crate::clock;
use crate::config::model::ProxyVersion;
use crate::metrics::worker::WorkerCounts;
use crate::net::introduction::{Introduction, Outgoing};
use crate::net::proxy_protocol::Transport;
use crate::policy::persist::Stickiness;
use crate::state::access_log;
use crate::state::backend::ConnectionLease;
use crate::upstream::local::{ListenerView, Local};

/// What is kept with a flow.
#[derive(Debug)]
pub(super) struct Passage {
    /// Connected to the backend, and to nobody else.
    pub(super) socket: UdpSocket,
    pub(super) target: Rc<Target>,
    /// Goes before every datagram to the backend.
    pub(super) header: Box<[u8]>,
    stickiness: Option<Stickiness>,
    id: u64,
    wall_millis: u64,
    _lease: ConnectionLease,
    _open: Open,
}

impl Passage {
    pub(super) fn new(
        socket: UdpSocket,
        target: Rc<Target>,
        stickiness: Option<Stickiness>,
        introduction: Option<Introduction>,
        view: &ListenerView,
        local: &Local,
    ) -> Passage {
        target.counts.begun.increment();
        target.live.connections(local.index).fresh.increment();
        let id = local.rng.borrow_mut().next_u64();
        Passage {
            socket,
            stickiness,
            header: introduction.map_or_else(Box::default, |told| header(&told, id)),
            id,
            wall_millis: clock::wall_millis(),
            _lease: target.live.lease_connection(),
            _open: Open::new(view, local),
            target,
        }
    }
}

/// A PROXY header of version 2: each datagram has it, because any of them may be the only one that arrives. What a proxy before weir said
/// beyond addresses is what it said of the first.
fn header(introduction: &Introduction, id: u64) -> Box<[u8]> {
    let outgoing = Outgoing {
        ends: introduction.ends,
        transport: Transport::Datagrams,
        before: Some(introduction),
        tls: None,
        server_name: None,
        alpn: None,
        id,
    };
    outgoing.header(ProxyVersion::V2).into()
}

/// Writes down that a flow is over.
pub(super) fn note(local: &Local, ended: &Ended<Passage>) {
    let (passage, traffic) = (&ended.value, &ended.traffic);
    let target = &*passage.target;
    target.counts.ends[ended.end as usize].increment();
    if !local.access_log.is_on() {
        return;
    }
    local.access_log.write_connection(&access_log::Connection {
        wall_millis: passage.wall_millis,
        id: passage.id,
        protocol: "udp",
        listener: &target.listener,
        client: ended.key.client().ip().to_canonical(),
        server_name: b"",
        datagrams: Some((traffic.datagrams_in, traffic.datagrams_out)),
        bytes_in: traffic.bytes_in,
        bytes_out: traffic.bytes_out,
        route: &target.route,
        pool: &target.pool,
        backend: &target.backend,
        tries: 1,
        sticky: passage.stickiness.map_or("", Stickiness::as_str),
        queued: std::time::Duration::ZERO,
        duration: ended.last.saturating_duration_since(ended.opened),
        end: ended.end.as_str(),
        error: "",
    });
}

/// Counts a flow while it is open.
#[derive(Debug)]
struct Open {
    counts: Arc<WorkerCounts>,
    listener: Arc<AtomicUsize>,
}

impl Open {
    fn new(view: &ListenerView, local: &Local) -> Self {
        let generation = view.generation();
        let listener = generation.snapshot.listeners[view.listener()]
            .connections
            .clone();
        let counts = local.counts.clone();
        listener.fetch_add(1, Relaxed);
        counts.set_open(counts.open() + 1);
        Open { counts, listener }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listener.fetch_sub(1, Relaxed);
        self.counts.set_open(self.counts.open().saturating_sub(1));
    }
}
