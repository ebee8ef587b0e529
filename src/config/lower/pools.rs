//! The pools of a file: their backends and their health check.
//! It never connects anywhere and never resolves a name.
//! Here the walk ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::SocketAddr;

use toml::de::{DeTable, DeValue};

use super::tls::{self, Files};
use super::{At, PoolPlaces, Report, Section, balancer, discovery, load, passive, scale};
use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::model::{
    AdminState, Backend, BackendLimits, Check, Health, Initial, Listener, Pool, PoolProtocol,
    Protocol, ProxyVersion, Route,
};
use crate::config::suggest;
use crate::config::values::{self, addresses, names, payload};

/// Keys that mean nothing for some of what listeners may lead to a pool.
const PARTICULAR: [&str; 5] = [
    "fallback",
    "max_in_flight",
    "max_connections",
    "passive",
    "tls",
];

/// All pools in file order.
pub(super) fn lower(
    report: &mut Report,
    top: &Section<'_>,
    files: &mut Files,
) -> (Vec<Pool>, Vec<PoolPlaces>) {
    let empty = DeTable::new();
    let mut pools = Vec::new();
    let mut places = Vec::new();
    for (name, section) in top.named_tables(report, "pools", "pools.*") {
        let check = section.section(report, "health", "pools.*.health", &empty);
        let time = check.value("timeout").or_else(|| check.value("interval"));
        let (tls, unverified) = tls::of_pool(report, &section, files);
        places.push(PoolPlaces {
            unverified,
            protocol: section.place("protocol"),
            proxy_protocol: section.place("proxy_protocol"),
            transparent: section.place("transparent"),
            balancer: section.place("balancer"),
            name: name.span.clone(),
            fallback: section
                .text(&mut Report::new(), "fallback", names::name)
                .map(|value| At {
                    value,
                    span: section.place("fallback"),
                }),
            particular: section.present(&PARTICULAR),
            has_check: check.value("type").is_some(),
            check_time: time.map(|value| value.span),
        });
        let protocols = [
            ("http1", PoolProtocol::Http1),
            ("http2", PoolProtocol::Http2),
        ];
        let protocol = section.choice(report, "protocol", protocols);
        let limits = load::limits(report, &section, BackendLimits::default());
        pools.push(Pool {
            protocol,
            balancer: balancer::lower(report, &section),
            balance_factor: section
                .fraction(report, "balance_factor")
                .unwrap_or_default(),
            proxy_protocol: section.choice(
                report,
                "proxy_protocol",
                [
                    ("off", None),
                    ("v1", Some(ProxyVersion::V1)),
                    ("v2", Some(ProxyVersion::V2)),
                ],
            ),
            transparent: section.flag(report, "transparent"),
            max_idle: section.count(report, "max_idle").unwrap_or_default() as usize,
            slow_start: section.duration(report, "slow_start"),
            max_sessions: section.count(report, "max_sessions").unwrap_or_default() as usize,
            queue: load::queue(report, &section),
            fallback: section.text(report, "fallback", names::name),
            limits,
            backends: backends(report, &name, &section, limits),
            discovery: discovery::lower(report, &section),
            scale: scale::lower(report, &section),
            health: health(report, &check, protocol),
            passive: passive::lower(report, &section),
            tls,
            name: name.value,
        });
    }
    (pools, places)
}

/// A pool that only udp listeners lead to is not asked for a connection, unless the file says so: its servers may take none.
pub(super) fn settle(
    pools: &mut [Pool],
    places: &[PoolPlaces],
    routes: &[Route],
    listeners: &[Listener],
) {
    let is_udp = |name: &String| {
        let mut known = listeners.iter();
        known.any(|own| own.name == *name && own.protocol == Protocol::Udp)
    };
    for (pool, places) in pools.iter_mut().zip(places) {
        let mut routes = routes
            .iter()
            .filter(|route| route.pool == pool.name)
            .peekable();
        let is_led_to = routes.peek().is_some();
        if is_led_to && !places.has_check && routes.all(|route| route.listeners.iter().all(is_udp))
        {
            pool.health.check = Check::None;
        }
    }
}

/// Where the keys of a backend stand in the table of keys.
const BACKEND: &str = "pools.*.backends[]";

/// A backend with the places of its name, route and address.
struct Placed {
    backend: Backend,
    name: Span,
    route: Span,
    address: Span,
}

