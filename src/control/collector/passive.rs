//! What passive health comes to: who is ejected, how often that happened and why, and which pools panic.
//! Only pools with such rules have rows.
//! The walk goes back to `mod.rs`.

use prometheus::proto::MetricFamily;

use super::family as metric;
use crate::control::passive::is_panicking;
use crate::policy::health::passive::{Cause, Standing};
use crate::state::snapshot::Snapshot;

pub(super) fn families(snapshot: &Snapshot) -> [MetricFamily; 3] {
    let (mut ejected, mut ejections, mut panics) = (Vec::new(), Vec::new(), Vec::new());
    for pool in snapshot.pools.iter().filter(|pool| pool.passive.is_some()) {
        let is_panic = f64::from(is_panicking(pool));
        panics.push(metric::POOL_PANIC.sample(&[&*pool.name], is_panic));
        for backend in &pool.backends {
            let (record, labels) = (backend.live.record(), [&*pool.name, &*backend.name]);
            let is_ejected = f64::from(record.standing() == Standing::Ejected);
            ejected.push(metric::BACKEND_EJECTED.sample(&labels, is_ejected));
            for (cause, count) in Cause::ALL.into_iter().zip(record.ejections_ever()) {
                let labels = [labels[0], labels[1], cause.as_str()];
                ejections.push(metric::BACKEND_EJECTIONS.sample(&labels, count as f64));
            }
        }
    }
    [
        metric::BACKEND_EJECTED.of(ejected),
        metric::BACKEND_EJECTIONS.of(ejections),
        metric::POOL_PANIC.of(panics),
    ]
}
