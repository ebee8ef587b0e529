//! The limits among the filters of a route, which outlive a generation: rate limits by the place of their filters, and who was denied.
//! It finds what the generation before had; it decides nothing.
//! The walk goes on in `rate_limit.rs`, and in `l7/protect.rs`, which asks.

use std::collections::HashMap;
use std::sync::Arc;

use super::diff::{Nth, numbered};
use super::rate_limit::RateLimit;
use super::refusals::Refusals;
use super::snapshot::Snapshot;
use crate::config::model::{Config, Filter};

/// The limits of a route.
#[derive(Clone, Debug, Default)]
pub struct RouteLimits {
    /// Whom its access lists turned away; absent without lists.
    pub denied: Option<Arc<Refusals>>,
    by_place: Box<[Option<Arc<RateLimit>>]>,
}

impl RouteLimits {
    /// Those of every route of a configuration, after a generation.
    pub fn of_routes(config: &Config, previous: Option<&Snapshot>) -> Vec<RouteLimits> {
        let known: HashMap<Nth<String>, &RouteLimits> = (previous.into_iter())
            .flat_map(|previous| {
                let limits = previous.routes.iter().map(|route| &route.limits);
                numbered(&previous.config.routes).into_iter().zip(limits)
            })
            .collect();
        let routes = numbered(&config.routes).into_iter().zip(&config.routes);
        routes
            .map(|(key, route)| RouteLimits::new(&route.filters, known.get(&key).copied()))
            .collect()
    }

    fn new(filters: &[Filter], known: Option<&RouteLimits>) -> RouteLimits {
        let mut left: Vec<Arc<RateLimit>> =
            known.map_or_else(Vec::new, |known| known.all().cloned().collect());
        let limit = |filter: &Filter| {
            let Filter::RateLimit(rule) = filter else {
                return None;
            };
            let limit = RateLimit::of(rule, left.iter());
            // Two filters that say the same count each for itself.
            left.retain(|other| !Arc::ptr_eq(other, &limit));
            Some(limit)
        };
        let by_place: Box<[_]> = filters.iter().map(limit).collect();
        let has_access = filters
            .iter()
            .any(|filter| matches!(filter, Filter::Access(_)));
        let denied = || {
            known
                .and_then(|known| known.denied.clone())
                .unwrap_or_default()
        };
        RouteLimits {
            denied: has_access.then(denied),
            by_place,
        }
    }

    /// The rate limit of the filter at this place.
    pub fn at(&self, place: usize) -> Option<&RateLimit> {
        self.by_place.get(place)?.as_deref()
    }

    /// Every rate limit, in the order of the filters.
    pub fn all(&self) -> impl Iterator<Item = &Arc<RateLimit>> {
        self.by_place.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn filters(list: &str) -> Vec<Filter> {
        let text = format!(
            "[listeners.web]\nbind = [\"127.0.0.1:1\"]\n[[routes]]\npool = \"was\"\nfilters = [\n{list}\n]\n[pools.was]\nbackends = [\"127.0.0.1:2\"]\n"
        );
        let loaded = config::parse("weir.toml", &text).unwrap_or_else(|bad| panic!("{bad}"));
        loaded.config.routes[0].filters.clone()
    }

    #[test]
    fn what_stays_the_same_is_kept_wherever_it_moves() {
        let one = "{ type = \"rate-limit\", rate = \"1/s\" }";
        let two = "{ type = \"rate-limit\", rate = \"2/s\" }";
        let deny = "{ type = \"access\", deny = [\"192.0.2.1\"] }";
        let before = RouteLimits::new(&filters(&format!("{one}, {one}, {two}")), None);
        let at = |limits: &RouteLimits, place: usize| limits.by_place[place].clone().unwrap();
        assert!(!Arc::ptr_eq(&at(&before, 0), &at(&before, 1)));
        assert!(before.denied.is_none() && before.at(3).is_none());

        let after = RouteLimits::new(
            &filters(&format!("{deny}, {two}, {one}, {one}")),
            Some(&before),
        );
        assert!(Arc::ptr_eq(&at(&after, 1), &at(&before, 2)));
        assert!(Arc::ptr_eq(&at(&after, 2), &at(&before, 0)));
        assert!(Arc::ptr_eq(&at(&after, 3), &at(&before, 1)));
        assert!(after.denied.is_some() && after.at(0).is_none());
        assert_eq!(after.all().count(), 3);
    }
}
