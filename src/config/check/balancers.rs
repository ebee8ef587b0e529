//! Whether a pool can choose as it says: a hash of what only a request has needs requests.
//! It judges what the file says; how a backend is chosen is decided in `policy/balance/`.
//! Here the walk ends.

use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::lower::Draft;
use crate::config::model::{Listener, Pool, Protocol};
use crate::config::section::Report;
use crate::config::values::brief;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    for (pool, places) in draft.config.pools.iter().zip(&draft.pools) {
        let Some(listener) = not_of_requests(draft, pool) else {
            continue;
        };
        if pool.balancer.needs_request() {
            let protocol = listener.protocol.as_str();
            report.push(
                Diagnostic::at(
                    Code::BalancerNeedsHttp,
                    places.balancer.clone(),
                    format!(
                        "the listener `{}`, which leads to the pool `{}`, speaks {protocol}",
                        brief(&listener.name),
                        brief(&pool.name)
                    ),
                    "only requests have that",
                )
                .help("write balancer = \"hash source\" or \"maglev\", which go by the client's address"),
            );
        }
    }
}

/// The first listener that leads connections or datagrams to the pool.
fn not_of_requests<'a>(draft: &'a Draft, pool: &Pool) -> Option<&'a Listener> {
    let routes = draft
        .config
        .routes
        .iter()
        .filter(|route| route.pool == pool.name);
    let mut names = routes.flat_map(|route| &route.listeners);
    names.find_map(|name| {
        let mut listeners = draft.config.listeners.iter();
        listeners.find(|own| own.name == *name && own.protocol != Protocol::Http)
    })
}
