//! How sources of backends fare, as samples: read from what they said, for the pools of the served generation.
//! It never counts.
//! The walk goes back to `mod.rs`.

use prometheus::proto::MetricFamily;

use super::family as metric;
use crate::control::discovery::Board;
use crate::state::snapshot::Snapshot;

/// The families of discovery.
pub(super) fn families(snapshot: &Snapshot, board: &Board) -> [MetricFamily; 3] {
    let (mut endpoints, mut successes, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for pool in &snapshot.config.pools {
        let Some(standing) = board.of(pool) else {
            continue;
        };
        let kind = pool.discovery.as_ref().map_or("", |own| own.kind());
        let labels = [pool.name.as_str(), kind];
        let count = standing.endpoints as f64;
        endpoints.push(metric::DISCOVERY_ENDPOINTS.sample(&labels, count));
        let seconds = standing.success_wall_millis.unwrap_or_default() as f64 / 1000.0;
        successes.push(metric::DISCOVERY_SUCCESS.sample(&labels, seconds));
        let count = standing.failures as f64;
        failures.push(metric::DISCOVERY_FAILURES.sample(&labels, count));
    }
    [
        metric::DISCOVERY_ENDPOINTS.of(endpoints),
        metric::DISCOVERY_SUCCESS.of(successes),
        metric::DISCOVERY_FAILURES.of(failures),
    ]
}
