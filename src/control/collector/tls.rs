//! What is counted and known of TLS, as metrics.
//! It must never be on the way of a handshake.
//! The walk goes back to `mod.rs`.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::family as metric;
use crate::metrics::worker::{TlsFailure, WorkerCounts};
use crate::state::snapshot::Snapshot;

/// The labels of the counts of handshakes, in their order: version, and whether a session was resumed.
const KINDS: [[&str; 2]; 4] = [
    ["1.2", "false"],
    ["1.2", "true"],
    ["1.3", "false"],
    ["1.3", "true"],
];

/// Everything of TLS.
pub(super) fn families(workers: &[Arc<WorkerCounts>], snapshot: &Snapshot) -> [MetricFamily; 4] {
    let handshakes = KINDS.iter().enumerate().map(|(kind, labels)| {
        let counts = workers
            .iter()
            .map(|worker| worker.tls_handshakes[kind].value());
        metric::TLS_HANDSHAKES.sample(labels, counts.sum::<u64>() as f64)
    });
    let failures = TlsFailure::ALL.into_iter().map(|reason| {
        let counts = workers
            .iter()
            .map(|worker| worker.tls_failures[reason as usize].value());
        metric::TLS_ERRORS.sample(&[reason.as_str()], counts.sum::<u64>() as f64)
    });
    let ends = snapshot.listeners.iter().flat_map(|listener| {
        let shown = listener.tls.iter().flat_map(|tls| &tls.certificates);
        shown.map(|shown| {
            let labels = [&*listener.name, &*shown.file];
            metric::TLS_NOT_AFTER.sample(&labels, shown.not_after as f64)
        })
    });
    let files = snapshot.tls_files.iter().map(|file| {
        let is_good = f64::from(file.problem.is_none());
        metric::TLS_FILE_SUCCESSFUL.sample(&[&*file.file], is_good)
    });
    [
        metric::TLS_HANDSHAKES.of(handshakes.collect()),
        metric::TLS_ERRORS.of(failures.collect()),
        metric::TLS_NOT_AFTER.of(ends.collect()),
        metric::TLS_FILE_SUCCESSFUL.of(files.collect()),
    ]
}
