//! What flows of datagrams count: how they ended, what went which way, and what was lost at weir.
//! It must have a single writing thread, like the counters it is made of.
//! The walk goes on in `rows.rs`, which finds them by labels.

use super::counter::Counter;

/// Flows and datagrams of one listener, route, pool and backend.
#[derive(Debug, Default)]
pub struct DatagramCounts {
    /// Flows that began.
    pub begun: Counter,
    /// Those that ended, by [`FlowEnd`] as a number.
    pub ends: [Counter; FlowEnd::ALL.len()],
    /// Datagrams from clients.
    pub datagrams_in: Counter,
    /// Datagrams to clients.
    pub datagrams_out: Counter,
    /// Bytes of data from clients.
    pub bytes_in: Counter,
    /// Bytes of data to clients.
    pub bytes_out: Counter,
    /// Datagrams that were lost at weir, by [`Lost`] as a number.
    pub lost: [Counter; Lost::ALL.len()],
}

/// Why a flow ended: the `end` of `weir_udp_flows_total` and of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowEnd {
    /// It was silent for as long as it may.
    Idle,
    /// Every request had its answers.
    Answered,
    /// It gave way to another flow.
    Evicted,
    /// The backend's host says that nobody listens there.
    Refused,
    /// Its backend may not serve it any more.
    Moved,
    /// The listener or weir closed.
    Closed,
}

impl FlowEnd {
    /// Every reason, in the order of their numbers.
    pub const ALL: [FlowEnd; 6] = [
        FlowEnd::Idle,
        FlowEnd::Answered,
        FlowEnd::Evicted,
        FlowEnd::Refused,
        FlowEnd::Moved,
        FlowEnd::Closed,
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            FlowEnd::Idle => "idle",
            FlowEnd::Answered => "answered",
            FlowEnd::Evicted => "evicted",
            FlowEnd::Refused => "refused",
            FlowEnd::Moved => "moved",
            FlowEnd::Closed => "closed",
        }
    }
}

/// Why a datagram was lost at weir: the `reason` of `weir_udp_lost_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lost {
    /// The client may not come in.
    Denied,
    /// No route, or no backend that may be chosen.
    NoBackend,
    /// weir had no socket for its flow.
    NoSocket,
    /// The system did not take it for the backend.
    Backend,
    /// The system did not take it for the client.
    Client,
    /// It has no PROXY header that counts, and must have one, or what it has is none.
    ProxyHeader,
}

impl Lost {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Lost; 6] = [
        Lost::Denied,
        Lost::NoBackend,
        Lost::NoSocket,
        Lost::Backend,
        Lost::Client,
        Lost::ProxyHeader,
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Lost::Denied => "denied",
            Lost::NoBackend => "no_backend",
            Lost::NoSocket => "no_socket",
            Lost::Backend => "backend_full",
            Lost::Client => "client_full",
            Lost::ProxyHeader => "proxy_header",
        }
    }
}
