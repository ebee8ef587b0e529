//! The collector: what workers, backends, probes and reloads count, put together when Prometheus asks.
//! It must never be on the way of a request; the data path only ever adds to its own counters.
//! Read `family.rs` (the metrics by name) and `rows.rs` (summing over workers).

mod family;
mod rows;

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::Desc;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{Encoder, Registry, TextEncoder};

use self::family as metric;
use self::rows::{Table, Times};
use super::effective::Effective;
use super::probes::{Ledger, RESULTS};
use super::shared::Shared;
use crate::metrics::rows::NewRow;
use crate::policy::health::Health;
use crate::policy::persist::Stickiness;
use crate::state::access_log;
use crate::state::backend::Backend;
use crate::state::snapshot::Snapshot;

pub use self::family::{ALL, Family};

/// Buckets of the request duration that are exported: 131 µs to 69 s.
const DURATION_BOUNDS: std::ops::Range<usize> = 7..27;
/// Buckets of the overhead that are exported: 4 µs to 34 ms.
const OVERHEAD_BOUNDS: std::ops::Range<usize> = 2..16;
/// The values of the `code` label.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Where the collector looks.
#[derive(Debug)]
pub struct Sources {
    /// Snapshot, workers and reloads.
    pub shared: Arc<Shared>,
    /// Where workers tell of new rows.
    pub rows: Receiver<NewRow>,
    /// Counts of probes.
    pub probes: Arc<Ledger>,
    /// Counts of lost access-log lines.
    pub access_log: access_log::Queue,
    /// Names of the reasons that `WorkerCounts::refused` counts, by ordinal.
    pub reasons: &'static [&'static str],
}

/// Everything that `/metrics` shows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    collector: Arc<Collector>,
}

#[derive(Debug)]
struct Collector {
    shared: Arc<Shared>,
    rows: Mutex<Table>,
    probes: Arc<Ledger>,
    access_log: access_log::Queue,
    reasons: &'static [&'static str],
    described: Vec<Desc>,
}

impl Metrics {
    /// Brings the sources together, and the `process_*` set beside them.
    ///
    /// # Errors
    /// When a metric's name is not one that Prometheus allows, which a test excludes.
    pub fn new(sources: Sources) -> prometheus::Result<Metrics> {
        let described = ALL.iter().map(|family| family.describe());
        let collector = Arc::new(Collector {
            rows: Mutex::new(Table::new(sources.rows, sources.shared.budget.clone())),
            shared: sources.shared,
            probes: sources.probes,
            access_log: sources.access_log,
            reasons: sources.reasons,
            described: described.collect::<prometheus::Result<_>>()?,
        });
        let registry = Registry::new();
        registry.register(Box::new(Registered(collector.clone())))?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process))?;
        Ok(Metrics {
            registry,
            collector,
        })
    }

    /// The metrics in Prometheus's text format.
    ///
    /// # Errors
    /// When a sample cannot be written as text.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Gives back the budget of rows that workers have let go, at every new generation, since it may be that nobody scrapes.
    /// It ends with the process.
    pub async fn sweep(self) {
        let mut current = self.collector.shared.current.clone();
        while current.changed().await.is_ok() {
            self.collector.table().sweep();
        }
    }
}

/// The collector as the registry owns it.
struct Registered(Arc<Collector>);

impl prometheus::core::Collector for Registered {
    fn desc(&self) -> Vec<&Desc> {
        self.0.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let collector = &*self.0;
        let snapshot = collector.shared.current.borrow().clone();
        let mut families = collector.request_families();
        families.extend(collector.process_families());
        families.extend(collector.config_families());
        families.extend(collector.backend_families(&snapshot));
        families.push(listener_family(&snapshot));
        families
    }
}

impl Collector {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request_families(&self) -> Vec<MetricFamily> {
        let mut table = self.table();
        table.sweep();
        let mut requests = Vec::new();
        for (labels, sum) in table.requests() {
            for (class, count) in CLASSES
                .into_iter()
                .zip(sum.0)
                .filter(|&(_, count)| count > 0)
            {
                let labels = [
                    &*labels.listener,
                    &labels.route,
                    &labels.pool,
                    &labels.backend,
                    class,
                ];
                requests.push(metric::HTTP_REQUESTS.sample(&labels, count as f64));
            }
        }
        let (mut durations, mut retries) = (Vec::new(), Vec::new());
        let mut by_route: BTreeMap<&str, (Times, [u64; 8])> = BTreeMap::new();
        for (labels, sum) in table.routes() {
            let values = [&*labels.route, &labels.pool];
            durations.push(metric::HTTP_DURATION.times(&values, &sum.duration, DURATION_BOUNDS));
            retries.push(metric::RETRIES.sample(&values, sum.retries as f64));
            let (overhead, sticky) = by_route.entry(&labels.route).or_default();
            overhead.merge(&sum.overhead);
            sticky
                .iter_mut()
                .zip(sum.sticky)
                .for_each(|(all, one)| *all += one);
        }
        let (mut overheads, mut stickies) = (Vec::new(), Vec::new());
        for (route, (overhead, sticky)) in by_route {
            overheads.push(metric::HTTP_OVERHEAD.times(&[route], &overhead, OVERHEAD_BOUNDS));
            for (result, count) in Stickiness::ALL
                .into_iter()
                .zip(sticky)
                .filter(|&(_, count)| count > 0)
            {
                stickies.push(metric::STICKY.sample(&[route, result.as_str()], count as f64));
            }
        }
        vec![
            metric::HTTP_REQUESTS.of(requests),
            metric::HTTP_DURATION.of(durations),
            metric::RETRIES.of(retries),
            metric::HTTP_OVERHEAD.of(overheads),
            metric::STICKY.of(stickies),
        ]
    }

