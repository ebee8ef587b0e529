//! Warnings: what may be meant, and probably is not.
//! None of them refuses a file; each but advice must be worth a line in the log.
//! Here the walk ends.

use std::collections::{HashMap, HashSet};

use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, counted};
use crate::config::lower::Draft;
use crate::config::model::{
    BalancerKind, Check, Cookie, Pool, Protocol, Route, SameSite, Secure, Sessions, StickyMode,
    pools_of,
};
use crate::config::section::Report;
use crate::config::values::{brief, duration_text};

pub(super) fn check(report: &mut Report, draft: &Draft) {
    slow_probes(report, draft);
    // A name that is wrong elsewhere makes others look unused.
    if !report.iter().any(Diagnostic::is_error) {
        unused(report, draft);
        without_sessions(report, draft);
    }
    scale_out(report, draft);
    cookies(report, draft);
    stores(report, draft);
    one_cookie_for_two(report, draft);
    unverified(report, draft);
}

/// TLS that proves nothing hides what passes from those who only listen.
fn unverified(report: &mut Report, draft: &Draft) {
    for (pool, places) in draft.config.pools.iter().zip(&draft.pools) {
        if let Some(place) = &places.unverified {
            report.push(
                Diagnostic::at(
                    Code::VerifyOff,
                    place.clone(),
                    format!("the backends of the pool `{}` need not prove who they are", brief(&pool.name)),
                    "whoever is on the way can read and change everything",
                )
                .help("leave it out, and name the authority that signs their certificates: ca = \"FILE\""),
            );
        }
    }
}

fn slow_probes(report: &mut Report, draft: &Draft) {
    for (pool, places) in draft.config.pools.iter().zip(&draft.pools) {
        let health = &pool.health;
        let Some(place) = places
            .check_time
            .as_ref()
            .filter(|_| health.check != Check::None)
        else {
            continue;
        };
        if health.timeout <= health.interval {
            continue;
        }
        let (timeout, interval) = (
            duration_text(health.timeout),
            duration_text(health.interval),
        );
        report.push(
            Diagnostic::at(
                Code::SlowProbe,
                place.clone(),
                format!(
                    "a check of the pool `{}` may take longer than the time between two",
                    brief(&pool.name)
                ),
                format!("timeout is {timeout}, interval is {interval}"),
            )
            .help(format!(
                "write a timeout of at most \"{interval}\", or a longer interval"
            )),
        );
    }
}

fn unused(report: &mut Report, draft: &Draft) {
    let config = &draft.config;
    if config.routes.is_empty() {
        if !config.listeners.is_empty() {
            report.push(
                Diagnostic::of_file(
                    Code::NoRoutes,
                    "there is no route: every request is answered 404",
                )
                .help("add [[routes]] with pool = \"NAME\" to send everything to one pool"),
            );
        }
        return;
    }
    let led_to: HashSet<&str> = config
        .routes
        .iter()
        .flat_map(|route| pools_of(route, &config.pools))
        .collect();
    for (pool, places) in config.pools.iter().zip(&draft.pools) {
        if !led_to.contains(pool.name.as_str()) {
            report.push(
                Diagnostic::at(
                    Code::UnusedPool,
                    places.name.clone(),
                    format!("no route leads to the pool `{}`", brief(&pool.name)),
                    "checked, and never used",
                )
                .help(format!(
                    "add [[routes]] with pool = \"{}\", or leave the pool out",
                    brief(&pool.name)
                )),
            );
        }
    }
    let served: HashSet<&str> = config
        .routes
        .iter()
        .flat_map(|route| &route.listeners)
        .map(String::as_str)
        .collect();
    for (listener, places) in config.listeners.iter().zip(&draft.listeners) {
        if !served.contains(listener.name.as_str()) {
            let lost = match listener.protocol {
                Protocol::Http => "every request here is answered 404",
                Protocol::Tcp => "every connection here is closed",
                Protocol::Udp => "every datagram here is dropped",
            };
            report.push(
                Diagnostic::at(
                    Code::IdleListener,
                    places.name.clone(),
                    format!(
                        "no route leads from the listener `{}`",
                        brief(&listener.name)
                    ),
                    lost,
                )
                .help("name it in the `listeners` of a route, or leave `listeners` out of one"),
            );
        }
    }
}

/// A pool that counts sessions where there are none. One that no route leads to has a warning of its own.
fn without_sessions(report: &mut Report, draft: &Draft) {
    for (pool, places) in draft.config.pools.iter().zip(&draft.pools) {
        let routes =
            || {
                draft.config.routes.iter().filter(|route| {
                    pools_of(route, &draft.config.pools).contains(&pool.name.as_str())
                })
            };
        let is_sticky = routes().next().is_none() || routes().any(|route| route.sticky.is_some());
        if pool.balancer != BalancerKind::LeastSessions || is_sticky {
            continue;
        }
        let name = brief(&pool.name);
        report.push(
            Diagnostic::at(
                Code::NoSessions,
                places.balancer.clone(),
                format!("the pool `{name}` counts live sessions, and has none"),
                "no sticky route leads here",
            )
            .help("write balancer = \"least-connections\", which this comes to, or make a route sticky"),
        );
    }
}

