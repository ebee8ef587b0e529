//! How large pools should be, as samples: read from what was decided.
//! It never decides.
//! The walk goes back to `mod.rs`.

use prometheus::proto::MetricFamily;

use super::family as metric;
use crate::control::scale::{Board, STEPS};

/// The families of scale.
pub(super) fn families(board: &Board) -> [MetricFamily; 4] {
    let (mut wanted, mut serving) = (Vec::new(), Vec::new());
    let (mut loads, mut steps) = (Vec::new(), Vec::new());
    for (pool, standing) in board.all() {
        let labels = [pool.as_str()];
        wanted.push(metric::SCALE_WANTED.sample(&labels, standing.wanted as f64));
        serving.push(metric::SCALE_SERVING.sample(&labels, standing.serving as f64));
        loads.extend((standing.load).map(|load| metric::SCALE_LOAD.sample(&labels, load)));
        for ((action, result), count) in STEPS.into_iter().zip(standing.steps) {
            let labels = [pool.as_str(), action, result];
            steps.push(metric::SCALE_STEPS.sample(&labels, count as f64));
        }
    }
    [
        metric::SCALE_WANTED.of(wanted),
        metric::SCALE_SERVING.of(serving),
        metric::SCALE_LOAD.of(loads),
        metric::SCALE_STEPS.of(steps),
    ]
}
