//! What differs between two configurations, as a value: `apply(diff(a, b), a) == b`, and `diff(a, a)` is empty.
//! It compares what the files say and nothing else; it must never look at a socket or at a backend's live words.
//! The walk goes on in `summary.rs`, which says it in a line, and in control's `apply.rs`, which acts on it.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::snapshot::{ListenerKey, ProtocolKey};
use crate::config::model::{
    AccessFormat, AccessTarget, AdminBind, Backend, BalancerKind, Cidr, Config, Discovery,
    Forwarding, Health, Level, Limits, Listener, Passive, Pool, PoolProtocol, PoolTls, Protocol,
    ProxyVersion, Route, Scale, Timeouts, Watch,
};
use crate::config::schema::{self, Reload};

/// What leads from one configuration to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// Top-level keys and tables.
    pub settings: SettingsDiff,
    /// By name.
    pub listeners: ListDiff<Listener>,
    /// By name.
    pub routes: ListDiff<Route>,
    /// By name.
    pub pools: ListDiff<Pool>,
}

/// What leads from one pool to another of the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolDiff {
    /// What backends speak from now on.
    pub protocol: Option<PoolProtocol>,
    /// The new algorithm.
    pub balancer: Option<BalancerKind>,
    /// The new bound of loads.
    pub balance_factor: Option<f64>,
    /// The new PROXY header, which may be none.
    pub proxy_protocol: Option<Option<ProxyVersion>>,
    /// Whether connections come from their clients' addresses from now on.
    pub transparent: Option<bool>,
    /// The new bound of idle connections.
    pub max_idle: Option<usize>,
    /// The new time to warm up, which may be none.
    pub slow_start: Option<Option<Duration>>,
    /// The new bound of live sessions.
    pub max_sessions: Option<usize>,
    /// The new check.
    pub health: Option<Health>,
    /// What of the traffic is held against a backend from now on, which may be nothing.
    pub passive: Option<Option<Passive>>,
    /// How TLS is spoken from now on, which may be not at all.
    pub tls: Option<Option<PoolTls>>,
    /// Where backends come from from now on, which may be nowhere.
    pub discovery: Option<Option<Discovery>>,
    /// How many backends there should be from now on, which may be left open.
    pub scale: Option<Option<Scale>>,
    /// By address.
    pub backends: ListDiff<Backend>,
    /// The whole new pool, where anything else differs: no key may be missed because nobody thought of it here.
    pub rest: Option<Box<Pool>>,
}

/// What leads from one ordered list to another.
#[derive(Clone, Debug, PartialEq)]
pub struct ListDiff<T: Item> {
    /// Keys of items that are gone.
    pub removed: Vec<Nth<T::Key>>,
    /// What became of items that stay.
    pub changed: Vec<(Nth<T::Key>, T::Change)>,
    /// Items that are new.
    pub added: Vec<T>,
    /// For each place of the result, where its item is in the kept items with the added ones after them;
    /// absent: they are in that order already.
    pub order: Option<Vec<usize>>,
}

/// A key, and how many items before this one have the same: a label may be given to two routes.
pub type Nth<K> = (K, usize);

/// An item of a list that the file keeps in order.
pub trait Item: Clone + Debug + PartialEq {
    /// What it is recognized by.
    type Key: Clone + Debug + Eq + Hash;
    /// What leads from one item to another of the same key.
    type Change: Clone + Debug + PartialEq;

    /// What it is recognized by.
    fn key(&self) -> Self::Key;
    /// What leads from here to `to`; nothing when they are equal.
    fn change(&self, to: &Self) -> Option<Self::Change>;
    /// Takes the change.
    fn apply(&mut self, change: &Self::Change);
}

impl Diff {
    /// What leads from `from` to `to`.
    pub fn between(from: &Config, to: &Config) -> Self {
        Diff {
            settings: SettingsDiff::between(from, to),
            listeners: ListDiff::between(&from.listeners, &to.listeners),
            routes: ListDiff::between(&from.routes, &to.routes),
            pools: ListDiff::between(&from.pools, &to.pools),
        }
    }

