//! A valid configuration becomes a snapshot; what the one before knew of servers and listeners is carried over.
//! It cannot fail and changes nothing: a snapshot that is never published leaves no trace.
//! The walk goes on in `diff.rs`, and in control's `apply.rs`, which publishes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, Epoch, Limits, Live, Override};
use super::diff::key;
use super::flights::Flights;
use super::gate::Gate;
use super::live_sessions::{LiveSessions, grain};
use super::route_limits::RouteLimits;
use super::snapshot::{Listener, Passive, Pool, Route, Snapshot, Split};
use super::waiting::Waiting;
use super::ways::{others, sticky_toward, ways};
use crate::config::model::{
    self, BalancerKind, Check, Config, PoolProtocol, Queue, QueueOrder, Rebalance, Sessions,
};
use crate::metrics::rows::NONE;
use crate::policy::balance::{Bound, Hash, Maglev, Shared};
use crate::policy::canary::Share;
use crate::policy::filter::Filters;
use crate::policy::health::Health;
use crate::policy::persist::token::Secrets;
use crate::policy::persist::{
    self, AnyPersistence, CookieHash, Header, Insert, InsertTimes, Learn, Source, Sticky, StoreKeys,
};
use crate::policy::rebalance::Moves;
use crate::policy::rendezvous::Rendezvous;
use crate::policy::route::{RouteMatch, Router};

/// Makes generation number `generation`, for `workers` workers, after `previous`, at `now`. Without secrets no route is sticky.
pub fn compile(
    config: Arc<Config>,
    secrets: Option<&Secrets>,
    previous: Option<&Snapshot>,
    generation: u64,
    workers: usize,
    now: Instant,
) -> Snapshot {
    let known = Known::of(previous);
    let listeners = config.listeners.iter().map(|from| Listener {
        peeks: from.tls.is_none() && peeks(&config, from),
        ..listener(from, &known)
    });
    let pools = config.pools.iter().map(|from| Pool {
        sessions: live_sessions(&config, from, &known, now),
        flights: flights(&config, from, &known, now),
        ..pool(from, &known, workers, now)
    });
    let mut pool_ordinals = ordinals(config.pools.iter().map(|pool| &pool.name));
    pool_ordinals.insert("", config.pools.len());
    let leads_nowhere = config.routes.iter().any(|route| route.pool.is_empty());
    let nobody = leads_nowhere.then(|| nobody(now));
    let limits = RouteLimits::of_routes(&config, previous);
    let ways = ways(&config);
    let routes = ways.iter().enumerate().map(|(place, way)| {
        let from = &config.routes[way.file];
        let pool = pool_ordinals[way.pool];
        let sticky = from.sticky.as_ref().zip(secrets).map(|(own, secrets)| {
            // A sticky route has a pool.
            let pool = &config.pools[pool];
            let idle = longest_idle(&config, pool).unwrap_or_default();
            let own = sticky_toward(own, &from.pool, &pool.name);
            self::sticky(&own, pool, secrets, idle)
        });
        let split = |(way, canary): (usize, &model::Canary)| Split {
            share: Share::new(canary.weight),
            way,
        };
        Route {
            name: from.name.as_str().into(),
            file: way.file,
            pool,
            canary: way.canary.zip(from.canary.as_ref()).map(split),
            fallback: way.fallback,
            others: others(&ways, place),
            sticky,
            filters: Filters::new(&from.filters),
            doors: Vec::new(),
            limits: limits[way.file].clone(),
            store: None,
            timeouts: from.timeouts,
            retry: from.retry,
            replies: from.replies,
            max_body: from.max_body.unwrap_or(u64::MAX),
        }
    });
    Snapshot {
        generation,
        leaving: false,
        listeners: listeners.collect(),
        routes: routes.collect(),
        router: Router::compile(&matches(&config)),
        pools: pools.chain(nobody).collect(),
        tls_files: Vec::new(),
        config: config.clone(),
        files: Arc::default(),
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
        drained: Vec::new(),
        protocol: from.protocol,
        max_connections: match from.max_connections {
            0 => usize::MAX,
            most => most,
        },
        proxy_protocol: from.proxy_protocol,
        max_flows: from.max_flows,
        path_checks: from.path_checks,
        http2: from.http2,
        peeks: false,
        tls: None,
        connections: known.map_or_else(Arc::default, |known| known.connections.clone()),
        gate: Gate::new(from, known.map(|known| &known.gate)),
    }
}

