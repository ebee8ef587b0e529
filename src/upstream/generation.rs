//! A worker's view of one snapshot: balancer state, eligible backends, idle connections and rows, each found by ordinal.
//! It is made at a switch and lives until its last request ends; what outlives it is handed over by reference.
//! The walk goes on in `l7/proxy.rs`, which serves from it.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::idle::IdleStack;
use super::queue::{Queue, Want};
use crate::config::model::AdminState;
use crate::metrics::datagrams::DatagramCounts;
use crate::metrics::relays::RelayCounts;
use crate::metrics::rows::{NONE, RequestCounts, RequestLabels, RouteCounts, RouteLabels, Rows};
use crate::policy::balance::{AnyBalancer, BackendIndex, EligibleSet, Loads, Member};
use crate::policy::health::passive::Standing;
use crate::policy::health::slow_start::{FIRST, FULL, share};
use crate::state::backend::Backend;
use crate::state::snapshot::{Pool, Snapshot};

/// Requests of one worker and pool that may be held for their clients' homes at once.
pub const MAX_HELD: usize = 1024;

/// Idle connections by pool name, address, and the settings of TLS they were made under: what identifies a backend's sockets from one
/// generation to the next.
pub type IdleStacks = HashMap<(Arc<str>, SocketAddr, u64), Rc<IdleStack>>;

/// A generation as one worker serves it.
#[derive(Debug)]
pub struct Generation {
    /// What was published.
    pub snapshot: Arc<Snapshot>,
    pools: Vec<PoolView>,
    rows: Vec<RouteRows>,
    unrouted: Grids,
}

/// A pool as one worker sees it.
#[derive(Debug)]
pub struct PoolView {
    /// Chooses for new work.
    pub balancer: AnyBalancer,
    /// Who waits until a backend may take more.
    pub queue: Queue,
    sets: RefCell<Sets>,
    held: Cell<usize>,
    idle: Vec<Rc<IdleStack>>,
}

#[derive(Debug)]
struct Sets {
    epoch: u64,
    eligible: EligibleSet,
}

#[derive(Debug, Default)]
struct RouteRows {
    times: OnceCell<Arc<RouteCounts>>,
    grids: Grids,
}

/// Rows of what took one route, or none.
#[derive(Debug, Default)]
struct Grids {
    requests: Grid<RequestCounts>,
    relays: Grid<RelayCounts>,
}

/// Rows by listener, then by backend, the last one being for what reached none.
type Grid<R> = OnceCell<Box<[OnceCell<Arc<R>>]>>;

/// The live words and live sessions of a pool, as balancers read them.
#[derive(Clone, Copy, Debug)]
pub struct PoolLoads<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// The pool as a worker sees it, which may have idle connections; absent: nobody's.
    pub view: Option<&'a PoolView>,
}

impl Loads for PoolLoads<'_> {
    #[inline]
    fn in_flight(&self, backend: BackendIndex) -> u32 {
        let backend = self.pool.backends.get(backend.index());
        backend.map_or(0, |backend| backend.live.load())
    }

    /// Those that are known, and the new clients whose session is only on its way.
    #[inline]
    fn sessions(&self, backend: BackendIndex) -> u32 {
        let known = self.pool.sessions.as_ref();
        let arriving = self.pool.backends.get(backend.index());
        known.map_or(0, |sessions| sessions.count(backend))
            + arriving.map_or(0, |backend| backend.live.arriving())
    }

    #[inline]
    fn latency(&self, backend: BackendIndex, now: Instant) -> u32 {
        let backend = self.pool.backends.get(backend.index());
        backend.map_or(0, |backend| backend.live.latency(now))
    }

    #[inline]
    fn is_limited(&self) -> bool {
        self.pool.is_limited
    }

    #[inline]
    fn is_full(&self, backend: BackendIndex) -> bool {
        self.pool.is_limited && is_full(self.pool, self.view, backend)
    }
}