    /// The configuration that this leads to from `config`, which must be the one it was made from.
    pub fn apply(&self, mut config: Config) -> Config {
        self.settings.apply(&mut config);
        self.listeners.apply(&mut config.listeners);
        self.routes.apply(&mut config.routes);
        self.pools.apply(&mut config.pools);
        config
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.settings.keys().is_empty()
            && self.listeners.is_empty()
            && self.routes.is_empty()
            && self.pools.is_empty()
    }
}

impl<T: Item> ListDiff<T> {
    /// What leads from `from` to `to`.
    pub fn between(from: &[T], to: &[T]) -> Self {
        let (before, after) = (numbered(from), numbered(to));
        let wanted: HashMap<_, _> = after.iter().zip(to).collect();
        let (kept, removed): (Vec<_>, Vec<_>) = before
            .iter()
            .zip(from)
            .partition(|(key, _)| wanted.contains_key(key));
        let changed = kept
            .iter()
            .filter_map(|(key, item)| Some(((*key).clone(), item.change(wanted[key])?)))
            .collect();
        let places: HashMap<_, _> = kept.iter().map(|(key, _)| *key).zip(0..).collect();
        let (mut added, mut order) = (Vec::new(), Vec::with_capacity(to.len()));
        for (key, item) in after.iter().zip(to) {
            order.push(places.get(key).copied().unwrap_or_else(|| {
                added.push(item.clone());
                kept.len() + added.len() - 1
            }));
        }
        ListDiff {
            removed: removed.into_iter().map(|(key, _)| key.clone()).collect(),
            changed,
            added,
            order: (!order.is_sorted()).then_some(order),
        }
    }

    /// Turns the list that this was made from into the other.
    pub fn apply(&self, list: &mut Vec<T>) {
        let changes: HashMap<_, _> = self.changed.iter().map(|(key, to)| (key, to)).collect();
        let removed: HashSet<_> = self.removed.iter().collect();
        let keys = numbered(list);
        let mut items: Vec<T> = Vec::with_capacity(list.len());
        for (key, mut item) in keys.iter().zip(list.drain(..)) {
            if removed.contains(key) {
                continue;
            }
            if let Some(change) = changes.get(key) {
                item.apply(change);
            }
            items.push(item);
        }
        items.extend(self.added.iter().cloned());
        *list = match &self.order {
            Some(order) => order.iter().map(|place| items[*place].clone()).collect(),
            None => items,
        };
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty()
            && self.changed.is_empty()
            && self.added.is_empty()
            && self.order.is_none()
    }
}

impl PoolDiff {
    fn is_empty(&self) -> bool {
        self.protocol.is_none()
            && self.rest.is_none()
            && self.balancer.is_none()
            && self.balance_factor.is_none()
            && self.proxy_protocol.is_none()
            && self.transparent.is_none()
            && self.max_idle.is_none()
            && self.slow_start.is_none()
            && self.max_sessions.is_none()
            && self.health.is_none()
            && self.passive.is_none()
            && self.tls.is_none()
            && self.discovery.is_none()
            && self.scale.is_none()
            && self.backends.is_empty()
    }
}

impl Item for Listener {
    type Key = String;
    type Change = Listener;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn change(&self, to: &Self) -> Option<Listener> {
        (self != to).then(|| to.clone())
    }

    fn apply(&mut self, change: &Listener) {
        self.clone_from(change);
    }
}

impl Item for Route {
    type Key = String;
    type Change = Box<Route>;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn change(&self, to: &Self) -> Option<Box<Route>> {
        (self != to).then(|| Box::new(to.clone()))
    }

    fn apply(&mut self, change: &Box<Route>) {
        self.clone_from(change);
    }
}

