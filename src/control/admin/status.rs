//! `GET /api/v1/status`: what weir serves right now, for people and scripts.
//! It shows a copy of published values and never waits for a worker.
//! Nothing follows from here.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use crate::clock::{self, Rfc3339};
use crate::config::model::{self, AdminState};
use crate::control::because::{Because, SetBy};
use crate::control::discovery::Standing;
use crate::control::drains::{Drains, Mark};
use crate::control::effective::Effective;
use crate::control::scale;
use crate::control::shared::{Lifecycle, ReloadStatus, Shared};
use crate::policy::balance::BackendIndex;
use crate::policy::health::slow_start::{FULL, share};
use crate::state::backend;
use crate::state::report::Report;
use crate::state::snapshot;
use crate::state::standing::Record;
use crate::state::tls::{Shown, TlsFile};

/// Who named a backend that was not discovered.
const CONFIG: &str = "config";

/// The whole document.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    pid: u32,
    /// The process that this one took over from.
    predecessor: Option<u32>,
    generation: u64,
    lifecycle: &'static str,
    started: String,
    uptime_seconds: u64,
    workers: usize,
    last_reload: LastReload,
    process: Process,
    /// Absent when none failed: one that succeeds is another process's.
    failed_upgrade: Option<FailedUpgrade>,
    listeners: Vec<Listener>,
    routes: Vec<Route>,
    pools: Vec<Pool>,
}

#[derive(Debug, Serialize)]
struct LastReload {
    ok: bool,
    at: String,
    error: Option<String>,
    warnings: Vec<String>,
    /// What changed with the last success; empty: nothing.
    summary: String,
    /// What that cost whoever was served.
    report: Report,
}

#[derive(Debug, Serialize)]
struct FailedUpgrade {
    at: String,
    error: String,
}

#[derive(Debug, Serialize)]
struct Listener {
    name: String,
    addresses: Vec<String>,
    protocol: &'static str,
    /// `ready` or `drain`.
    state: &'static str,
    #[serde(flatten)]
    set: Setting,
    connections: usize,
    /// Absent where TLS is not spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates: Option<Vec<Certificate>>,
}

/// Who said what state something has.
#[derive(Debug, Serialize)]
struct Setting {
    /// `file`, `api`, or weir itself: `check` or `scale`.
    set_by: &'static str,
    /// Who used the API, as far as it can tell.
    set_who: Option<String>,
    set_at: Option<String>,
}

impl Setting {
    /// Weir itself.
    fn by(set_by: &'static str) -> Setting {
        Setting {
            set_by,
            set_who: None,
            set_at: None,
        }
    }

    /// Whoever set the state of a backend.
    fn of_backend(by: &SetBy) -> Setting {
        match by {
            SetBy::Check => Setting::by("check"),
            SetBy::Scale => Setting::by("scale"),
            SetBy::File => Setting::of(None),
            SetBy::Api(mark) => Setting::of(Some(mark)),
        }
    }

    fn of(mark: Option<&Mark>) -> Setting {
        Setting {
            set_by: if mark.is_some() { "api" } else { "file" },
            set_who: mark.map(|mark| mark.who.clone()),
            set_at: mark.map(|mark| Rfc3339(mark.set_wall_millis).to_string()),
        }
    }
}

/// What is set for the process.
#[derive(Debug, Serialize)]
struct Process {
    state: &'static str,
    #[serde(flatten)]
    set: Setting,
    connections: usize,
}

#[derive(Debug, Serialize)]
struct Certificate {
    file: String,
    names: Vec<String>,
    not_after: String,
    /// Why the file cannot be used as it is now; what it held before is served.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Route {
    name: String,
    listeners: Vec<String>,
    hosts: Vec<String>,
    path: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sni: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alpn: Vec<String>,
    pool: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<Canary>,
    sticky: bool,
}

#[derive(Debug, Serialize)]
struct Canary {
    pool: String,
    /// Its part of new clients, in hundredths.
    weight: f64,
}

#[derive(Debug, Serialize)]
struct Pool {
    name: String,
    balancer: String,
    /// Whether its backends are; of one that is not `up` says little.
    checked: bool,
    /// Who waits for a backend. Absent where backends have no limit.
    queued: Option<usize>,
    /// Absent where all backends are named by the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery: Option<Discovery>,
    /// Absent where nobody says how many there should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<scale::Standing>,
    backends: Vec<Backend>,
}