/// Whether a route of the listener chooses by what TLS clients ask for.
fn peeks(config: &Config, listener: &model::Listener) -> bool {
    let mut routes = config.routes.iter();
    routes.any(|route| {
        (!route.sni.is_empty() || !route.alpn.is_empty())
            && route.listeners.contains(&listener.name)
    })
}

fn pool(from: &model::Pool, known: &Known<'_>, workers: usize, now: Instant) -> Pool {
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
            now,
        )),
    };
    let overs: HashMap<&str, &Arc<Override>> = known
        .into_iter()
        .flat_map(|pool| &pool.backends)
        .map(|backend| (&*backend.name, &backend.over))
        .collect();
    let waiting = known.map_or_else(
        || Arc::new(Waiting::new(workers)),
        |known| known.waiting.clone(),
    );
    let backends = from.backends.iter().map(|backend| Backend {
        name: backend.name.as_str().into(),
        weight: backend.weight,
        written: backend.state,
        over: (overs.get(backend.name.as_str())).map_or_else(Arc::default, |over| (*over).clone()),
        live: live(backend.address),
        backup: backend.backup,
        limits: limits(backend, &waiting),
    });
    let is_limited =
        |own: &model::Backend| own.limits.in_flight.or(own.limits.connections).is_some();
    Pool {
        name: from.name.as_str().into(),
        protocol: from.protocol,
        balancer: from.balancer.clone(),
        proxy_protocol: from.proxy_protocol,
        transparent: from.transparent,
        max_idle: from.max_idle,
        slow_start: from.slow_start,
        queue: from.queue,
        is_limited: from.backends.iter().any(is_limited),
        backends: backends.collect(),
        waiting: waiting.clone(),
        ring: Rendezvous::new(
            from.backends
                .iter()
                .map(|backend| (backend.name.as_str(), backend.weight)),
        )
        .with_backups(from.backends.iter().map(|backend| backend.backup)),
        shared: shared(from, known),
        epoch: epoch.clone(),
        sessions: None,
        flights: None,
        retries: known.map_or_else(Arc::default, |known| known.retries.clone()),
        passive: from.passive.clone().map(|rules| Passive {
            rules,
            turn: (known.and_then(|known| known.passive.as_ref()))
                .map_or_else(Arc::default, |passive| passive.turn.clone()),
        }),
        tls: None,
        moves: known.map_or_else(|| Arc::new(Moves::new(now)), |known| known.moves.clone()),
    }
}

/// How much a backend may have at once.
fn limits(backend: &model::Backend, waiting: &Arc<Waiting>) -> Option<Limits> {
    let model::BackendLimits {
        in_flight,
        connections,
    } = backend.limits;
    in_flight.or(connections)?;
    let connections = connections.unwrap_or(u32::MAX);
    Some(Limits {
        // Where connections count, each of these has one.
        in_flight: in_flight.unwrap_or(u32::MAX).min(connections),
        connections,
        waiting: waiting.clone(),
    })
}

/// What the workers share of the pool's balancer. The table of `maglev` is the one that the pool had, if it says the same.
fn shared(from: &model::Pool, known: Option<&&Pool>) -> Shared {
    let backends = || from.backends.iter().map(|b| (b.name.as_str(), b.weight));
    let mut shared = Shared::default();
    match &from.balancer {
        BalancerKind::Hash(key) => {
            let bound = Bound::new(from.balance_factor);
            shared.hash = Arc::new(Hash::new(key, bound, backends()));
        }
        BalancerKind::Maglev => {
            let kept = known.filter(|known| {
                let before = known.backends.iter().map(|b| (&*b.name, b.weight));
                known.balancer == BalancerKind::Maglev && before.eq(backends())
            });
            shared.maglev = kept.map_or_else(
                || Arc::new(Maglev::new(backends())),
                |known| known.shared.maglev.clone(),
            );
        }
        _ => {}
    }
    shared
}

