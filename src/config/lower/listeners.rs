//! The listeners of a file.
//! It never opens a socket; whether two addresses get along is judged in `check/addresses.rs`.
//! The walk goes on in `tls.rs` and `protection.rs`.

use super::tls::{self, Files};
use super::{ListenerPlaces, Report, Section, protection};
use crate::config::model::{Access, Listener, PathChecks, Protocol, ProxyProtocol};
use crate::config::values::addresses;

/// The keys that not every protocol has a use for.
const OF_SOME_PROTOCOLS: [&str; 7] = [
    "path_checks",
    "http2",
    "tls",
    "rate_limit",
    "max_connections",
    "max_connections_per_source",
    "max_flows",
];

/// All listeners in file order.
pub(super) fn lower(
    report: &mut Report,
    top: &Section<'_>,
    files: &mut Files,
) -> (Vec<Listener>, Vec<ListenerPlaces>) {
    top.named_tables(report, "listeners", "listeners.*")
        .into_iter()
        .map(|(name, section)| {
            let bind = section.entries(report, "bind", addresses::bind);
            let (access, allow) = protection::access(report, &section);
            let places = ListenerPlaces {
                allow,
                name: name.span,
                bind: bind.iter().map(|address| address.span.clone()).collect(),
                protocol: section.place("protocol"),
                proxy_protocol: section.place("proxy_protocol"),
                keys: section.present(&OF_SOME_PROTOCOLS),
            };
            (
                Listener {
                    access,
                    ..listener(report, name.value, super::values_of(bind), &section, files)
                },
                places,
            )
        })
        .unzip()
}

fn listener(
    report: &mut Report,
    name: String,
    bind: Vec<std::net::SocketAddr>,
    section: &Section<'_>,
    files: &mut Files,
) -> Listener {
    Listener {
        name,
        bind,
        protocol: section.choice(
            report,
            "protocol",
            [
                ("http", Protocol::Http),
                ("tcp", Protocol::Tcp),
                ("udp", Protocol::Udp),
            ],
        ),
        max_connections: section.count(report, "max_connections").unwrap_or_default() as usize,
        max_connections_per_source: section
            .count(report, "max_connections_per_source")
            .unwrap_or_default() as usize,
        max_flows: section.count(report, "max_flows").unwrap_or_default() as usize,
        rate_limit: protection::of_listener(report, section),
        access: Access::default(),
        proxy_protocol: section.choice(
            report,
            "proxy_protocol",
            [
                ("off", ProxyProtocol::Off),
                ("accept", ProxyProtocol::Accept),
                ("require", ProxyProtocol::Require),
            ],
        ),
        path_checks: section.choice(
            report,
            "path_checks",
            [("strict", PathChecks::Strict), ("off", PathChecks::Off)],
        ),
        http2: section.flag(report, "http2"),
        tls: tls::of_listener(report, section, files),
    }
}