impl Generation {
    /// The view of worker `index` of `workers`; connections that `stacks` holds for backends that stay are kept, the others closed.
    pub fn new(
        snapshot: Arc<Snapshot>,
        stacks: &mut IdleStacks,
        index: usize,
        workers: usize,
    ) -> Self {
        let mut kept = IdleStacks::new();
        let reloads = snapshot.generation.saturating_sub(1);
        let pools = snapshot
            .pools
            .iter()
            .map(|pool| {
                let tls = pool.tls.as_ref().map_or(0, |tls| tls.identity);
                let idle = pool.backends.iter().map(|backend| {
                    let key = (pool.name.clone(), backend.live.address, tls);
                    let stack = stacks
                        .remove(&key)
                        .unwrap_or_else(|| Rc::new(IdleStack::new(0)));
                    stack.set_limit(pool.max_idle);
                    kept.insert(key, stack.clone());
                    stack
                });
                let idle = idle.collect();
                let sets = Sets::new(pool);
                PoolView {
                    balancer: AnyBalancer::new(
                        &pool.balancer,
                        &pool.shared,
                        index,
                        workers,
                        reloads,
                    ),
                    queue: Queue::new(pool.queue.order),
                    sets: RefCell::new(sets),
                    held: Cell::new(0),
                    idle,
                }
            })
            .collect();
        for (_, removed) in stacks.drain() {
            removed.set_limit(0);
        }
        *stacks = kept;
        let rows = snapshot
            .routes
            .iter()
            .map(|_| RouteRows::default())
            .collect();
        Generation {
            snapshot,
            pools,
            rows,
            unrouted: Grids::default(),
        }
    }

    /// A pool of the snapshot as this worker sees it.
    #[inline]
    pub fn pool(&self, pool: usize) -> &PoolView {
        &self.pools[pool]
    }

    /// The counts of a route, found by labels at first use.
    #[inline]
    pub fn route_counts(&self, rows: &Rows, route: usize) -> &RouteCounts {
        self.rows[route].times.get_or_init(|| {
            let route = &self.snapshot.routes[route];
            let pool = self.snapshot.pools[route.pool].name.clone();
            rows.route(RouteLabels {
                route: route.name.clone(),
                pool,
            })
        })
    }

    /// The counts of a request that took `route` to `backend`, found by labels at first use.
    #[inline]
    pub fn request_counts(
        &self,
        rows: &Rows,
        listener: usize,
        route: Option<usize>,
        backend: Option<BackendIndex>,
    ) -> &RequestCounts {
        let place = Place {
            listener,
            route,
            backend,
        };
        let cell = self.cell(&self.grids(route).requests, &place);
        cell.get_or_init(|| rows.request(self.labels(&place)))
    }

    /// The counts of a relayed connection that took `route` to `backend`, found by labels at first use.
    pub fn relay_counts(
        &self,
        rows: &Rows,
        listener: usize,
        route: Option<usize>,
        backend: Option<BackendIndex>,
    ) -> Arc<RelayCounts> {
        let place = Place {
            listener,
            route,
            backend,
        };
        let cell = self.cell(&self.grids(route).relays, &place);
        (cell.get_or_init(|| rows.relay(self.labels(&place)))).clone()
    }

    /// The counts of flows of datagrams that take `route` to `backend`. Whoever asks keeps them.
    pub fn datagram_counts(
        &self,
        rows: &Rows,
        listener: usize,
        route: Option<usize>,
        backend: Option<BackendIndex>,
    ) -> Arc<DatagramCounts> {
        rows.datagrams(self.labels(&Place {
            listener,
            route,
            backend,
        }))
    }

    #[inline]
    fn grids(&self, route: Option<usize>) -> &Grids {
        match route {
            Some(route) => &self.rows[route].grids,
            None => &self.unrouted,
        }
    }

    /// The cell of a row in a grid of its route; without one it has one column.
    #[inline]
    fn cell<'a, R>(&self, grid: &'a Grid<R>, place: &Place) -> &'a OnceCell<Arc<R>> {
        let pool = place.route.map(|route| self.snapshot.routes[route].pool);
        let backends = pool.map_or(0, |pool| self.snapshot.pools[pool].backends.len());
        let cells = grid.get_or_init(|| {
            (0..self.snapshot.listeners.len() * (backends + 1))
                .map(|_| OnceCell::new())
                .collect()
        });
        let column = (place.backend).map_or(backends, |backend| usize::from(backend.0));
        &cells[place.listener * (backends + 1) + column]
    }

    fn labels(&self, place: &Place) -> RequestLabels {
        let snapshot = &*self.snapshot;
        let none = || Arc::from(NONE);
        let route = place.route.map(|route| &snapshot.routes[route]);
        let pool = route.map(|route| &snapshot.pools[route.pool]);
        let backend = pool.zip(place.backend);
        let backend = backend.and_then(|(pool, own)| pool.backends.get(own.index()));
        RequestLabels {
            listener: snapshot.listeners[place.listener].name.clone(),
            route: route.map_or_else(none, |route| route.name.clone()),
            pool: pool.map_or_else(none, |pool| pool.name.clone()),
            backend: backend.map_or_else(none, |backend| backend.name.clone()),
        }
    }

    /// Closes idle connections that other workers wait for; see [`PoolView::give_way`].
    pub fn give_way(&self) {
        let pools = self.snapshot.pools.iter().zip(&self.pools);
        pools
            .filter(|(pool, _)| pool.is_limited)
            .for_each(|(pool, view)| view.give_way(pool));
    }

    /// Closes idle connections that expired or died, and those toward backends that are to be left alone.
    pub fn sweep(&self, now: Instant) {
        for (pool, view) in self.snapshot.pools.iter().zip(&self.pools) {
            for (backend, stack) in pool.backends.iter().zip(&view.idle) {
                match backend.admin() {
                    AdminState::Ready => {
                        stack.sweep(now, self.snapshot.config.timeouts.upstream_idle)
                    }
                    AdminState::Drain | AdminState::Maint => stack.clear(),
                }
            }
        }
    }
}

