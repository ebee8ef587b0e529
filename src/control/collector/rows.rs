//! The rows of all workers: told once, read at every scrape, summed under equal labels.
//! A row that only this table still holds is gone: its place in the budget is given back, its sum stays as long as other rows have its labels.
//! The walk goes back to `mod.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::metrics::datagrams::{DatagramCounts, FlowEnd, Lost};
use crate::metrics::histogram::{BUCKETS, Histogram, upper_bound};
use crate::metrics::relays::{Ended, RelayCounts};
use crate::metrics::rows::{
    Budget, NewRow, OTHER, RequestCounts, RequestLabels, RouteCounts, RouteLabels,
};

/// Every row that a worker has made.
#[derive(Debug)]
pub(super) struct Table {
    announced: Receiver<NewRow>,
    budget: Arc<Budget>,
    requests: BTreeMap<RequestLabels, Shards<RequestCounts, Requests>>,
    routes: BTreeMap<RouteLabels, Shards<RouteCounts, Route>>,
    relays: BTreeMap<RequestLabels, Shards<RelayCounts, Relays>>,
    datagrams: BTreeMap<RequestLabels, Shards<DatagramCounts, Datagrams>>,
}

/// The rows with the same labels.
#[derive(Debug)]
struct Shards<R, S> {
    rows: Vec<Arc<R>>,
    /// What rows that are gone had counted.
    gone: S,
}

/// Requests by status class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests(pub(super) [u64; 5]);

/// What a route's rows add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Route {
    pub(super) duration: Times,
    pub(super) overhead: Times,
    pub(super) sticky: [u64; 8],
    pub(super) retries: [u64; 6],
    pub(super) unaffordable: u64,
    pub(super) holds: [u64; 4],
}

/// What relayed connections add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Relays {
    pub(super) ends: [u64; Ended::ALL.len()],
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) duration: Times,
}

/// What flows of datagrams add up to; pairs are from and to clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Datagrams {
    pub(super) begun: u64,
    pub(super) ends: [u64; FlowEnd::ALL.len()],
    pub(super) datagrams: [u64; 2],
    pub(super) bytes: [u64; 2],
    pub(super) lost: [u64; Lost::ALL.len()],
}

/// Durations in buckets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Times {
    buckets: [u64; BUCKETS + 1],
    pub(super) seconds: f64,
}

/// A sum that takes rows in.
trait Sum<R>: Clone + Default {
    fn add(&mut self, row: &R);
}

impl Table {
    pub(super) fn new(announced: Receiver<NewRow>, budget: Arc<Budget>) -> Self {
        Table {
            announced,
            budget,
            requests: BTreeMap::new(),
            routes: BTreeMap::new(),
            relays: BTreeMap::new(),
            datagrams: BTreeMap::new(),
        }
    }