/// The pool of routes that lead nowhere.
fn nobody(now: Instant) -> Pool {
    Pool {
        name: NONE.into(),
        protocol: PoolProtocol::Http1,
        balancer: BalancerKind::RoundRobin,
        proxy_protocol: None,
        transparent: false,
        max_idle: 0,
        slow_start: None,
        queue: Queue {
            most: 0,
            timeout: Duration::ZERO,
            order: QueueOrder::Fifo,
        },
        waiting: Arc::new(Waiting::new(0)),
        is_limited: false,
        backends: Vec::new(),
        ring: Rendezvous::new(std::iter::empty()),
        shared: Shared::default(),
        epoch: Arc::default(),
        sessions: None,
        flights: None,
        retries: Arc::default(),
        passive: None,
        tls: None,
        moves: Arc::new(Moves::new(now)),
    }
}

/// Whether requests of the route may come to the pool.
fn leads_to(config: &Config, route: &model::Route, pool: &model::Pool) -> bool {
    model::pools_of(route, &config.pools).contains(&pool.name.as_str())
}

/// The longest time that a session may be idle on a sticky route to the pool.
fn longest_idle(config: &Config, pool: &model::Pool) -> Option<Duration> {
    let routes = config
        .routes
        .iter()
        .filter(|route| leads_to(config, route, pool));
    let stickies = routes.filter_map(|route| route.sticky.as_ref());
    stickies.map(|sticky| sticky.idle_timeout).max()
}

/// The live sessions of a pool that a sticky route leads to.
fn live_sessions(
    config: &Config,
    pool: &model::Pool,
    known: &Known<'_>,
    now: Instant,
) -> Option<LiveSessions> {
    let routes = (config.routes.iter()).filter(|route| leads_to(config, route, pool));
    let stickies = || routes.clone().filter_map(|route| route.sticky.as_ref());
    let idle = longest_idle(config, pool)?;
    let known = known.pools.get(pool.name.as_str());
    let names: Vec<_> = (pool.backends.iter())
        .map(|backend| Arc::from(backend.name.as_str()))
        .collect();
    Some(LiveSessions::new(
        known.and_then(|known| known.sessions.as_ref()),
        &names,
        pool.max_sessions,
        idle,
        stickies().any(|sticky| sticky.sessions == Sessions::Local),
        now,
    ))
}

/// The new clients under way to a pool, if a route to it wants them found.
fn flights(
    config: &Config,
    pool: &model::Pool,
    known: &Known<'_>,
    now: Instant,
) -> Option<Arc<Flights>> {
    let mut routes = (config.routes.iter()).filter(|route| leads_to(config, route, pool));
    let stickies = |route: &model::Route| route.sticky.as_ref().is_some_and(|s| s.first_flight);
    let known = known.pools.get(pool.name.as_str());
    routes.any(stickies).then(|| {
        known
            .and_then(|known| known.flights.clone())
            .unwrap_or_else(|| Arc::new(Flights::new(now)))
    })
}

/// What counts as known of a server before its first check; one that is never checked is up.
pub fn initial(health: &model::Health) -> Health {
    match health.check {
        Check::None => Health::Up,
        Check::Tcp | Check::Http { .. } | Check::Grpc { .. } | Check::Udp { .. } => {
            health.initial.into()
        }
    }
}

