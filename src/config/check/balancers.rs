//! Whether a pool can choose as it says: a hash of what only a request has needs requests.
//! It judges what the file says; how a backend is chosen is decided in `policy/balance/`.
//! Here the walk ends.

use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::lower::{Draft, PoolPlaces};
use crate::config::model::{Listener, Pool, PoolProtocol, Protocol, Route, pools_of};
use crate::config::section::Report;
use crate::config::values::brief;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    for (pool, places) in draft.config.pools.iter().zip(&draft.pools) {
        report.extend(counts_nothing(draft, pool, places));
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

/// A limit of what is not counted there: connections that requests share, and datagrams.
fn counts_nothing(draft: &Draft, pool: &Pool, places: &PoolPlaces) -> Option<Diagnostic> {
    let place = |wanted: &str| places.limits.iter().find(|(key, _)| *key == wanted);
    let is_shared = pool.protocol == PoolProtocol::Http2;
    if let Some((key, place)) = place("max_connections").filter(|_| is_shared) {
        let found = Diagnostic::at(
            Code::OtherLimit,
            place.clone(),
            format!("`{key}` means nothing where requests share connections"),
            "HTTP/2 needs few of them",
        );
        let told = found.and(places.protocol.clone(), "the protocol is given here");
        return Some(told.help("write max_in_flight, which counts requests"));
    }
    let listener = not_of_requests(draft, pool).filter(|own| own.protocol == Protocol::Udp)?;
    let fallback = (places.fallback.as_ref()).map(|name| ("fallback", name.span.clone()));
    let (key, place) = &fallback.or_else(|| places.limits.first().cloned())?;
    let found = Diagnostic::at(
        Code::OtherLimit,
        place.clone(),
        format!(
            "`{key}` means nothing for datagrams, which the listener `{}` leads here",
            brief(&listener.name)
        ),
        "no datagram waits, or goes to another pool",
    );
    Some(found.help(format!(
        "leave `{key}` out; `max_flows` of the listener bounds how many clients there are"
    )))
}

/// The first listener that leads connections or datagrams to the pool.
fn not_of_requests<'a>(draft: &'a Draft, pool: &Pool) -> Option<&'a Listener> {
    let pools = &draft.config.pools;
    let leads_here = |route: &&Route| pools_of(route, pools).contains(&pool.name.as_str());
    let routes = draft.config.routes.iter().filter(leads_here);
    let mut names = routes.flat_map(|route| &route.listeners);
    names.find_map(|name| {
        let mut listeners = draft.config.listeners.iter();
        listeners.find(|own| own.name == *name && own.protocol != Protocol::Http)
    })
}
