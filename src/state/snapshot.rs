//! The immutable compiled configuration of one generation, shared by every worker.
//! Nothing in it changes after the publish but the live words that it points to.
//! The walk goes on in `compile.rs`, which makes it, and `worker.rs`, which serves from it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::backend::{Backend, Epoch};
use super::door::Door;
use super::flights::Flights;
use super::gate::Gate;
use super::live_sessions::LiveSessions;
use super::retries::Retries;
use super::route_limits::RouteLimits;
use super::standing::Turn;
use super::store::StoreEnd;
use super::tls::{ListenerTls, PoolTls, TlsFile};
use super::waiting::Waiting;
use crate::config::model::{
    self, AdminState, BalancerKind, Config, PathChecks, PoolProtocol, Protocol, ProxyProtocol,
    ProxyVersion, Queue, Retry, Timeouts,
};
use crate::policy::balance::Shared;
use crate::policy::canary::Share;
use crate::policy::filter::{Files, Filters};
use crate::policy::health::Health;
use crate::policy::health::passive::{Standing, is_panic};
use crate::policy::persist::Sticky;
use crate::policy::rebalance::Moves;
use crate::policy::rendezvous::Rendezvous;
use crate::policy::route::Router;

/// One generation.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number, from 1.
    pub generation: u64,
    /// What it was compiled from.
    pub config: Arc<Config>,
    /// Whether connections close after their next answer, because an operator lets the process drain; control says so.
    pub leaving: bool,
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// In the order of the file.
    pub routes: Vec<Route>,
    /// Chooses among `routes`.
    pub router: Router,
    /// In the order of the file; after them one without backends, where routes lead whose filters answer.
    pub pools: Vec<Pool>,
    /// What is in the files that filters name; control reads them.
    pub files: Arc<Files>,
    /// The files behind TLS; control gives them.
    pub tls_files: Vec<TlsFile>,
}

/// What identifies a bound socket from one generation to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerKey {
    /// What is spoken there.
    pub protocol: ProtocolKey,
    /// Where.
    pub address: SocketAddr,
}

/// The protocol as part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProtocolKey {
    /// A stream socket.
    Stream,
    /// A datagram socket.
    Datagram,
}

/// A listener as one generation sees it.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Its sockets.
    pub keys: Vec<ListenerKey>,
    /// Those that it would have if it did not drain; control moves them here.
    pub drained: Vec<ListenerKey>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Connections at once over all workers; `usize::MAX`: no limit.
    pub max_connections: usize,
    /// What becomes of PROXY headers.
    pub proxy_protocol: ProxyProtocol,
    /// Flows of datagrams at once over all workers.
    pub max_flows: usize,
    /// Whether ambiguous paths are refused.
    pub path_checks: PathChecks,
    /// Whether HTTP/2 is spoken too.
    pub http2: bool,
    /// Whether a route looks at what a client says before TLS that weir passes through.
    pub peeks: bool,
    /// What TLS is spoken with, where it is; control gives it.
    pub tls: Option<ListenerTls>,
    /// Open connections over all workers; survives reloads under the same name.
    pub connections: Arc<AtomicUsize>,
    /// Whom it lets in; what it counts survives reloads under the same name.
    pub gate: Gate,
}

