//! The typed configuration: what a valid `weir.toml` says, with every default filled in and every name resolved to text.
//! It never holds a value that a later step would have to refuse, and knows no span, socket or file handle.
//! The walk goes on in `state/compile.rs`, which turns it into a snapshot.

mod balancer;
mod canary;
mod cidr;
mod discovery;
mod filters;
mod passive;
mod protection;
mod proxy_protocol;
mod queue;
mod retry;
mod scale;
mod sticky;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use balancer::{BalancerKind, HashKey};
pub use canary::{Canary, pools_of};
pub use cidr::Cidr;
pub use discovery::{Discovery, Dns, HttpList, HttpPlace, Records};
pub use filters::{
    Algorithm, BasicAuth, Compress, Cors, ErrorPage, Filter, HeaderEdits, MAX_REGEX, Origins, Part,
    Piece, Redirect, Respond, Rewrite, Scheme, SecurityHeaders, Template, Variable,
};
pub use passive::Passive;
pub use protection::{Access, LimitKey, Rate, RateLimit};
pub use proxy_protocol::{ProxyProtocol, ProxyVersion};
pub use queue::{BackendLimits, Queue, QueueOrder};
pub use retry::{Retry, RetryOn};
pub use scale::{Actor, Scale, Target};
pub use sticky::{
    Cookie, InsertTimes, OnFailure, Rebalance, SameSite, Secure, Sessions, Sticky, StickyMode,
    Store,
};
pub use tls::{CertificateFiles, ClientAuth, ListenerTls, PoolTls, TlsVersion};

/// One whole, valid configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data-plane threads; 0 means one per core that the process may use.
    pub workers: usize,
    /// Where kept states and secrets live.
    pub state_dir: PathBuf,
    /// Base64 secrets, one a line; the first seals, all open. Absent: one is made and kept in `state_dir`.
    pub secrets_file: Option<PathBuf>,
    /// Networks whose forwarding headers and PROXY headers are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// How long a stopping process may finish what is open. A reload needs no such bound: requests at a removed backend, and
    /// those on connections of a removed listener, end as they would have.
    pub drain_timeout: Duration,
    /// How long a stopping process still accepts after `/readyz` began to fail.
    pub drain_delay: Duration,
    /// How a change of the file is noticed.
    pub watch: Watch,
    /// Defaults for every route.
    pub timeouts: Timeouts,
    /// What a request head may be.
    pub limits: Limits,
    /// What a client may ask of an HTTP/2 connection.
    pub http2: Http2,
    /// Bytes of a request body that a client must send in a second on the average, after a while; 0: no matter how few.
    pub min_body_rate: u64,
    /// Opt-in forwarding headers.
    pub forwarding: Forwarding,
    /// The admin server.
    pub admin: Admin,
    /// The process log and the access log.
    pub log: Log,
    /// Bounds of the exported metrics.
    pub metrics: Metrics,
    /// In file order.
    pub listeners: Vec<Listener>,
    /// In file order.
    pub routes: Vec<Route>,
    /// In file order.
    pub pools: Vec<Pool>,
}

/// How a change of the file is noticed; SIGHUP and the API work in every mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// File-system events, with a stat every 5 s beside them.
    Auto,
    /// The stat alone.
    Poll,
    /// Neither.
    Off,
}

/// Every wait of a request, each bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A request head must be complete this long after its first byte (the first of a connection: after the accept).
    pub header: Duration,
    /// Between bytes of a request body.
    pub body_idle: Duration,
    /// A client connection between requests.
    pub keep_alive: Duration,
    /// One connection attempt toward a backend.
    pub connect: Duration,
    /// From the request written to the first byte of the answer.
    pub response: Duration,
    /// Between bytes of an answer, in either direction of it.
    pub response_idle: Duration,
    /// Between bytes of a connection that was switched to another protocol, in either direction.
    pub upgrade_idle: Duration,
    /// Between datagrams of one client of a udp listener, in either direction.
    pub udp_idle: Duration,
    /// A pooled upstream connection without a request.
    pub upstream_idle: Duration,
}

/// What a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request or answer head, and of a trailer section.
    pub head: usize,
    /// Field lines of a head or trailer section.
    pub header_lines: usize,
}

/// What a client may ask of one HTTP/2 connection; what has no unit is a number of frames in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Requests at once.
    pub streams: u32,
    /// Bytes of request bodies on their way or waiting.
    pub window: u32,
    /// RST_STREAM.
    pub resets: u32,
    /// PING.
    pub pings: u32,
    /// SETTINGS.
    pub settings: u32,
    /// Frames that carry nothing.
    pub empty_frames: u32,
    /// CONTINUATION.
    pub continuations: u32,
}

