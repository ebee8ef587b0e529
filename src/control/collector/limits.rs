//! What listeners and routes turned away, as samples: read from the limits themselves, which outlive reloads.
//! It never counts; what has the same labels adds up, since two routes may have one name.
//! The walk goes back to `mod.rs`.

use std::collections::BTreeMap;

use prometheus::proto::MetricFamily;

use super::family::{self as metric, Family};
use crate::metrics::rows::NONE;
use crate::state::rate_limit::RateLimit;
use crate::state::snapshot::{Listener, Route, Snapshot};

/// Counts by listener, route and limit.
type Sums<'a> = BTreeMap<[&'a str; 3], u64>;

#[derive(Default)]
struct Samples<'a> {
    limited: Sums<'a>,
    crowded: Sums<'a>,
}

/// The families of limits.
pub(super) fn families(snapshot: &Snapshot) -> [MetricFamily; 2] {
    let mut samples = Samples::default();
    for listener in &snapshot.listeners {
        samples.add_gate(listener);
    }
    // What other ways of a route count is the same.
    for route in snapshot.routes.iter().take(snapshot.config.routes.len()) {
        samples.add_route(route);
    }
    [
        family(&metric::LIMITED, samples.limited),
        family(&metric::LIMIT_CROWDED, samples.crowded),
    ]
}

fn family(family: &Family, sums: Sums<'_>) -> MetricFamily {
    let samples = sums
        .iter()
        .map(|(labels, sum)| family.sample(labels, *sum as f64));
    family.of(samples.collect())
}

impl<'a> Samples<'a> {
    fn add_gate(&mut self, listener: &'a Listener) {
        let (name, gate) = (&*listener.name, &listener.gate);
        if gate.access.is_some() {
            self.add_limited([name, NONE, "access"], gate.counts.denied.total());
        }
        if gate.limits_connections() {
            let labels = [name, NONE, "connections"];
            self.add_limited(labels, gate.counts.connections.total());
            *self.crowded.entry(labels).or_default() += gate.counts.uncounted();
        }
        if let Some(limit) = &gate.rate {
            self.add_rate(name, NONE, limit);
        }
    }

    fn add_route(&mut self, route: &'a Route) {
        if let Some(denied) = &route.limits.denied {
            self.add_limited([NONE, &route.name, "access"], denied.total());
        }
        for limit in route.limits.all() {
            self.add_rate(NONE, &route.name, limit);
        }
    }

    fn add_rate(&mut self, listener: &'a str, route: &'a str, limit: &'a RateLimit) {
        let labels = [listener, route, &limit.label];
        self.add_limited(labels, limit.refusals.total());
        *self.crowded.entry(labels).or_default() += limit.crowded();
    }

    fn add_limited(&mut self, labels: [&'a str; 3], count: u64) {
        *self.limited.entry(labels).or_default() += count;
    }
}
