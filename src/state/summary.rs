//! A difference as one line for people: `pool was: +127.0.0.1:8084, was2 drain; route cart changed`.
//! It must stay one line of bounded length, whatever changed.
//! The walk goes on in control's `reload.rs`, which logs it.

use std::fmt::Display;

use super::diff::{Diff, Item, ListDiff, PoolDiff};
use crate::config::model::{AdminState, Backend, Config, Listener, Route};

/// Changes of one list that are told one by one.
const SHOWN: usize = 8;

/// What `diff` does to `from`, on one line; empty when it does nothing.
pub fn summary(diff: &Diff, from: &Config) -> String {
    let mut parts = Vec::new();
    let keys = diff.settings.keys();
    if !keys.is_empty() {
        parts.push(keys.join(", "));
    }
    parts.extend(list("listener", &diff.listeners, name, |_, to| {
        let old = from.listeners.iter().find(|old| old.name == to.name);
        listener(old, to)
    }));
    parts.extend(list("route", &diff.routes, route_name, |key, _| {
        format!("route {key} changed")
    }));
    parts.extend(list(
        "pool",
        &diff.pools,
        |pool| pool.name.clone(),
        |key, change| {
            let old = from.pools.iter().find(|old| old.name == *key);
            let old = old.map_or(&[][..], |pool| &pool.backends);
            format!("pool {key}: {}", pool(change, old))
        },
    ));
    parts.join("; ")
}

fn list<T: Item>(
    kind: &str,
    diff: &ListDiff<T>,
    name: impl Fn(&T) -> String,
    changed: impl Fn(&T::Key, &T::Change) -> String,
) -> Vec<String>
where
    T::Key: Display,
{
    let removed = diff.removed.iter().map(|(key, _)| format!("-{kind} {key}"));
    let added = diff
        .added
        .iter()
        .map(|item| format!("+{kind} {}", name(item)));
    let changes = diff.changed.iter().map(|((key, _), to)| changed(key, to));
    let mut parts = shown(added.chain(removed).chain(changes));
    if parts.is_empty() && diff.order.is_some() {
        parts.push(format!("{kind}s in another order"));
    }
    parts
}

/// The first few, and how many more there are.
fn shown(parts: impl Iterator<Item = String>) -> Vec<String> {
    let mut parts: Vec<String> = parts.collect();
    if parts.len() > SHOWN {
        let more = parts.len() - SHOWN + 1;
        parts.truncate(SHOWN - 1);
        parts.push(format!("{more} more"));
    }
    parts
}

fn name(listener: &Listener) -> String {
    let addresses: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
    format!(
        "{} ({})",
        listener.name,
        shown(addresses.into_iter()).join(", ")
    )
}

fn route_name(route: &Route) -> String {
    let to = match route.pool.as_str() {
        "" => "its filters",
        pool => pool,
    };
    format!("{} → {to}", route.name)
}

fn listener(old: Option<&Listener>, to: &Listener) -> String {
    let old = old.map_or(&[][..], |listener| &listener.bind);
    let added = to.bind.iter().filter(|address| !old.contains(address));
    let removed = old.iter().filter(|address| !to.bind.contains(address));
    let moved: Vec<String> = added
        .map(|address| format!("+{address}"))
        .chain(removed.map(|address| format!("-{address}")))
        .collect();
    if moved.is_empty() {
        return format!("listener {} changed", to.name);
    }
    format!(
        "listener {}: {}",
        to.name,
        shown(moved.into_iter()).join(", ")
    )
}

