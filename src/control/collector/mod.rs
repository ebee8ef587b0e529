//! The collector: what workers, backends, probes and reloads count, put together when Prometheus asks.
//! It must never be on the way of a request; the data path only ever adds to its own counters.
//! Read `family.rs` (the metrics by name) and `rows.rs` (summing over workers).

mod datagrams;
mod discovery;
mod family;
mod limits;
mod passive;
mod queues;
mod relays;
mod rows;
mod scale;
mod tls;

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::Desc;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{Encoder, Registry, TextEncoder};

use self::family::{self as metric, ALL, Family};
use self::rows::{Table, Times};
use super::effective::Effective;
use super::probes::RESULTS;
use super::shared::Shared;
use super::store;
use crate::http::meter::FLOODS;
use crate::l7::reject;
use crate::metrics::rows::{Hold, NewRow};
use crate::metrics::worker::ProxyFailure;
use crate::policy::balance::BackendIndex;
use crate::policy::health::Health;
use crate::policy::persist::Stickiness;
use crate::policy::retry::Failure;
use crate::state::access_log;
use crate::state::backend::Backend;
use crate::state::live_sessions::LiveSessions;
use crate::state::snapshot::{Pool, Snapshot};
use crate::state::store::{Outcome, Standing};

/// Buckets of the request duration that are exported: 131 µs to 69 s.
const DURATION_BOUNDS: std::ops::Range<usize> = 7..27;
/// Buckets of the overhead that are exported: 1 µs to 34 ms; it is mostly below 4 µs.
const OVERHEAD_BOUNDS: std::ops::Range<usize> = 0..16;
/// The values of the `code` label.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Everything that `/metrics` shows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    collector: Arc<Collector>,
    /// Held while the text is made.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Collector {
    shared: Arc<Shared>,
    rows: Mutex<Table>,
    access_log: access_log::Queue,
    described: Vec<Desc>,
}