fn backends(
    report: &mut Report,
    pool: &At<String>,
    section: &Section<'_>,
    limits: BackendLimits,
) -> Vec<Backend> {
    let is_discovered = section.value("discovery").is_some();
    let Some(value) = section.value("backends") else {
        if !is_discovered {
            report.push(no_backends(pool, section));
        }
        return Vec::new();
    };
    let DeValue::Array(entries) = value.value else {
        report.push(value.wrong_type());
        return Vec::new();
    };
    if entries.is_empty() && !is_discovered {
        report.push(no_backends(pool, section));
    }
    let empty = DeTable::new();
    let mut seen = Seen::default();
    let mut backends = Vec::new();
    for entry in entries.iter() {
        let (table, address) = match entry.get_ref() {
            DeValue::Table(table) => {
                let table = Section::open(report, BACKEND, table, entry.span());
                let address = table.text(report, "address", addresses::backend);
                (table, address)
            }
            _ => {
                let read = value.entry(entry).text(addresses::backend);
                let address = read.map_err(|problem| report.push(problem)).ok();
                (Section::empty(BACKEND, &empty, entry.span()), address)
            }
        };
        if let Some(placed) = backend(report, &table, address, limits) {
            report.extend(seen.duplicate(pool, &placed));
            backends.push(placed.backend);
        }
    }
    backends
}

fn no_backends(pool: &At<String>, section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::NoBackends,
        section.place("backends"),
        format!("the pool `{}` has no backends", values::brief(&pool.value)),
        "requests that come here could go nowhere",
    )
    .help("add backends = [\"10.0.0.11:8080\"], with the addresses of the servers, or say with `discovery` where they come from")
}

/// A backend from its table, which is empty when the file gives the address alone. Without an address there is none.
fn backend(
    report: &mut Report,
    table: &Section<'_>,
    address: Option<SocketAddr>,
    limits: BackendLimits,
) -> Option<Placed> {
    let name = table.text(report, "name", names::backend_name);
    let route = table.text(report, "route", names::backend_name);
    let weight = table.count(report, "weight").unwrap_or_default() as u16;
    let state = table.choice(
        report,
        "state",
        [
            ("ready", AdminState::Ready),
            ("drain", AdminState::Drain),
            ("maint", AdminState::Maint),
        ],
    );
    let backup = table.flag(report, "backup");
    let limits = load::limits(report, table, limits);
    let address = address?;
    let place = table.place("address");
    let name_place = name.as_ref().map_or(place.clone(), |_| table.place("name"));
    let name = name.unwrap_or_else(|| address.to_string());
    Some(Placed {
        route: match route {
            Some(_) => table.place("route"),
            None => name_place.clone(),
        },
        name: name_place,
        address: place,
        backend: Backend {
            route: route.unwrap_or_else(|| name.clone()),
            name,
            address,
            weight,
            state,
            backup,
            limits,
            discovered: false,
        },
    })
}

/// Where each name, route and address of a pool was first given.
#[derive(Default)]
struct Seen {
    names: HashMap<String, Span>,
    routes: HashMap<String, Span>,
    addresses: HashMap<SocketAddr, Span>,
}

impl Seen {
    /// The problem of a backend whose name, route or address an earlier one has.
    fn duplicate(&mut self, pool: &At<String>, new: &Placed) -> Option<Diagnostic> {
        let Backend {
            name,
            route,
            address,
            ..
        } = &new.backend;
        let of_address = first_or_keep(&mut self.addresses, *address, &new.address);
        let of_name = first_or_keep(&mut self.names, name.clone(), &new.name);
        let of_route = first_or_keep(&mut self.routes, route.clone(), &new.route);
        let (what, again, first, help) = match (of_address, of_name, of_route) {
            (Some(first), ..) => (
                format!("the address {address}"),
                &new.address,
                first,
                "leave one of them out; for a larger share of the work, give one a `weight`",
            ),
            (None, Some(first), _) => (
                format!("the name `{}`", values::brief(name)),
                &new.name,
                first,
                "give each backend a name of its own: cookies and drains go by it",
            ),
            (None, None, Some(first)) => (
                format!("the route `{}`", values::brief(route)),
                &new.route,
                first,
                "give each backend a route of its own: session ids that end in it lead there",
            ),
            (None, None, None) => return None,
        };
        let message = format!("the pool `{}` has {what} twice", values::brief(&pool.value));
        Some(
            Diagnostic::at(Code::DuplicateBackend, again.clone(), message, "again here")
                .and(first, "first given here")
                .help(help),
        )
    }
}

/// The place kept under `key`, if there is one already; else keeps this one.
fn first_or_keep<K: Eq + Hash>(seen: &mut HashMap<K, Span>, key: K, place: &Span) -> Option<Span> {
    match seen.entry(key) {
        Entry::Occupied(first) => Some(first.get().clone()),
        Entry::Vacant(free) => {
            free.insert(place.clone());
            None
        }
    }
}

