//! The metrics by name: kind, labels and help of each, in one table.
//! It never counts; `mod.rs` fills the families with values.
//! The walk goes back to `mod.rs`.

use prometheus::core::Desc;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::rows::Times;

/// One metric's face.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its label names.
    pub labels: &'static [&'static str],
    /// Its HELP text.
    pub help: &'static str,
    kind: MetricType,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    let kind = MetricType::COUNTER;
    Family {
        name,
        labels,
        help,
        kind,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    let kind = MetricType::GAUGE;
    Family {
        name,
        labels,
        help,
        kind,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    let kind = MetricType::HISTOGRAM;
    Family {
        name,
        labels,
        help,
        kind,
    }
}

/// Declares the families and, in the same order, the list of them all.
macro_rules! families {
    ($($constant:ident = $kind:ident($name:literal, $labels:expr, $help:literal);)*) => {
        $(pub(super) static $constant: Family = $kind($name, &$labels, $help);)*
        /// Every metric that weir exports beside the `process_*` set.
        pub static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    HTTP_REQUESTS = counter("weir_http_requests_total", ["listener", "route", "pool", "backend", "code"],
        "HTTP requests that were answered, by class of the status that the client got.");
    HTTP_DURATION = histogram("weir_http_request_duration_seconds", ["route", "pool"],
        "Time from the complete request head to the last byte of the answer.");
    HTTP_OVERHEAD = histogram("weir_http_overhead_seconds", ["route"],
        "Time that weir itself took for a request, without queue, connect and backend.");
    HTTP_REFUSED = counter("weir_http_refused_total", ["reason"],
        "Requests and answers that weir refused, by reason.");
    LIMITED = counter("weir_limited_total", ["listener", "route", "limit"],
        "Connections and requests that met a limit of their listener or route.");
    LIMIT_CROWDED = counter("weir_limit_crowded_total", ["listener", "route", "limit"],
        "Times that a client found the table of a limit full: it shared what others had left, or was not counted.");
    QUEUE_LENGTH = gauge("weir_pool_queue_length", ["pool"],
        "Requests and connections that wait for a backend.");
    QUEUED = counter("weir_pool_queued_total", ["pool"],
        "Requests and connections that waited for a backend.");
    SHED = counter("weir_pool_shed_total", ["pool", "cause"],
        "Requests and connections that were turned away because every backend was busy.");
    TCP_CONNECTIONS = counter("weir_tcp_connections_total", ["listener", "route", "pool", "backend", "end"],
        "Connections of tcp listeners that ended, by who or what ended them.");
    TCP_BYTES = counter("weir_tcp_bytes_total", ["listener", "route", "pool", "backend", "direction"],
        "Bytes that passed through connections of tcp listeners: in from clients, out to them.");
    TCP_DURATION = histogram("weir_tcp_connection_duration_seconds", ["listener", "route", "pool", "backend"],
        "Time that connections of tcp listeners were open.");
    UDP_OPEN = gauge("weir_udp_flows", ["listener", "route", "pool", "backend"],
        "Flows of udp listeners that are open: each is an address and port of a client.");
    UDP_FLOWS = counter("weir_udp_flows_total", ["listener", "route", "pool", "backend", "end"],
        "Flows of udp listeners that ended, by why.");
    UDP_DATAGRAMS = counter("weir_udp_datagrams_total", ["listener", "route", "pool", "backend", "direction"],
        "Datagrams of flows: in from clients, out to them.");
    UDP_BYTES = counter("weir_udp_bytes_total", ["listener", "route", "pool", "backend", "direction"],
        "Bytes in datagrams of flows: in from clients, out to them.");
    UDP_LOST = counter("weir_udp_lost_total", ["listener", "route", "pool", "backend", "reason"],
        "Datagrams that were lost at weir, by why.");
    RETRIES = counter("weir_retries_total", ["route", "pool", "cause"],
        "Requests and connections that were tried again, at the same backend or another, by what failed before.");
    UNAFFORDABLE = counter("weir_retry_budget_exhausted_total", ["route", "pool"],
        "Requests that were not tried again because too many of their pool were being tried again already.");
    STICKY = counter("weir_sticky_total", ["route", "result"],
        "What persistence did with the requests of sticky routes.");
    STICKY_SECRET_EPHEMERAL = gauge("weir_sticky_secret_ephemeral", [],
        "Whether the secret of the sticky cookies lives in memory only (1): they are no good after a restart.");
    STICKY_STORE_UP = gauge("weir_sticky_store_up", ["store"],
        "Whether the store of learned sessions answers in time (1) or not (0).");
    STICKY_STORE_REQUESTS = counter("weir_sticky_store_requests_total", ["store", "result"],
        "Requests to the store of learned sessions, by what became of them.");
    STICKY_HOLDS = counter("weir_sticky_holds_total", ["route", "result"],
        "Requests that were held for their client's home, by what became of them.");
    LISTENER_CONNECTIONS = gauge("weir_listener_connections", ["listener"],
        "Client connections that are open.");
    HTTP2_FLOODS = counter("weir_http2_floods_total", ["kind"],
        "HTTP/2 connections that were cut off because of too many frames of one kind in a second.");
    HTTP2_ERRORS = counter("weir_http2_errors_total", [],
        "HTTP/2 connections that ended in an error of the client's.");
    TLS_HANDSHAKES = counter("weir_tls_handshakes_total", ["version", "resumed"],
        "TLS handshakes of clients that succeeded, by version, and whether an earlier session was resumed.");
    TLS_ERRORS = counter("weir_tls_handshake_errors_total", ["reason"],
        "TLS handshakes of clients that failed, by reason.");
    TLS_NOT_AFTER = gauge("weir_tls_certificate_not_after_timestamp_seconds", ["listener", "certificate"],
        "When a certificate that a listener shows expires, Unix time.");
    TLS_FILE_SUCCESSFUL = gauge("weir_tls_file_reload_successful", ["file"],
        "Whether a file behind TLS can be used as it is now (1), or what it held before is served (0).");
    PROXY_ERRORS = counter("weir_proxy_protocol_errors_total", ["reason"],
        "Connections that were closed, and datagrams that were dropped, where PROXY headers are read, by reason.");
    ACCEPT_ERRORS = counter("weir_accept_errors_total", [],
        "Attempts to accept a connection that failed.");
    BACKEND_UP = gauge("weir_backend_up", ["pool", "backend"],
        "Whether the checks of the backend pass (1) or not (0); 0 also before the first verdict.");
    BACKEND_STATE = gauge("weir_backend_state", ["pool", "backend", "state"],
        "The effective state of the backend: 1 for the one that holds, 0 for the others.");
    BACKEND_EJECTED = gauge("weir_backend_ejected", ["pool", "backend"],
        "Whether the backend is ejected for what traffic showed of it (1) or not (0), in pools with passive health.");
    BACKEND_EJECTIONS = counter("weir_backend_ejections_total", ["pool", "backend", "cause"],
        "Ejections of the backend, by what it was ejected for.");
    POOL_PANIC = gauge("weir_pool_panic", ["pool"],
        "Whether backends of the pool are ejected and used all the same (1), because too few would be left, or not (0).");
    BACKEND_IN_FLIGHT = gauge("weir_backend_in_flight", ["pool", "backend"],
        "Requests that are in flight at the backend.");
    BACKEND_UPGRADED = gauge("weir_backend_upgraded", ["pool", "backend"],
        "Connections at the backend that were upgraded to another protocol and are open.");
    BACKEND_SESSIONS = gauge("weir_backend_sessions", ["pool", "backend"],
        "Live sessions at the backend, on pools that a sticky route leads to.");
    STICKY_SKEW = gauge("weir_sticky_skew_ratio", ["pool"],
        "Live sessions of the busiest ready backend for its weight over the mean; 1 is even, absent without sessions.");
    BACKEND_CONNECTIONS = counter("weir_backend_connections_total", ["pool", "backend", "reused"],
        "Requests sent to the backend on a new connection or on a reused one.");
    BACKEND_CONNECT_ERRORS = counter("weir_backend_connect_errors_total", ["pool", "backend"],
        "Attempts to connect to the backend that failed.");
    SCALE_WANTED = gauge("weir_scale_wanted", ["pool"],
        "Backends that the pool should have for its load.");
    SCALE_SERVING = gauge("weir_scale_serving", ["pool"],
        "Backends of it that take new work.");
    SCALE_LOAD = gauge("weir_scale_load", ["pool"],
        "What is measured for each of them, over its target; 1 is as it should be.");
    SCALE_STEPS = counter("weir_scale_steps_total", ["pool", "action", "result"],
        "Times that servers were asked for (out) or one was to be stopped (in), by what came of the command or webhook.");
    DISCOVERY_ENDPOINTS = gauge("weir_discovery_endpoints", ["pool", "type"],
        "Backends that the source of a pool named last.");
    DISCOVERY_SUCCESS = gauge("weir_discovery_last_success_timestamp_seconds", ["pool", "type"],
        "When the source of a pool last gave a list that was good as a whole, Unix time; 0: not since the start.");
    DISCOVERY_FAILURES = counter("weir_discovery_failures_total", ["pool", "type"],
        "Times that the source of a pool could not be asked, or that its answer could not be used as a whole.");
    PROBES = counter("weir_probe_total", ["pool", "backend", "result"],
        "Health checks of the backend, by result.");
    ACCESS_LOG_DROPPED = counter("weir_access_log_dropped_total", [],
        "Access-log lines that were dropped because they could not be written in time.");
    WORKER_PANICS = counter("weir_worker_panics_total", [],
        "Connections that ended in a panic, which is always a bug.");
    CONFIG_GENERATION = gauge("weir_config_generation", [],
        "Number of the configuration generation that is served.");
    CONFIG_SUCCESSFUL = gauge("weir_config_last_reload_successful", [],
        "Whether the last attempt to load the configuration succeeded (1) or was refused (0).");
    CONFIG_SUCCESS_TIMESTAMP = gauge("weir_config_last_reload_success_timestamp_seconds", [],
        "When the configuration was last loaded successfully, as a Unix time.");
    BUILD_INFO = gauge("weir_build_info", ["version"],
        "The running version; the value is always 1.");
}

impl Family {
    /// The family with its samples.
    pub(super) fn of(&self, samples: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.into());
        family.set_help(self.help.into());
        family.set_field_type(self.kind);
        family.set_metric(samples);
        family
    }

    /// A sample of a counter or gauge; `values` stand in the order of the labels.
    pub(super) fn sample(&self, values: &[&str], value: f64) -> Metric {
        let mut metric = self.labelled(values);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }

    /// A sample of a histogram, with a bound for each of `bounds`.
    pub(super) fn times(
        &self,
        values: &[&str],
        times: &Times,
        bounds: std::ops::Range<usize>,
    ) -> Metric {
        let buckets = times.cumulative(bounds).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(times.count());
        histogram.set_sample_sum(times.seconds);
        let mut metric = self.labelled(values);
        metric.set_histogram(histogram);
        metric
    }

    /// The face as the registry wants it.
    ///
    /// # Errors
    /// When a name is not one that Prometheus allows.
    pub(super) fn describe(&self) -> prometheus::Result<Desc> {
        let labels = self.labels.iter().map(ToString::to_string).collect();
        Desc::new(
            self.name.into(),
            self.help.into(),
            labels,
            Default::default(),
        )
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let pairs = self.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).into());
            pair.set_value((*value).into());
            pair
        });
        Metric::from_label(pairs.collect())
    }
}