fn pool(change: &PoolDiff, old: &[Backend]) -> String {
    let named = |address| {
        old.iter()
            .find(|backend| backend.address == address)
            .map_or_else(|| address.to_string(), label)
    };
    let diff = &change.backends;
    let added = diff
        .added
        .iter()
        .map(|backend| format!("+{}", label(backend)));
    let removed = diff
        .removed
        .iter()
        .map(|(address, _)| format!("-{}", named(*address)));
    let changed = diff.changed.iter().filter_map(|((address, _), to)| {
        let from = old.iter().find(|backend| backend.address == *address)?;
        Some(backend(from, to))
    });
    let settings = [
        change.protocol.map(|_| "protocol".to_owned()),
        change.transparent.map(|_| "transparent".to_owned()),
        change.balancer.as_ref().map(|_| "balancer".to_owned()),
        change
            .balance_factor
            .map(|to| format!("balance_factor {to}")),
        change.proxy_protocol.map(|_| "proxy_protocol".to_owned()),
        change.max_idle.map(|to| format!("max_idle {to}")),
        change.slow_start.map(|_| "slow_start".to_owned()),
        change.max_sessions.map(|to| format!("max_sessions {to}")),
        change.health.as_ref().map(|_| "health".to_owned()),
        change.passive.as_ref().map(|_| "passive".to_owned()),
        change.tls.as_ref().map(|_| "tls".to_owned()),
        change.discovery.as_ref().map(|_| "discovery".to_owned()),
        change.scale.as_ref().map(|_| "scale".to_owned()),
        change.rest.as_ref().map(|_| "settings".to_owned()),
    ];
    let mut parts = shown(added.chain(removed).chain(changed));
    parts.extend(settings.into_iter().flatten());
    if parts.is_empty() {
        parts.push("backends in another order".to_owned());
    }
    parts.join(", ")
}

fn backend(from: &Backend, to: &Backend) -> String {
    let mut words = vec![label(from)];
    if from.name != to.name {
        words.push(format!("renamed {}", to.name));
    }
    if from.weight != to.weight {
        words.push(format!("weight {}", to.weight));
    }
    if from.discovered != to.discovered {
        let whence = match to.discovered {
            true => "discovered now",
            false => "named by the file now",
        };
        words.push(whence.to_owned());
    }
    if from.state != to.state {
        words.push(
            match to.state {
                AdminState::Ready => "ready",
                AdminState::Drain => "drain",
                AdminState::Maint => "maint",
            }
            .to_owned(),
        );
    }
    words.join(" ")
}

/// Its name, and its address when that is not the name.
fn label(backend: &Backend) -> String {
    let address = backend.address.to_string();
    if backend.name == address {
        return address;
    }
    format!("{} ({address})", backend.name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{BalancerKind, Level};
    use crate::state::sample::{any_config, config, loopback};

    fn told(from: &Config, to: &Config) -> String {
        summary(&Diff::between(from, to), from)
    }

    #[test]
    fn what_changed_is_told_in_a_line() {
        let web: (&str, &[_]) = ("web", &[loopback(80)]);
        let a = config(&[web], &[("was", &[loopback(1), loopback(2)])]);
        let b = config(&[web], &[("was", &[loopback(1), loopback(2), loopback(3)])]);
        assert_eq!(told(&a, &b), "pool was: +127.0.0.1:3");
        assert_eq!(told(&b, &a), "pool was: -127.0.0.1:3");
        assert_eq!(told(&a, &a), "");

        let mut c = a.clone();
        c.log.level = Level::Debug;
        c.listeners[0].bind = vec![loopback(81)];
        c.pools[0].balancer = BalancerKind::RandomTwo;
        c.pools[0].backends[0].state = AdminState::Drain;
        c.pools[0].backends[1].weight = 4;
        c.pools[0].backends[1].name = "two".into();
        assert_eq!(
            told(&a, &c),
            "log.level; listener web: +127.0.0.1:81, -127.0.0.1:80; \
             pool was: 127.0.0.1:1 drain, 127.0.0.1:2 renamed two weight 4, balancer"
        );

        let d = config(&[web], &[("new", &[loopback(1)])]);
        assert_eq!(
            told(&a, &d),
            "+route new → new; -route was; +pool new; -pool was"
        );
        c = a.clone();
        c.pools[0].backends.reverse();
        assert_eq!(told(&a, &c), "pool was: backends in another order");
    }

    #[test]
    fn a_great_change_is_still_one_bounded_line() {
        let few: Vec<_> = (1..3).map(loopback).collect();
        let many: Vec<_> = (1..10_000).map(loopback).collect();
        let line = told(
            &config(&[], &[("was", &few)]),
            &config(&[], &[("was", &many)]),
        );
        assert!(line.ends_with(", 9990 more"), "{line}");
        assert!(line.len() < 200, "{line}");
    }

    proptest! {
        #[test]
        fn only_what_changes_nothing_has_nothing_to_tell(a in any_config(), b in any_config()) {
            let line = told(&a, &b);
            prop_assert_eq!(line.is_empty(), a == b);
            prop_assert!(!line.contains('\n'));
        }
    }
}
