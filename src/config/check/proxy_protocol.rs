//! PROXY headers that could come from nobody; PROXY headers and addresses that would speak for more than one client.
//! It judges what the file says; whose header counts is decided where connections are accepted.
//! Here the walk ends.

use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::lower::{Draft, PoolPlaces};
use crate::config::model::{Pool, PoolProtocol, Protocol, ProxyProtocol, ProxyVersion};
use crate::config::section::Report;
use crate::config::values::brief;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    if draft.config.trusted_proxies.is_empty() {
        untrusted(report, draft);
    }
    of_datagrams(report, draft);
    for (pool, places) in draft.config.pools.iter().zip(&draft.pools) {
        if pool.protocol == PoolProtocol::Http1 {
            continue;
        }
        if pool.proxy_protocol.is_some() {
            let (place, what) = (&places.proxy_protocol, "a PROXY header speaks for one");
            report.push(shared(pool, places, place, what));
        }
        if pool.transparent {
            let (place, what) = (&places.transparent, "each comes from one address");
            report.push(shared(pool, places, place, what));
        }
    }
}

/// A line of text is for connections; datagrams have no such form.
fn of_datagrams(report: &mut Report, draft: &Draft) {
    let config = &draft.config;
    let is_udp = |name: &String| {
        let mut own = config.listeners.iter();
        own.any(|own| own.name == *name && own.protocol == Protocol::Udp)
    };
    for (pool, places) in config.pools.iter().zip(&draft.pools) {
        let mut routes = config.routes.iter().filter(|route| route.pool == pool.name);
        let is_led_to = routes.any(|route| route.listeners.iter().any(is_udp));
        if pool.proxy_protocol == Some(ProxyVersion::V1) && is_led_to {
            report.push(
                Diagnostic::at(
                    Code::ProxyForm,
                    places.proxy_protocol.clone(),
                    format!("the pool `{}` is sent datagrams", brief(&pool.name)),
                    "version 1 is for connections",
                )
                .help("write proxy_protocol = \"v2\""),
            );
        }
    }
}

/// Of a key at `place` that makes a connection one of a single client, which is `what`.
fn shared(pool: &Pool, places: &PoolPlaces, place: &Span, what: &str) -> Diagnostic {
    Diagnostic::at(
        Code::ProxyShared,
        place.clone(),
        format!(
            "the clients of the pool `{}` share connections, and {what}",
            brief(&pool.name)
        ),
        "each connection would tell of its first client only",
    )
    .and(places.protocol.clone(), "connections of HTTP/2 are shared")
    .help(
        "leave it out: backends find the client in X-Forwarded-For; or write protocol = \"http1\"",
    )
}

fn untrusted(report: &mut Report, draft: &Draft) {
    for (listener, places) in draft.config.listeners.iter().zip(&draft.listeners) {
        let (code, what, label) = match listener.proxy_protocol {
            ProxyProtocol::Off => continue,
            ProxyProtocol::Accept => (
                Code::ProxyUnheard,
                "reads no PROXY header",
                "nobody is trusted to send one",
            ),
            ProxyProtocol::Require => (
                Code::ProxyNobody,
                match listener.protocol {
                    Protocol::Udp => "would drop every datagram",
                    _ => "would close every connection",
                },
                "nobody is trusted to send a PROXY header",
            ),
        };
        report.push(
            Diagnostic::at(
                code,
                places.proxy_protocol.clone(),
                format!("the listener `{}` {what}", brief(&listener.name)),
                label,
            )
            .help(
                "name the proxies in front of weir at the top: trusted_proxies = [\"10.0.0.0/8\"]",
            ),
        );
    }
}
