//! What listeners and routes turned away, as samples: read from the limits themselves, which outlive reloads.
//! It never counts.
//! The walk goes back to `mod.rs`.

use prometheus::proto::{Metric, MetricFamily};

use super::family as metric;
use crate::metrics::rows::NONE;
use crate::state::rate_limit::RateLimit;
use crate::state::snapshot::{Listener, Snapshot};

#[derive(Default)]
struct Samples {
    limited: Vec<Metric>,
    crowded: Vec<Metric>,
}

/// The families of limits.
pub(super) fn families(snapshot: &Snapshot) -> [MetricFamily; 2] {
    let mut samples = Samples::default();
    for listener in &snapshot.listeners {
        samples.add_gate(listener);
    }
    [
        metric::LIMITED.of(samples.limited),
        metric::LIMIT_CROWDED.of(samples.crowded),
    ]
}

impl Samples {
    fn add_gate(&mut self, listener: &Listener) {
        let (name, gate) = (&*listener.name, &listener.gate);
        if gate.access.is_some() {
            self.add(name, NONE, "access", gate.counts.denied.total());
        }
        if gate.limits_connections() {
            let counts = &gate.counts;
            self.add(name, NONE, "connections", counts.connections.total());
            let labels = [name, NONE, "connections"];
            let sample = metric::LIMIT_CROWDED.sample(&labels, counts.uncounted() as f64);
            self.crowded.push(sample);
        }
        if let Some(limit) = &gate.rate {
            self.add_rate(name, NONE, limit);
        }
    }

    fn add_rate(&mut self, listener: &str, route: &str, limit: &RateLimit) {
        self.add(listener, route, &limit.label, limit.refusals.total());
        let labels = [listener, route, &limit.label];
        let sample = metric::LIMIT_CROWDED.sample(&labels, limit.crowded() as f64);
        self.crowded.push(sample);
    }

    fn add(&mut self, listener: &str, route: &str, limit: &str, count: u64) {
        let labels = [listener, route, limit];
        self.limited
            .push(metric::LIMITED.sample(&labels, count as f64));
    }
}
