//! Where the flows of a listener go, as the present generation and the health of its backends say.
//! It decides nothing that `policy/` does not decide, but that a backend whose host refused a datagram is left alone for a moment.
//! The walk goes back to `udp.rs`.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choice::choose_backend;
use super::flow::{FlowKey, Rules};
use crate::clock;
use crate::config::model::{Protocol, ProxyProtocol};
use crate::metrics::datagrams::{DatagramCounts, Lost};
use crate::net::{descriptors, ports};
use crate::policy::balance::BackendIndex;
use crate::policy::facts::Facts;
use crate::policy::persist::Stickiness;
use crate::state::backend::{Backend, Live};
use crate::state::snapshot::{Listener, Snapshot};
use crate::upstream::admission;
use crate::upstream::generation::Generation;
use crate::upstream::local::{ListenerView, Local};

/// How long a backend is left alone after its host said that nobody listens there: until its next check knows better.
const LEFT_ALONE: Duration = Duration::from_secs(2);

/// Where flows go. It holds no generation: what it says of one is looked up again when another one serves.
pub(super) struct Aim {
    workers: usize,
    generation: u64,
    epoch: u64,
    route: Option<usize>,
    rules: Rules,
    most: usize,
    /// What there was room for, and what the file allows, at the last turn: it is told once.
    bounds: (usize, usize),
    introduces: bool,
    introduced: ProxyProtocol,
    /// By the ordinal of the backend.
    targets: Vec<Rc<Target>>,
    /// Backends to be left alone, and until when.
    avoided: Vec<(BackendIndex, Instant)>,
    /// For what has no flow.
    counts: Arc<DatagramCounts>,
}

/// A backend, for as long as a flow leads there.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) listener: Arc<str>,
    pub(super) route: Arc<str>,
    pub(super) pool: Arc<str>,
    pub(super) backend: Arc<str>,
    pub(super) live: Arc<Live>,
    pub(super) counts: Arc<DatagramCounts>,
    /// Whether it sees its clients' addresses.
    pub(super) transparent: bool,
    /// Whether it may serve the flows that it has.
    pub(super) serves: Cell<bool>,
}

/// There is no backend to go to.
#[derive(Debug)]
pub(super) struct Nowhere;

impl Aim {
    pub(super) fn new(view: &ListenerView, local: &Local, workers: usize) -> Aim {
        let generation = view.generation();
        let mut aim = Aim {
            workers,
            generation: generation.snapshot.generation,
            epoch: 0,
            route: None,
            rules: Rules {
                idle: Duration::ZERO,
                replies: None,
            },
            most: 1,
            bounds: (0, 0),
            introduces: false,
            introduced: ProxyProtocol::Off,
            targets: Vec::new(),
            avoided: Vec::new(),
            counts: generation.datagram_counts(&local.rows, view.listener(), None, None),
        };
        aim.turn(&generation, view, local);
        aim
    }

    /// What its flows obey.
    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// How many flows there may be.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Whether backends are told who the client is.
    pub(super) fn introduces(&self) -> bool {
        self.introduces
    }

    /// Whether datagrams may, or must, have a PROXY header before them.
    pub(super) fn introduced(&self) -> ProxyProtocol {
        self.introduced
    }

    /// How many backends there are.
    pub(super) fn backends(&self) -> usize {
        self.targets.len()
    }

    /// Where datagrams are counted that belong to no flow.
    pub(super) fn counts(&self) -> &DatagramCounts {
        &self.counts
    }

    /// Sees whether another generation serves, and what became of the backends; whether the rules may be others.
    pub(super) fn look(&mut self, view: &ListenerView, local: &Local) -> bool {
        let is_new = view.generation_number() != self.generation;
        let generation = view.generation();
        if is_new {
            self.turn(&generation, view, local);
        }
        self.judge(&generation);
        is_new
    }

    /// Turns to another generation. Flows to a backend that it does not have any more may not go on.
    fn turn(&mut self, generation: &Generation, view: &ListenerView, local: &Local) {
        let (snapshot, listener) = (&*generation.snapshot, view.listener());
        self.generation = snapshot.generation;
        // That nobody is judged by an epoch of another pool.
        self.epoch = 0;
        self.avoided.clear();
        let anybody = facts(IpAddr::V4(Ipv4Addr::UNSPECIFIED), listener, clock::now());
        self.route = snapshot.router.route(&anybody);
        let before = std::mem::take(&mut self.targets);
        before.iter().for_each(|target| target.serves.set(false));
        self.counts = generation.datagram_counts(&local.rows, listener, self.route, None);
        self.most = self.most_of(snapshot, listener, local);
        self.introduced = snapshot.listeners[listener].proxy_protocol;
        let Some((ordinal, route)) = self.route.map(|route| (route, &snapshot.routes[route]))
        else {
            return;
        };
        self.rules = Rules {
            idle: route.timeouts.udp_idle,
            replies: route.replies,
        };
        let pool = &snapshot.pools[route.pool];
        self.introduces = pool.proxy_protocol.is_some();
        let target = |index: BackendIndex, backend: &Backend| {
            let target = Target {
                listener: snapshot.listeners[listener].name.clone(),
                route: route.name.clone(),
                pool: pool.name.clone(),
                backend: backend.name.clone(),
                live: backend.live.clone(),
                counts: generation.datagram_counts(
                    &local.rows,
                    listener,
                    Some(ordinal),
                    Some(index),
                ),
                transparent: pool.transparent,
                serves: Cell::new(true),
            };
            match before.iter().find(|known| known.is(&target)) {
                Some(known) => known.clone(),
                None => Rc::new(target),
            }
        };
        let backends = (0..=u16::MAX).map(BackendIndex).zip(&pool.backends);
        self.targets = backends
            .map(|(index, backend)| target(index, backend))
            .collect();
        self.epoch = pool.epoch.value().wrapping_sub(1);
        self.judge(generation);
    }