/// Forwarding headers beside the `X-Forwarded-*` that are always written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Write `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// Write `Via` (RFC 9110 section 7.6.3) on requests and answers.
    pub via: bool,
}

/// The admin server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub bind: AdminBind,
    /// A file with the bearer token that the API asks for off loopback and unix sockets.
    pub token_file: Option<PathBuf>,
}

/// An admin address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// `IP:port`.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl fmt::Display for AdminBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminBind::Tcp(address) => address.fmt(f),
            AdminBind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important line that is written.
    pub level: Level,
    /// Where access-log lines go.
    pub access: AccessTarget,
    /// How they look.
    pub access_format: AccessFormat,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed and needs someone.
    Error,
    /// Something is wrong and weir copes.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
}

/// Where access-log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, reopened on SIGHUP.
    File(PathBuf),
}

/// How access-log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line.
    Json,
    /// The NCSA combined format.
    Combined,
}

/// Bounds of the exported metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Label sets that may exist at once; later ones are counted in `other`.
    pub max_series: usize,
}

/// Bound addresses and a protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `[a-z0-9_-]+`.
    pub name: String,
    /// At least one; no address twice in a file.
    pub bind: Vec<SocketAddr>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Connections at once over all workers; 0: no limit but the process's descriptors. Above it, accepting pauses.
    pub max_connections: usize,
    /// The same for each client address; 0: no limit. Above it, connections are closed.
    pub max_connections_per_source: usize,
    /// Flows of datagrams at once over all workers.
    pub max_flows: usize,
    /// How often each client may ask.
    pub rate_limit: Option<RateLimit>,
    /// Who may connect.
    pub access: Access,
    /// What becomes of PROXY headers.
    pub proxy_protocol: ProxyProtocol,
    /// Whether ambiguous paths are refused.
    pub path_checks: PathChecks,
    /// Whether HTTP/2 is spoken too.
    pub http2: bool,
    /// How TLS is spoken; absent: it is not.
    pub tls: Option<ListenerTls>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// As the file spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Whether a path that servers read differently is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChecks {
    /// Dot segments, encoded slashes, NUL and bad escapes are answered 400.
    Strict,
    /// They pass, and match as written.
    Off,
}

/// A match and where it leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The `route` label: the given name, or the match as text.
    pub name: String,
    /// Names of listeners of one protocol; resolved: an omitted key lists every one of the protocol that the route is for.
    pub listeners: Vec<String>,
    /// Exact names and `*.` suffixes, lower case; empty: any host.
    pub hosts: Vec<String>,
    /// Path prefix in normal form, beginning with `/`; `/` when omitted.
    pub path: String,
    /// Upper-case methods; empty: any.
    pub methods: Vec<String>,
    /// All must hold.
    pub headers: Vec<HeaderMatch>,
    /// On tcp listeners: exact names and `*.` suffixes that a TLS client asks for, lower case; empty: any connection.
    pub sni: Vec<String>,
    /// On tcp listeners: protocols, one of which a TLS client offers; empty: any connection.
    pub alpn: Vec<String>,
    /// Name of a pool that exists; empty: it leads nowhere, since its filters answer.
    pub pool: String,
    /// A part of its clients that another pool serves; absent: none.
    pub canary: Option<Canary>,
    /// In the order written.
    pub filters: Vec<Filter>,
    /// Absent: not sticky.
    pub sticky: Option<Sticky>,
    /// On udp listeners: datagrams that answer one of a client's; `None`: any number.
    pub replies: Option<u32>,
    /// Bytes a request body may have; `None`: no limit.
    pub max_body: Option<u64>,
    /// The file's timeouts with the route's own over them.
    pub timeouts: Timeouts,
    /// When its requests are tried again, beyond what always is.
    pub retry: Option<Retry>,
}

/// A condition on a request header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Field name, lower case.
    pub name: String,
    /// The whole value that one of the field's lines must have; `None`: the field is present.
    pub value: Option<String>,
}

