//! How much the backends of a pool may have at once, and the queue of what waits for them.
//! It judges single values; whether the pool's protocol has a use for them is judged in `check/balancers.rs`.
//! Here the walk ends.

use super::{Report, Section};
use crate::config::model::{BackendLimits, Queue, QueueOrder};

/// How much a backend may have at once, as a table says it; what it does not say is as in `over`.
pub(super) fn limits(
    report: &mut Report,
    section: &Section<'_>,
    over: BackendLimits,
) -> BackendLimits {
    let mut limit = |name, over: Option<u32>| match section.count(report, name) {
        // Of a pool there is a default.
        None => over,
        Some(most) => u32::try_from(most).ok().filter(|most| *most > 0),
    };
    BackendLimits {
        in_flight: limit("max_in_flight", over.in_flight),
        connections: limit("max_connections", over.connections),
    }
}

pub(super) fn queue(report: &mut Report, section: &Section<'_>) -> Queue {
    Queue {
        most: section.count(report, "max_queue").unwrap_or_default() as usize,
        timeout: section
            .duration(report, "queue_timeout")
            .unwrap_or_default(),
        order: section.choice(
            report,
            "queue_order",
            [
                ("fifo", QueueOrder::Fifo),
                ("adaptive-lifo", QueueOrder::AdaptiveLifo),
            ],
        ),
    }
}
