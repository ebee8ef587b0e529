//! The choice of a route as the design words it, slowly: what the router is held to, by its tests and by a fuzz target.
//! It is no part of the product.
//! The walk goes back to `route.rs`.

use std::cmp::Reverse;

use super::{Facts, RouteMatch};

/// The choice as the design words it.
pub fn reference(routes: &[RouteMatch], facts: &Facts<'_>) -> Option<usize> {
    let request = facts.request.as_ref().unwrap();
    let host = String::from_utf8_lossy(request.head.host()).to_lowercase();
    let host_rank = |rule: &RouteMatch| {
        let ranks = rule
            .hosts
            .iter()
            .filter_map(|pattern| match pattern.strip_prefix('*') {
                Some(suffix) if host.len() > suffix.len() && host.ends_with(suffix) => {
                    Some(suffix.len())
                }
                None if *pattern == host => Some(usize::MAX),
                _ => None,
            });
        match rule.hosts.is_empty() {
            true => Some(0),
            false => ranks.max(),
        }
    };
    let path = std::str::from_utf8(request.path).unwrap();
    let matches = |rule: &RouteMatch| {
        let rest = path.strip_prefix(&rule.path);
        let path = rest.is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || rule.path.ends_with('/')
        });
        let method = request.head.method;
        path && rule.listeners.contains(&facts.listener)
            && (rule.methods.is_empty() || rule.methods.iter().any(|m| m.as_bytes() == method))
            && rule.headers.iter().all(|header| {
                let mut values = request.head.values(&header.name);
                values.any(|value| header.value.as_ref().is_none_or(|v| v.as_bytes() == value))
            })
    };
    let candidates = routes.iter().enumerate().filter(|(_, rule)| matches(rule));
    candidates
        .filter_map(|(route, rule)| {
            let conditions = usize::from(!rule.methods.is_empty()) + rule.headers.len();
            let rank = (
                host_rank(rule)?,
                rule.path.len(),
                conditions,
                Reverse(route),
            );
            Some((rank, route))
        })
        .max()
        .map(|(_, route)| route)
}