/// `idle` is the longest time that a session of the pool may be idle.
fn sticky(from: &model::Sticky, pool: &model::Pool, secrets: &Secrets, idle: Duration) -> Sticky {
    use model::StickyMode;
    let backends = pool.backends.iter();
    let mode = match &from.mode {
        StickyMode::Insert(times) => AnyPersistence::Insert(Insert::new(
            &from.cookie,
            secrets,
            &pool.name,
            backends.map(|backend| backend.name.as_str()),
            InsertTimes::new(from.idle_timeout, times),
        )),
        StickyMode::CookieHash => {
            AnyPersistence::CookieHash(CookieHash::new(&from.cookie, secrets))
        }
        StickyMode::Route => AnyPersistence::Route(persist::Route::new(
            &from.session_cookie,
            backends.map(|backend| backend.route.as_str()),
        )),
        StickyMode::Learn {
            absolute_timeout,
            store,
        } => AnyPersistence::Learn(Learn::new(
            &from.session_cookie,
            from.idle_timeout,
            *absolute_timeout,
            from.sessions,
            (store.as_ref()).map(|_| StoreKeys::new(secrets, &pool.name)),
        )),
        StickyMode::Source {
            prefix_v4,
            prefix_v6,
        } => AnyPersistence::Source(Source::new(*prefix_v4, *prefix_v6)),
        StickyMode::Header { name } => AnyPersistence::Header(Header::new(name)),
    };
    Sticky {
        mode,
        sessions: from.sessions,
        on_failure: from.on_failure,
        bound: Bound::new(from.balance_factor),
        first_flight: from.first_flight,
        rebalance: from.rebalance.map(|rebalance| Rebalance {
            // What is known of a session may be older than its last use by so much.
            idle: rebalance.idle + grain(idle),
            ..rebalance
        }),
        session_cookie: from.session_cookie.as_str().into(),
    }
}

/// What each route matches, in file order.
pub fn matches(config: &Config) -> Vec<RouteMatch> {
    let listeners = ordinals(config.listeners.iter().map(|listener| &listener.name));
    config
        .routes
        .iter()
        .map(|route| RouteMatch {
            listeners: route
                .listeners
                .iter()
                .map(|name| listeners[name.as_str()])
                .collect(),
            // No route has both: the one is of requests, the other of connections.
            hosts: route.hosts.iter().chain(&route.sni).cloned().collect(),
            path: route.path.clone(),
            methods: route.methods.clone(),
            headers: route.headers.clone(),
            alpn: route.alpn.clone(),
        })
        .collect()
}