/// One warning a pool, at the first of its routes.
fn scale_out(report: &mut Report, draft: &Draft) {
    let pools: HashMap<&str, &Pool> = draft
        .config
        .pools
        .iter()
        .map(|pool| (pool.name.as_str(), pool))
        .collect();
    let mut told = HashSet::new();
    for (route, places) in draft.config.routes.iter().zip(&draft.routes) {
        let (Some(sticky), Some(sticky_places)) = (&route.sticky, &places.sticky) else {
            continue;
        };
        let by_hash = ["cookie-hash", "source", "header"].contains(&&*sticky_places.mode_text);
        let moves = by_hash && sticky.sessions == Sessions::Local;
        let pool = pools.get(route.pool.as_str());
        let Some(pool) =
            pool.filter(|pool| moves && !pool.backends.is_empty() && told.insert(&pool.name))
        else {
            continue;
        };
        let now = pool.backends.len();
        report.push(
            Diagnostic::at(
                Code::ScaleOutMoves,
                sticky_places.mode.clone(),
                format!("adding a server to the pool `{}` moves clients away from their sessions", brief(&pool.name)),
                format!("with {}, one more moves 1/{} of the clients", counted(now, "backend"), now + 1),
            )
            .help("each backend keeps its sessions to itself (sessions = \"local\"): add servers when few are logged in, or write mode = \"insert\", which moves nobody"),
        );
    }
}

fn cookies(report: &mut Report, draft: &Draft) {
    for (route, places) in draft.config.routes.iter().zip(&draft.routes) {
        let (Some(sticky), Some(places)) = (&route.sticky, &places.sticky) else {
            continue;
        };
        let cookie = &sticky.cookie;
        if cookie.same_site == SameSite::None && cookie.secure != Secure::Always {
            report.push(
                Diagnostic::at(
                    Code::InsecureSameSite,
                    places.same_site.clone(),
                    "a cookie with SameSite=None may go out without Secure",
                    "browsers drop it then",
                )
                .help("write secure = \"always\", or same_site = \"lax\""),
            );
        }
        if let Some(promise) = broken_promise(cookie) {
            report.push(
                Diagnostic::at(
                    Code::CookiePrefix,
                    places.cookie_name.clone(),
                    format!(
                        "the cookie name `{}` promises what its attributes do not keep",
                        brief(&cookie.name)
                    ),
                    "browsers drop it then",
                )
                .help(promise),
            );
        }
    }
}

/// One weir finds what another one stored by a secret that both have.
fn stores(report: &mut Report, draft: &Draft) {
    if draft.config.secrets_file.is_some() {
        return;
    }
    for (route, places) in draft.config.routes.iter().zip(&draft.routes) {
        let mode = route.sticky.as_ref().map(|sticky| &sticky.mode);
        if let (Some(StickyMode::Learn { store: Some(_), .. }), Some(places)) =
            (mode, &places.sticky)
        {
            report.push(
                Diagnostic::at(
                    Code::StoreAlone,
                    places.store.clone(),
                    "`store` without `secrets_file`",
                    "no other weir finds what this one stores",
                )
                .help("write secrets_file = \"FILE\" at the top, with the same file on every weir"),
            );
        }
    }
}

/// Routes to one pool share its cookie; where it would say something else, each answer would overwrite the other's.
fn one_cookie_for_two(report: &mut Report, draft: &Draft) {
    let routes = &draft.config.routes;
    for (at, (route, places)) in routes.iter().zip(&draft.routes).enumerate() {
        let (Some(_), Some(places)) = (&route.sticky, &places.sticky) else {
            continue;
        };
        let Some(other) = routes[..at]
            .iter()
            .find(|other| is_overwritten(other, route))
        else {
            continue;
        };
        let why = match other.pool == route.pool {
            true => format!(
                "the route `{}` has it with another mode",
                brief(&other.name)
            ),
            false => format!("it is the cookie of the pool `{}`, too", brief(&other.pool)),
        };
        report.push(
            Diagnostic::at(
                Code::SharedCookie,
                places.cookie_name.clone(),
                format!(
                    "clients of the route `{}` lose their place to another route's cookie",
                    brief(&route.name)
                ),
                why,
            )
            .help("give each pool and mode a cookie name of its own"),
        );
    }
}

/// Whether a browser keeps one cookie for both routes, although they read it differently.
fn is_overwritten(one: &Route, other: &Route) -> bool {
    let (Some(first), Some(second)) = (&one.sticky, &other.sticky) else {
        return false;
    };
    let is_insert = |mode: &StickyMode| matches!(mode, StickyMode::Insert(_));
    let has_cookie = |mode: &StickyMode| is_insert(mode) || matches!(mode, StickyMode::CookieHash);
    let place = |cookie: &Cookie| {
        (
            cookie.name.clone(),
            cookie.domain.clone(),
            cookie.path.clone(),
        )
    };
    let is_same = place(&first.cookie) == place(&second.cookie);
    let differs = one.pool != other.pool || is_insert(&first.mode) != is_insert(&second.mode);
    let share_hosts = first.cookie.domain.is_some()
        || one.hosts.is_empty()
        || other.hosts.is_empty()
        || one.hosts.iter().any(|host| other.hosts.contains(host));
    has_cookie(&first.mode) && has_cookie(&second.mode) && is_same && differs && share_hosts
}

/// What a name prefix asks for (RFC 6265bis section 4.1.3), when the attributes do not have it.
fn broken_promise(cookie: &Cookie) -> Option<&'static str> {
    let has_prefix = |prefix: &str| {
        let start = cookie.name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let secure = cookie.secure == Secure::Always;
    if has_prefix("__Host-") && !(secure && cookie.path == "/" && cookie.domain.is_none()) {
        return Some("`__Host-` wants secure = \"always\", path = \"/\" and no domain");
    }
    if has_prefix("__Secure-") && !secure {
        return Some("`__Secure-` wants secure = \"always\"");
    }
    None
}
