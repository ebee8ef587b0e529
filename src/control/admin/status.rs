//! `GET /api/v1/status`: what weir serves right now, for people and scripts.
//! It shows a copy of published values and never waits for a worker.
//! Nothing follows from here.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use crate::clock::{self, Rfc3339};
use crate::config::model::{self, AdminState};
use crate::control::effective::Effective;
use crate::control::overrides::Overrides;
use crate::control::shared::{Lifecycle, ReloadStatus, Shared};
use crate::policy::balance::BackendIndex;
use crate::policy::health::slow_start::{FULL, share};
use crate::state::backend;
use crate::state::snapshot;
use crate::state::standing::Record;
use crate::state::tls::{Shown, TlsFile};

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
    connections: usize,
    /// Absent where TLS is not spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates: Option<Vec<Certificate>>,
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
    sticky: bool,
}

#[derive(Debug, Serialize)]
struct Pool {
    name: String,
    balancer: String,
    backends: Vec<Backend>,
}

#[derive(Debug, Serialize)]
struct Backend {
    name: String,
    address: String,
    weight: u16,
    /// While it warms up: the part of its weight that it takes, beside those of the others. Absent where backends do not.
    share: Option<f64>,
    state: &'static str,
    set_by: &'static str,
    set_at: Option<String>,
    health: &'static str,
    effective: &'static str,
    /// In a pool with passive health.
    #[serde(skip_serializing_if = "Option::is_none")]
    passive: Option<Passive>,
    in_flight: u32,
    upgraded: u32,
    /// Absent where no route to the pool is sticky.
    sessions: Option<u32>,
    /// Those that a drain waits for: they would be lost with the backend.
    sessions_held: u32,
    /// Of a backend that drains: when the last of them will have expired, if none is used again.
    sessions_expire_seconds: Option<u64>,
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
    let pools = snapshot
        .pools
        .iter()
        .filter(|from| !from.backends.is_empty());
    let pools = pools.map(|from| pool(from, &shared.overrides));
    let uptime = clock::now().saturating_duration_since(shared.started);
    Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        predecessor: shared.predecessor,
        generation: snapshot.generation,
        lifecycle: lifecycle_word(*shared.lifecycle.borrow()),
        started: Rfc3339(shared.started_wall_millis).to_string(),
        uptime_seconds: uptime.as_secs(),
        workers: shared.workers.len(),
        last_reload: last_reload(&shared.reload.borrow()),
        failed_upgrade: (shared.upgrade.borrow().as_ref()).map(|failed| FailedUpgrade {
            at: Rfc3339(failed.wall_millis).to_string(),
            error: failed.text.clone(),
        }),
        listeners: (snapshot.listeners.iter())
            .map(|from| listener(from, &snapshot.tls_files))
            .collect(),
        routes: snapshot.config.routes.iter().map(route).collect(),
        pools: pools.collect(),
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

fn listener(listener: &snapshot::Listener, files: &[TlsFile]) -> Listener {
    Listener {
        name: listener.name.to_string(),
        addresses: listener
            .keys
            .iter()
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
        sticky: route.sticky.is_some(),
    }
}

fn pool(pool: &snapshot::Pool, overrides: &Overrides) -> Pool {
    let backends = pool.backends.iter().zip(0..=u16::MAX);
    let backends = backends
        .map(|(from, index)| sessions(pool, BackendIndex(index), backend(pool, from, overrides)));
    Pool {
        name: pool.name.to_string(),
        balancer: pool.balancer.to_string(),
        backends: backends.collect(),
    }
}

fn backend(pool: &snapshot::Pool, backend: &backend::Backend, overrides: &Overrides) -> Backend {
    let over = overrides.of(&pool.name, &backend.name);
    let (live, mut connections) = (&backend.live, Connections::default());
    for counts in live.all_connections() {
        connections.new += counts.fresh.value();
        connections.reused += counts.reused.value();
        connections.failed += counts.failed.value();
    }
    let (admin, health) = (backend.admin(), live.health());
    Backend {
        name: backend.name.to_string(),
        address: live.address.to_string(),
        weight: backend.weight,
        share: (pool.slow_start).map(|time| f64::from(share(live.warm(), time)) / f64::from(FULL)),
        state: admin.as_str(),
        set_by: match over {
            _ if backend.set() != admin => "check",
            Some(_) => "api",
            None => "file",
        },
        set_at: over.map(|over| Rfc3339(over.set_wall_millis).to_string()),
        health: health.as_str(),
        effective: Effective::of(backend).as_str(),
        passive: (pool.passive.as_ref()).map(|_| passive(live.record())),
        in_flight: live.in_flight(),
        upgraded: live.upgraded(),
        sessions: None,
        sessions_held: 0,
        sessions_expire_seconds: None,
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
        ..backend
    }
}

fn lifecycle_word(lifecycle: Lifecycle) -> &'static str {
    match lifecycle {
        Lifecycle::Starting => "starting",
        Lifecycle::Ready => "ready",
        Lifecycle::Draining => "draining",
    }
}
