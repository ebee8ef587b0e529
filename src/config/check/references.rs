//! Whether every name that is referred to exists and is of the right kind, and no name is given twice.
//! Here the walk ends.

use std::collections::HashMap;

use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::lower::{Draft, RoutePlaces};
use crate::config::model::{Listener, Protocol};
use crate::config::section::{At, Report};
use crate::config::suggest;
use crate::config::values::brief;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    protocols(report, draft);
    names_of_routes(report, draft);
    let listeners: HashMap<&str, &Listener> = draft
        .config
        .listeners
        .iter()
        .map(|listener| (listener.name.as_str(), listener))
        .collect();
    let pools: HashMap<&str, ()> = draft
        .config
        .pools
        .iter()
        .map(|pool| (pool.name.as_str(), ()))
        .collect();
    for places in &draft.routes {
        if let Some(pool) = places
            .pool
            .as_ref()
            .filter(|pool| !pools.contains_key(pool.value.as_str()))
        {
            let names = draft.config.pools.iter().map(|pool| pool.name.as_str());
            report.push(unknown(Code::UnknownPool, "pool", pool, names.collect()));
        }
        for named in &places.listeners {
            match listeners.get(named.value.as_str()) {
                Some(listener) if listener.protocol == Protocol::Http => {}
                Some(listener) => report.push(other_protocol(listener, named, places)),
                None => {
                    let names = draft
                        .config
                        .listeners
                        .iter()
                        .map(|listener| listener.name.as_str());
                    report.push(unknown(
                        Code::UnknownListener,
                        "listener",
                        named,
                        names.collect(),
                    ));
                }
            }
        }
    }
}

/// Listeners of a protocol that the model knows and this version does not serve.
fn protocols(report: &mut Report, draft: &Draft) {
    for (listener, places) in draft.config.listeners.iter().zip(&draft.listeners) {
        if listener.protocol == Protocol::Http {
            continue;
        }
        let protocol = protocol_text(listener.protocol);
        report.push(
            Diagnostic::at(
                Code::ProtocolNotServed,
                places.protocol.clone(),
                format!(
                    "the listener `{}` speaks {protocol}, and this version serves only http",
                    brief(&listener.name)
                ),
                "not served yet",
            )
            .help(
                "write protocol = \"http\", or leave the listener out until tcp and udp are built",
            ),
        );
    }
}

fn protocol_text(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// A route on a listener that carries no requests: what it is sticky by matters more than that.
fn other_protocol(listener: &Listener, named: &At<String>, places: &RoutePlaces) -> Diagnostic {
    let name = brief(&listener.name);
    let protocol = protocol_text(listener.protocol);
    let sticky = places
        .sticky
        .as_ref()
        .filter(|sticky| sticky.mode_text != "source");
    match sticky {
        Some(sticky) => {
            let carries = if sticky.mode_text == "header" {
                "headers"
            } else {
                "cookies"
            };
            Diagnostic::at(
                Code::StickyNeedsHttp,
                sticky.mode.clone(),
                format!("the listener `{name}` speaks {protocol}, which carries no {carries}"),
                format!("a client is kept by {carries}"),
            )
            .and(named.span.clone(), "on this listener")
            .help("take the listener out of the route, or leave `sticky` out")
        }
        None => Diagnostic::at(
            Code::NotHttp,
            named.span.clone(),
            format!("the listener `{name}` speaks {protocol}, and routes match http requests"),
            "not an http listener",
        )
        .help("name http listeners only; with `listeners` left out, a route holds for all of them"),
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
