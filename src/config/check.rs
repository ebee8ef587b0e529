//! What the parts of a file mean together: addresses that collide, references, routes that shadow each other, advice.
//! It judges a whole draft and changes nothing; every judgement must be sound, since a refused file stops a reload.
//! The walk goes on in `check/access.rs`, `check/addresses.rs`, `check/references.rs`, `check/protocols.rs`, `check/routes.rs`, `check/filters.rs`,
//! `check/proxy_protocol.rs`, `check/balancers.rs` and `check/advice.rs`.

mod access;
mod addresses;
mod advice;
mod balancers;
mod filters;
mod protocols;
mod proxy_protocol;
mod references;
mod routes;

use super::lower::Draft;
use super::section::Report;

/// Adds every problem that needs more than one value to be seen.
pub(super) fn check(report: &mut Report, draft: &Draft) {
    access::check(report, draft);
    addresses::check(report, draft);
    references::check(report, draft);
    protocols::check(report, draft);
    routes::check(report, draft);
    filters::check(report, draft);
    proxy_protocol::check(report, draft);
    balancers::check(report, draft);
    advice::check(report, draft);
}