    /// Takes in new rows and lets go of those that no worker holds any more.
    pub(super) fn sweep(&mut self) {
        for row in self.announced.try_iter() {
            match row {
                NewRow::Request(labels, row) => {
                    self.requests.entry(labels).or_default().rows.push(row)
                }
                NewRow::Route(labels, row) => self.routes.entry(labels).or_default().rows.push(row),
                NewRow::Relay(labels, row) => self.relays.entry(labels).or_default().rows.push(row),
                NewRow::Datagrams(labels, row) => {
                    self.datagrams.entry(labels).or_default().rows.push(row)
                }
            }
        }
        let budget = &*self.budget;
        (self.requests).retain(|labels, shards| shards.sweep(budget, is_other(labels)));
        (self.relays).retain(|labels, shards| shards.sweep(budget, is_other(labels)));
        (self.datagrams).retain(|labels, shards| shards.sweep(budget, is_other(labels)));
        self.routes.retain(|labels, shards| {
            let free = *labels.route == *OTHER && *labels.pool == *OTHER;
            shards.sweep(budget, free)
        });
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = (&RequestLabels, Requests)> {
        self.requests
            .iter()
            .map(|(labels, shards)| (labels, shards.sum()))
    }

    pub(super) fn relays(&self) -> impl Iterator<Item = (&RequestLabels, Relays)> {
        self.relays
            .iter()
            .map(|(labels, shards)| (labels, shards.sum()))
    }

    pub(super) fn datagrams(&self) -> impl Iterator<Item = (&RequestLabels, Datagrams)> {
        self.datagrams
            .iter()
            .map(|(labels, shards)| (labels, shards.sum()))
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = (&RouteLabels, Route)> {
        self.routes
            .iter()
            .map(|(labels, shards)| (labels, shards.sum()))
    }
}

/// Whether a row is the one for what found no place in the budget.
fn is_other(labels: &RequestLabels) -> bool {
    let RequestLabels {
        listener,
        route,
        pool,
        backend,
    } = labels;
    [listener, route, pool, backend]
        .into_iter()
        .all(|label| **label == *OTHER)
}

impl<R, S: Default> Default for Shards<R, S> {
    fn default() -> Self {
        Shards {
            rows: Vec::new(),
            gone: S::default(),
        }
    }
}

impl<R, S: Sum<R>> Shards<R, S> {
    /// Whether a row is left. A row outside of the budget has no place to give back.
    fn sweep(&mut self, budget: &Budget, outside_budget: bool) -> bool {
        let gone = &mut self.gone;
        self.rows.retain_mut(|row| {
            // Unlike a look at the count of holders, this also makes the last holder's writes visible.
            let Some(row) = Arc::get_mut(row) else {
                return true;
            };
            gone.add(row);
            if !outside_budget {
                budget.release();
            }
            false
        });
        !self.rows.is_empty()
    }

    fn sum(&self) -> S {
        let mut sum = self.gone.clone();
        self.rows.iter().for_each(|row| sum.add(row));
        sum
    }
}

impl Sum<RequestCounts> for Requests {
    fn add(&mut self, row: &RequestCounts) {
        for (sum, class) in self.0.iter_mut().zip(&row.classes) {
            *sum += class.value();
        }
    }
}

impl Sum<RouteCounts> for Route {
    fn add(&mut self, row: &RouteCounts) {
        self.duration.add(&row.duration);
        self.overhead.add(&row.overhead);
        for (sum, result) in self.sticky.iter_mut().zip(&row.sticky) {
            *sum += result.value();
        }
        for (sum, retries) in self.retries.iter_mut().zip(&row.retries) {
            *sum += retries.value();
        }
        self.unaffordable += row.unaffordable.value();
        for (sum, result) in self.holds.iter_mut().zip(&row.holds) {
            *sum += result.value();
        }
    }
}

impl Sum<RelayCounts> for Relays {
    fn add(&mut self, row: &RelayCounts) {
        for (sum, end) in self.ends.iter_mut().zip(&row.ends) {
            *sum += end.value();
        }
        self.bytes_in += row.bytes_in.value();
        self.bytes_out += row.bytes_out.value();
        self.duration.add(&row.duration);
    }
}

impl Sum<DatagramCounts> for Datagrams {
    fn add(&mut self, row: &DatagramCounts) {
        self.begun += row.begun.value();
        for (sum, end) in self.ends.iter_mut().zip(&row.ends) {
            *sum += end.value();
        }
        for (sum, count) in (self.datagrams.iter_mut()).zip([&row.datagrams_in, &row.datagrams_out])
        {
            *sum += count.value();
        }
        for (sum, count) in self.bytes.iter_mut().zip([&row.bytes_in, &row.bytes_out]) {
            *sum += count.value();
        }
        for (sum, lost) in self.lost.iter_mut().zip(&row.lost) {
            *sum += lost.value();
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Times {
            buckets: [0; BUCKETS + 1],
            seconds: 0.0,
        }
    }
}

impl Times {
    fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(histogram.counts()) {
            *sum += bucket;
        }
        self.seconds += histogram.sum_seconds();
    }

    pub(super) fn merge(&mut self, other: &Times) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
        self.seconds += other.seconds;
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Upper bounds in seconds, and how many durations do not exceed them.
    pub(super) fn cumulative(
        &self,
        bounds: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (f64, u64)> {
        bounds.map(|bucket| (upper_bound(bucket), self.buckets[..=bucket].iter().sum()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::metrics::rows::Rows;

    fn labels(backend: &str) -> RequestLabels {
        RequestLabels {
            listener: "web".into(),
            route: "cart".into(),
            pool: "was".into(),
            backend: backend.into(),
        }
    }

    fn route() -> RouteLabels {
        RouteLabels {
            route: "cart".into(),
            pool: "was".into(),
        }
    }

    #[test]
    fn rows_with_equal_labels_add_up_and_the_gone_ones_stay_in_the_sum() {
        let (announce, announced) = channel();
        let budget = Arc::new(Budget::default());
        budget.limit(3);
        let mut table = Table::new(announced, budget.clone());
        let workers = [(); 2].map(|()| Rows::new(announce.clone(), budget.clone()));
        for (worker, amount) in workers.iter().zip([3, 4]) {
            worker.request(labels("was1")).classes[1].add(amount);
        }
        workers[0].request(labels("was2")).classes[4].add(1);
        workers[1].request(labels("was3")).classes[0].add(9);
        table.sweep();
        let sums: Vec<_> = table.requests().collect();
        assert_eq!(
            sums[0].0,
            &labels_of(OTHER),
            "the fourth row is past the budget"
        );
        assert_eq!(sums[0].1, Requests([9, 0, 0, 0, 0]));
        assert_eq!(sums[1], (&labels("was1"), Requests([0, 7, 0, 0, 0])));
        assert_eq!(sums[2], (&labels("was2"), Requests([0, 0, 0, 0, 1])));

        workers[0].retain(|_| false, |_| false);
        table.sweep();
        let sums: Vec<_> = table.requests().collect();
        assert_eq!(sums.len(), 2, "was2 is gone");
        assert_eq!(
            sums[1].1,
            Requests([0, 7, 0, 0, 0]),
            "was1 still counts the row that is gone"
        );

        workers[1].retain(|_| false, |_| false);
        table.sweep();
        assert_eq!(table.requests().count(), 0);
        for backend in ["a", "b", "c"] {
            workers[0].request(labels(backend));
        }
        table.sweep();
        let backends = |labels: &RequestLabels| labels.backend.to_string();
        let found: Vec<_> = table
            .requests()
            .map(|(labels, _)| backends(labels))
            .collect();
        assert_eq!(
            found,
            ["a", "b", "c"],
            "every place of the budget came back, and no more"
        );
        workers[1].request(labels("d"));
        table.sweep();
        assert!(
            table
                .requests()
                .any(|(labels, _)| *labels == labels_of(OTHER))
        );
    }

    fn labels_of(name: &str) -> RequestLabels {
        RequestLabels {
            listener: name.into(),
            route: name.into(),
            pool: name.into(),
            backend: name.into(),
        }
    }

    #[test]
    fn histograms_are_cumulative() {
        let (announce, announced) = channel();
        let budget = Arc::new(Budget::default());
        budget.limit(10);
        let mut table = Table::new(announced, budget.clone());
        let workers = [(); 2].map(|()| Rows::new(announce.clone(), budget.clone()));
        workers[0]
            .route(route())
            .duration
            .record(Duration::from_micros(1));
        workers[1]
            .route(route())
            .duration
            .record(Duration::from_micros(3));
        workers[1]
            .route(route())
            .duration
            .record(Duration::from_secs(1000));
        table.sweep();
        let (_, sum) = table.routes().next().unwrap();
        let buckets: Vec<_> = sum.duration.cumulative(1..4).collect();
        assert_eq!(buckets, [(2.048e-6, 1), (4.096e-6, 2), (8.192e-6, 2)]);
        assert_eq!(sum.duration.count(), 3);
        assert!((sum.duration.seconds - 1000.000004).abs() < 1e-9);
    }
}
