//! What protects listeners and routes: who may come in, and how often.
//! As everywhere in the model, no value here is one that a later step would have to refuse.
//! Here the walk ends; `state/gate.rs` and `state/rate_limit.rs` are made from it.

use std::fmt;
use std::time::Duration;

use super::Cidr;

/// Who may come in, by address: who is denied may not; where somebody is allowed, nobody else may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Empty: everybody who is not denied.
    pub allow: Vec<Cidr>,
    /// Comes before `allow`.
    pub deny: Vec<Cidr>,
}

/// How often something may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many in the long run.
    pub rate: Rate,
    /// How many at once, after a rest.
    pub burst: u32,
    /// Who is counted together.
    pub key: LimitKey,
    /// Bits of an IPv4 address that count, at most 32.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that count, at most 128.
    pub prefix_v6: u8,
    /// Keys that are told apart at once.
    pub max_keys: usize,
}

impl RateLimit {
    /// As metrics and logs call it: `10/s source`.
    pub fn label(&self) -> String {
        format!("{} {}", self.rate, self.key)
    }
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least one.
    pub count: u32,
    /// A second, a minute or an hour.
    pub period: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            3600 => "h",
            60 => "m",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// Who is counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// Clients of one address, as far as the prefix.
    Source,
    /// Requests with the same value of this header, whose name is in lower case.
    Header(String),
    /// Requests with the same value of this cookie.
    Cookie(String),
    /// All requests.
    Route,
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitKey::Source => f.write_str("source"),
            LimitKey::Header(name) => write!(f, "header:{name}"),
            LimitKey::Cookie(name) => write!(f, "cookie:{name}"),
            LimitKey::Route => f.write_str("route"),
        }
    }
}