/// Where more backends come from.
#[derive(Debug, Serialize)]
struct Discovery {
    /// Its type and whom it asks.
    source: String,
    /// Those of the last good list; some may be named by the file, too.
    endpoints: usize,
    last_success: Option<String>,
    failures: u64,
    /// What is wrong with it now; the last good list is in force.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Backend {
    name: String,
    address: String,
    /// Who named it: the file, or the pool's discovery of this type.
    source: &'static str,
    weight: u16,
    /// Whether it serves only where no other can.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    /// While it warms up: the part of its weight that it takes, beside those of the others. Absent where backends do not.
    share: Option<f64>,
    state: &'static str,
    #[serde(flatten)]
    set: Setting,
    health: &'static str,
    effective: &'static str,
    /// Since when it is that, as far as this process knows.
    since: Option<String>,
    /// Why it is that.
    because: String,
    /// In a pool with passive health.
    #[serde(skip_serializing_if = "Option::is_none")]
    passive: Option<Passive>,
    in_flight: u32,
    /// Absent where there is no limit.
    max_in_flight: Option<u32>,
    upgraded: u32,
    /// Absent where no route to the pool is sticky.
    sessions: Option<u32>,
    /// Those that a drain waits for: they would be lost with the backend.
    sessions_held: u32,
    /// Of a backend that drains: when the last of them will have expired, if none is used again.
    sessions_expire_seconds: Option<u64>,
    /// For so long sessions may turn up that would be lost with it and are not known, since another weir served when they were used last.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions_unseen_seconds: Option<u64>,
    connections: Connections,
}

/// What traffic has shown of a backend.
#[derive(Debug, Serialize)]
struct Passive {
    /// `good`, `ejected` or `trial`.
    standing: &'static str,
    /// Until its ejection is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<f64>,
    /// Since weir started.
    ejections: u64,
}

#[derive(Debug, Default, Serialize)]
struct Connections {
    new: u64,
    reused: u64,
    failed: u64,
}

/// The status as of now.
pub(super) fn status(shared: &Shared) -> Status {
    let snapshot = shared.current.borrow().clone();
    // The one of routes that lead nowhere is not among the file's.
    let pools = snapshot.pools.iter().zip(&snapshot.config.pools);
    let pools = pools.map(|(from, config)| pool(from, config, shared));
    let drains = shared.overrides.drains();
    let uptime = clock::now().saturating_duration_since(shared.started);
    Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        predecessor: shared.predecessor,
        generation: snapshot.generation,
        lifecycle: match *shared.lifecycle.borrow() {
            Lifecycle::Starting => "starting",
            Lifecycle::Ready if drains.process.is_none() => "ready",
            Lifecycle::Ready | Lifecycle::Draining => "draining",
        },
        started: Rfc3339(shared.started_wall_millis).to_string(),
        uptime_seconds: uptime.as_secs(),
        workers: shared.workers.len(),
        last_reload: last_reload(&shared.reload.borrow()),
        process: Process {
            state: state_word(drains.process.as_ref()),
            set: Setting::of(drains.process.as_ref()),
            connections: shared.workers.iter().map(|worker| worker.open()).sum(),
        },
        failed_upgrade: (shared.upgrade.borrow().as_ref()).map(|failed| FailedUpgrade {
            at: Rfc3339(failed.wall_millis).to_string(),
            error: failed.text.clone(),
        }),
        listeners: (snapshot.listeners.iter())
            .map(|from| listener(from, &snapshot.tls_files, &drains))
            .collect(),
        routes: snapshot.config.routes.iter().map(route).collect(),
        pools: pools.collect(),
    }
}

fn state_word(mark: Option<&Mark>) -> &'static str {
    match mark {
        Some(_) => "drain",
        None => "ready",
    }
}

fn last_reload(reload: &ReloadStatus) -> LastReload {
    let at = reload
        .refusal
        .as_ref()
        .map_or(reload.success_wall_millis, |refusal| refusal.wall_millis);
    LastReload {
        ok: reload.successful(),
        at: Rfc3339(at).to_string(),
        error: reload.refusal.as_ref().map(|refusal| refusal.text.clone()),
        warnings: reload.warnings.clone(),
        summary: reload.summary.clone(),
        report: reload.report.clone(),
    }
}

fn certificate(shown: &Shown, files: &[TlsFile]) -> Certificate {
    let state = files.iter().find(|state| state.file == shown.file);
    let not_after = u64::try_from(shown.not_after).unwrap_or_default();
    Certificate {
        file: shown.file.to_string(),
        names: shown.names.clone(),
        not_after: Rfc3339(not_after.saturating_mul(1000)).to_string(),
        problem: state.and_then(|state| state.problem.clone()),
    }
}

