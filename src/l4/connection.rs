//! THE function of layer 4: what the client says, route, backend, connection, bytes, the line in the log, on one screen.
//! It reads nothing of what it passes on, and decides nothing itself: decisions are in `policy/`.
//! The walk goes on in `hello.rs` (what a client says first), `choice.rs` (a backend), `link.rs` (the bytes) and `record.rs`.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::link::Link;
use super::queue::Patience;
use super::record::Story;
use super::way::way;
use crate::clock;
use crate::config::model::{BalancerKind, ProxyVersion};
use crate::metrics::relays::Ended;
use crate::net::backlog::Backlog;
use crate::net::introduction::{Introduction, Outgoing, ends_toward};
use crate::net::is_short;
use crate::net::proxy_protocol::Transport;
use crate::net::relay::Relay;
use crate::net::stream::Stream;
use crate::net::timer::Timer;
use crate::net::tls::handshake::{Handshake, Refusal};
use crate::policy::balance::BackendIndex;
use crate::policy::health::passive::{Fault, Verdict};
use crate::policy::retry::{self, MAX_RETRIES};
use crate::state::backend::{Backend, ConnectionLease};
use crate::state::snapshot::{Pool, Route};
use crate::upstream::connect::connect;
use crate::upstream::generation::Generation;
use crate::upstream::local::{ListenerView, Local};
use crate::upstream::{admission, handshake, verdict};

/// A client connection whose bytes are passed on.
#[derive(Debug)]
pub struct Connection {
    pub(super) client: Stream,
    /// Its one deadline.
    pub(super) timer: Timer,
    pub(super) local: Rc<Local>,
    pub(super) view: Rc<ListenerView>,
    pub(super) remote: SocketAddr,
    /// What a trusted proxy before it said of it.
    pub introduction: Option<Rc<Introduction>>,
    /// What was read of it before there was a backend.
    pub early: Vec<u8>,
    pub(super) story: Story,
    /// The side of its backend, once it has one.
    pub(super) link: Option<Link>,
}

impl Connection {
    /// A connection that was just accepted; where its listener speaks TLS, that has begun.
    pub fn new(
        client: Stream,
        remote: SocketAddr,
        local: Rc<Local>,
        view: Rc<ListenerView>,
    ) -> Self {
        let listener = {
            let generation = view.generation();
            generation.snapshot.listeners[view.listener()].name.clone()
        };
        Connection {
            client,
            timer: local.wheel.timer(),
            story: Story::begin(local.clone(), remote.ip().to_canonical(), listener),
            local,
            view,
            remote,
            introduction: None,
            early: Vec::new(),
            link: None,
        }
    }

    /// Serves the connection to its end. By reference, because a future that takes a value by `self` holds it twice.
    pub async fn serve(&mut self) {
        // The way to a backend is boxed, so that a connection that has one does not carry it.
        match Box::pin(self.establish()).await {
            Ok(()) => self.story.ended = poll_fn(|cx| self.poll_link(cx)).await,
            Err(failure) => {
                self.story.ended = Ended::Failed;
                self.story.failure = Some(failure);
            }
        }
    }

    /// Hello → gate → route → backend → connection.
    async fn establish(&mut self) -> Result<(), Failure> {
        self.listen().await?;
        let (generation, listener) = (self.view.generation(), self.view.listener());
        self.story.count_at(&generation, listener, None, None);
        self.ask_gate(&generation, listener)?;
        let snapshot = &*generation.snapshot;
        let facts = self.story.facts(listener);
        let taken = snapshot.router.route(&facts).ok_or(Failure::NoRoute)?;
        let mut route = way(&self.local, snapshot, taken, &facts);
        let (backend, lease) = loop {
            match self.reach(&generation, listener, route).await {
                Err(Failure::NoBackend) if snapshot.routes[route].fallback.is_some() => {
                    route = snapshot.routes[route].fallback.unwrap_or(taken);
                }
                reached => break reached?,
            }
        };
        let mut early = Backlog::default();
        early.push(&self.early);
        self.local.buffers.put(std::mem::take(&mut self.early));
        let idle = generation.snapshot.routes[route].timeouts.upgrade_idle;
        self.link = Some(Link {
            backend,
            relay: Relay::new(early, Backlog::default(), idle),
            lease,
            generation: generation.snapshot.generation,
            until: None,
        });
        Ok(())
    }

    /// Asks whether the client may open one more connection. A trusted proxy opens them for others.
    fn ask_gate(&self, generation: &Generation, listener: usize) -> Result<(), Failure> {
        let snapshot = &*generation.snapshot;
        let Some(limit) = &snapshot.listeners[listener].gate.rate else {
            return Ok(());
        };
        let (client, now) = (self.story.client, self.story.started);
        if admission::is_trusted(client, &snapshot.config.trusted_proxies)
            || limit.take_connection(client, now).is_none()
        {
            return Ok(());
        }
        let name = &snapshot.listeners[listener].name;
        admission::tell(&limit.refusals, now, || {
            format!(
                "listener {name}: {client} is over the limit of {}",
                limit.label
            )
        });
        Err(Failure::Limited)
    }

