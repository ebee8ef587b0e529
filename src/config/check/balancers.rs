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
        report.extend(means_nothing(draft, pool, places));
        let Some(listener) = leads_to(draft, pool, |own| own != Protocol::Http) else {
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

/// A key that means nothing for what is led there: requests that share connections, connections whose bytes are passed on, or datagrams.
fn means_nothing(draft: &Draft, pool: &Pool, places: &PoolPlaces) -> Option<Diagnostic> {
    let place = |wanted: &str| places.particular.iter().find(|(key, _)| *key == wanted);
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
    if let Some(listener) = leads_to(draft, pool, |own| own != Protocol::Http).filter(|_| is_shared)
    {
        let found = Diagnostic::at(
            Code::OtherLimit,
            places.protocol.clone(),
            format!(
                "the listener `{}`, which leads to the pool `{}`, speaks {}",
                brief(&listener.name),
                brief(&pool.name),
                listener.protocol.as_str()
            ),
            "only requests share connections",
        );
        return Some(found.help("leave `protocol` out; give requests a pool of their own"));
    }
    let listener = leads_to(draft, pool, |own| own == Protocol::Udp)?;
    let (key, place) = places.particular.first()?;
    let (label, instead) = match *key {
        "fallback" => (
            "no datagram goes to another pool",
            "a pool's `backup` backends serve when no other can",
        ),
        "passive" => (
            "nothing tells whether a datagram was answered well",
            "`health` with type = \"udp\" asks the servers",
        ),
        "tls" => (
            "weir passes datagrams on as they are",
            "what clients encrypt stays encrypted",
        ),
        _ => (
            "no datagram waits",
            "`max_flows` of the listener bounds how many clients there are",
        ),
    };
    let found = Diagnostic::at(
        Code::OtherLimit,
        place.clone(),
        format!(
            "`{key}` means nothing for datagrams, which the listener `{}` leads here",
            brief(&listener.name)
        ),
        label,
    );
    Some(found.help(format!("leave `{key}` out; {instead}")))
}

/// The first listener of such a protocol that leads to the pool.
fn leads_to<'a>(
    draft: &'a Draft,
    pool: &Pool,
    is_wanted: impl Fn(Protocol) -> bool,
) -> Option<&'a Listener> {
    let pools = &draft.config.pools;
    let leads_here = |route: &&Route| pools_of(route, pools).contains(&pool.name.as_str());
    let routes = draft.config.routes.iter().filter(leads_here);
    let mut names = routes.flat_map(|route| &route.listeners);
    names.find_map(|name| {
        let mut listeners = draft.config.listeners.iter();
        listeners.find(|own| own.name == *name && is_wanted(own.protocol))
    })
}
