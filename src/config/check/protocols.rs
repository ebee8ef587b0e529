//! Whether routes and listeners of one protocol say only what it has: no path where bytes are passed on, no server name in a request's route.
//! It judges what the file says; which route a connection takes is decided in `policy/route.rs`.
//! Here the walk ends.

use std::collections::HashMap;

use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::lower::{Draft, ListenerPlaces, RoutePlaces};
use crate::config::model::{Listener, OnFailure, Protocol, Route};
use crate::config::section::{At, Report};
use crate::config::values::brief;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    for (listener, places) in draft.config.listeners.iter().zip(&draft.listeners) {
        for key in useless_on(listener) {
            report.extend(other_listener(listener, key, places));
        }
    }
    let known = (draft.config.listeners.iter()).map(|own| (own.name.as_str(), own));
    let listeners: HashMap<&str, &Listener> = known.collect();
    for (route, places) in draft.config.routes.iter().zip(&draft.routes) {
        let named = route
            .listeners
            .iter()
            .find_map(|name| listeners.get(&**name));
        let Some(first) = named else {
            continue;
        };
        report.extend(mixed(first, places, &listeners));
        let useless = places
            .keys
            .iter()
            .filter(|key| !fits(first.protocol, key.0));
        for (key, place) in useless {
            report.push(other_protocol(first, key, place.clone(), places));
        }
        if first.protocol != Protocol::Http {
            report.extend(keeps_by_request(first, places));
            report.extend(holds(first, route, places));
        }
        report.extend(offers_nothing(route, places, &listeners));
    }
}

/// Whether a route key means something on listeners of this protocol.
fn fits(protocol: Protocol, key: &str) -> bool {
    match protocol {
        Protocol::Http => !matches!(key, "sni" | "alpn" | "replies"),
        Protocol::Tcp => matches!(key, "sni" | "alpn" | "canary"),
        Protocol::Udp => key == "replies",
    }
}

/// The keys that a listener has no use for.
fn useless_on(listener: &Listener) -> &'static [&'static str] {
    match listener.protocol {
        Protocol::Http => &["max_flows"],
        Protocol::Tcp => &["path_checks", "http2", "max_flows"],
        Protocol::Udp => &[
            "path_checks",
            "http2",
            "tls",
            "rate_limit",
            "max_connections",
            "max_connections_per_source",
        ],
    }
}

fn other_listener(listener: &Listener, key: &str, places: &ListenerPlaces) -> Option<Diagnostic> {
    let place = places.keys.iter().find(|found| found.0 == key)?.1.clone();
    let protocol = listener.protocol.as_str();
    let found = Diagnostic::at(
        Code::OtherListener,
        place,
        format!("`{key}` means nothing on a {protocol} listener"),
        "nothing here would read it",
    );
    let told = found.and(places.protocol.clone(), "the protocol is given here");
    Some(told.help(format!("leave `{key}` out")))
}

/// A route is for one protocol.
fn mixed(
    first: &Listener,
    places: &RoutePlaces,
    listeners: &HashMap<&str, &Listener>,
) -> Option<Diagnostic> {
    let known = |named: &At<String>| listeners.get(&*named.value).copied();
    let (other, listener) = (places.listeners.iter())
        .filter_map(|named| Some((named, known(named)?)))
        .find(|(_, listener)| listener.protocol != first.protocol)?;
    let named = places
        .listeners
        .iter()
        .find(|own| own.value == first.name)?;
    let found = Diagnostic::at(
        Code::MixedProtocols,
        other.span.clone(),
        "the route names listeners of different protocols",
        format!("this one speaks {}", listener.protocol.as_str()),
    );
    let speaks = format!("this one speaks {}", first.protocol.as_str());
    Some(
        found
            .and(named.span.clone(), speaks)
            .help("give each protocol a route of its own; both may lead to one pool"),
    )
}