/// Where something went, as rows tell it apart.
struct Place {
    listener: usize,
    route: Option<usize>,
    backend: Option<BackendIndex>,
}

impl PoolView {
    /// Lends the eligible backends, looked up again when the state of one changed.
    #[inline]
    pub fn eligible(&self, pool: &Pool) -> Ref<'_, EligibleSet> {
        if self.sets.borrow().epoch != pool.epoch.value() {
            self.sets.replace(Sets::new(pool));
        }
        Ref::map(self.sets.borrow(), |sets| &sets.eligible)
    }

    /// Whether somebody who waits for this may find something else than before: room, or nothing to wait for.
    pub fn has_room(&self, pool: &Pool, want: Want) -> bool {
        let is_full = |backend: BackendIndex| is_full(pool, Some(self), backend);
        let sets = self.eligible(pool);
        match want {
            Want::Backend(own) => !sets.kept().contains(own) || !is_full(own),
            Want::Any => {
                let fresh = sets.fresh().list();
                fresh.is_empty() || fresh.iter().any(|backend| !is_full(*backend))
            }
        }
    }

    /// Gives way to workers that wait for a connection to a backend, by closing one that is idle here.
    pub fn give_way(&self, pool: &Pool) {
        if pool.waiting.all() == 0 || !self.queue.is_empty() {
            return;
        }
        let crowded = pool.backends.iter().zip(&self.idle);
        crowded
            .filter(|(backend, _)| backend.is_crowded())
            .for_each(|(_, idle)| idle.drop_one());
    }

    /// A place for a request that is held; `None` when [`MAX_HELD`] are.
    pub fn hold(&self) -> Option<Held<'_>> {
        let held = self.held.get();
        (held < MAX_HELD).then(|| {
            self.held.set(held + 1);
            Held(&self.held)
        })
    }

    /// The epoch that [`PoolView::eligible`] looked at last.
    pub fn epoch(&self) -> u64 {
        self.sets.borrow().epoch
    }

    /// The idle connections toward a backend.
    #[inline]
    pub fn idle(&self, backend: BackendIndex) -> &Rc<IdleStack> {
        &self.idle[usize::from(backend.0)]
    }
}

/// The place of a request that is held.
#[derive(Debug)]
pub struct Held<'a>(&'a Cell<usize>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Whether a backend has all that it may have; with all its connections one that is idle here is as good as a new one.
fn is_full(pool: &Pool, view: Option<&PoolView>, backend: BackendIndex) -> bool {
    let Some(own) = pool.backends.get(backend.index()) else {
        return false;
    };
    let has_idle = || view.is_some_and(|view| !view.idle(backend).is_empty());
    own.is_full() || own.is_crowded() && !has_idle()
}

/// Who of a pool's backends may be chosen at this moment.
pub fn eligible(pool: &Pool) -> EligibleSet {
    let heeds = pool.heeds_ejections();
    let stands =
        |backend: &Backend, standing| heeds && backend.live.record().standing() == standing;
    let is_any_tried = (pool.backends.iter()).any(|own| stands(own, Standing::Trial));
    let full = if is_any_tried { FULL } else { 1 };
    EligibleSet::new(pool.backends.iter().map(|backend| {
        let warm = (pool.slow_start).map_or(full, |time| share(backend.live.warm(), time));
        Member {
            backup: backend.backup,
            weight: backend.weight,
            share: match stands(backend, Standing::Trial) {
                true => warm.min(FIRST),
                false => warm,
            },
            admin: backend.admin(),
            health: backend.live.health(),
            since: Some(backend.live.health_since()),
            ejected: stands(backend, Standing::Ejected),
        }
    }))
}

impl Sets {
    fn new(pool: &Pool) -> Self {
        // The epoch is read first: a change in between is then seen at the next look.
        let epoch = pool.epoch.value();
        Sets {
            epoch,
            eligible: eligible(pool),
        }
    }
}
