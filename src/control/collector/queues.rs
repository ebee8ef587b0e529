//! Who waits for the backends of a pool, and who was turned away, as samples: read from what the workers share.
//! It never counts; pools without limits have nothing to tell.
//! The walk goes back to `mod.rs`.

use prometheus::proto::MetricFamily;

use super::family as metric;
use crate::state::snapshot::Snapshot;
use crate::state::waiting::Shed;

/// The families of queues.
pub(super) fn families(snapshot: &Snapshot) -> [MetricFamily; 3] {
    let (mut lengths, mut joined, mut shed) = (Vec::new(), Vec::new(), Vec::new());
    for pool in snapshot.pools.iter().filter(|pool| pool.is_limited) {
        let (name, waiting) = (&*pool.name, &pool.waiting);
        lengths.push(metric::QUEUE_LENGTH.sample(&[name], waiting.all() as f64));
        joined.push(metric::QUEUED.sample(&[name], waiting.joined_total() as f64));
        shed.extend(Shed::ALL.map(|cause| {
            metric::SHED.sample(&[name, cause.as_str()], waiting.shed_total(cause) as f64)
        }));
    }
    [
        metric::QUEUE_LENGTH.of(lengths),
        metric::QUEUED.of(joined),
        metric::SHED.of(shed),
    ]
}