impl Metrics {
    /// Brings the sources together, and the `process_*` set beside them: `rows` is where workers tell of new rows, `access_log` knows
    /// of lost lines.
    ///
    /// # Errors
    /// When a metric's name is not one that Prometheus allows, which a test excludes.
    pub fn new(
        shared: Arc<Shared>,
        rows: Receiver<NewRow>,
        access_log: access_log::Queue,
    ) -> prometheus::Result<Metrics> {
        let described = ALL.iter().map(|family| family.describe());
        let collector = Arc::new(Collector {
            rows: Mutex::new(Table::new(rows, shared.budget.clone())),
            shared,
            access_log,
            described: described.collect::<prometheus::Result<_>>()?,
        });
        let registry = Registry::new();
        registry.register(Box::new(Registered(collector.clone())))?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process))?;
        Ok(Metrics {
            registry,
            collector,
            turn: Arc::default(),
        })
    }

    /// The metrics in Prometheus's text format. It is made beside the runtime, one at a time: however often somebody asks, probes
    /// and reloads go on.
    ///
    /// # Errors
    /// When a sample cannot be written as text.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn text(&self) -> prometheus::Result<Vec<u8>> {
        let turn = self.turn.clone().lock_owned().await;
        let metrics = self.clone();
        let made = tokio::task::spawn_blocking(move || {
            let text = metrics.gather();
            drop(turn);
            text
        });
        made.await
            .unwrap_or_else(|error| Err(prometheus::Error::Msg(error.to_string())))
    }

    fn gather(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// How many requests of a pool were answered so far, and the seconds that they took together.
    pub fn durations(&self, pool: &str) -> (u64, f64) {
        let mut table = self.collector.table();
        table.sweep();
        let of_pool = table.routes().filter(|(labels, _)| &*labels.pool == pool);
        of_pool.fold((0, 0.0), |(count, seconds), (_, sum)| {
            (count + sum.duration.count(), seconds + sum.duration.seconds)
        })
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
        families.extend(relays::families(&collector.table()));
        families.extend(datagrams::families(&collector.table()));
        families.extend(collector.process_families());
        families.extend(collector.config_families());
        families.extend(collector.backend_families(&snapshot));
        families.extend(passive::families(&snapshot));
        families.push(listener_family(&snapshot));
        families.extend(store_families(&snapshot));
        families.extend(tls::families(&collector.shared.workers, &snapshot));
        families.extend(limits::families(&snapshot));
        families.extend(queues::families(&snapshot));
        families.extend(discovery::families(&snapshot, &collector.shared.discovery));
        families.extend(scale::families(&collector.shared.scale));
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
        let (mut durations, mut retries, mut denials) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_route: BTreeMap<&str, ByRoute> = BTreeMap::new();
        for (labels, sum) in table.routes() {
            let values = [&*labels.route, &labels.pool];
            if sum.duration.count() > 0 {
                let times = metric::HTTP_DURATION.times(&values, &sum.duration, DURATION_BOUNDS);
                durations.push(times);
            }
            for (cause, count) in Failure::CAUSES.into_iter().zip(sum.retries) {
                let labels = [values[0], values[1], cause];
                retries.push(metric::RETRIES.sample(&labels, count as f64));
            }
            denials.push(metric::UNAFFORDABLE.sample(&values, sum.unaffordable as f64));
            let all = by_route.entry(&labels.route).or_default();
            all.overhead.merge(&sum.overhead);
            add(&mut all.sticky, &sum.sticky);
            add(&mut all.holds, &sum.holds);
        }
        let (mut overheads, mut stickies, mut holds) = (Vec::new(), Vec::new(), Vec::new());
        for (route, all) in by_route {
            if all.overhead.count() > 0 {
                let times = metric::HTTP_OVERHEAD.times(&[route], &all.overhead, OVERHEAD_BOUNDS);
                overheads.push(times);
            }
            let results = Stickiness::ALL.map(Stickiness::as_str);
            stickies.extend(counted(&metric::STICKY, route, &results, &all.sticky));
            let results = Hold::ALL.map(Hold::as_str);
            holds.extend(counted(&metric::STICKY_HOLDS, route, &results, &all.holds));
        }
        vec![
            metric::HTTP_REQUESTS.of(requests),
            metric::HTTP_DURATION.of(durations),
            metric::RETRIES.of(retries),
            metric::UNAFFORDABLE.of(denials),
            metric::HTTP_OVERHEAD.of(overheads),
            metric::STICKY.of(stickies),
            metric::STICKY_HOLDS.of(holds),
        ]
    }

    /// What belongs to the process as a whole.
    fn process_families(&self) -> Vec<MetricFamily> {
        let workers = &self.shared.workers;
        let refused = reject::TABLE.iter().enumerate().map(|(ordinal, row)| {
            let counts = workers
                .iter()
                .filter_map(|worker| worker.refused.get(ordinal));
            let sum: u64 = counts.map(|count| count.value()).sum();
            metric::HTTP_REFUSED.sample(&[row.reason], sum as f64)
        });
        let accept_errors: u64 = workers
            .iter()
            .map(|worker| worker.accept_errors.value())
            .sum();
        let panics: u64 = workers.iter().map(|worker| worker.panics.value()).sum();
        let floods = FLOODS.iter().map(|&flood| {
            let cut = workers.iter().map(|it| it.floods[flood as usize].value());
            metric::HTTP2_FLOODS.sample(&[flood.as_str()], cut.sum::<u64>() as f64)
        });
        let strangers = ProxyFailure::ALL.map(|reason| {
            let closed = workers
                .iter()
                .map(|it| it.proxy_failures[reason as usize].value());
            metric::PROXY_ERRORS.sample(&[reason.as_str()], closed.sum::<u64>() as f64)
        });
        let http2_errors: u64 = workers.iter().map(|it| it.http2_errors.value()).sum();
        let version = [env!("CARGO_PKG_VERSION")];
        vec![
            metric::HTTP_REFUSED.of(refused.collect()),
            single(&metric::ACCEPT_ERRORS, accept_errors as f64),
            metric::PROXY_ERRORS.of(strangers.into()),
            metric::HTTP2_FLOODS.of(floods.collect()),
            single(&metric::HTTP2_ERRORS, http2_errors as f64),
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
            single(
                &metric::STICKY_SECRET_EPHEMERAL,
                f64::from(reload.secret_ephemeral),
            ),
        ]
    }

    fn backend_families(&self, snapshot: &Snapshot) -> Vec<MetricFamily> {
        let mut samples = BackendSamples::default();
        for pool in &snapshot.pools {
            if let Some(sessions) = &pool.sessions {
                samples.add_sessions(pool, sessions);
            }
            for backend in &pool.backends {
                samples.add(&pool.name, backend);
                let Some(probes) = self.shared.checks.counts(&pool.name, backend.live.address)
                else {
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

/// What the rows of one route add up to, whatever pool it led to.
#[derive(Default)]
struct ByRoute {
    overhead: Times,
    sticky: [u64; 8],
    holds: [u64; 4],
}

fn add(all: &mut [u64], more: &[u64]) {
    all.iter_mut()
        .zip(more)
        .for_each(|(all, more)| *all += more);
}

/// A sample for each result of a route that was counted at all.
fn counted<'a>(
    family: &'a Family,
    route: &'a str,
    results: &'a [&str],
    counts: &'a [u64],
) -> impl Iterator<Item = Metric> + 'a {
    let rows = results.iter().zip(counts).filter(|row| *row.1 > 0);
    rows.map(move |(result, count)| family.sample(&[route, result], *count as f64))
}

#[derive(Default)]
struct BackendSamples {
    up: Vec<Metric>,
    states: Vec<Metric>,
    in_flight: Vec<Metric>,
    upgraded: Vec<Metric>,
    sessions: Vec<Metric>,
    skews: Vec<Metric>,
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
        let upgraded = f64::from(live.upgraded());
        self.upgraded
            .push(metric::BACKEND_UPGRADED.sample(&[pool, name], upgraded));
        let effective = Effective::of(backend);
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

    fn add_sessions(&mut self, pool: &Pool, sessions: &LiveSessions) {
        for (backend, index) in pool.backends.iter().zip(0..=u16::MAX) {
            let count = f64::from(sessions.count(BackendIndex(index)));
            let labels = [&*pool.name, &backend.name];
            self.sessions
                .push(metric::BACKEND_SESSIONS.sample(&labels, count));
        }
        let skew = super::sessions::skew(pool, sessions);
        self.skews
            .extend(skew.map(|skew| metric::STICKY_SKEW.sample(&[&*pool.name], skew)));
    }

    fn into_families(self) -> Vec<MetricFamily> {
        vec![
            metric::BACKEND_UP.of(self.up),
            metric::BACKEND_STATE.of(self.states),
            metric::BACKEND_IN_FLIGHT.of(self.in_flight),
            metric::BACKEND_UPGRADED.of(self.upgraded),
            metric::BACKEND_SESSIONS.of(self.sessions),
            metric::STICKY_SKEW.of(self.skews),
            metric::BACKEND_CONNECTIONS.of(self.connections),
            metric::BACKEND_CONNECT_ERRORS.of(self.connect_errors),
            metric::PROBES.of(self.probes),
        ]
    }
}

fn store_families(snapshot: &Snapshot) -> [MetricFamily; 2] {
    let (mut up, mut requests) = (Vec::new(), Vec::new());
    for end in store::stores(snapshot) {
        let (label, health) = (end.store.label(), &end.health);
        let is_up = health.standing() == Standing::Up;
        up.push(metric::STICKY_STORE_UP.sample(&[&label], f64::from(is_up)));
        for (outcome, count) in Outcome::ALL.into_iter().zip(health.counts()) {
            let labels = [&*label, outcome.as_str()];
            requests.push(metric::STICKY_STORE_REQUESTS.sample(&labels, count as f64));
        }
    }
    [
        metric::STICKY_STORE_UP.of(up),
        metric::STICKY_STORE_REQUESTS.of(requests),
    ]
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

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::control::sample::{self, Ends};
    use crate::metrics::rows::{RequestLabels, RouteLabels, Rows};
    use crate::state::sample::loopback;

    fn metrics() -> (Metrics, Ends, Sender<NewRow>) {
        let (shared, ends) = sample::shared(&[("was", &[loopback(1), loopback(2)])]);
        let (announce, rows) = channel();
        let metrics = Metrics::new(shared, rows, access_log::Queue::new().0);
        (metrics.unwrap(), ends, announce)
    }

    /// As many workers as the sample has.
    fn count_something(metrics: &Metrics, announce: &Sender<NewRow>) -> [Rows; 2] {
        let shared = &metrics.collector.shared;
        let workers = [(); 2].map(|()| Rows::new(announce.clone(), shared.budget.clone()));
        for worker in &workers {
            let name = |name: &str| Arc::<str>::from(name);
            let labels = RequestLabels {
                listener: name("web"),
                route: name("GET \"/cart\""),
                pool: name("was"),
                backend: name("127.0.0.1:1"),
            };
            let datagrams = worker.datagrams(labels.clone());
            datagrams.begun.increment();
            datagrams.ends[0].increment();
            datagrams.lost[0].increment();
            let relays = worker.relay(labels.clone());
            relays.ends[0].increment();
            relays.duration.record(Duration::from_secs(2));
            worker.request(labels).classes[1].add(5);
            let route = worker.route(RouteLabels {
                route: name("cart"),
                pool: name("was"),
            });
            route.duration.record(Duration::from_millis(3));
            route.overhead.record(Duration::from_micros(20));
            route.sticky[Stickiness::Kept as usize].add(2);
            route.retries[0].increment();
            route.holds[Hold::Over as usize].increment();
        }
        let row = |row: &reject::Row| row.reason == "no_backend";
        let ordinal = reject::TABLE.iter().position(row).unwrap();
        shared.workers[1].refused[ordinal].add(3);
        let snapshot = shared.current.borrow().clone();
        let live = &snapshot.pools[0].backends[0].live;
        live.set_health(Health::Up, crate::clock::now());
        live.connections(0).fresh.add(1);
        live.connections(1).reused.add(9);
        let sessions = snapshot.pools[0].sessions.as_ref().unwrap();
        sessions.note(1, BackendIndex(0), crate::clock::now());
        workers
    }

    #[test]
    fn every_shard_is_in_the_sum() {
        let (metrics, _ends, announce) = metrics();
        let _workers = count_something(&metrics, &announce);
        let text = String::from_utf8(metrics.gather().unwrap()).unwrap();
        for line in [
            r#"weir_http_requests_total{listener="web",route="GET \"/cart\"",pool="was",backend="127.0.0.1:1",code="2xx"} 10"#,
            r#"weir_http_request_duration_seconds_bucket{route="cart",pool="was",le="0.002097152"} 0"#,
            r#"weir_http_request_duration_seconds_bucket{route="cart",pool="was",le="0.004194304"} 2"#,
            r#"weir_http_request_duration_seconds_bucket{route="cart",pool="was",le="+Inf"} 2"#,
            r#"weir_http_request_duration_seconds_count{route="cart",pool="was"} 2"#,
            r#"weir_http_overhead_seconds_bucket{route="cart",le="0.000001024"} 0"#,
            r#"weir_http_overhead_seconds_bucket{route="cart",le="0.000032768"} 2"#,
            r#"weir_sticky_total{route="cart",result="kept"} 4"#,
            r#"weir_sticky_holds_total{route="cart",result="over"} 2"#,
            r#"weir_retries_total{route="cart",pool="was",cause="connect"} 2"#,
            r#"weir_http_refused_total{reason="no_backend"} 3"#,
            r#"weir_http_refused_total{reason="no_route"} 0"#,
            r#"weir_backend_up{pool="was",backend="127.0.0.1:1"} 1"#,
            r#"weir_backend_up{pool="was",backend="127.0.0.1:2"} 0"#,
            r#"weir_backend_state{pool="was",backend="127.0.0.1:1",state="up"} 1"#,
            r#"weir_backend_state{pool="was",backend="127.0.0.1:2",state="up"} 0"#,
            r#"weir_backend_state{pool="was",backend="127.0.0.1:2",state="unknown"} 1"#,
            r#"weir_backend_connections_total{pool="was",backend="127.0.0.1:1",reused="true"} 9"#,
            r#"weir_backend_sessions{pool="was",backend="127.0.0.1:1"} 1"#,
            r#"weir_backend_sessions{pool="was",backend="127.0.0.1:2"} 0"#,
            r#"weir_sticky_skew_ratio{pool="was"} 1"#,
            r#"weir_sticky_store_up{store="redis://127.0.0.1:6379/0"} 0"#,
            r#"weir_sticky_store_requests_total{store="redis://127.0.0.1:6379/0",result="late"} 0"#,
            r#"weir_listener_connections{listener="web"} 0"#,
            r#"weir_limited_total{listener="web",route="none",limit="connections"} 0"#,
            "weir_config_generation 1",
            "weir_config_last_reload_successful 1",
            concat!(
                "weir_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line}\n{text}");
        }
        assert!(text.contains("process_open_fds "), "{text}");
    }

    #[test]
    fn every_family_is_exported_and_described() {
        let (metrics, _ends, announce) = metrics();
        let _workers = count_something(&metrics, &announce);
        let snapshot = metrics.collector.shared.current.borrow().clone();
        let address = snapshot.pools[0].backends[0].live.address;
        let probes = metrics
            .collector
            .shared
            .checks
            .open(&snapshot.pools[0].name, address);
        probes.count(&Ok(()));
        let text = String::from_utf8(metrics.gather().unwrap()).unwrap();
        // Those of files have rows where a listener speaks TLS, those of ejections where a pool has rules for them: `it tls` and
        // `it passive` have them; those of discovery, scaling and queues where a pool has
        // them: `it discovery`, `it scale` and `it queue`.
        let elsewhere = [
            "weir_tls_certificate_",
            "weir_tls_file_",
            "weir_backend_eject",
            "weir_pool_panic",
            "weir_discovery_",
            "weir_scale_",
            "weir_pool_queue",
            "weir_pool_shed",
        ];
        let is_elsewhere = |name: &str| elsewhere.iter().any(|start| name.starts_with(start));
        for family in ALL.iter().filter(|family| !is_elsewhere(family.name)) {
            let help = format!("# HELP {} {}", family.name, family.help);
            assert!(text.contains(&help), "no {help}");
        }
    }

    /// Runs where Prometheus is installed, which `tests/run` sees to.
    #[test]
    fn promtool_has_nothing_to_say() {
        let (metrics, _ends, announce) = metrics();
        let _workers = count_something(&metrics, &announce);
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else { return };
        let mut input = promtool.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, &metrics.gather().unwrap()).unwrap();
        drop(input);
        let said = promtool.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(said.status.success() && text.is_empty(), "{text}");
    }
}