fn listener(listener: &snapshot::Listener, files: &[TlsFile], drains: &Drains) -> Listener {
    let mark = drains.listeners.get(&*listener.name);
    Listener {
        state: state_word(mark),
        set: Setting::of(mark),
        name: listener.name.to_string(),
        addresses: listener
            .keys
            .iter()
            .chain(&listener.drained)
            .map(|key| key.address.to_string())
            .collect(),
        protocol: listener.protocol.as_str(),
        connections: listener.connections.load(Relaxed),
        certificates: (listener.tls.as_ref()).map(|tls| {
            let shown = tls.certificates.iter();
            shown.map(|shown| certificate(shown, files)).collect()
        }),
    }
}

fn route(route: &model::Route) -> Route {
    Route {
        name: route.name.clone(),
        listeners: route.listeners.clone(),
        hosts: route.hosts.clone(),
        path: route.path.clone(),
        sni: route.sni.clone(),
        alpn: route.alpn.clone(),
        pool: route.pool.clone(),
        canary: route.canary.as_ref().map(|canary| Canary {
            pool: canary.pool.clone(),
            weight: canary.weight,
        }),
        sticky: route.sticky.is_some(),
    }
}

fn pool(pool: &snapshot::Pool, config: &model::Pool, shared: &Shared) -> Pool {
    let backends = pool.backends.iter().zip(0..=u16::MAX);
    let backends = backends
        .map(|(from, index)| sessions(pool, BackendIndex(index), backend(pool, from, shared)));
    // Both are in one order.
    let backends = backends.zip(&config.backends).map(|(backend, from)| {
        let kind = config.discovery.as_ref().filter(|_| from.discovered);
        Backend {
            source: kind.map_or(CONFIG, model::Discovery::kind),
            ..backend
        }
    });
    Pool {
        discovery: shared.discovery.of(config).map(discovery),
        scale: shared.scale.of(&pool.name),
        name: pool.name.to_string(),
        balancer: pool.balancer.to_string(),
        checked: config.health.check != model::Check::None,
        queued: pool.is_limited.then(|| pool.waiting.all()),
        backends: backends.collect(),
    }
}

fn discovery(standing: Standing) -> Discovery {
    let at = standing.success_wall_millis;
    Discovery {
        source: standing.source,
        endpoints: standing.endpoints,
        last_success: at.map(|at| Rfc3339(at).to_string()),
        failures: standing.failures,
        problem: standing.problem,
    }
}

fn backend(pool: &snapshot::Pool, backend: &backend::Backend, shared: &Shared) -> Backend {
    let (live, mut connections) = (&backend.live, Connections::default());
    for counts in live.all_connections() {
        connections.new += counts.fresh.value();
        connections.reused += counts.reused.value();
        connections.failed += counts.failed.value();
    }
    let (admin, health) = (backend.admin(), live.health());
    let set_by = SetBy::of(&pool.name, backend, &shared.overrides);
    let because = Because::of(pool, backend, shared);
    Backend {
        name: backend.name.to_string(),
        address: live.address.to_string(),
        source: CONFIG,
        weight: backend.weight,
        backup: backend.backup,
        share: (pool.slow_start).map(|time| f64::from(share(live.warm(), time)) / f64::from(FULL)),
        state: admin.as_str(),
        set: Setting::of_backend(&set_by),
        health: health.as_str(),
        effective: Effective::of(backend).as_str(),
        since: (because.since_wall_millis).map(|at| Rfc3339(at).to_string()),
        because: because.text,
        passive: (pool.passive.as_ref()).map(|_| passive(live.record())),
        in_flight: live.in_flight(),
        max_in_flight: (backend.limits.as_ref())
            .map(|limits| limits.in_flight)
            .filter(|most| *most < u32::MAX),
        upgraded: live.upgraded(),
        sessions: None,
        sessions_held: 0,
        sessions_expire_seconds: None,
        sessions_unseen_seconds: None,
        connections,
    }
}

fn passive(record: &Record) -> Passive {
    let left = record.left(clock::now()).map(|left| left.as_secs_f64());
    Passive {
        standing: record.standing().as_str(),
        seconds_left: left,
        ejections: record.ejections_ever().iter().sum(),
    }
}

/// Adds what is known of the backend's sessions.
fn sessions(pool: &snapshot::Pool, index: BackendIndex, backend: Backend) -> Backend {
    let Some(sessions) = &pool.sessions else {
        return backend;
    };
    let held = sessions.held(index);
    let drains = held > 0 && pool.backends[index.index()].admin() == AdminState::Drain;
    let expire = drains.then(|| sessions.expires_in(index, clock::now()));
    Backend {
        sessions: Some(sessions.count(index)),
        sessions_held: held,
        sessions_expire_seconds: expire.flatten().map(|time| time.as_secs()),
        sessions_unseen_seconds: sessions.unseen_for(clock::now()).map(|time| time.as_secs()),
        ..backend
    }
}