    /// Connects to a backend of the route's pool; one that does not take the connection is left for another.
    async fn reach(
        &mut self,
        generation: &Rc<Generation>,
        listener: usize,
        ordinal: usize,
    ) -> Result<(Stream, ConnectionLease), Failure> {
        let route = &generation.snapshot.routes[ordinal];
        let pool = &generation.snapshot.pools[route.pool];
        let counts = generation.route_counts(&self.local.rows, ordinal);
        self.story.route = Some(route.name.clone());
        self.story.pool = Some(pool.name.clone());
        let mut tried: Vec<BackendIndex> = Vec::new();
        let mut patience = Patience::default();
        loop {
            let (choice, lease) = self
                .seat(generation, (listener, route), &tried, &mut patience)
                .await?;
            let backend = &pool.backends[choice.backend.index()];
            self.story.backend = Some(backend.name.clone());
            self.story.tries += 1;
            self.story
                .count_at(generation, listener, Some(ordinal), Some(choice.backend));
            let began = (pool.balancer == BalancerKind::PeakEwma).then(clock::now);
            let connected = self.connect(route, pool, backend).await;
            if !matches!(connected, Err(Failure::NoSocket)) {
                note_latency(backend, began, connected.is_ok());
            }
            let failure = match connected {
                Ok(stream) => {
                    verdict::take(pool, backend, Verdict::Good);
                    self.story.failure = None;
                    self.story.keep(choice.sticky, counts);
                    return Ok((stream, lease));
                }
                Err(failure) => failure,
            };
            // What weir itself is short of is nobody's fault.
            if failure != Failure::NoSocket {
                verdict::take(pool, backend, Verdict::Error(Fault::Connect));
            }
            if tried.len() == usize::from(MAX_RETRIES) {
                return Err(failure);
            }
            self.story.failure = Some(failure);
            tried.push(choice.backend);
            counts.retries[retry::Failure::Connect as usize].increment();
        }
    }

    /// Connects to one backend within the route's time, the handshake of TLS included.
    async fn connect(
        &mut self,
        route: &Route,
        pool: &Pool,
        backend: &Backend,
    ) -> Result<Stream, Failure> {
        let address = backend.live.address;
        let header = pool.proxy_protocol.map(|version| self.header(version));
        let connecting = connect(pool, address, self.remote.ip(), header);
        let connected = self.timer.within(route.timeouts.connect, connecting).await;
        let counts = backend.live.connections(self.local.index);
        let refusal = match connected {
            Some(Ok(stream)) => {
                counts.fresh.increment();
                return Ok(stream);
            }
            Some(Err(Refusal::System(error))) if is_short(&error) => return Err(Failure::NoSocket),
            Some(Err(refusal)) => refusal,
            None => {
                counts.failed.increment();
                return Err(Failure::ConnectTimeout);
            }
        };
        counts.failed.increment();
        if pool.tls.is_some() {
            handshake::tell_of_backend(&self.local, &pool.name, &backend.name, &refusal);
        }
        Err(match refusal {
            Refusal::System(error) => Failure::Connect(error.kind()),
            Refusal::Closed => Failure::Connect(ErrorKind::UnexpectedEof),
            _ => Failure::Unproven,
        })
    }

    /// The PROXY header that tells a backend for whom it is connected to.
    fn header(&self, version: ProxyVersion) -> Vec<u8> {
        let before = self.introduction.as_deref();
        let own = || ends_toward(self.remote, &self.client);
        let tls = self.client.tls().and_then(Handshake::of);
        let outgoing = Outgoing {
            ends: before.map_or_else(own, |before| before.ends),
            transport: Transport::Stream,
            before,
            tls: tls.as_ref(),
            server_name: self.story.server_name(),
            alpn: self.client.alpn(),
            id: self.story.id,
        };
        outgoing.header(version)
    }
}

/// Notes how long it took to reach a backend, where its pool chooses by that. A failure counts as a second at least: a backend that
/// refuses at once must not look quick.
fn note_latency(backend: &Backend, began: Option<Instant>, is_reached: bool) {
    if let Some(began) = began {
        let now = clock::now();
        let took = now.saturating_duration_since(began);
        let least = Duration::from_secs(u64::from(!is_reached));
        backend.live.note_latency(took.max(least), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be many of them, and most are idle.
    #[test]
    fn an_open_connection_is_small() {
        fn size_of_future<'a, F: Future + 'a>(_: impl FnOnce(&'a mut Connection) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of::<Connection>() + size_of_future(Connection::serve);
        assert!(size <= 640, "{size} bytes");
    }
}
