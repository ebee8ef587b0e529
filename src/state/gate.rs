//! What a listener asks before it lets anybody in: who it is, how many connections it has, how often it asks.
//! What is counted survives reloads under the listener's name; nothing here waits or costs a system call.
//! The walk goes on in `sources.rs` and `rate_limit.rs`, and in `l7/protect.rs`, which asks at the accept and before a route is looked for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::rate_limit::RateLimit;
use super::refusals::Refusals;
use super::sources::{Admission, Seat, Sources};
use crate::config::model;
use crate::policy::cidr::Access;

/// The gate of a listener.
#[derive(Debug, Default)]
pub struct Gate {
    /// Who may come in; absent: everybody.
    pub access: Option<Access>,
    /// How often an address may ask; absent: always.
    pub rate: Option<Arc<RateLimit>>,
    /// What it counts.
    pub counts: Arc<GateCounts>,
    most: usize,
    sources: Option<Arc<Sources>>,
}

/// What a gate counts beside its rate limit.
#[derive(Debug, Default)]
pub struct GateCounts {
    /// Connections and requests of addresses that may not come in.
    pub denied: Refusals,
    /// Connections of addresses that had as many as they may.
    pub connections: Refusals,
    /// Connections that did not begin with the PROXY header that they must begin with.
    pub strangers: Refusals,
    uncounted: AtomicU64,
}

/// Why a connection may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Its address may not.
    Denied,
    /// Its address has as many connections as it may.
    TooMany,
}

impl Gate {
    /// The gate of a listener, after the one that it had.
    pub fn new(from: &model::Listener, known: Option<&Gate>) -> Gate {
        let sources = || {
            known
                .and_then(|known| known.sources.clone())
                .unwrap_or_default()
        };
        let rates = known.and_then(|known| known.rate.as_ref());
        Gate {
            access: Access::new(&from.access),
            rate: (from.rate_limit.as_ref()).map(|rule| RateLimit::of(rule, rates.into_iter())),
            counts: known.map_or_else(Arc::default, |known| known.counts.clone()),
            most: from.max_connections_per_source,
            sources: (from.max_connections_per_source > 0).then(sources),
        }
    }

    /// Whether it asks anything of a connection.
    #[inline]
    pub fn asks(&self) -> bool {
        self.access.is_some() || self.sources.is_some()
    }

    /// Whether it counts connections by address.
    pub fn limits_connections(&self) -> bool {
        self.sources.is_some()
    }

    /// Lets a connection in, counted for as long as what this gives lives.
    ///
    /// # Errors
    /// When it may not come in.
    pub fn enter(&self, remote: IpAddr) -> Result<Option<Seat>, Closed> {
        if !self.permits(remote) {
            return Err(Closed::Denied);
        }
        let Some(sources) = &self.sources else {
            return Ok(None);
        };
        match sources.admit(remote, self.most) {
            Admission::Counted(seat) => Ok(Some(seat)),
            Admission::Uncounted => {
                self.counts.uncounted.fetch_add(1, Relaxed);
                Ok(None)
            }
            Admission::Refused => Err(Closed::TooMany),
        }
    }

    /// Whether an address may come in.
    #[inline]
    pub fn permits(&self, address: IpAddr) -> bool {
        (self.access.as_ref()).is_none_or(|access| access.permits(address))
    }
}

impl GateCounts {
    /// Connections that came in uncounted, since the table had no room.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.load(Relaxed)
    }
}
