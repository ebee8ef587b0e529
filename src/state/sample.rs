//! Arbitrary valid-looking configurations for property tests; names and addresses come from small sets, so that two of them have much in common.
//! It is compiled for tests only.
//! Nothing follows from here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::config::model::*;

/// A configuration with the given listeners and pools, each pool reached by a route of its name, and defaults elsewhere.
pub fn config(listeners: &[(&str, &[SocketAddr])], pools: &[(&str, &[SocketAddr])]) -> Config {
    Config {
        workers: 1,
        state_dir: "/nonexistent".into(),
        secrets_file: None,
        trusted_proxies: Vec::new(),
        drain_timeout: Duration::from_secs(30),
        drain_delay: Duration::ZERO,
        watch: Watch::Auto,
        timeouts: timeouts(10),
        limits: Limits {
            head: 65536,
            header_lines: 128,
        },
        http2: Http2 {
            streams: 100,
            window: 1 << 20,
            resets: 200,
            pings: 20,
            settings: 20,
            empty_frames: 200,
            continuations: 200,
        },
        min_body_rate: 240,
        forwarding: Forwarding::default(),
        admin: Admin {
            bind: AdminBind::Tcp(loopback(9900)),
            token_file: None,
        },
        log: Log {
            level: Level::Info,
            access: AccessTarget::Off,
            access_format: AccessFormat::Json,
        },
        metrics: Metrics { max_series: 1000 },
        listeners: listeners
            .iter()
            .map(|(name, bind)| listener(name, bind))
            .collect(),
        routes: pools
            .iter()
            .map(|(name, _)| route(name, name, &format!("/{name}")))
            .collect(),
        pools: pools
            .iter()
            .map(|(name, backends)| pool(name, backends))
            .collect(),
    }
}

/// A port of 127.0.0.1.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn listener(name: &str, bind: &[SocketAddr]) -> Listener {
    Listener {
        name: name.into(),
        bind: bind.to_vec(),
        protocol: Protocol::Http,
        max_connections: 0,
        max_connections_per_source: 0,
        rate_limit: None,
        access: Access::default(),
        proxy_protocol: ProxyProtocol::Off,
        max_flows: 10_000,
        path_checks: PathChecks::Strict,
        http2: true,
        tls: None,
    }
}

fn route(name: &str, pool: &str, path: &str) -> Route {
    Route {
        name: name.into(),
        listeners: vec!["web".into()],
        hosts: Vec::new(),
        path: path.into(),
        methods: Vec::new(),
        headers: Vec::new(),
        sni: Vec::new(),
        alpn: Vec::new(),
        pool: pool.into(),
        sticky: None,
        filters: Vec::new(),
        canary: None,
        replies: None,
        max_body: None,
        timeouts: timeouts(10),
        retry: None,
    }
}

/// The stickiness that needs no cookie.
pub fn sticky_by_source() -> Sticky {
    Sticky {
        balance_factor: 0.25,
        first_flight: false,
        rebalance: None,
        mode: StickyMode::Source {
            prefix_v4: 32,
            prefix_v6: 64,
        },
        sessions: Sessions::Local,
        on_failure: OnFailure::Temporary,
        session_cookie: "JSESSIONID".into(),
        idle_timeout: Duration::from_secs(1800),
        cookie: Cookie {
            name: String::new(),
            path: "/".into(),
            domain: None,
            same_site: SameSite::Lax,
            http_only: true,
            secure: Secure::Auto,
            max_age: None,
        },
    }
}

fn pool(name: &str, backends: &[SocketAddr]) -> Pool {
    Pool {
        name: name.into(),
        protocol: PoolProtocol::Http1,
        balancer: BalancerKind::RoundRobin,
        balance_factor: 0.25,
        queue: Queue {
            most: 1024,
            timeout: Duration::from_secs(5),
            order: QueueOrder::Fifo,
        },
        limits: BackendLimits::default(),
        fallback: None,
        proxy_protocol: None,
        transparent: false,
        max_idle: 256,
        slow_start: None,
        max_sessions: 1000,
        backends: backends.iter().map(|address| backend(*address)).collect(),
        discovery: None,
        scale: None,
        health: Health {
            check: Check::CONNECT,
            interval: Duration::from_secs(2),
            fast_interval: None,
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
            initial: Initial::Probe,
        },
        passive: None,
        tls: None,
    }
}

fn backend(address: SocketAddr) -> Backend {
    Backend {
        name: address.to_string(),
        route: address.to_string(),
        address,
        weight: 1,
        state: AdminState::Ready,
        backup: false,
        limits: BackendLimits::default(),
        discovered: false,
    }
}

fn timeouts(seconds: u64) -> Timeouts {
    let wait = Duration::from_secs(seconds);
    Timeouts {
        header: wait,
        body_idle: wait,
        keep_alive: wait,
        connect: wait,
        response: wait,
        response_idle: wait,
        upgrade_idle: wait,
        udp_idle: wait,
        upstream_idle: wait,
    }
}

/// Any configuration. Names are unique among listeners and pools, addresses within a pool, as in every valid file.
pub fn any_config() -> impl Strategy<Value = Config> {
    (
        any_settings(),
        any_listeners(),
        vec(any_route(), 0..4),
        any_pools(),
    )
        .prop_map(|(settings, listeners, routes, pools)| Config {
            listeners,
            routes,
            pools,
            ..settings
        })
}