/// A route as one generation sees it.
#[derive(Debug)]
pub struct Route {
    /// Its label.
    pub name: Arc<str>,
    /// Its place in the file. Ways to other pools than its own follow after all routes of the file; see `ways.rs`.
    pub file: usize,
    /// Ordinal of its pool.
    pub pool: usize,
    /// The way that a part of its clients takes.
    pub canary: Option<Split>,
    /// The way that takes over while none of its pool's backends may be chosen.
    pub fallback: Option<usize>,
    /// Of a file's route: the other ways that its requests may take.
    pub others: Box<[usize]>,
    /// Its steps; absent: requests and answers pass as they are.
    pub filters: Option<Box<Filters>>,
    /// Where those of its filters ask that ask for a password; control gives them.
    pub doors: Vec<Arc<Door>>,
    /// The rate limits among them; what they count survives reloads that say the same.
    pub limits: RouteLimits,
    /// Keeps a client where it is; absent: not sticky.
    pub sticky: Option<Sticky>,
    /// Where what it learns of sessions is shared; control gives it.
    pub store: Option<Arc<StoreEnd>>,
    /// Every wait of its requests.
    pub timeouts: Timeouts,
    /// When its requests are tried again, beyond what always is.
    pub retry: Option<Retry>,
    /// On udp listeners: datagrams that answer one of a client's.
    pub replies: Option<u32>,
    /// Bytes a request body may have; `u64::MAX`: no limit.
    pub max_body: u64,
}

/// A part of a route's clients that takes another way.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    /// How many of them.
    pub share: Share,
    /// The ordinal of the way.
    pub way: usize,
}

impl Route {
    /// The files of users of its doors, in their order.
    pub fn users_files(&self) -> impl Iterator<Item = &Path> {
        self.filters
            .iter()
            .flat_map(|filters| filters.users_files())
    }
}

/// A pool as one generation sees it.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// What its backends speak.
    pub protocol: PoolProtocol,
    /// Which algorithm; the workers hold its state.
    pub balancer: BalancerKind,
    /// What header a connection to a backend begins with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Whether connections to backends come from their clients' addresses.
    pub transparent: bool,
    /// Idle upstream connections kept per worker and backend.
    pub max_idle: usize,
    /// How long a backend that came up takes to its full share of new clients.
    pub slow_start: Option<Duration>,
    /// How long work waits that no backend may take, and how much of it may.
    pub queue: Queue,
    /// Who waits; survives reloads under the same name.
    pub waiting: Arc<Waiting>,
    /// Whether one of its backends has a limit.
    pub is_limited: bool,
    /// In the order of the file.
    pub backends: Vec<Backend>,
    /// The backends, ranked for every client by name and weight.
    pub ring: Rendezvous,
    /// What the workers share of its balancer.
    pub shared: Shared,
    /// Advances when the state of one of its backends changes; survives reloads under the same name.
    pub epoch: Arc<Epoch>,
    /// New clients under way, if a route to the pool wants them found; survive reloads under the same name.
    pub flights: Option<Arc<Flights>>,
    /// How many clients moved of late to even out; survives reloads under the same name.
    pub moves: Arc<Moves>,
    /// What of the traffic is held against its backends; absent: nothing.
    pub passive: Option<Passive>,
    /// Requests of it that are being tried again by the rules of their routes; survives reloads under the same name.
    pub retries: Arc<Retries>,
    /// What TLS is spoken to its backends with, where it is; control gives it.
    pub tls: Option<PoolTls>,
    /// Its live sessions, which survive reloads; absent where no route to it is sticky.
    pub sessions: Option<LiveSessions>,
}

/// What ejects a backend of a pool.
#[derive(Debug)]
pub struct Passive {
    /// The rules of the file.
    pub rules: model::Passive,
    /// Whose it is to eject one; survives reloads under the same name.
    pub turn: Arc<Turn>,
}

impl Pool {
    /// Whether ejections are heeded: enough backends are left without those that are ejected.
    pub fn heeds_ejections(&self) -> bool {
        let Some(passive) = &self.passive else {
            return false;
        };
        let ready = self
            .backends
            .iter()
            .filter(|own| own.admin() == AdminState::Ready);
        let left = ready.clone().filter(|own| {
            own.live.health() != Health::Down && own.live.record().standing() != Standing::Ejected
        });
        !is_panic(&passive.rules, ready.count(), left.count())
    }

    /// Whether a connection to a backend speaks for one client, by its PROXY header or its address, and so serves one request only.
    #[inline]
    pub fn is_personal(&self) -> bool {
        self.proxy_protocol.is_some() || self.transparent
    }
}