fn health(report: &mut Report, section: &Section<'_>, protocol: PoolProtocol) -> Health {
    Health {
        check: check(report, section, protocol),
        interval: section.duration(report, "interval").unwrap_or_default(),
        fast_interval: section.duration(report, "fast_interval"),
        timeout: section.duration(report, "timeout").unwrap_or_default(),
        fall: section.count(report, "fall").unwrap_or_default() as u32,
        rise: section.count(report, "rise").unwrap_or_default() as u32,
        initial: section.choice(
            report,
            "initial",
            [
                ("probe", Initial::Probe),
                ("up", Initial::Up),
                ("down", Initial::Down),
            ],
        ),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Tcp,
    Http,
    Grpc,
    Udp,
    None,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Type::Tcp => "tcp",
            Type::Http => "http",
            Type::Grpc => "grpc",
            Type::Udp => "udp",
            Type::None => "none",
        }
    }
}

fn check(report: &mut Report, section: &Section<'_>, protocol: PoolProtocol) -> Check {
    let types = [
        ("tcp", Type::Tcp),
        ("http", Type::Http),
        ("grpc", Type::Grpc),
        ("udp", Type::Udp),
        ("none", Type::None),
    ];
    let kind = section.choice(report, "type", types);
    let path = section.text(report, "path", names::target);
    let host = section.text(report, "host", names::authority);
    let service = section.text(report, "service", names::service);
    report.extend(of_others(section, kind));
    let bytes = |report: &mut Report, name| section.text(report, name, payload::payload);
    match kind {
        Type::None => Check::None,
        // Which check was meant is told above.
        Type::Tcp if section.value("type").is_none() => Check::CONNECT,
        Type::Tcp => Check::Tcp {
            send: bytes(report, "send").unwrap_or_default(),
            expect: bytes(report, "expect").unwrap_or_default(),
        },
        // What goes with something to send is no list of statuses.
        Type::Http if section.value("send").is_some() => Check::CONNECT,
        Type::Http => Check::Http {
            path: path.unwrap_or_default(),
            host,
            expect: section
                .text(report, "expect", values::statuses)
                .unwrap_or_else(|| vec![SOUND]),
            drain_on: section
                .text(report, "drain_on_status", values::statuses)
                .unwrap_or_default(),
            body: section.text(report, "expect_body", |text| Ok(text.to_owned())),
            load_header: section.text(report, "load_header", names::header_name),
            http2: protocol == PoolProtocol::Http2,
        },
        Type::Grpc => Check::Grpc {
            service: service.unwrap_or_default(),
            host,
        },
        Type::Udp => {
            if section.value("send").is_none() {
                report.push(nothing_to_send(section));
            }
            Check::Udp {
                send: bytes(report, "send").unwrap_or_default(),
                expect: bytes(report, "expect").unwrap_or_default(),
            }
        }
    }
}

/// Keys that not every check has, with the types that have each. Those of a `tcp` check are no keys of one whose type nobody wrote:
/// it only connects.
const KEYS_OF_TYPES: [(&str, &[Type]); 8] = [
    ("path", &[Type::Http]),
    ("host", &[Type::Http, Type::Grpc]),
    ("expect", &[Type::Http, Type::Tcp, Type::Udp]),
    ("drain_on_status", &[Type::Http]),
    ("expect_body", &[Type::Http]),
    ("load_header", &[Type::Http]),
    ("service", &[Type::Grpc]),
    ("send", &[Type::Tcp, Type::Udp]),
];

/// Problems of keys that a check of this kind does not have.
fn of_others(section: &Section<'_>, kind: Type) -> Vec<Diagnostic> {
    let is_written = section.value("type").is_some();
    let has = |types: &[Type]| types.contains(&kind) && (is_written || kind != Type::Tcp);
    let goes_with_send = |name| name == "expect" && section.value("send").is_some();
    let foreign = KEYS_OF_TYPES.iter().filter(|(_, types)| !has(types));
    foreign
        // Whoever changes the type for `send` has the right one for both.
        .filter(|(name, _)| !goes_with_send(*name))
        .filter_map(|(name, types)| of_another_check(section, name, types))
        .collect()
}

/// The status codes that mean health unless the file says otherwise.
const SOUND: (u16, u16) = (200, 399);

fn nothing_to_send(section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::MissingKey,
        section.span(),
        "`send` is missing",
        "a server answers nothing that it was not asked",
    )
    .help("add send = \"ping\", or bytes: send = \"hex:1234 0100\"")
}

/// The problem of a key that only other checks have.
fn of_another_check(
    section: &Section<'_>,
    name: &'static str,
    types: &[Type],
) -> Option<Diagnostic> {
    section.value(name)?;
    let types: Vec<&str> = types.iter().map(|own| own.as_str()).collect();
    let types = suggest::quoted_list(&types);
    let problem = Diagnostic::at(
        Code::OtherCheck,
        section.key_place(name),
        format!("`{name}` belongs to a check of type {types}"),
        "this check asks nothing of the kind",
    );
    let found = match section.value("type") {
        Some(kind) => problem.and(kind.span, "its type is given here"),
        None => problem,
    };
    Some(found.help(format!(
        "write type = {types}; without a type, a check only connects"
    )))
}
