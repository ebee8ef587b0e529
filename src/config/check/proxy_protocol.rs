//! PROXY headers that could come from nobody, or would speak for more than one client.
//! It judges what the file says; whose header counts is decided where connections are accepted.
//! Here the walk ends.

use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::lower::Draft;
use crate::config::model::{PoolProtocol, Protocol, ProxyProtocol};
use crate::config::section::Report;
use crate::config::values::brief;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    over_datagrams(report, draft);
    if draft.config.trusted_proxies.is_empty() {
        untrusted(report, draft);
    }
    for (pool, places) in draft.config.pools.iter().zip(&draft.pools) {
        if pool.protocol == PoolProtocol::Http2 && pool.proxy_protocol.is_some() {
            report.push(
                Diagnostic::at(
                    Code::ProxyShared,
                    places.proxy_protocol.clone(),
                    format!(
                        "the clients of the pool `{}` share connections, and a PROXY header speaks for one",
                        brief(&pool.name)
                    ),
                    "each connection would tell of its first client only",
                )
                .and(places.protocol.clone(), "connections of HTTP/2 are shared")
                .help("leave it out: backends find the client in X-Forwarded-For; or write protocol = \"http1\""),
            );
        }
    }
}

/// Connections begin with a header, and datagrams have no connection.
fn over_datagrams(report: &mut Report, draft: &Draft) {
    let config = &draft.config;
    let is_udp = |name: &String| {
        let mut listeners = config.listeners.iter();
        listeners.any(|listener| listener.name == *name && listener.protocol == Protocol::Udp)
    };
    for (pool, places) in config.pools.iter().zip(&draft.pools) {
        let mut routes = config.routes.iter().filter(|route| route.pool == pool.name);
        let named = routes.find_map(|route| route.listeners.iter().find(|name| is_udp(name)));
        if let (Some(_), Some(listener)) = (pool.proxy_protocol, named) {
            report.push(
                Diagnostic::at(
                    Code::ProxyDatagrams,
                    places.proxy_protocol.clone(),
                    format!(
                        "the pool `{}` gets datagrams, and PROXY headers stand before connections",
                        brief(&pool.name)
                    ),
                    format!(
                        "a route leads here from the udp listener `{}`",
                        brief(listener)
                    ),
                )
                .help("leave it out, or give the other listeners a pool of their own"),
            );
        }
    }
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
                "would close every connection",
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
