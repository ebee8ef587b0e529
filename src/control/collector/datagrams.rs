//! What flows of udp listeners came to, as metrics.
//! It must never be on the way of a datagram.
//! The walk goes back to `mod.rs`.

use prometheus::proto::MetricFamily;

use super::family as metric;
use super::rows::Table;
use crate::metrics::datagrams::{FlowEnd, Lost};

/// Everything of flows and their datagrams.
pub(super) fn families(table: &Table) -> [MetricFamily; 5] {
    let (mut open, mut ends) = (Vec::new(), Vec::new());
    let (mut datagrams, mut bytes, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for (labels, sum) in table.datagrams() {
        let place = labels.place();
        let with = |last| [place[0], place[1], place[2], place[3], last];
        if sum.begun > 0 {
            let over: u64 = sum.ends.iter().sum();
            open.push(metric::UDP_OPEN.sample(&place, sum.begun.saturating_sub(over) as f64));
            for (direction, count, length) in [
                ("in", sum.datagrams[0], sum.bytes[0]),
                ("out", sum.datagrams[1], sum.bytes[1]),
            ] {
                datagrams.push(metric::UDP_DATAGRAMS.sample(&with(direction), count as f64));
                bytes.push(metric::UDP_BYTES.sample(&with(direction), length as f64));
            }
        }
        let ended = FlowEnd::ALL.into_iter().zip(sum.ends);
        for (end, count) in ended.filter(|&(_, count)| count > 0) {
            ends.push(metric::UDP_FLOWS.sample(&with(end.as_str()), count as f64));
        }
        let reasons = Lost::ALL.into_iter().zip(sum.lost);
        for (reason, count) in reasons.filter(|&(_, count)| count > 0) {
            lost.push(metric::UDP_LOST.sample(&with(reason.as_str()), count as f64));
        }
    }
    [
        metric::UDP_OPEN.of(open),
        metric::UDP_FLOWS.of(ends),
        metric::UDP_DATAGRAMS.of(datagrams),
        metric::UDP_BYTES.of(bytes),
        metric::UDP_LOST.of(lost),
    ]
}
