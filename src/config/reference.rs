//! The table of keys as a configuration file with every key in it.
//! What it writes must load; a test holds `config/reference.toml` against it.
//! Here the walk ends.

use std::fmt::Write as _;

use super::schema::{Default, KEYS, Key, Kind, split};

/// Which values the reference sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Defaults; a key without one is a comment with its example, unless the file needs it.
    Defaults,
    /// Examples.
    Examples,
}

/// What stands at the head of the file.
const HEAD: &str = "\
# weir: every key of the configuration.
#
# Above each key: what it is, its default, what a reload does about a change, and an example.
#   instant          holds for the next decision
#   new connections  holds for connections that are opened after the reload
#   rebind           sockets are opened or closed, the others stay
#   restart          is told in the log and waits for the next start
# A key after `#` has no default value, or belongs to another mode, and is not set here. Durations: \"250ms\", \"2s\", \"5m\", \"1h\"; sizes: \"512B\", \"64KiB\", \"1MiB\".
# This file is generated from the table of keys in src/config/keys.rs:
#   WEIR_REWRITE=1 cargo test --test config
";

/// Shown as their examples always: the keys of an http check could not stand beside the default, the route needs its pool, discovery its name, and scale a target.
const ALWAYS: [&str; 5] = [
    "pools.*.scale.target_in_flight",
    "pools.*.discovery.name",
    "pools.*.discovery.port",
    "pools.*.health.type",
    "routes[].pool",
];

/// Comments always: they could not stand beside the mode or the protocol that the reference has.
const OF_OTHER_MODES: [&str; 25] = [
    "pools.*.scale.target_sessions",
    "pools.*.scale.target_latency",
    "pools.*.scale.target_load",
    "pools.*.scale.webhook",
    "pools.*.fallback",
    "pools.*.max_connections",
    "pools.*.backends[].max_connections",
    "pools.*.discovery.path",
    "pools.*.discovery.url",
    "pools.*.discovery.interval",
    "pools.*.proxy_protocol",
    "pools.*.transparent",
    "listeners.*.max_flows",
    "pools.*.health.service",
    "pools.*.health.send",
    "routes[].sni",
    "routes[].alpn",
    "routes[].replies",
    "routes[].sticky.rebalance_idle",
    "routes[].sticky.rebalance_rate",
    "routes[].sticky.wait",
    "routes[].sticky.store",
    "routes[].sticky.header",
    "routes[].sticky.prefix_v4",
    "routes[].sticky.prefix_v6",
];

/// The keys of the filter that the reference has; those of other types are comments.
const OF_ITS_FILTER: [&str; 4] = ["type", "remove", "set", "add"];

/// Whether the key could not stand beside the others of the reference.
fn is_of_another(key: &Key) -> bool {
    let (parent, name) = split(key.path);
    OF_OTHER_MODES.contains(&key.path)
        || parent == "routes[].filters[]" && !OF_ITS_FILTER.contains(&name)
}

/// The reference as text.
pub fn reference(show: Show) -> String {
    let mut out = HEAD.to_owned();
    for key in KEYS {
        match key.kind {
            Kind::Table
            | Kind::Named
            | Kind::Tables
            | Kind::TextOrTables(_)
            | Kind::TextOrTable(_)
            | Kind::FlagOrTable => {
                table(&mut out, key);
            }
            _ => scalar(&mut out, key, show),
        }
    }
    out
}

/// Comments and header of a table; the short form of a value that may be a table is part of the comment.
fn table(out: &mut String, key: &Key) {
    out.push('\n');
    comment(out, key);
    let header = key
        .path
        .replace("listeners.*", "listeners.web")
        .replace("pools.*", "pools.was")
        .replace("[]", "");
    let _ = match key.kind {
        Kind::Named => return name_of_first(out, &header),
        Kind::Tables | Kind::TextOrTables(_) => writeln!(out, "[[{header}]]"),
        _ => writeln!(out, "[{header}]"),
    };
}

fn name_of_first(out: &mut String, header: &str) {
    let name = if header == "pools" { "was" } else { "web" };
    let _ = writeln!(out, "[{header}.{name}]");
}

fn scalar(out: &mut String, key: &Key, show: Show) {
    out.push('\n');
    comment(out, key);
    let (_, name) = split(key.path);
    let _ = match (show, key.default) {
        _ if is_of_another(key) => writeln!(out, "# {name} = {}", key.example),
        _ if ALWAYS.contains(&key.path) => writeln!(out, "{name} = {}", key.example),
        (Show::Defaults, Default::Is(value)) => {
            writeln!(out, "{name} = {value}")
        }
        (Show::Defaults, Default::Means(_)) => writeln!(out, "# {name} = {}", key.example),
        _ => writeln!(out, "{name} = {}", key.example),
    };
}

fn comment(out: &mut String, key: &Key) {
    let (_, name) = split(key.path);
    let _ = writeln!(out, "# {}", key.doc);
    let default = match key.default {
        Default::Required => "required".to_owned(),
        Default::Is(value) => format!("default: {value}"),
        Default::Means(meaning) => format!("default: {meaning}"),
    };
    let _ = write!(out, "#   {default}; reload: {}", key.reload.text());
    let _ = match key.example {
        "" => writeln!(out),
        example => writeln!(out, "; example: {name} = {example}"),
    };
}
