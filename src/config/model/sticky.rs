//! How a route is sticky, as a valid file says it.
//! Secrets of a store are in it, and never shown.
//! The walk goes on in `policy/persist/`.

use std::fmt;
use std::time::Duration;

/// Keeps a client on the backend it already has.
#[derive(Clone, Debug, PartialEq)]
pub struct Sticky {
    /// What the client is known by.
    pub mode: StickyMode,
    /// Where the application keeps its sessions.
    pub sessions: Sessions,
    /// What happens while a home cannot serve.
    pub on_failure: OnFailure,
    /// No new client goes to a backend with more live sessions than its part of them, and so much of that besides.
    pub balance_factor: f64,
    /// Whether parallel first requests of one address and user agent go to one backend.
    pub first_flight: bool,
    /// How idle clients get another home to even out; absent: they do not.
    pub rebalance: Option<Rebalance>,
    /// Name of the cookie that holds the application's session id.
    pub session_cookie: String,
    /// Without a request for so long, a session has ended.
    pub idle_timeout: Duration,
    /// weir's own cookie; the defaults in a mode without one.
    pub cookie: Cookie,
}

/// How clients move from backends with more than their part of the live sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// Only a client moves whose session was idle for so long.
    pub idle: Duration,
    /// At most so many of a pool move in a second.
    pub rate: u32,
}

/// What a client is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyMode {
    /// weir's own sealed cookie, which names the backend.
    Insert(InsertTimes),
    /// weir's own random, authenticated cookie; its consistent hash names the backend.
    CookieHash,
    /// The route suffix of the application's session id.
    Route,
    /// The application's session id, whose backend weir remembers.
    Learn {
        /// A session is forgotten so long after it was opened; absent: never.
        absolute_timeout: Option<Duration>,
        /// Where several weirs share what they learn; absent: nowhere.
        store: Option<Store>,
    },
    /// The client's address, as far as its prefix.
    Source {
        /// Bits of an IPv4 address that count, at most 32.
        prefix_v4: u8,
        /// Bits of an IPv6 address that count, at most 128.
        prefix_v6: u8,
    },
    /// A request header.
    Header {
        /// Field name, lower case.
        name: String,
    },
}

impl StickyMode {
    /// Whether a client's new home can be written down, in a cookie of weir's or in its memory.
    pub fn can_move(&self) -> bool {
        matches!(
            self,
            StickyMode::Insert(_) | StickyMode::CookieHash | StickyMode::Learn { .. }
        )
    }
}

/// A Redis server that several weirs share.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Store {
    /// Its name or IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Number of the database in it.
    pub database: u32,
    /// Who weir is there; absent: the default user.
    pub user: Option<String>,
    /// What it shows for it.
    pub password: Option<String>,
}

impl Store {
    /// What may be shown of it: its address and database.
    pub fn label(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        format!("redis://{host}:{}/{}", self.port, self.database)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Store({})", self.label())
    }
}

/// How long the cookie of `insert` holds beside its idle timeout, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertTimes {
    /// A client is forgotten so long after it came first; absent: never.
    pub absolute_timeout: Option<Duration>,
    /// A client that is away from home for so long stays where it is.
    pub rehome_after: Duration,
}

/// Where the application keeps its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// In the memory of one server.
    Local,
    /// In the memory of several servers, which copy them to one another.
    Replicated,
    /// In a store apart from the servers.
    Shared,
}

/// What happens to a client while its home cannot serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It goes to its successor, and home again later.
    Temporary,
    /// Its successor becomes its home.
    Permanent,
    /// Its requests are held for so long, in case its home comes back; then as with [`OnFailure::Temporary`].
    Wait(Duration),
    /// It is answered 503.
    Error,
}

/// How weir's own cookie is written (RFC 6265 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Cookie name; default `weir_` and the pool's name.
    pub name: String,
    /// `Path` attribute.
    pub path: String,
    /// `Domain` attribute.
    pub domain: Option<String>,
    /// `SameSite` attribute.
    pub same_site: SameSite,
    /// `HttpOnly` attribute.
    pub http_only: bool,
    /// `Secure` attribute.
    pub secure: Secure,
    /// `Max-Age` attribute; absent: a session cookie.
    pub max_age: Option<Duration>,
}

/// `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `Strict`.
    Strict,
    /// `Lax`.
    Lax,
    /// `None`; browsers want `Secure` with it.
    None,
}

/// When a cookie carries `Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// When the client came by TLS, or a trusted proxy says so.
    Auto,
    /// On every answer.
    Always,
    /// Never.
    Never,
}
