//! What becomes of requests and connections while every backend that may take them has all that it may have.
//! As everywhere in the model, no value here is one that a later step would have to refuse.
//! Here the walk ends; `policy/line.rs` and `state/waiting.rs` are made from it.

use std::time::Duration;

/// The queue of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many may wait at once, over all workers.
    pub most: usize,
    /// How long each waits.
    pub timeout: Duration,
    /// Whose turn is next.
    pub order: QueueOrder,
}

/// How much a backend may have at once; `None`: as much as comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendLimits {
    /// Requests.
    pub in_flight: Option<u32>,
    /// Connections.
    pub connections: Option<u32>,
}

/// Whose turn is next in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOrder {
    /// Who came first.
    Fifo,
    /// Who came first, unless the queue stands; then who came last.
    AdaptiveLifo,
}
