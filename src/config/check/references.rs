//! Whether every name that is referred to exists, and no name is given twice.
//! Here the walk ends.

use std::collections::{HashMap, HashSet};

use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::lower::Draft;
use crate::config::section::{At, Report};
use crate::config::suggest;
use crate::config::values::brief;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    names_of_routes(report, draft);
    let listeners: HashSet<&str> = (draft.config.listeners.iter())
        .map(|listener| listener.name.as_str())
        .collect();
    let pools: HashMap<&str, ()> = draft
        .config
        .pools
        .iter()
        .map(|pool| (pool.name.as_str(), ()))
        .collect();
    let fallbacks = draft
        .pools
        .iter()
        .filter_map(|places| places.fallback.as_ref());
    for fallback in fallbacks.filter(|pool| !pools.contains_key(pool.value.as_str())) {
        let names = draft.config.pools.iter().map(|pool| pool.name.as_str());
        report.push(unknown(
            Code::UnknownPool,
            "pool",
            fallback,
            names.collect(),
        ));
    }
    loops(report, draft);
    for places in &draft.routes {
        let named = places.pool.iter().chain(&places.canary);
        for pool in named.filter(|pool| !pools.contains_key(pool.value.as_str())) {
            let names = draft.config.pools.iter().map(|pool| pool.name.as_str());
            report.push(unknown(Code::UnknownPool, "pool", pool, names.collect()));
        }
        for named in &places.listeners {
            if !listeners.contains(named.value.as_str()) {
                let names = (draft.config.listeners.iter()).map(|listener| listener.name.as_str());
                let names = names.collect();
                report.push(unknown(Code::UnknownListener, "listener", named, names));
            }
        }
    }
}

fn unknown(code: Code, what: &str, named: &At<String>, known: Vec<&str>) -> Diagnostic {
    let name = brief(&named.value);
    let found = Diagnostic::at(
        code,
        named.span.clone(),
        format!("there is no {what} `{name}`"),
        format!("no table [{what}s.{name}]"),
    );
    found.help(
        match suggest::closest(&named.value, known.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if known.is_empty() => format!("add a table [{what}s.{name}]"),
            None => {
                const MOST: usize = 10;
                let some = &known[..known.len().min(MOST)];
                format!(
                    "the file has {}; or add a table [{what}s.{name}]",
                    suggest::quoted_list(some)
                )
            }
        },
    )
}

/// A pool that takes over for itself, by way of others or without them, told once at its first pool.
fn loops(report: &mut Report, draft: &Draft) {
    let pools = || draft.config.pools.iter();
    let next = |name: &str| pools().find(|pool| pool.name == name)?.fallback.as_deref();
    for (place, (pool, places)) in pools().zip(&draft.pools).enumerate() {
        let mut way = vec![pool.name.as_str()];
        while let Some(fallback) = next(way[way.len() - 1]).filter(|name| !way.contains(name)) {
            way.push(fallback);
        }
        let is_loop = next(way[way.len() - 1]) == Some(pool.name.as_str());
        let is_first = pools()
            .take(place)
            .all(|other| !way.contains(&other.name.as_str()));
        let Some(fallback) = places.fallback.as_ref().filter(|_| is_loop && is_first) else {
            continue;
        };
        let way: Vec<_> = way.into_iter().map(brief).collect();
        let name = &way[0];
        report.push(
            Diagnostic::at(
                Code::FallbackLoop,
                fallback.span.clone(),
                format!("the pool `{name}` would take over for itself"),
                format!("{} -> {name}", way.join(" -> ")),
            )
            .help("leave out one of these `fallback`s: the last pool has nobody behind it"),
        );
    }
}

fn names_of_routes(report: &mut Report, draft: &Draft) {
    let mut seen = HashMap::new();
    for (route, places) in draft.config.routes.iter().zip(&draft.routes) {
        let Some(place) = &places.name else {
            continue;
        };
        let Some(first) = seen.insert(route.name.as_str(), place) else {
            continue;
        };
        report.push(
            Diagnostic::at(
                Code::DuplicateName,
                place.clone(),
                format!("two routes have the name `{}`", brief(&route.name)),
                "again here",
            )
            .and(first.clone(), "first given here")
            .help("give each a name of its own: metrics and logs go by it"),
        );
    }
}