impl Item for Pool {
    type Key = String;
    type Change = PoolDiff;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn change(&self, to: &Self) -> Option<PoolDiff> {
        let mut diff = PoolDiff {
            protocol: changed(&self.protocol, &to.protocol),
            rest: None,
            balancer: changed(&self.balancer, &to.balancer),
            balance_factor: changed(&self.balance_factor, &to.balance_factor),
            proxy_protocol: changed(&self.proxy_protocol, &to.proxy_protocol),
            transparent: changed(&self.transparent, &to.transparent),
            max_idle: changed(&self.max_idle, &to.max_idle),
            slow_start: changed(&self.slow_start, &to.slow_start),
            max_sessions: changed(&self.max_sessions, &to.max_sessions),
            health: changed(&self.health, &to.health),
            passive: changed(&self.passive, &to.passive),
            tls: changed(&self.tls, &to.tls),
            discovery: changed(&self.discovery, &to.discovery),
            scale: changed(&self.scale, &to.scale),
            backends: ListDiff::between(&self.backends, &to.backends),
        };
        if self != to {
            let mut reached = self.clone();
            reached.apply(&diff);
            diff.rest = (reached != *to).then(|| Box::new(to.clone()));
        }
        (!diff.is_empty()).then_some(diff)
    }

    fn apply(&mut self, change: &PoolDiff) {
        assign(&mut self.protocol, &change.protocol);
        assign(&mut self.balancer, &change.balancer);
        assign(&mut self.balance_factor, &change.balance_factor);
        assign(&mut self.proxy_protocol, &change.proxy_protocol);
        assign(&mut self.transparent, &change.transparent);
        assign(&mut self.max_idle, &change.max_idle);
        assign(&mut self.slow_start, &change.slow_start);
        assign(&mut self.max_sessions, &change.max_sessions);
        assign(&mut self.health, &change.health);
        assign(&mut self.passive, &change.passive);
        assign(&mut self.tls, &change.tls);
        assign(&mut self.discovery, &change.discovery);
        assign(&mut self.scale, &change.scale);
        change.backends.apply(&mut self.backends);
        if let Some(rest) = &change.rest {
            self.clone_from(rest);
        }
    }
}

/// Health and counters belong to the address, so that is what a backend is recognized by; its name may change.
impl Item for Backend {
    type Key = SocketAddr;
    type Change = Backend;

    fn key(&self) -> SocketAddr {
        self.address
    }

    fn change(&self, to: &Self) -> Option<Backend> {
        (self != to).then(|| to.clone())
    }

    fn apply(&mut self, change: &Backend) {
        self.clone_from(change);
    }
}

/// The sockets that a configuration needs, each with the name of its listener.
pub fn sockets(config: &Config) -> impl Iterator<Item = (ListenerKey, &str)> {
    config.listeners.iter().flat_map(|listener| {
        listener
            .bind
            .iter()
            .map(|address| (key(listener.protocol, *address), listener.name.as_str()))
    })
}

/// The sockets that `to` needs beyond those of `from`.
pub fn opened(from: Option<&Config>, to: &Config) -> Vec<(ListenerKey, String)> {
    let open: HashSet<_> = from
        .into_iter()
        .flat_map(sockets)
        .map(|(key, _)| key)
        .collect();
    sockets(to)
        .filter(|(key, _)| !open.contains(key))
        .map(|(key, name)| (key, name.to_owned()))
        .collect()
}

/// What identifies the socket of a listener's address.
pub fn key(protocol: Protocol, address: SocketAddr) -> ListenerKey {
    let protocol = match protocol {
        Protocol::Http | Protocol::Tcp => ProtocolKey::Stream,
        Protocol::Udp => ProtocolKey::Datagram,
    };
    ListenerKey { protocol, address }
}

/// Makes [`SettingsDiff`] from the keys that are no list: what it is called, where it lies, and how the file spells it if otherwise.
macro_rules! settings {
    ($($field:ident: $type:ty = $($path:ident).+ $(as $key:literal)?;)*) => {
        /// New values of top-level keys and tables.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct SettingsDiff {
            $(#[allow(missing_docs)] pub $field: Option<$type>,)*
        }

        impl SettingsDiff {
            /// What leads from `from` to `to`.
            pub fn between(from: &Config, to: &Config) -> Self {
                SettingsDiff { $($field: changed(&from.$($path).+, &to.$($path).+),)* }
            }

            fn apply(&self, config: &mut Config) {
                $(assign(&mut config.$($path).+, &self.$field);)*
            }

            /// The keys that differ, as the file spells them.
            pub fn keys(&self) -> Vec<String> {
                let mut keys = Vec::new();
                $(if self.$field.is_some() {
                    let path = [$(stringify!($path)),+].join(".");
                    keys.push(None$(.or(Some($key.to_owned())))?.unwrap_or(path));
                })*
                keys
            }
        }
    };
}