/// Where each name stands; a valid configuration names nothing that is not there.
fn ordinals<'a>(names: impl Iterator<Item = &'a String>) -> HashMap<&'a str, usize> {
    names.map(String::as_str).zip(0..).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;
    use crate::config::model::{AdminState, Initial};
    use crate::state::sample::{any_config, config, loopback};

    fn secrets() -> Secrets {
        let text = Secrets::new_file(|bytes| bytes.fill(7));
        Secrets::parse(&text).expect("a good secret")
    }

    fn compiled(config: &Config, previous: Option<&Snapshot>) -> Snapshot {
        let generation = previous.map_or(1, |snapshot| snapshot.generation + 1);
        compile(
            Arc::new(config.clone()),
            Some(&secrets()),
            previous,
            generation,
            2,
            clock::now(),
        )
    }

    /// A configuration whose routes lead to its own listeners and pools.
    fn any_valid_config() -> impl Strategy<Value = Config> {
        any_config().prop_map(|mut config| {
            let pools: Vec<_> = config.pools.iter().map(|pool| pool.name.clone()).collect();
            let listeners: Vec<_> = config
                .listeners
                .iter()
                .map(|own| own.name.clone())
                .collect();
            config.routes.retain(|route| pools.contains(&route.pool));
            for route in &mut config.routes {
                route.listeners.clone_from(&listeners);
            }
            config
        })
    }

    fn live<'a>(snapshot: &'a Snapshot, pool: &str, address: SocketAddr) -> Option<&'a Arc<Live>> {
        let pool = snapshot.pools.iter().find(|known| &*known.name == pool)?;
        let found = pool
            .backends
            .iter()
            .find(|own| own.live.address == address)?;
        Some(&found.live)
    }

    proptest! {
        #[test]
        fn it_says_what_the_file_says(a in any_valid_config()) {
            let snapshot = compiled(&a, None);
            prop_assert_eq!(snapshot.listeners.len(), a.listeners.len());
            for (listener, from) in snapshot.listeners.iter().zip(&a.listeners) {
                prop_assert_eq!(&*listener.name, &*from.name);
                prop_assert_eq!(listener.keys.len(), from.bind.len());
            }
            for (route, from) in snapshot.routes.iter().zip(&a.routes) {
                prop_assert_eq!(&*snapshot.pools[route.pool].name, &*from.pool);
            }
            for (pool, from) in snapshot.pools.iter().zip(&a.pools) {
                for (backend, from) in pool.backends.iter().zip(&from.backends) {
                    let own = (&*backend.name, backend.live.address, backend.weight, backend.admin());
                    prop_assert_eq!(own, (&*from.name, from.address, from.weight, from.state));
                }
            }
        }

        #[test]
        fn what_is_known_outlives_the_generation(a in any_valid_config(), b in any_valid_config()) {
            let before = compiled(&a, None);
            let after = compiled(&b, Some(&before));
            for pool in &after.pools {
                let known = before.pools.iter().find(|known| known.name == pool.name);
                prop_assert!(known.is_none_or(|known| Arc::ptr_eq(&known.epoch, &pool.epoch)));
                for backend in &pool.backends {
                    let known = live(&before, &pool.name, backend.live.address);
                    prop_assert!(known.is_none_or(|known| Arc::ptr_eq(known, &backend.live)));
                }
            }
            for listener in &after.listeners {
                let known = before.listeners.iter().find(|known| known.name == listener.name);
                let same = known.is_none_or(|known| Arc::ptr_eq(&known.connections, &listener.connections));
                prop_assert!(same);
            }
        }
    }

    #[test]
    fn a_new_backend_begins_as_the_file_says() {
        let mut file = config(&[("web", &[])], &[("was", &[loopback(1)])]);
        for (check, initial, health) in [
            (Check::Tcp, Initial::Probe, Health::Unknown),
            (Check::Tcp, Initial::Up, Health::Up),
            (Check::Tcp, Initial::Down, Health::Down),
            (Check::None, Initial::Down, Health::Up),
        ] {
            file.pools[0].health.check = check;
            file.pools[0].health.initial = initial;
            let snapshot = compiled(&file, None);
            assert_eq!(snapshot.pools[0].backends[0].live.health(), health);
        }
    }

    #[test]
    fn what_was_set_over_the_file_belongs_to_the_name() {
        let mut file = config(&[("web", &[])], &[("was", &[loopback(1), loopback(2)])]);
        let one = compiled(&file, None);
        let set = &one.pools[0].backends[0];
        let before = one.pools[0].epoch.value();
        set.set_over(Some(AdminState::Drain));
        set.set_over(Some(AdminState::Drain));
        assert_eq!(one.pools[0].epoch.value(), before + 1);

        // Its name moves to another address, its address gets another name.
        file.pools[0].backends[0].address = loopback(3);
        file.pools[0].backends[1].address = loopback(1);
        file.pools[0].backends[1].state = AdminState::Maint;
        let two = compiled(&file, Some(&one));
        let states = [0, 1].map(|index| two.pools[0].backends[index].admin());
        assert_eq!(states, [AdminState::Drain, AdminState::Maint]);
        two.pools[0].backends[0].set_over(None);
        assert_eq!(set.admin(), AdminState::Ready);
    }

    #[test]
    fn a_change_of_health_advances_the_epoch_of_old_and_new_backends_alike() {
        let one = config(&[("web", &[])], &[("was", &[loopback(1)])]);
        let one = compiled(&one, None);
        let two = config(&[("web", &[])], &[("was", &[loopback(2), loopback(1)])]);
        let two = compiled(&two, Some(&one));
        let epoch = &one.pools[0].epoch;
        for backend in &two.pools[0].backends {
            let before = epoch.value();
            backend.live.set_health(Health::Up, clock::now());
            assert_eq!(epoch.value(), before + 1);
        }
    }
}
