//! Access lists that do not say what was meant: an allowed network of which everybody is denied.
//! It judges what the file says; who may come in is decided in `policy/cidr.rs`.
//! Here the walk ends.

use std::collections::HashSet;

use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::lower::Draft;
use crate::config::model::{Access, Cidr, Filter};
use crate::config::section::Report;
use crate::config::values::addresses::first_address;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    for (listener, places) in draft.config.listeners.iter().zip(&draft.listeners) {
        check_list(report, &listener.access, &places.allow);
    }
    for (route, places) in draft.config.routes.iter().zip(&draft.routes) {
        for (filter, place) in route.filters.iter().zip(&places.filters) {
            if let Filter::Access(access) = filter {
                let places = vec![place.clone(); access.allow.len()];
                check_list(report, access, &places);
            }
        }
    }
}

fn check_list(report: &mut Report, access: &Access, places: &[Span]) {
    let denied: HashSet<Cidr> = access.deny.iter().copied().collect();
    for (allowed, place) in access.allow.iter().zip(places) {
        if let Some(cover) = covers(&denied, allowed) {
            report.push(denied_anyway(allowed, cover, place.clone()));
        }
    }
}

/// The denied network that a network lies in: each that it lies in is one of its own prefixes.
fn covers(denied: &HashSet<Cidr>, allowed: &Cidr) -> Option<Cidr> {
    let prefixes = (0..=allowed.prefix).map(|prefix| Cidr {
        network: first_address(allowed.network, prefix),
        prefix,
    });
    prefixes.into_iter().find(|prefix| denied.contains(prefix))
}

fn denied_anyway(allowed: &Cidr, cover: Cidr, place: Span) -> Diagnostic {
    let text = |cidr: &Cidr| format!("{}/{}", cidr.network, cidr.prefix);
    Diagnostic::at(
        Code::DeniedAnyway,
        place,
        format!("nobody of {} may come in", text(allowed)),
        format!("`deny` has {}, and comes first", text(&cover)),
    )
    .help("leave it out, or deny the networks around it one by one")
}
