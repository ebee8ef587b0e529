//! What connections of tcp listeners came to, as metrics.
//! It must never be on the way of a byte.
//! The walk goes back to `mod.rs`.

use prometheus::proto::MetricFamily;

use super::family as metric;
use super::rows::Table;
use crate::metrics::relays::Ended;

/// Buckets of the duration that are exported: a millisecond to a minute; what lasts longer is all the same to a histogram.
const DURATION_BOUNDS: std::ops::Range<usize> = 10..27;

/// Everything of relayed connections.
pub(super) fn families(table: &Table) -> [MetricFamily; 3] {
    let (mut ends, mut bytes, mut durations) = (Vec::new(), Vec::new(), Vec::new());
    for (labels, sum) in table.relays() {
        let place = labels.place();
        let with = |last| [place[0], place[1], place[2], place[3], last];
        let ended = Ended::ALL.into_iter().zip(sum.ends);
        for (end, count) in ended.filter(|&(_, count)| count > 0) {
            ends.push(metric::TCP_CONNECTIONS.sample(&with(end.as_str()), count as f64));
        }
        for (direction, count) in [("in", sum.bytes_in), ("out", sum.bytes_out)] {
            bytes.push(metric::TCP_BYTES.sample(&with(direction), count as f64));
        }
        durations.push(metric::TCP_DURATION.times(&place, &sum.duration, DURATION_BOUNDS));
    }
    [
        metric::TCP_CONNECTIONS.of(ends),
        metric::TCP_BYTES.of(bytes),
        metric::TCP_DURATION.of(durations),
    ]
}