settings! {
    workers: usize = workers;
    state_dir: PathBuf = state_dir;
    secrets_file: Option<PathBuf> = secrets_file;
    trusted_proxies: Vec<Cidr> = trusted_proxies;
    drain_timeout: Duration = drain_timeout;
    drain_delay: Duration = drain_delay;
    watch: Watch = watch;
    timeouts: Timeouts = timeouts;
    limits: Limits = limits;
    min_body_rate: u64 = min_body_rate as "limits.min_body_rate";
    forwarding: Forwarding = forwarding;
    admin_bind: AdminBind = admin.bind;
    admin_token_file: Option<PathBuf> = admin.token_file;
    log_level: Level = log.level;
    log_access: AccessTarget = log.access;
    log_access_format: AccessFormat = log.access_format;
    metrics_max_series: usize = metrics.max_series;
}

impl SettingsDiff {
    /// Those of [`SettingsDiff::keys`] that a running process cannot take.
    pub fn restart_keys(&self) -> Vec<String> {
        let restart =
            |key: &String| schema::key(key).is_some_and(|key| key.reload == Reload::Restart);
        self.keys().into_iter().filter(restart).collect()
    }
}

fn changed<T: Clone + PartialEq>(from: &T, to: &T) -> Option<T> {
    (from != to).then(|| to.clone())
}

fn assign<T: Clone>(value: &mut T, change: &Option<T>) {
    if let Some(change) = change {
        value.clone_from(change);
    }
}

/// The keys of a list.
pub(super) fn numbered<T: Item>(items: &[T]) -> Vec<Nth<T::Key>> {
    let mut seen: HashMap<T::Key, usize> = HashMap::new();
    let number = |item: &T| {
        let count = seen.entry(item.key()).or_default();
        *count += 1;
        (item.key(), *count - 1)
    };
    items.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::sample::{any_config, config, loopback};

    proptest! {
        #[test]
        fn applied_to_the_one_it_gives_the_other(a in any_config(), b in any_config()) {
            let diff = Diff::between(&a, &b);
            prop_assert_eq!(diff.apply(a), b);
        }

        #[test]
        fn a_configuration_does_not_differ_from_itself(a in any_config()) {
            let diff = Diff::between(&a, &a.clone());
            prop_assert!(diff.is_empty(), "{:?}", diff);
        }

        #[test]
        fn every_key_that_can_differ_is_one_of_the_schema(a in any_config(), b in any_config()) {
            for key in SettingsDiff::between(&a, &b).keys() {
                prop_assert!(schema::key(&key).is_some(), "{}", key);
            }
        }

        #[test]
        fn only_equal_configurations_do_not_differ(a in any_config(), b in any_config()) {
            prop_assert_eq!(Diff::between(&a, &b).is_empty(), a == b);
        }
    }

    #[test]
    fn keys_are_spelled_as_in_the_file_and_some_want_a_restart() {
        let a = config(&[], &[]);
        let mut b = a.clone();
        b.workers = 7;
        b.log.level = Level::Debug;
        b.admin.bind = AdminBind::Unix("x".into());
        let diff = SettingsDiff::between(&a, &b);
        assert_eq!(diff.keys(), ["workers", "admin.bind", "log.level"]);
        assert_eq!(diff.restart_keys(), ["workers"]);
    }

    #[test]
    fn a_socket_is_opened_when_neither_its_protocol_nor_its_address_was_there() {
        let a = config(&[("web", &[loopback(1), loopback(2)])], &[]);
        let b = config(&[("renamed", &[loopback(2), loopback(3)])], &[]);
        let key = |port| key(Protocol::Http, loopback(port));
        assert_eq!(opened(Some(&a), &b), [(key(3), "renamed".to_owned())]);
        let all: Vec<_> = opened(None, &a).into_iter().map(|(key, _)| key).collect();
        assert_eq!(all, [key(1), key(2)]);
        let mut udp = a.clone();
        udp.listeners[0].protocol = Protocol::Udp;
        assert_eq!(opened(Some(&a), &udp).len(), 2);
    }
}
