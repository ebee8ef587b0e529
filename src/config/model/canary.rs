//! The pools that a route may lead to beside its own: its canary, and what takes over where a pool has nobody.
//! As everywhere in the model, no value here is one that a later step would have to refuse.
//! Here the walk ends; `state/ways.rs` is made from it.

use super::{Pool, Route};

/// A part of a route's clients that another pool serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// Name of a pool that exists.
    pub pool: String,
    /// The part, in hundredths.
    pub weight: f64,
}

/// The pools that a route may lead to, each once: its own first, its canary's, and those that take over for them, one for another.
pub fn pools_of<'a>(route: &'a Route, pools: &'a [Pool]) -> Vec<&'a str> {
    let canary = route.canary.as_ref().map(|canary| canary.pool.as_str());
    let mut found = vec![route.pool.as_str()];
    found.extend(canary.filter(|canary| *canary != route.pool));
    let mut next = 0;
    while let Some(name) = found.get(next).copied() {
        let pool = pools.iter().find(|pool| pool.name == name);
        let fallback = pool.and_then(|pool| pool.fallback.as_deref());
        found.extend(fallback.filter(|fallback| !found.contains(fallback)));
        next += 1;
    }
    found
}
