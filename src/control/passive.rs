//! The clock of passive health: it ends ejections, ejects backends for their part of errors over a while, and says when a pool panics.
//! It decides nothing: what times and counts mean is the pure `policy/health/passive`'s to say.
//! The walk goes on in `upstream/verdict.rs` and `state/standing.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::policy::health::passive::{Cause, PARTS, Standing, Window, is_too_many};
use crate::state::backend::{Backend, Live};
use crate::state::snapshot::{Passive, Pool, Snapshot};
use crate::upstream::verdict;

/// Between two looks; an ejection lasts so much longer at most.
const LOOK: Duration = Duration::from_millis(100);

/// Looks until it is aborted.
pub async fn look_after(current: watch::Receiver<Arc<Snapshot>>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    loop {
        looks.tick().await;
        let snapshot = current.borrow().clone();
        watch.look(&snapshot, clock::now());
    }
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Watch {
    windows: HashMap<usize, Watched>,
    /// Pools whose ejections are not heeded.
    panics: Vec<Arc<str>>,
}

/// The window of one server. What is known of a server has no other place of its own.
struct Watched {
    live: Weak<Live>,
    window: Window,
    slid: Instant,
}

impl Watch {
    fn look(&mut self, snapshot: &Snapshot, now: Instant) {
        self.windows
            .retain(|_, watched| watched.live.strong_count() > 0);
        for pool in &snapshot.pools {
            let Some(passive) = &pool.passive else {
                // Ejections end with the rules that they were made by.
                pool.backends.iter().for_each(forgive);
                continue;
            };
            for backend in &pool.backends {
                self.judge(pool, passive, backend, now);
                end_ejection(pool, backend, now);
            }
        }
        self.tell_panics(snapshot);
    }

    /// Slides the window of a backend when it is time, and ejects the backend if that shows too many errors.
    fn judge(&mut self, pool: &Pool, passive: &Passive, backend: &Backend, now: Instant) {
        let (tries, errors) = counts(&backend.live);
        let key = Arc::as_ptr(&backend.live) as usize;
        let watched = self.windows.entry(key).or_insert_with(|| Watched {
            live: Arc::downgrade(&backend.live),
            window: Window::new(tries, errors),
            slid: now,
        });
        if now.saturating_duration_since(watched.slid) < passive.rules.window / PARTS {
            return;
        }
        watched.slid = now;
        let (tries_within, errors_within) = watched.window.slide(tries, errors);
        if !is_too_many(&passive.rules, tries_within, errors_within) {
            return;
        }
        if let Some(time) = verdict::eject(pool, passive, backend, Cause::Ratio, now) {
            watched.window = Window::new(tries, errors);
            log::warn!(
                "health: {}/{} is ejected for {time:?}: {errors_within} errors in {tries_within} tries within {:?}",
                pool.name,
                backend.name,
                passive.rules.window
            );
        }
    }

    fn tell_panics(&mut self, snapshot: &Snapshot) {
        let before = std::mem::take(&mut self.panics);
        for pool in snapshot.pools.iter().filter(|pool| is_panicking(pool)) {
            if !before.contains(&pool.name) {
                let (name, what) = (
                    &pool.name,
                    "too few backends are left: ejections are not heeded",
                );
                log::warn!("health: pool {name}: {what}");
            }
            self.panics.push(pool.name.clone());
        }
        for name in before.iter().filter(|name| !self.panics.contains(name)) {
            log::info!("health: pool {name}: ejections are heeded again");
        }
    }
}

/// Whether a pool has ejected backends and uses them all the same.
pub fn is_panicking(pool: &Pool) -> bool {
    let is_ejected = |own: &Backend| own.live.record().standing() == Standing::Ejected;
    pool.passive.is_some() && pool.backends.iter().any(is_ejected) && !pool.heeds_ejections()
}

/// All tries at a server, and those of them that were errors.
fn counts(live: &Live) -> (u64, u64) {
    let of_worker = live.all_connections();
    let tries = of_worker.map(|one| one.fresh.value() + one.reused.value() + one.failed.value());
    (tries.sum(), live.record().errors_ever())
}

fn forgive(backend: &Backend) {
    let record = backend.live.record();
    if record.standing() != Standing::Good && record.forgive() {
        backend.live.advance_epoch();
    }
}

fn end_ejection(pool: &Pool, backend: &Backend, now: Instant) {
    let record = backend.live.record();
    if record.left(now) == Some(Duration::ZERO) && record.release(now) {
        backend.live.advance_epoch();
        log::info!(
            "health: {}/{} is on trial: its ejection is over",
            pool.name,
            backend.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model;
    use crate::policy::health::Health;
    use crate::policy::health::passive::{Fault, Verdict};
    use crate::state::compile::compile;
    use crate::state::sample::{config, loopback};

    const SECOND: Duration = Duration::from_secs(1);

    fn snapshot(passive: bool, previous: Option<&Snapshot>) -> Snapshot {
        let addresses = [loopback(1), loopback(2), loopback(3)];
        let mut config = config(&[("web", &[loopback(80)])], &[("was", &addresses)]);
        config.pools[0].passive = passive.then(|| model::Passive {
            consecutive_errors: 3,
            consecutive_timeouts: 0,
            statuses: Vec::new(),
            error_ratio: 0.5,
            window: 10 * SECOND,
            ejection: 30 * SECOND,
            max_ejection: 300 * SECOND,
            max_ejected: 0.1,
            panic_threshold: 0.5,
        });
        let snapshot = compile(Arc::new(config), None, previous, 1, 1, clock::now());
        for backend in &snapshot.pools[0].backends {
            backend.live.set_health(Health::Up, clock::now());
        }
        snapshot
    }

    fn tries(pool: &Pool, good: u64, bad: u64) {
        let backend = &pool.backends[0];
        for ordinal in 0..good.max(bad) {
            for (verdict, count) in [(Verdict::Error(Fault::Closed), bad), (Verdict::Good, good)] {
                if ordinal < count {
                    backend.live.connections(0).reused.increment();
                    verdict::take(pool, backend, verdict);
                }
            }
        }
    }

    #[test]
    fn a_part_of_errors_ejects_though_none_follow_each_other() {
        let (snapshot, start) = (snapshot(true, None), clock::now());
        let (pool, mut watch) = (&snapshot.pools[0], Watch::default());
        let standing = || pool.backends[0].live.record().standing();
        watch.look(&snapshot, start);
        for second in 1..=10 {
            tries(pool, 2, 1);
            watch.look(&snapshot, start + second * SECOND);
        }
        assert_eq!(standing(), Standing::Good, "a third is not half");
        for second in 11..=30 {
            tries(pool, 2, 2);
            watch.look(&snapshot, start + second * SECOND);
        }
        assert_eq!(standing(), Standing::Ejected);
    }

    #[test]
    fn an_ejection_ends_by_time_and_with_its_rules() {
        let first = snapshot(true, None);
        let (pool, mut watch) = (&first.pools[0], Watch::default());
        let record = pool.backends[0].live.record();
        let bad = Verdict::Error(Fault::Connect);
        (0..3).for_each(|_| verdict::take(pool, &pool.backends[0], bad));
        let left = record.left(clock::now()).expect("it is ejected");
        watch.look(&first, clock::now() + left - SECOND);
        assert_eq!(record.standing(), Standing::Ejected);
        let epoch = pool.epoch.value();
        watch.look(&first, clock::now() + left + SECOND);
        assert_eq!(record.standing(), Standing::Trial);
        assert!(pool.epoch.value() > epoch, "workers look again");
        let second = snapshot(false, Some(&first));
        watch.look(&second, clock::now());
        assert_eq!(record.standing(), Standing::Good);
    }
}
