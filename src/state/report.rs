//! What a change of the configuration costs whoever is served now: connections that end, hash keys and sessions that move or are lost.
//! It counts what the served generation knows at this moment and changes nothing; what depends on clients to come is an estimate.
//! The walk goes on in control's `reload.rs` and `admin/diff.rs`, which tell it after and before the change.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::diff::{Diff, key};
use super::snapshot::{Listener, Pool, Snapshot};
use crate::config::model::{self, BalancerKind, Config, Protocol, Sessions, StickyMode};
use crate::policy::balance::{BackendIndex, Maglev};
use crate::policy::rendezvous::{self, Rendezvous};

/// Keys that are tried to find out how many of them move.
const KEYS: u64 = 2048;
/// Lines about listeners and pools; beyond that the document says more than the log.
const SHOWN: usize = 16;

/// The cost of a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Client connections that end sooner than they would: those of closed listeners, and those of tcp listeners at removed backends.
    pub connections_closing: usize,
    /// Live sessions that are lost, because the one server that has them leaves.
    pub sessions_lost: u32,
    /// Listeners that lose sockets.
    pub listeners: Vec<ListenerCost>,
    /// Pools whose clients notice something.
    pub pools: Vec<PoolCost>,
}

/// What a listener loses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListenerCost {
    /// Its name.
    pub name: String,
    /// Addresses that are closed.
    pub closed: Vec<String>,
    /// Connections that it has; where it keeps an address, some of them stay.
    pub connections: usize,
}

/// What changes for the clients of a pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolCost {
    /// Its name.
    pub name: String,
    /// Backends that leave, by name.
    pub removed: Vec<String>,
    /// What these have in flight; it is finished.
    pub in_flight: u32,
    /// Upgraded connections that these have; they last until they end.
    pub upgraded: u32,
    /// The part of all hash keys, from 0 to 1, that lead to another backend than before; absent where no hash decides.
    pub keys_moved: Option<f64>,
    /// Live sessions of the pool.
    pub sessions: u32,
    /// How many of them are served by another backend from now on.
    pub sessions_moved: u32,
    /// How many of those are lost by that (`sessions = "local"`).
    pub sessions_lost: u32,
}

impl Report {
    /// What it costs to serve `to` in place of the snapshot.
    pub fn of(from: &Snapshot, to: &Config) -> Report {
        let diff = Diff::between(&from.config, to);
        let listeners: Vec<ListenerCost> = (from.listeners.iter())
            .filter_map(|listener| listener_cost(listener, to))
            .collect();
        let changed = |pool: &&Pool| {
            let gone = diff
                .pools
                .removed
                .iter()
                .any(|(name, _)| **name == *pool.name);
            let mut changed = diff.pools.changed.iter();
            gone || changed.any(|((name, _), to)| {
                **name == *pool.name
                    && (!to.backends.is_empty() || to.balancer.is_some() || to.rest.is_some())
            })
        };
        let pools: Vec<PoolCost> = (from.pools.iter().filter(changed))
            .filter_map(|pool| pool_cost(from, pool, to))
            .collect();
        let relayed = |cost: &&PoolCost| is_relayed(&from.config, &cost.name);
        let relayed = pools.iter().filter(relayed).map(|cost| cost.in_flight);
        Report {
            connections_closing: listeners.iter().map(|cost| cost.connections).sum::<usize>()
                + relayed.sum::<u32>() as usize,
            sessions_lost: pools.iter().map(|cost| cost.sessions_lost).sum(),
            listeners,
            pools,
        }
    }

    /// Whether nobody notices anything.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.pools.is_empty()
    }

    /// A line for each listener and pool.
    pub fn lines(&self) -> Vec<String> {
        let listeners = self.listeners.iter().map(listener_line);
        let mut lines: Vec<String> = listeners.chain(self.pools.iter().map(pool_line)).collect();
        if lines.len() > SHOWN {
            let more = lines.len() - SHOWN + 1;
            lines.truncate(SHOWN - 1);
            lines.push(format!("{more} more listeners and pools change"));
        }
        lines
    }
}

fn listener_cost(listener: &Listener, to: &Config) -> Option<ListenerCost> {
    let after: HashSet<_> = (to.listeners.iter())
        .flat_map(|it| it.bind.iter().map(|address| key(it.protocol, *address)))
        .collect();
    let closed = listener.keys.iter().filter(|key| !after.contains(key));
    let closed: Vec<String> = closed.map(|key| key.address.to_string()).collect();
    (!closed.is_empty()).then(|| ListenerCost {
        name: listener.name.to_string(),
        closed,
        connections: listener.connections.load(Relaxed),
    })
}

