//! How a pool's backends are chosen for new work.
//! As everywhere in the model, no value here is one that a later step would have to refuse.
//! Here the walk ends; `policy/balance/` is made from it.

use std::fmt;

/// The algorithms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalancerKind {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Fewest requests in flight for its weight.
    LeastConnections,
    /// Fewest live sessions for its weight.
    LeastSessions,
    /// The less loaded of two drawn at random.
    RandomTwo,
    /// The one of two drawn at random whose answers take less time, for what it has in flight.
    PeakEwma,
    /// A consistent hash of what requests have in common, with bounded loads.
    Hash(HashKey),
    /// A fixed table that the client's address finds its place in.
    Maglev,
}

/// What requests that meet at one backend have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address; of IPv6 its first 64 bits.
    Source,
    /// Path and query.
    Uri,
    /// The value of this header, whose name is in lower case.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
}

impl BalancerKind {
    /// Whether it looks at what only a request has.
    pub fn needs_request(&self) -> bool {
        matches!(
            self,
            BalancerKind::Hash(HashKey::Uri | HashKey::Header(_) | HashKey::Cookie(_))
        )
    }
}

impl fmt::Display for BalancerKind {
    /// As the file spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BalancerKind::RoundRobin => f.write_str("round-robin"),
            BalancerKind::LeastConnections => f.write_str("least-connections"),
            BalancerKind::LeastSessions => f.write_str("least-sessions"),
            BalancerKind::RandomTwo => f.write_str("random-two"),
            BalancerKind::PeakEwma => f.write_str("peak-ewma"),
            BalancerKind::Hash(HashKey::Source) => f.write_str("hash source"),
            BalancerKind::Hash(HashKey::Uri) => f.write_str("hash uri"),
            BalancerKind::Hash(HashKey::Header(name)) => write!(f, "hash header:{name}"),
            BalancerKind::Hash(HashKey::Cookie(name)) => write!(f, "hash cookie:{name}"),
            BalancerKind::Maglev => f.write_str("maglev"),
        }
    }
}
