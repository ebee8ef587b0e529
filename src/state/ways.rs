//! The ways that requests of a route may take: to its pool, to its canary's, and to those that take over for them.
//! Each is a route of the snapshot by itself, so that whoever has an ordinal has a pool; the file's routes come first, in its order.
//! The walk goes back to `compile.rs`.

use std::collections::HashMap;

use crate::config::model::{Config, Sticky, pools_of};

/// One way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way<'a> {
    /// Which of the file's routes it is of.
    pub file: usize,
    /// Name of the pool that it leads to; empty: to none.
    pub pool: &'a str,
    /// The way that takes over where this one finds nobody.
    pub fallback: Option<usize>,
    /// Of a file's route: the way of its canary.
    pub canary: Option<usize>,
}

/// All ways; the first are the file's routes.
pub fn ways(config: &Config) -> Vec<Way<'_>> {
    let way = |file, pool| Way {
        file,
        pool,
        fallback: None,
        canary: None,
    };
    let routes = || config.routes.iter().enumerate();
    let mut ways: Vec<Way<'_>> = (routes())
        .map(|(file, route)| way(file, &*route.pool))
        .collect();
    for (file, route) in routes() {
        let others = pools_of(route, &config.pools);
        ways.extend(others.into_iter().skip(1).map(|pool| way(file, pool)));
    }
    let places: HashMap<(usize, &str), usize> = (ways.iter().zip(0..))
        .map(|(way, place)| ((way.file, way.pool), place))
        .collect();
    let fallbacks: HashMap<&str, &str> = (config.pools.iter())
        .filter_map(|pool| Some((pool.name.as_str(), pool.fallback.as_deref()?)))
        .collect();
    for (place, way) in ways.iter_mut().enumerate() {
        let fallback = fallbacks.get(way.pool);
        way.fallback = fallback.and_then(|pool| places.get(&(way.file, *pool)).copied());
        let canary = config.routes[way.file].canary.as_ref();
        way.canary = canary
            .filter(|_| place == way.file)
            .and_then(|canary| places.get(&(way.file, canary.pool.as_str())).copied())
            .filter(|canary| *canary != place);
    }
    ways
}

/// The other ways of the file's route of this place; a way that is none has no others.
pub fn others(ways: &[Way<'_>], place: usize) -> Box<[usize]> {
    let is_other = |other: usize, way: &Way<'_>| other != place && way.file == place;
    (ways.iter().enumerate())
        .filter_map(|(other, way)| is_other(other, way).then_some(other))
        .collect()
}

/// The stickiness of a route on its way to `pool`: clients are known there by a cookie of its own.
pub fn sticky_toward(from: &Sticky, own: &str, pool: &str) -> Sticky {
    let mut sticky = from.clone();
    if own != pool {
        let name = &mut sticky.cookie.name;
        *name = match name.strip_suffix(own) {
            Some(before) => format!("{before}{pool}"),
            None => format!("{name}_{pool}"),
        };
    }
    sticky
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_pool_of_a_route_is_a_way_of_it() {
        let text = "[listeners.web]\nbind = [\"127.0.0.1:1\"]\n[[routes]]\npool = \"a\"\ncanary = { pool = \"b\", weight = 5 }\n\
            [[routes]]\npath = \"/c\"\npool = \"c\"\n\
            [pools.a]\nbackends = [\"127.0.0.1:2\"]\nfallback = \"c\"\n[pools.b]\nbackends = [\"127.0.0.1:3\"]\nfallback = \"a\"\n\
            [pools.c]\nbackends = [\"127.0.0.1:4\"]\n";
        let loaded = config::parse("weir.toml", text).unwrap_or_else(|bad| panic!("{bad}"));
        let seen: Vec<_> = ways(&loaded.config)
            .into_iter()
            .map(|way| (way.file, way.pool, way.fallback, way.canary))
            .collect();
        assert_eq!(
            format!("{seen:?}"),
            "[(0, \"a\", Some(3), Some(2)), (1, \"c\", None, None), (0, \"b\", Some(0), None), (0, \"c\", None, None)]"
        );
    }
}