fn pool_cost(from: &Snapshot, pool: &Pool, to: &Config) -> Option<PoolCost> {
    let before = from.config.pools.iter().find(|it| *it.name == *pool.name)?;
    let after = to.pools.iter().find(|it| it.name == before.name);
    let left = after.map_or(&[][..], |after| &after.backends);
    let stays =
        |name: &str, address| (left.iter()).any(|it| it.name == name && it.address == address);
    let gone: Vec<_> = (pool.backends.iter().zip(0..=u16::MAX))
        .filter(|(backend, _)| !stays(&backend.name, backend.live.address))
        .map(|(backend, index)| (backend, BackendIndex(index)))
        .collect();
    let sessions = pool.sessions.as_ref();
    let count = |index| sessions.map_or(0, |sessions| sessions.count(index));
    let total = (0..=u16::MAX)
        .zip(&pool.backends)
        .map(|(index, _)| count(BackendIndex(index)));
    let (total, at_gone) = (
        total.sum::<u32>(),
        gone.iter().map(|(_, index)| count(*index)),
    );
    let held = |index| sessions.map_or(0, |sessions| sessions.held(index));
    let keys_moved = after.and_then(|after| keys_moved(&from.config, before, to, after));
    let sessions_moved = match keys_moved.filter(|_| is_placed_by_hash(&from.config, before)) {
        Some(part) => (f64::from(total) * part).round() as u32,
        None => at_gone.sum(),
    };
    let cost = PoolCost {
        name: before.name.clone(),
        removed: gone.iter().map(|(it, _)| it.name.to_string()).collect(),
        in_flight: gone.iter().map(|(it, _)| it.live.in_flight()).sum(),
        upgraded: gone.iter().map(|(it, _)| it.live.upgraded()).sum(),
        keys_moved,
        sessions: total,
        sessions_moved,
        sessions_lost: match is_placed_by_hash(&from.config, before)
            && is_local(&from.config, before)
        {
            true => sessions_moved,
            false => gone.iter().map(|(_, index)| held(*index)).sum(),
        },
    };
    let is_noticed = !cost.removed.is_empty()
        || cost.keys_moved.is_some_and(|part| part > 0.0)
        || cost.sessions_moved > 0;
    is_noticed.then_some(cost)
}

/// Whether connections of tcp or udp listeners lead to the pool.
fn is_relayed(config: &Config, pool: &str) -> bool {
    let mut routes = config.routes.iter().filter(|route| route.pool == pool);
    routes.any(|route| {
        let mut listeners = config.listeners.iter();
        listeners.any(|it| it.protocol != Protocol::Http && route.listeners.contains(&it.name))
    })
}

/// Whether a sticky route to the pool finds homes by a hash of what clients bring.
fn is_placed_by_hash(config: &Config, pool: &model::Pool) -> bool {
    stickies(config, pool).any(|sticky| {
        matches!(
            sticky.mode,
            StickyMode::CookieHash | StickyMode::Source { .. } | StickyMode::Header { .. }
        )
    })
}

fn is_local(config: &Config, pool: &model::Pool) -> bool {
    stickies(config, pool).any(|sticky| sticky.sessions == Sessions::Local)
}

fn stickies<'a>(
    config: &'a Config,
    pool: &'a model::Pool,
) -> impl Iterator<Item = &'a model::Sticky> {
    let routes = config.routes.iter().filter(|route| route.pool == pool.name);
    routes.filter_map(|route| route.sticky.as_ref())
}

/// The part of keys that lead elsewhere, where keys lead anywhere.
fn keys_moved(
    from: &Config,
    before: &model::Pool,
    to: &Config,
    after: &model::Pool,
) -> Option<f64> {
    let by_hash = |config: &Config, pool: &model::Pool| {
        let balancer = matches!(pool.balancer, BalancerKind::Maglev | BalancerKind::Hash(_));
        balancer || is_placed_by_hash(config, pool)
    };
    if !by_hash(from, before) || !by_hash(to, after) {
        return None;
    }
    if before.balancer != after.balancer {
        return Some(1.0);
    }
    let (old, new) = (Homes::of(before), Homes::of(after));
    let keys = (0..KEYS).map(|number| rendezvous::key(&number.to_be_bytes()));
    let moved = keys
        .filter(|key| old.first(*key) != new.first(*key))
        .count();
    Some(moved as f64 / KEYS as f64)
}

/// Where keys of a pool lead while all of its backends serve.
struct Homes<'a> {
    backends: &'a [model::Backend],
    ring: Rendezvous,
    maglev: Option<Maglev>,
}

