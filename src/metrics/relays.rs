//! What connections that are relayed count: how they ended, how many bytes went which way, and for how long they were open.
//! It must have a single writing thread, like the counters it is made of.
//! The walk goes on in `rows.rs`, which finds them by labels.

use super::counter::Counter;
use super::histogram::Histogram;

/// Connections of one listener, route, pool and backend.
#[derive(Debug, Default)]
pub struct RelayCounts {
    /// Those that ended, by [`Ended`] as a number.
    pub ends: [Counter; Ended::ALL.len()],
    /// Bytes from clients.
    pub bytes_in: Counter,
    /// Bytes to clients.
    pub bytes_out: Counter,
    /// From the accept to the end.
    pub duration: Histogram,
}

/// How a relayed connection ended: the `end` of `weir_tcp_connections_total` and of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ended {
    /// Both sides were done, the client first.
    Client,
    /// Both sides were done, the backend first.
    Backend,
    /// The client reset it.
    ClientReset,
    /// The backend reset it.
    BackendReset,
    /// Nothing moved for too long.
    Idle,
    /// Its backend or listener was removed, and it did not end by itself in time.
    Drained,
    /// weir stopped.
    CutOff,
    /// There was no connection to a backend; the access log says why.
    Failed,
}

impl Ended {
    /// Every end, in the order of their numbers.
    pub const ALL: [Ended; 8] = [
        Ended::Client,
        Ended::Backend,
        Ended::ClientReset,
        Ended::BackendReset,
        Ended::Idle,
        Ended::Drained,
        Ended::CutOff,
        Ended::Failed,
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Ended::Client => "client",
            Ended::Backend => "backend",
            Ended::ClientReset => "client_reset",
            Ended::BackendReset => "backend_reset",
            Ended::Idle => "idle",
            Ended::Drained => "drained",
            Ended::CutOff => "cut_off",
            Ended::Failed => "failed",
        }
    }
}
