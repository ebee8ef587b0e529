//! What happened in stories, so that a story in which nothing happens is noticed.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<&'static str, u64>);

/// What must happen in a run.
const EXPECTED: &[&str] = &[
    "answered",
    "client gave up",
    "clock put back",
    "clock put forward",
    "census",
    "drain",
    "expired",
    "forged",
    "held",
    "home down",
    "kept",
    "lost",
    "maint",
    "moved",
    "new",
    "no backend",
    "not sticky",
    "ready",
    "reload",
    "retried after a closed connection",
    "retried after a failed connect",
    "returned",
    "server died",
    "server lies",
    "server restarted",
    "session over",
    "slept",
    "storm",
];

impl Tally {
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub fn expect_everything(&self) {
        let missing: Vec<_> = EXPECTED
            .iter()
            .filter(|what| !self.0.contains_key(**what))
            .collect();
        assert!(missing.is_empty(), "it never happened: {missing:?}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.iter().map(|(what, count)| format!("{what} {count}"));
        f.write_str(&told.collect::<Vec<_>>().join(", "))
    }
}
