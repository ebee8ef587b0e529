//! A valid configuration becomes a snapshot; what the one before knew of servers and listeners is carried over.
//! It cannot fail and changes nothing: a snapshot that is never published leaves no trace.
//! The walk goes on in `diff.rs`, and in control's `apply.rs`, which publishes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::backend::{Backend, Epoch, Live};
use super::diff::key;
use super::snapshot::{Listener, Pool, Route, Snapshot};
use crate::config::model::{self, Check, Config};
use crate::policy::health::Health;
use crate::policy::persist::token::Secrets;
use crate::policy::persist::{AnyPersistence, CookieHash};
use crate::policy::route::{RouteMatch, Router};

/// Makes generation number `generation`, for `workers` workers, after `previous`.
pub fn compile(
    config: Arc<Config>,
    secrets: &Secrets,
    previous: Option<&Snapshot>,
    generation: u64,
    workers: usize,
) -> Snapshot {
    let known = Known::of(previous);
    let listeners = config.listeners.iter().map(|from| listener(from, &known));
    let pools = config.pools.iter().map(|from| pool(from, &known, workers));
    let pool_ordinals = ordinals(config.pools.iter().map(|pool| &pool.name));
    let routes = config.routes.iter().map(|from| Route {
        name: from.name.as_str().into(),
        pool: pool_ordinals[from.pool.as_str()],
        persistence: from.sticky.as_ref().map(|to| persistence(to, secrets)),
        timeouts: from.timeouts,
        max_body: from.max_body.unwrap_or(u64::MAX),
    });
    Snapshot {
        generation,
        listeners: listeners.collect(),
        routes: routes.collect(),
        router: router(&config),
        pools: pools.collect(),
        config: config.clone(),
    }
}

/// What outlives a generation, by what it is recognized by.
#[derive(Default)]
struct Known<'a> {
    listeners: HashMap<&'a str, &'a Listener>,
    pools: HashMap<&'a str, &'a Pool>,
}

impl<'a> Known<'a> {
    fn of(previous: Option<&'a Snapshot>) -> Self {
        previous.map_or_else(Known::default, |previous| Known {
            listeners: previous
                .listeners
                .iter()
                .map(|known| (&*known.name, known))
                .collect(),
            pools: previous
                .pools
                .iter()
                .map(|known| (&*known.name, known))
                .collect(),
        })
    }
}

fn listener(from: &model::Listener, known: &Known<'_>) -> Listener {
    let known = known.listeners.get(from.name.as_str());
    let keys = from.bind.iter().map(|address| key(from.protocol, *address));
    Listener {
        name: from.name.as_str().into(),
        keys: keys.collect(),
        protocol: from.protocol,
        max_connections: match from.max_connections {
            0 => usize::MAX,
            most => most,
        },
        path_checks: from.path_checks,
        connections: known.map_or_else(Arc::default, |known| known.connections.clone()),
    }
}

fn pool(from: &model::Pool, known: &Known<'_>, workers: usize) -> Pool {
    let known = known.pools.get(from.name.as_str());
    let epoch: Arc<Epoch> = known.map_or_else(Arc::default, |known| known.epoch.clone());
    let lives: HashMap<SocketAddr, &Arc<Live>> = known
        .into_iter()
        .flat_map(|pool| &pool.backends)
        .map(|backend| (backend.live.address, &backend.live))
        .collect();
    let live = |address| match lives.get(&address) {
        Some(live) => (*live).clone(),
        None => Arc::new(Live::new(
            address,
            initial(&from.health),
            epoch.clone(),
            workers,
        )),
    };
    let backends = from.backends.iter().map(|backend| Backend {
        name: backend.name.as_str().into(),
        weight: backend.weight,
        admin: backend.state,
        live: live(backend.address),
    });
    Pool {
        name: from.name.as_str().into(),
        balancer: from.balancer,
        max_idle: from.max_idle,
        backends: backends.collect(),
        epoch: epoch.clone(),
    }
}

/// What counts as known of a server before its first check; one that is never checked is up.
fn initial(health: &model::Health) -> Health {
    match health.check {
        Check::None => Health::Up,
        Check::Tcp | Check::Http { .. } => health.initial.into(),
    }
}

fn persistence(sticky: &model::Sticky, secrets: &Secrets) -> AnyPersistence {
    match sticky.mode {
        model::StickyMode::CookieHash => {
            AnyPersistence::CookieHash(CookieHash::new(&sticky.cookie, secrets))
        }
    }
}

fn router(config: &Config) -> Router {
    let listeners = ordinals(config.listeners.iter().map(|listener| &listener.name));
    let routes: Vec<RouteMatch> = config
        .routes
        .iter()
        .map(|route| RouteMatch {
            listeners: route
                .listeners
                .iter()
                .map(|name| listeners[name.as_str()])
                .collect(),
            hosts: route.hosts.clone(),
            path: route.path.clone(),
            methods: route.methods.clone(),
            headers: route.headers.clone(),
        })
        .collect();
    Router::compile(&routes)
}

/// Where each name stands; a valid configuration names nothing that is not there.
fn ordinals<'a>(names: impl Iterator<Item = &'a String>) -> HashMap<&'a str, usize> {
    names.map(String::as_str).zip(0..).collect()
}
