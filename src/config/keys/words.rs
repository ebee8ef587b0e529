//! The words that keys of the configuration may have.
//! It holds data only; what a word means is for `lower/` to say.
//! The walk goes back to `keys.rs`, which uses it.

use crate::config::schema::Choice;

pub(in crate::config) const WATCH: Choice = words(&["auto", "poll", "off"]);
pub(in crate::config) const LEVEL: Choice = words(&["error", "warn", "info", "debug"]);
pub(in crate::config) const ACCESS_FORMAT: Choice = words(&["json", "combined"]);
pub(in crate::config) const PROTOCOL: Choice = words(&["http", "tcp", "udp"]);
pub(in crate::config) const PROXY_PROTOCOL: Choice = words(&["off", "accept", "require"]);
pub(in crate::config) const PROXY_VERSION: Choice = words(&["off", "v1", "v2"]);
pub(in crate::config) const PATH_CHECKS: Choice = words(&["strict", "off"]);
pub(in crate::config) const MODE: Choice = words(&[
    "insert",
    "cookie-hash",
    "route",
    "learn",
    "source",
    "header",
]);
pub(in crate::config) const SESSIONS: Choice = words(&["local", "replicated", "shared"]);
pub(in crate::config) const REBALANCE: Choice = words(&["off", "idle"]);
pub(in crate::config) const ON_FAILURE: Choice =
    words(&["temporary", "permanent", "wait", "error"]);
pub(in crate::config) const SAME_SITE: Choice = words(&["lax", "strict", "none"]);
pub(in crate::config) const SECURE: Choice = words(&["auto", "always", "never"]);
pub(in crate::config) const BALANCER: Choice = Choice {
    words: &[
        "round-robin",
        "least-connections",
        "least-sessions",
        "random-two",
        "peak-ewma",
        "hash source",
        "hash uri",
        "hash header:NAME",
        "hash cookie:NAME",
        "maglev",
    ],
    open: &["hash header:", "hash cookie:"],
};
pub(in crate::config) const TLS_VERSION: Choice = words(&["1.2", "1.3"]);
pub(in crate::config) const CLIENT_AUTH: Choice = words(&["off", "request", "require"]);
pub(in crate::config) const FILTER: Choice = words(&[
    "request-headers",
    "response-headers",
    "rewrite-path",
    "redirect",
    "respond",
    "request-id",
    "cors",
    "security-headers",
    "error-pages",
    "basic-auth",
    "access",
    "rate-limit",
    "compress",
]);
pub(in crate::config) const RETRY_ON: Choice = words(&["connect", "reset", "5xx", "timeout"]);
pub(in crate::config) const FRAME: Choice = words(&["sameorigin", "deny", "off"]);
pub(in crate::config) const REFERRER: Choice = words(&[
    "strict-origin-when-cross-origin",
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "unsafe-url",
    "off",
]);
pub(in crate::config) const ALGORITHM: Choice = words(&["zstd", "br", "gzip"]);
pub(in crate::config) const SCHEME: Choice = words(&["http", "https"]);
pub(in crate::config) const QUEUE_ORDER: Choice = words(&["fifo", "adaptive-lifo"]);
pub(in crate::config) const STATE: Choice = words(&["ready", "drain", "maint"]);
pub(in crate::config) const CHECK: Choice = words(&["tcp", "http", "grpc", "udp", "none"]);
pub(in crate::config) const POOL_PROTOCOL: Choice = words(&["http1", "http2"]);
pub(in crate::config) const DISCOVERY: Choice = words(&["dns", "file", "http"]);
pub(in crate::config) const RECORDS: Choice = words(&["auto", "a", "aaaa", "both", "srv"]);
pub(in crate::config) const INITIAL: Choice = words(&["probe", "up", "down"]);

const fn words(words: &'static [&'static str]) -> Choice {
    Choice { words, open: &[] }
}