    /// How many flows a socket of the listener may have: its part of what the file says. All of them together leave half of the process's
    /// descriptors to others, and half of the host's ports; those that bear their clients' addresses need none of these.
    fn most_of(&mut self, snapshot: &Snapshot, listener: usize, local: &Local) -> usize {
        let own = &snapshot.listeners[listener];
        let is_datagrams = |own: &&Listener| own.protocol == Protocol::Udp;
        let all = snapshot.listeners.iter().filter(is_datagrams);
        let sockets: usize = all.map(|one| one.keys.len()).sum();
        let part = |of_all: u64| {
            let half = usize::try_from(of_all / 2).unwrap_or(usize::MAX);
            half / sockets.max(1) * own.keys.len()
        };
        let pool = |route: usize| &snapshot.pools[snapshot.routes[route].pool];
        let ports = match self.route.is_some_and(|route| pool(route).transparent) {
            true => usize::MAX,
            false => part(ports::given()),
        };
        let (there_are, want) = match part(descriptors::limit()) {
            files if files <= ports => (files, "open files"),
            _ => (ports, "ports (net.ipv4.ip_local_port_range)"),
        };
        let bounds = (there_are, own.max_flows);
        let is_new = std::mem::replace(&mut self.bounds, bounds) != bounds;
        if is_new && there_are < own.max_flows && local.index == 0 {
            log::warn!(
                "listener {}: at most {there_are} flows, for want of {want}; max_flows is {}",
                own.name,
                own.max_flows
            );
        }
        let most = own.max_flows.min(there_are);
        most.div_ceil(self.workers.max(1) * own.keys.len().max(1))
    }

    /// Sees which backends may serve the flows that they have, if that may have changed.
    fn judge(&mut self, generation: &Generation) {
        let Some(route) = self.route else {
            return;
        };
        let ordinal = generation.snapshot.routes[route].pool;
        let pool = &generation.snapshot.pools[ordinal];
        // Read first: what changes in between is seen at the next look.
        let epoch = pool.epoch.value();
        if std::mem::replace(&mut self.epoch, epoch) == epoch {
            return;
        }
        let sets = generation.pool(ordinal).eligible(pool);
        for (index, target) in (0..=u16::MAX).zip(&self.targets) {
            target.serves.set(sets.kept().contains(BackendIndex(index)));
        }
    }

    /// Whether a client may begin a flow. Lists judge clients, not the trusted proxies that speak for them and now and then for themselves.
    pub(super) fn admit(
        &self,
        view: &ListenerView,
        client: IpAddr,
        now: Instant,
    ) -> Result<(), Lost> {
        let generation = view.generation();
        let listener = &generation.snapshot.listeners[view.listener()];
        let is_proxy = || {
            self.introduced != ProxyProtocol::Off
                && admission::is_trusted(client, &generation.snapshot.config.trusted_proxies)
        };
        if listener.gate.permits(client) || is_proxy() {
            return Ok(());
        }
        let name = &listener.name;
        admission::tell(&listener.gate.counts.denied, now, || {
            format!("listener {name}: {client} may not come in")
        });
        Err(Lost::Denied)
    }

    /// Chooses the backend of a new flow.
    pub(super) fn choose(
        &mut self,
        view: &ListenerView,
        local: &Local,
        key: FlowKey,
        now: Instant,
    ) -> Result<(Rc<Target>, Option<Stickiness>), Nowhere> {
        self.avoided.retain(|(_, until)| *until > now);
        let generation = view.generation();
        let route = self
            .route
            .and_then(|route| generation.snapshot.routes.get(route));
        let route = route.ok_or(Nowhere)?;
        let facts = facts(key.client().ip().to_canonical(), view.listener(), now);
        let avoided: Vec<BackendIndex> = self.avoided.iter().map(|(index, _)| *index).collect();
        let choose = |tried: &[BackendIndex]| {
            choose_backend(local, &generation, route, &facts, tried, false)
        };
        // When all are to be left alone, none is.
        let choice = choose(&avoided)
            .or_else(|_| choose(&[]))
            .map_err(|_| Nowhere)?;
        let target = self.targets.get(choice.backend.index()).ok_or(Nowhere)?;
        Ok((
            target.clone(),
            choice.sticky.map(|chosen| chosen.stickiness),
        ))
    }

    /// Leaves a backend alone for a while; whether that is new.
    pub(super) fn avoid(&mut self, target: &Rc<Target>, now: Instant) -> bool {
        let place = self.targets.iter().position(|own| Rc::ptr_eq(own, target));
        let Some(index) = place.and_then(|place| u16::try_from(place).ok()) else {
            return false;
        };
        if self.avoided.iter().any(|(known, _)| known.0 == index) {
            return false;
        }
        self.avoided.push((BackendIndex(index), now + LEFT_ALONE));
        true
    }
}

impl Target {
    /// Whether it is the same server under the same names.
    fn is(&self, other: &Target) -> bool {
        Arc::ptr_eq(&self.live, &other.live)
            && Arc::ptr_eq(&self.counts, &other.counts)
            && self.backend == other.backend
            && self.transparent == other.transparent
    }
}

fn facts(client: IpAddr, listener: usize, now: Instant) -> Facts<'static> {
    Facts {
        client,
        listener,
        request: None,
        hello: None,
        session: None,
        now,
        wall_millis: 0,
    }
}