fn other_protocol(listener: &Listener, key: &str, place: Span, places: &RoutePlaces) -> Diagnostic {
    let (name, protocol) = (brief(&listener.name), listener.protocol.as_str());
    let why = match (listener.protocol, key) {
        (_, "replies") => "no answers are counted there",
        (Protocol::Http, _) => "requests are matched by `hosts`",
        (Protocol::Udp, "sni" | "alpn") => "weir reads no datagrams",
        _ => "weir reads no requests there",
    };
    let found = Diagnostic::at(
        Code::OtherProtocol,
        place,
        format!("`{key}` means nothing on the listener `{name}`, which speaks {protocol}"),
        why,
    );
    let found = match places.listeners.first() {
        Some(named) => found.and(named.span.clone(), "on this listener"),
        None => found,
    };
    let help = match (listener.protocol, key) {
        (_, "replies") => "leave `replies` out, or name a udp listener".into(),
        (Protocol::Http, "sni") => {
            "write `hosts`, or protocol = \"tcp\" for a listener that passes TLS through".into()
        }
        (Protocol::Http, _) => format!(
            "leave `{key}` out, or write protocol = \"tcp\" for a listener that passes TLS through"
        ),
        (Protocol::Tcp, "hosts") => {
            "write `sni`, which is the name that a TLS client asks for".into()
        }
        _ => format!("leave `{key}` out, or name an http listener"),
    };
    found.help(help)
}

/// Who is kept by what only a request has.
fn keeps_by_request(listener: &Listener, places: &RoutePlaces) -> Option<Diagnostic> {
    let sticky = places.sticky.as_ref()?;
    if sticky.mode_text == "source" {
        return None;
    }
    let carries = match sticky.mode_text.as_str() {
        "header" => "headers",
        _ => "cookies",
    };
    let (name, protocol) = (brief(&listener.name), listener.protocol.as_str());
    let found = Diagnostic::at(
        Code::StickyNeedsHttp,
        sticky.mode.clone(),
        format!("the listener `{name}` speaks {protocol}, which carries no {carries}"),
        format!("a client is kept by {carries}"),
    );
    let found = match places.listeners.first() {
        Some(named) => found.and(named.span.clone(), "on this listener"),
        None => found,
    };
    Some(found.help("write mode = \"source\", or leave `sticky` out"))
}

/// A client that speaks first, or waits for the server to, is not told to wait.
fn holds(listener: &Listener, route: &Route, places: &RoutePlaces) -> Option<Diagnostic> {
    let on_failure = route.sticky.as_ref()?.on_failure;
    let place = places.sticky.as_ref()?.on_failure.clone();
    let protocol = listener.protocol.as_str();
    let found = || {
        Diagnostic::at(
            Code::OtherProtocol,
            place,
            format!("`on_failure = \"wait\"` means nothing on a {protocol} listener"),
            "only requests are held",
        )
        .help("write on_failure = \"temporary\", or \"error\" to close connections instead")
    };
    matches!(on_failure, OnFailure::Wait(_)).then(found)
}

/// Where weir ends TLS itself, it agrees on no protocol with the client.
fn offers_nothing(
    route: &Route,
    places: &RoutePlaces,
    listeners: &HashMap<&str, &Listener>,
) -> Option<Diagnostic> {
    let place = places.keys.iter().find(|key| key.0 == "alpn")?.1.clone();
    let known = || {
        route
            .listeners
            .iter()
            .filter_map(|name| listeners.get(&**name))
    };
    let listener = known().find(|own| own.protocol == Protocol::Tcp && own.tls.is_some())?;
    Some(
        Diagnostic::at(
            Code::OtherProtocol,
            place,
            format!(
                "TLS ends at the listener `{}`, which agrees on no protocol",
                brief(&listener.name)
            ),
            "nothing matches",
        )
        .help("leave `alpn` out, or leave `tls` out of the listener to pass TLS through"),
    )
}