/// A named set of backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// `[a-z0-9_-]+`.
    pub name: String,
    /// What its backends speak.
    pub protocol: PoolProtocol,
    /// Chooses for new work.
    pub balancer: BalancerKind,
    /// With a hash: how far above its part of what is in flight a backend may be, as a part of that.
    pub balance_factor: f64,
    /// What header a connection to a backend begins with; absent: none.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Whether connections to backends come from their clients' addresses.
    pub transparent: bool,
    /// Idle upstream connections kept per worker and backend.
    pub max_idle: usize,
    /// How long a backend that came up takes to its full share of new clients; absent: it has it at once.
    pub slow_start: Option<Duration>,
    /// Live sessions that are kept count of.
    pub max_sessions: usize,
    /// What becomes of work while all backends have as much as they may have.
    pub queue: Queue,
    /// How much each backend may have that does not say so itself, as those that are discovered.
    pub limits: BackendLimits,
    /// The pool that takes over while none of its backends may be chosen; absent: none does.
    pub fallback: Option<String>,
    /// At least one, unless they are discovered; names and addresses are unique within the pool.
    pub backends: Vec<Backend>,
    /// Where more of them come from; absent: from nowhere.
    pub discovery: Option<Discovery>,
    /// How many there should be; absent: as many as there are.
    pub scale: Option<Scale>,
    /// The active check.
    pub health: Health,
    /// What of the traffic is held against a backend; absent: nothing.
    pub passive: Option<Passive>,
    /// How TLS is spoken to the backends; absent: it is not.
    pub tls: Option<PoolTls>,
}

/// What backends speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by prior knowledge, or by ALPN where TLS is spoken.
    Http2,
}

/// One server address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Printable ASCII without `/` or blanks; default: the address as text.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What its session ids end in, for the sticky mode `route`; default: its name. Unique within the pool.
    pub route: String,
    /// Share of new work, 1 to 256.
    pub weight: u16,
    /// What the operator wants of it.
    pub state: AdminState,
    /// Whether it serves only where no other can.
    pub backup: bool,
    /// How much it may have at once.
    pub limits: BackendLimits,
    /// Whether the pool's discovery named it, and not the file.
    pub discovered: bool,
}

/// Administrative state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminState {
    /// Takes new work.
    Ready,
    /// Keeps the clients it has, takes no new ones.
    Drain,
    /// Takes nothing.
    Maint,
}

impl AdminState {
    /// Every state.
    pub const ALL: [AdminState; 3] = [AdminState::Ready, AdminState::Drain, AdminState::Maint];

    /// As the file, the API and the command line spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            AdminState::Ready => "ready",
            AdminState::Drain => "drain",
            AdminState::Maint => "maint",
        }
    }

    /// The state of this spelling.
    pub fn from_word(word: &str) -> Option<AdminState> {
        AdminState::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// The active check of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// Between the starts of two checks of one backend; spread by up to a tenth. Until one has passed, at most half a second.
    pub interval: Duration,
    /// The same while the last outcome speaks against the backend's health; a longer one than `interval` has no effect.
    pub fast_interval: Option<Duration>,
    /// After this a check has failed.
    pub timeout: Duration,
    /// Failures in a row until `down`.
    pub fall: u32,
    /// Successes in a row until `up`; the first success of all is enough.
    pub rise: u32,
    /// The state before the first verdict.
    pub initial: Initial,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Nothing: the backend counts as up.
    None,
    /// A connection is accepted, and answered where something is expected.
    Tcp {
        /// What is sent; empty: nothing.
        send: Vec<u8>,
        /// What the answer begins with; empty: none is waited for.
        expect: Vec<u8>,
    },
    /// A GET.
    Http {
        /// Whether it is asked over HTTP/2, as the pool's backends are.
        http2: bool,
        /// Origin-form target.
        path: String,
        /// `Host` field; default: the backend's address.
        host: Option<String>,
        /// Status codes that mean health, as inclusive ranges.
        expect: Vec<(u16, u16)>,
        /// Status codes by which a backend asks to be drained, as inclusive ranges; they mean health too.
        drain_on: Vec<(u16, u16)>,
        /// Text that the body of a healthy answer has in it; absent: any body will do.
        body: Option<String>,
        /// The header of a healthy answer that says how busy the backend is, in lower case; absent: none does.
        load_header: Option<String>,
    },
    /// A call of the gRPC health service, version 1.
    Grpc {
        /// The service that is asked for; empty: the server as a whole.
        service: String,
        /// `:authority` of the call; default: the backend's address.
        host: Option<String>,
    },
    /// A datagram that is answered.
    Udp {
        /// What is sent.
        send: Vec<u8>,
        /// What the answer begins with; empty: any will do.
        expect: Vec<u8>,
    },
}

impl Check {
    /// That a connection is accepted, and no more.
    pub const CONNECT: Check = Check::Tcp {
        send: Vec::new(),
        expect: Vec::new(),
    };
}

/// The state before the first verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// `unknown`: chosen only while the pool has no `up` backend; the first verdict decides.
    Probe,
    /// `up`.
    Up,
    /// `down`.
    Down,
}