impl Homes<'_> {
    fn of(pool: &model::Pool) -> Homes<'_> {
        let backends = || pool.backends.iter().map(|it| (it.name.as_str(), it.weight));
        Homes {
            backends: &pool.backends,
            ring: Rendezvous::new(backends()),
            maglev: (pool.balancer == BalancerKind::Maglev).then(|| Maglev::new(backends())),
        }
    }

    fn first(&self, key: u64) -> Option<&str> {
        let index = match &self.maglev {
            Some(maglev) => maglev.first(key),
            None => self.ring.first(key, |_| true),
        };
        self.backends
            .get(index?.index())
            .map(|backend| &*backend.name)
    }
}

fn listener_line(cost: &ListenerCost) -> String {
    let ListenerCost {
        name,
        closed,
        connections,
    } = cost;
    let closed = closed.join(", ");
    format!("listener {name}: {closed} closes, {connections} connections open there")
}

fn pool_line(cost: &PoolCost) -> String {
    let mut parts = Vec::new();
    if !cost.removed.is_empty() {
        let mut names = cost.removed[..cost.removed.len().min(SHOWN)].join(", ");
        if cost.removed.len() > SHOWN {
            names += &format!(" and {} more", cost.removed.len() - SHOWN);
        }
        parts.push(format!(
            "{names} leaves with {} in flight and {} upgraded",
            cost.in_flight, cost.upgraded
        ));
    }
    if let Some(part) = cost.keys_moved {
        parts.push(format!("{:.1} % of hash keys move", part * 100.0));
    }
    if cost.sessions_moved > 0 {
        parts.push(format!(
            "{} of {} live sessions move, {} are lost",
            cost.sessions_moved, cost.sessions, cost.sessions_lost
        ));
    }
    format!("pool {}: {}", cost.name, parts.join("; "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::compile::compile;
    use crate::state::sample::{config, loopback};

    fn served(config: Config) -> Snapshot {
        compile(Arc::new(config), None, None, 1, 1, crate::clock::now())
    }

    fn four(balancer: BalancerKind) -> Config {
        let backends: Vec<_> = (1..5).map(loopback).collect();
        let web = [loopback(80)];
        let mut config = config(&[("web", &web)], &[("was", &backends)]);
        config.pools[0].balancer = balancer;
        config
    }

    #[test]
    fn what_nobody_notices_costs_nothing() {
        let before = four(BalancerKind::RoundRobin);
        let mut after = before.clone();
        after.pools[0].max_idle += 1;
        after.pools[0]
            .backends
            .push(before.pools[0].backends[0].clone());
        after.pools[0].backends[4].address = loopback(9);
        after.pools[0].backends[4].name = "nine".into();
        let report = Report::of(&served(before), &after);
        assert_eq!(report, Report::default());
        assert!(report.is_empty() && report.lines().is_empty());
    }

    #[test]
    fn a_backend_that_leaves_takes_along_what_it_has() {
        for (balancer, most) in [
            (BalancerKind::RoundRobin, None),
            (BalancerKind::Maglev, Some(0.4)),
        ] {
            let before = four(balancer);
            let mut after = before.clone();
            after.pools[0].backends.remove(3);
            let snapshot = served(before);
            let leaving = &snapshot.pools[0].backends[3];
            let (_lease, _upgrade) = (leaving.lease(), leaving.upgrade());
            let report = Report::of(&snapshot, &after);
            let cost = &report.pools[0];
            assert_eq!((cost.in_flight, cost.upgraded), (1, 1));
            assert_eq!(cost.removed, ["127.0.0.1:4"]);
            let is_near = |part: f64| most.is_some_and(|most| (0.2..most).contains(&part));
            assert!(cost.keys_moved.is_none_or(is_near), "{cost:?}");
            assert_eq!(cost.keys_moved.is_some(), most.is_some());
            let line = "pool was: 127.0.0.1:4 leaves with 1 in flight and 1 upgraded";
            assert!(report.lines()[0].starts_with(line), "{:?}", report.lines());
        }
    }

    #[test]
    fn a_listener_that_moves_closes_connections() {
        let before = four(BalancerKind::RoundRobin);
        let mut after = before.clone();
        after.listeners[0].bind = vec![loopback(81)];
        let snapshot = served(before);
        snapshot.listeners[0].connections.store(7, Relaxed);
        let report = Report::of(&snapshot, &after);
        assert_eq!(report.connections_closing, 7);
        assert_eq!(
            report.lines(),
            ["listener web: 127.0.0.1:80 closes, 7 connections open there"]
        );
    }
}
