//! Rows: counters under labels. A worker makes a row at first use and tells control about it; from then on it holds the row directly.
//! Rows are bounded by a budget shared by all workers; past it everything is counted in one row labelled `other`.
//! The walk goes on in control's collector, which sums rows with equal labels and lets go of rows that no worker holds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;

use super::counter::Counter;
use super::datagrams::DatagramCounts;
use super::histogram::Histogram;
use super::relays::RelayCounts;

/// Label of what found no place in the budget.
pub const OTHER: &str = "other";
/// Label of a request that weir answered before there was a route, pool or backend.
pub const NONE: &str = "none";

/// Requests of one listener, route, pool and backend.
#[derive(Debug, Default)]
pub struct RequestCounts {
    /// By status class, `1xx` to `5xx`; everything above 599 is in the last.
    pub classes: [Counter; 5],
}

/// Requests of one route and pool.
#[derive(Debug, Default)]
pub struct RouteCounts {
    /// Head complete to the last byte written.
    pub duration: Histogram,
    /// weir's own time: head complete to written upstream, plus answer head read to written.
    pub overhead: Histogram,
    /// What persistence did, by `Stickiness` as a number.
    pub sticky: [Counter; 8],
    /// Requests tried again, by the number of the cause.
    pub retries: [Counter; 6],
    /// Requests that were not, because too many were already.
    pub unaffordable: Counter,
    /// Requests that were held for a home, by [`Hold`] as a number.
    pub holds: [Counter; 4],
}

/// What became of a request that was held for its client's home: the `result` of `weir_sticky_holds_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// The home came back in time and answered.
    Home,
    /// It did not, or did not answer.
    Over,
    /// The client went away.
    Gone,
    /// Too many were held already: it was not.
    Full,
}

impl Hold {
    /// Every result, in the order of their numbers.
    pub const ALL: [Hold; 4] = [Hold::Home, Hold::Over, Hold::Gone, Hold::Full];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Hold::Home => "home",
            Hold::Over => "over",
            Hold::Gone => "gone",
            Hold::Full => "full",
        }
    }
}

/// Labels of a [`RequestCounts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestLabels {
    /// Listener name.
    pub listener: Arc<str>,
    /// Route name.
    pub route: Arc<str>,
    /// Pool name.
    pub pool: Arc<str>,
    /// Backend name.
    pub backend: Arc<str>,
}

/// Labels of a [`RouteCounts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteLabels {
    /// Route name.
    pub route: Arc<str>,
    /// Pool name.
    pub pool: Arc<str>,
}

/// What tells rows of one kind apart.
trait Labels: Clone + Eq + std::hash::Hash {
    /// Those of the row for what found no place in the budget.
    fn other() -> Self;
}

impl RequestLabels {
    /// Their values in the order above.
    pub fn place(&self) -> [&str; 4] {
        [&self.listener, &self.route, &self.pool, &self.backend]
    }
}

impl Labels for RequestLabels {
    fn other() -> Self {
        let name: Arc<str> = OTHER.into();
        RequestLabels {
            listener: name.clone(),
            route: name.clone(),
            pool: name.clone(),
            backend: name,
        }
    }
}

impl Labels for RouteLabels {
    fn other() -> Self {
        RouteLabels {
            route: OTHER.into(),
            pool: OTHER.into(),
        }
    }
}

/// A row that a worker has begun to write.
#[derive(Debug)]
pub enum NewRow {
    /// Requests by status class.
    Request(RequestLabels, Arc<RequestCounts>),
    /// Times and persistence.
    Route(RouteLabels, Arc<RouteCounts>),
    /// Relayed connections.
    Relay(RequestLabels, Arc<RelayCounts>),
    /// Flows of datagrams.
    Datagrams(RequestLabels, Arc<DatagramCounts>),
}

/// How many rows may exist, over all workers.
#[derive(Debug, Default)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    /// Sets the limit; rows that exist stay.
    pub fn limit(&self, rows: usize) {
        self.limit.store(rows, Relaxed);
    }

    /// Gives back the place of a row that is gone.
    pub fn release(&self) {
        self.used.fetch_sub(1, Relaxed);
    }

    fn take(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        self.used
            .fetch_update(Relaxed, Relaxed, |used| (used < limit).then_some(used + 1))
            .is_ok()
    }
}

/// The rows of one worker.
#[derive(Debug)]
pub struct Rows {
    announce: Sender<NewRow>,
    budget: Arc<Budget>,
    requests: RefCell<HashMap<RequestLabels, Arc<RequestCounts>>>,
    routes: RefCell<HashMap<RouteLabels, Arc<RouteCounts>>>,
    relays: RefCell<HashMap<RequestLabels, Arc<RelayCounts>>>,
    datagrams: RefCell<HashMap<RequestLabels, Arc<DatagramCounts>>>,
}

impl Rows {
    /// No rows yet; new ones are told to `announce`.
    pub fn new(announce: Sender<NewRow>, budget: Arc<Budget>) -> Self {
        Rows {
            announce,
            budget,
            requests: RefCell::default(),
            routes: RefCell::default(),
            relays: RefCell::default(),
            datagrams: RefCell::default(),
        }
    }

    /// The row of these labels, made at first use. The `other` row is outside the budget.
    pub fn request(&self, labels: RequestLabels) -> Arc<RequestCounts> {
        self.row(&self.requests, labels, NewRow::Request)
    }

    /// The row of these labels, made at first use. The `other` row is outside the budget.
    pub fn route(&self, labels: RouteLabels) -> Arc<RouteCounts> {
        self.row(&self.routes, labels, NewRow::Route)
    }

    /// The row of these labels, made at first use. The `other` row is outside the budget.
    pub fn relay(&self, labels: RequestLabels) -> Arc<RelayCounts> {
        self.row(&self.relays, labels, NewRow::Relay)
    }

    /// The row of these labels, made at first use. The `other` row is outside the budget.
    pub fn datagrams(&self, labels: RequestLabels) -> Arc<DatagramCounts> {
        self.row(&self.datagrams, labels, NewRow::Datagrams)
    }

    fn row<L: Labels, R: Default>(
        &self,
        rows: &RefCell<HashMap<L, Arc<R>>>,
        labels: L,
        new: fn(L, Arc<R>) -> NewRow,
    ) -> Arc<R> {
        let mut rows = rows.borrow_mut();
        if let Some(row) = rows.get(&labels) {
            return row.clone();
        }
        let labels = if self.budget.take() {
            labels
        } else {
            L::other()
        };
        rows.entry(labels)
            .or_insert_with_key(|labels| {
                let row = Arc::new(R::default());
                // Control outlives the workers; without it nobody reads the row anyway.
                let _ = self.announce.send(new(labels.clone(), row.clone()));
                row
            })
            .clone()
    }

    /// Lets go of every row for which `keeps` is false, so that control can drop it once no request holds it.
    pub fn retain(
        &self,
        request: impl Fn(&RequestLabels) -> bool,
        route: impl Fn(&RouteLabels) -> bool,
    ) {
        self.requests
            .borrow_mut()
            .retain(|labels, _| request(labels));
        self.routes.borrow_mut().retain(|labels, _| route(labels));
        (self.relays.borrow_mut()).retain(|labels, _| request(labels));
        (self.datagrams.borrow_mut()).retain(|labels, _| request(labels));
    }
}
