//! The listeners of a file.
//! It never opens a socket; whether two addresses get along is judged in `check/addresses.rs`.
//! The walk goes on in `tls.rs`.

use super::tls::{self, Files};
use super::{ListenerPlaces, Report, Section};
use crate::config::model::{Listener, PathChecks, Protocol};
use crate::config::values::addresses;

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
            let places = ListenerPlaces {
                name: name.span,
                bind: bind.iter().map(|address| address.span.clone()).collect(),
                protocol: section.place("protocol"),
            };
            (
                listener(report, name.value, super::values_of(bind), &section, files),
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
        path_checks: section.choice(
            report,
            "path_checks",
            [("strict", PathChecks::Strict), ("off", PathChecks::Off)],
        ),
        tls: tls::of_listener(report, section, files),
    }
}
