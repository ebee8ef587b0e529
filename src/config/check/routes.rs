//! Whether every route can be chosen by some request.
//! It must raise no false alarm: a route counts as taken only if each of its (listener, host, method) triples is taken by
//! one earlier route with the same path whose other conditions hold whenever its own do.
//! Here the walk ends.

use std::collections::HashMap;

use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::lower::{Draft, RoutePlaces};
use crate::config::model::{HeaderMatch, Route};
use crate::config::section::Report;
use crate::config::values::brief;

/// A request goes to the exact host before the suffix, to the longer path before the shorter: so routes compete only within one
/// host and path.
type Group<'d> = (&'d str, &'d str);

/// So many of the routes that shadow another are pointed at.
const MOST_TAKERS: usize = 4;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    let mut earlier: HashMap<Group<'_>, Vec<usize>> = HashMap::new();
    let routes = &draft.config.routes;
    for (index, (route, places)) in routes.iter().zip(&draft.routes).enumerate() {
        if !places.sound {
            continue;
        }
        let competitors = |host| -> &[usize] {
            earlier
                .get(&(host, route.path.as_str()))
                .map_or(&[], Vec::as_slice)
        };
        let of_hosts: Vec<(&str, Vec<usize>)> = hosts(route)
            .map(|host| (host, takers(route, competitors(host), routes)))
            .collect();
        report.extend(judge(draft, index, &of_hosts));
        for host in hosts(route) {
            earlier.entry((host, &route.path)).or_default().push(index);
        }
    }
}

/// The names that a route matches, of hosts or of TLS servers; `""` is any.
fn hosts(route: &Route) -> impl Iterator<Item = &str> {
    let names = || route.hosts.iter().chain(&route.sni);
    let any = names().next().is_none().then_some("");
    names().map(String::as_str).chain(any)
}

/// The earlier routes that together take all that `route` matches on one host; empty when something is left for it.
fn takers(route: &Route, competitors: &[usize], routes: &[Route]) -> Vec<usize> {
    let mut takers = Vec::new();
    for listener in &route.listeners {
        for method in methods(route) {
            let taker = competitors.iter().copied().find(|&earlier| {
                let earlier = &routes[earlier];
                earlier.listeners.contains(listener)
                    && takes_method(earlier, method)
                    && takes_protocols(earlier, route)
                    && earlier
                        .headers
                        .iter()
                        .all(|wanted| implied(wanted, &route.headers))
                    && is_as_specific(earlier, route)
            });
            match taker {
                Some(taker) => takers.push(taker),
                None => return Vec::new(),
            }
        }
    }
    takers.sort_unstable();
    takers.dedup();
    takers
}

/// The methods of a route; `None` is any method.
fn methods(route: &Route) -> impl Iterator<Item = Option<&str>> {
    let any = route.methods.is_empty().then_some(None);
    route
        .methods
        .iter()
        .map(|method| Some(method.as_str()))
        .chain(any)
}

fn takes_method(route: &Route, method: Option<&str>) -> bool {
    route.methods.is_empty()
        || method.is_some_and(|method| route.methods.iter().any(|known| known == method))
}

/// Whether whoever offers one of the later route's protocols offers one of the earlier's.
fn takes_protocols(earlier: &Route, later: &Route) -> bool {
    let offers = |wanted: &String| earlier.alpn.contains(wanted);
    earlier.alpn.is_empty() || !later.alpn.is_empty() && later.alpn.iter().all(offers)
}

/// Whether a request that satisfies `given` satisfies `wanted`.
fn implied(wanted: &HeaderMatch, given: &[HeaderMatch]) -> bool {
    given.iter().any(|given| {
        given.name == wanted.name && (wanted.value.is_none() || given.value == wanted.value)
    })
}

/// Whether the earlier route has as many conditions as the later one, so that file order decides.
fn is_as_specific(earlier: &Route, later: &Route) -> bool {
    earlier.methods.is_empty() == later.methods.is_empty()
        && earlier.headers.len() >= later.headers.len()
        && earlier.alpn.is_empty() == later.alpn.is_empty()
}

fn judge(draft: &Draft, index: usize, of_hosts: &[(&str, Vec<usize>)]) -> Option<Diagnostic> {
    let routes = &draft.config.routes;
    let (route, places) = (&routes[index], &draft.routes[index]);
    if of_hosts.iter().any(|(_, takers)| takers.is_empty()) {
        return partly(draft, index, of_hosts);
    }
    let mut takers: Vec<usize> = of_hosts
        .iter()
        .flat_map(|(_, takers)| takers)
        .copied()
        .collect();
    takers.sort_unstable();
    takers.dedup();
    let name = brief(&route.name);
    if let [earlier] = takers[..]
        && same_match(route, &routes[earlier])
    {
        let message = format!(
            "the routes `{}` and `{name}` match the same requests",
            brief(&routes[earlier].name)
        );
        return Some(
            Diagnostic::at(
                Code::IdenticalRoutes,
                places.whole.clone(),
                message,
                "never chosen: the earlier one comes first",
            )
            .and(draft.routes[earlier].whole.clone(), "the same match")
            .help("leave one of them out, or tell them apart by host, path, methods or headers, on tcp listeners by `sni` or `alpn`"),
        );
    }
    let taken = if takers.len() == 1 {
        "takes all that it matches"
    } else {
        "takes a part of what it matches"
    };
    let unreachable = Diagnostic::at(
        Code::UnreachableRoute,
        places.whole.clone(),
        format!("no request reaches the route `{name}`"),
        "never chosen",
    );
    let shown = takers.iter().take(MOST_TAKERS);
    let unreachable = shown.fold(unreachable, |found, &taker| {
        found.and(draft.routes[taker].whole.clone(), taken)
    });
    Some(unreachable.help("move it up, or give it a longer path or more conditions"))
}

/// The warning about the hosts that earlier routes leave nothing of.
fn partly(draft: &Draft, index: usize, of_hosts: &[(&str, Vec<usize>)]) -> Option<Diagnostic> {
    let route = &draft.config.routes[index];
    let places: &RoutePlaces = &draft.routes[index];
    let (at, (host, takers)) = of_hosts
        .iter()
        .enumerate()
        .find(|(_, (_, takers))| !takers.is_empty())?;
    let found = Diagnostic::at(
        Code::HostTaken,
        places.hosts.get(at).unwrap_or(&places.whole).clone(),
        format!(
            "the route `{}` is never chosen for the host `{}`",
            brief(&route.name),
            brief(host)
        ),
        "an earlier route takes all of it",
    );
    let earlier = draft.routes.get(*takers.first()?)?;
    Some(
        found
            .and(earlier.whole.clone(), "this one")
            .help("leave the host out of one of them"),
    )
}

/// Whether two routes match the same requests, whatever the order of their lists.
fn same_match(a: &Route, b: &Route) -> bool {
    fn same<T: PartialEq>(a: &[T], b: &[T]) -> bool {
        a.len() == b.len() && a.iter().all(|one| b.contains(one))
    }
    a.path == b.path
        && same(&a.listeners, &b.listeners)
        && same(&a.hosts, &b.hosts)
        && same(&a.sni, &b.sni)
        && same(&a.alpn, &b.alpn)
        && same(&a.methods, &b.methods)
        && same(&a.headers, &b.headers)
}