    /// What belongs to the process as a whole.
    fn process_families(&self) -> Vec<MetricFamily> {
        let workers = &self.shared.workers;
        let refused = self.reasons.iter().enumerate().map(|(ordinal, reason)| {
            let counts = workers
                .iter()
                .filter_map(|worker| worker.refused.get(ordinal));
            let sum: u64 = counts.map(|count| count.value()).sum();
            metric::HTTP_REFUSED.sample(&[reason], sum as f64)
        });
        let accept_errors: u64 = workers
            .iter()
            .map(|worker| worker.accept_errors.value())
            .sum();
        let panics: u64 = workers.iter().map(|worker| worker.panics.value()).sum();
        let version = [env!("CARGO_PKG_VERSION")];
        vec![
            metric::HTTP_REFUSED.of(refused.collect()),
            single(&metric::ACCEPT_ERRORS, accept_errors as f64),
            single(&metric::WORKER_PANICS, panics as f64),
            single(
                &metric::ACCESS_LOG_DROPPED,
                self.access_log.dropped() as f64,
            ),
            metric::BUILD_INFO.of(vec![metric::BUILD_INFO.sample(&version, 1.0)]),
        ]
    }

    fn config_families(&self) -> Vec<MetricFamily> {
        let reload = self.shared.reload.borrow();
        let success = reload.success_wall_millis as f64 / 1000.0;
        vec![
            single(&metric::CONFIG_GENERATION, reload.generation as f64),
            single(&metric::CONFIG_SUCCESSFUL, f64::from(reload.successful())),
            single(&metric::CONFIG_SUCCESS_TIMESTAMP, success),
        ]
    }

    fn backend_families(&self, snapshot: &Snapshot) -> Vec<MetricFamily> {
        let mut samples = BackendSamples::default();
        for pool in &snapshot.pools {
            for backend in &pool.backends {
                samples.add(&pool.name, backend);
                let Some(probes) = self.probes.counts(&pool.name, backend.live.address) else {
                    continue;
                };
                for (result, count) in RESULTS
                    .into_iter()
                    .zip(probes.values())
                    .filter(|&(_, count)| count > 0)
                {
                    let labels = [&*pool.name, &backend.name, result];
                    samples
                        .probes
                        .push(metric::PROBES.sample(&labels, count as f64));
                }
            }
        }
        samples.into_families()
    }
}

#[derive(Default)]
struct BackendSamples {
    up: Vec<Metric>,
    states: Vec<Metric>,
    in_flight: Vec<Metric>,
    connections: Vec<Metric>,
    connect_errors: Vec<Metric>,
    probes: Vec<Metric>,
}

impl BackendSamples {
    fn add(&mut self, pool: &str, backend: &Backend) {
        let (name, live) = (&*backend.name, &backend.live);
        let (health, in_flight) = (live.health(), f64::from(live.in_flight()));
        self.up
            .push(metric::BACKEND_UP.sample(&[pool, name], f64::from(health == Health::Up)));
        self.in_flight
            .push(metric::BACKEND_IN_FLIGHT.sample(&[pool, name], in_flight));
        let effective = Effective::of(backend.admin, health);
        for state in Effective::ALL {
            let holds = f64::from(state == effective);
            self.states
                .push(metric::BACKEND_STATE.sample(&[pool, name, state.as_str()], holds));
        }
        let (mut fresh, mut reused, mut failed) = (0, 0, 0);
        for counts in live.all_connections() {
            fresh += counts.fresh.value();
            reused += counts.reused.value();
            failed += counts.failed.value();
        }
        for (label, count) in [("false", fresh), ("true", reused)] {
            let sample = metric::BACKEND_CONNECTIONS.sample(&[pool, name, label], count as f64);
            self.connections.push(sample);
        }
        self.connect_errors
            .push(metric::BACKEND_CONNECT_ERRORS.sample(&[pool, name], failed as f64));
    }

    fn into_families(self) -> Vec<MetricFamily> {
        vec![
            metric::BACKEND_UP.of(self.up),
            metric::BACKEND_STATE.of(self.states),
            metric::BACKEND_IN_FLIGHT.of(self.in_flight),
            metric::BACKEND_CONNECTIONS.of(self.connections),
            metric::BACKEND_CONNECT_ERRORS.of(self.connect_errors),
            metric::PROBES.of(self.probes),
        ]
    }
}

fn listener_family(snapshot: &Snapshot) -> MetricFamily {
    let samples = snapshot.listeners.iter().map(|listener| {
        let open = listener
            .connections
            .load(std::sync::atomic::Ordering::Relaxed);
        metric::LISTENER_CONNECTIONS.sample(&[&*listener.name], open as f64)
    });
    metric::LISTENER_CONNECTIONS.of(samples.collect())
}

fn single(family: &Family, value: f64) -> MetricFamily {
    family.of(vec![family.sample(&[], value)])
}