fn any_settings() -> impl Strategy<Value = Config> {
    let few = || 0..3u64;
    let numbers = (0..3usize, few(), few(), few(), 0..3usize, 0..3usize);
    let choices = (
        select(vec![Watch::Auto, Watch::Poll, Watch::Off]),
        select(vec![Level::Error, Level::Info]),
        select(vec![AccessFormat::Json, AccessFormat::Combined]),
        select(vec![
            AccessTarget::Off,
            AccessTarget::Stdout,
            AccessTarget::File("a".into()),
        ]),
        select(vec![
            AdminBind::Tcp(loopback(9900)),
            AdminBind::Unix("admin.sock".into()),
        ]),
    );
    let flags = [any::<bool>(); 4].map(|flag| flag.no_shrink());
    (numbers, choices, flags).prop_map(|(numbers, choices, [a, b, c, d])| {
        let path = |set: bool| set.then(|| PathBuf::from("file"));
        let base = config(&[], &[]);
        let cidr = Cidr {
            network: Ipv4Addr::LOCALHOST.into(),
            prefix: 8,
        };
        Config {
            workers: numbers.0,
            state_dir: if a { "a".into() } else { "b".into() },
            secrets_file: path(b),
            trusted_proxies: vec![cidr; numbers.4],
            drain_timeout: Duration::from_secs(numbers.1),
            drain_delay: Duration::from_secs(numbers.2),
            watch: choices.0,
            timeouts: timeouts(numbers.3),
            limits: Limits {
                head: numbers.5,
                ..base.limits
            },
            forwarding: Forwarding {
                forwarded: c,
                via: d,
            },
            admin: Admin {
                bind: choices.4,
                token_file: path(c),
            },
            log: Log {
                level: choices.1,
                access: choices.3,
                access_format: choices.2,
            },
            metrics: Metrics {
                max_series: numbers.5,
            },
            ..base
        }
    })
}

fn any_listeners() -> impl Strategy<Value = Vec<Listener>> {
    let names = shuffled_subset(vec!["a", "b", "c"]);
    let rest = vec(
        (shuffled_subset(vec![1u16, 2, 3]), any::<bool>(), 0..2usize),
        3,
    );
    (names, rest).prop_map(|(names, rest)| {
        let build = |(name, (ports, udp, max_connections)): (&str, (Vec<u16>, bool, usize))| {
            let bind: Vec<SocketAddr> = ports.into_iter().map(loopback).collect();
            Listener {
                protocol: if udp { Protocol::Udp } else { Protocol::Http },
                max_connections,
                ..listener(name, &bind)
            }
        };
        names.into_iter().zip(rest).map(build).collect()
    })
}

fn any_route() -> impl Strategy<Value = Route> {
    (
        select(vec!["a", "b"]),
        select(vec!["a", "b"]),
        select(vec!["/", "/x"]),
        select(vec![None, Some(1u64)]),
    )
        .prop_map(|(name, pool, path, max_body)| Route {
            max_body,
            ..route(name, pool, path)
        })
}

fn any_pools() -> impl Strategy<Value = Vec<Pool>> {
    let balancer = select(vec![BalancerKind::RoundRobin, BalancerKind::RandomTwo]);
    let check = select(vec![Check::None, Check::CONNECT]);
    let slow_start = select(vec![None, Some(Duration::from_secs(30))]);
    let protocol = select(vec![PoolProtocol::Http1, PoolProtocol::Http2]);
    let transparent = any::<bool>();
    let rest = (balancer, check, 0..2usize, slow_start, any_backends());
    let rest = (rest, protocol, transparent);
    (shuffled_subset(vec!["a", "b", "c"]), vec(rest, 3)).prop_map(|(names, rest)| {
        let build = |(name, (rest, protocol, transparent)): (&str, ((_, _, _, _, _), _, _))| {
            let (balancer, check, max_idle, slow_start, backends) = rest;
            let base = pool(name, &[]);
            Pool {
                protocol,
                transparent,
                balancer,
                max_idle,
                slow_start,
                backends,
                health: Health {
                    check,
                    ..base.health.clone()
                },
                ..base
            }
        };
        names.into_iter().zip(rest).map(build).collect()
    })
}

fn any_backends() -> impl Strategy<Value = Vec<Backend>> {
    let state = select(vec![
        AdminState::Ready,
        AdminState::Drain,
        AdminState::Maint,
    ]);
    let rest = vec((any::<bool>(), 1..3u16, state), 4);
    (shuffled_subset(vec![1u16, 2, 3, 4]), rest).prop_map(|(ports, rest)| {
        let build = |(port, (named, weight, state)): (u16, (bool, u16, AdminState))| {
            let base = backend(loopback(port));
            Backend {
                name: if named {
                    format!("was{port}")
                } else {
                    base.name.clone()
                },
                weight,
                state,
                ..base
            }
        };
        ports.into_iter().zip(rest).map(build).collect()
    })
}

/// Any part of the items in any order.
fn shuffled_subset<T: Clone + std::fmt::Debug + 'static>(
    items: Vec<T>,
) -> impl Strategy<Value = Vec<T>> {
    let all = 0..=items.len();
    subsequence(items, all).prop_shuffle()
}
