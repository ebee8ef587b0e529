//! What becomes of a backend after a try: a failure may eject it, a success may end its trial. Requests and relayed connections ask alike.
//! It decides nothing that `policy/health/passive.rs` does not; a backend that does well costs a look at three words that nobody writes.
//! The walk goes on in `state/standing.rs`, and in control's `passive.rs`, which ends ejections.

use std::time::{Duration, Instant};

use crate::clock;
use crate::config::model::AdminState;
use crate::policy::health::Health;
use crate::policy::health::passive::{Cause, Fault, Standing, Verdict, is_error, may_eject};
use crate::state::backend::Backend;
use crate::state::snapshot::{Passive, Pool};

/// Takes how a try at a backend of the pool went.
#[inline]
pub fn take(pool: &Pool, backend: &Backend, verdict: Verdict) {
    let Some(passive) = &pool.passive else {
        return;
    };
    match verdict {
        Verdict::Good if backend.live.record().is_settled() => {}
        Verdict::Good => recover(pool, backend),
        failure => fail(pool, passive, backend, failure),
    }
}

/// Ejects a backend, if its pool may lose one more and nobody else is ejecting one at this moment; whether it did.
pub fn eject(
    pool: &Pool,
    passive: &Passive,
    backend: &Backend,
    cause: Cause,
    now: Instant,
) -> Option<Duration> {
    let record = backend.live.record();
    passive.turn.take(|| {
        let is_out = |own: &&Backend| {
            is_in_service(own) && own.live.record().standing() == Standing::Ejected
        };
        let out = pool.backends.iter().filter(is_out).count();
        let may = is_in_service(backend)
            && record.standing() != Standing::Ejected
            && may_eject(&passive.rules, pool.backends.len(), out);
        let time = may.then(|| record.eject(&passive.rules, cause, now))?;
        backend.live.advance_epoch();
        Some(time)
    })
}

#[cold]
fn recover(pool: &Pool, backend: &Backend) {
    if backend.live.record().recover() {
        backend.live.advance_epoch();
        log::info!(
            "health: {}/{} is back: it did well on trial",
            pool.name,
            backend.name
        );
    }
}

#[cold]
fn fail(pool: &Pool, passive: &Passive, backend: &Backend, failure: Verdict) {
    let record = backend.live.record();
    let Some(cause) = record.fail(&passive.rules, failure) else {
        return;
    };
    let Some(time) = eject(pool, passive, backend, cause, clock::now()) else {
        return;
    };
    let (why, last) = (cause.told(&passive.rules), failure.as_str());
    let (pool, name) = (&pool.name, &backend.name);
    log::warn!("health: {pool}/{name} is ejected for {time:?}: {why}, the last one: {last}");
}

/// Whether it would be chosen for new work if it were not ejected.
fn is_in_service(backend: &Backend) -> bool {
    backend.admin() == AdminState::Ready && backend.live.health() != Health::Down
}

/// The verdict on an answer with this status.
#[inline]
pub fn of_status(passive: &Passive, status: u16) -> Verdict {
    match is_error(&passive.rules, status) {
        true => Verdict::Error(Fault::Status),
        false => Verdict::Good,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::model;
    use crate::policy::health::slow_start::FULL;
    use crate::state::compile::compile;
    use crate::state::sample::{config, loopback};
    use crate::state::snapshot::Snapshot;
    use crate::upstream::generation::eligible;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> model::Passive {
        model::Passive {
            consecutive_errors: 3,
            consecutive_timeouts: 4,
            statuses: vec![(502, 504)],
            error_ratio: 0.0,
            window: 10 * SECOND,
            ejection: 30 * SECOND,
            max_ejection: 300 * SECOND,
            max_ejected: 0.1,
            panic_threshold: 0.5,
        }
    }

    /// A pool of so many backends that are up.
    fn snapshot(backends: u16, rules: model::Passive) -> Snapshot {
        let addresses: Vec<_> = (1..=backends).map(loopback).collect();
        let mut config = config(&[("web", &[loopback(80)])], &[("was", &addresses)]);
        config.pools[0].passive = Some(rules);
        let snapshot = compile(Arc::new(config), None, None, 1, 1, clock::now());
        for backend in &snapshot.pools[0].backends {
            backend.live.set_health(Health::Up, clock::now());
        }
        snapshot
    }

    fn fresh(pool: &Pool) -> Vec<u16> {
        let sets = eligible(pool);
        sets.fresh().list().iter().map(|index| index.0).collect()
    }

    fn fail_times(pool: &Pool, backend: usize, times: usize) {
        for _ in 0..times {
            take(pool, &pool.backends[backend], Verdict::Error(Fault::Closed));
        }
    }

    #[test]
    fn errors_in_a_row_eject_and_a_success_between_them_does_not() {
        let snapshot = snapshot(3, rules());
        let pool = &snapshot.pools[0];
        fail_times(pool, 1, 2);
        take(pool, &pool.backends[1], Verdict::Good);
        fail_times(pool, 1, 2);
        take(pool, &pool.backends[1], Verdict::Timeout);
        assert_eq!(fresh(pool), [0, 1, 2]);
        let epoch = pool.epoch.value();
        fail_times(pool, 1, 1);
        assert_eq!(fresh(pool), [0, 2]);
        assert!(pool.epoch.value() > epoch, "workers look again");
        assert_eq!(
            eligible(pool).kept().list().len(),
            3,
            "it keeps its clients"
        );
    }

    #[test]
    fn no_more_than_its_bound_is_ejected_and_who_is_down_takes_no_place() {
        let snapshot = snapshot(4, rules());
        let pool = &snapshot.pools[0];
        fail_times(pool, 0, 3);
        fail_times(pool, 1, 30);
        assert_eq!(fresh(pool), [1, 2, 3]);
        pool.backends[0].live.set_health(Health::Down, clock::now());
        fail_times(pool, 1, 1);
        assert_eq!(fresh(pool), [2, 3]);
    }

    #[test]
    fn panic_ignores_ejections_and_never_a_check() {
        let snapshot = snapshot(4, rules());
        let pool = &snapshot.pools[0];
        fail_times(pool, 0, 3);
        pool.backends[1].live.set_health(Health::Down, clock::now());
        assert_eq!(fresh(pool), [2, 3], "half of them are left");
        pool.backends[2].live.set_health(Health::Down, clock::now());
        assert_eq!(fresh(pool), [0, 3], "a quarter would be");
        assert_eq!(eligible(pool).kept().list().len(), 2);
    }

    #[test]
    fn the_only_backend_is_used_however_it_fails() {
        let snapshot = snapshot(1, rules());
        let pool = &snapshot.pools[0];
        fail_times(pool, 0, 100);
        assert_eq!(pool.backends[0].live.record().standing(), Standing::Ejected);
        assert_eq!(fresh(pool), [0]);
    }

    #[test]
    fn on_trial_it_takes_a_tenth_until_it_did_well_or_failed() {
        let snapshot = snapshot(2, rules());
        let pool = &snapshot.pools[0];
        let record = pool.backends[0].live.record();
        let weights = || eligible(pool).fresh().weights().to_vec();
        fail_times(pool, 0, 3);
        let now = clock::now();
        assert!(record.release(now) && !record.release(now));
        assert_eq!(weights(), [FULL / 10, FULL]);
        fail_times(pool, 0, 1);
        assert_eq!(fresh(pool), [1], "one failure ejects again");
        let left = record.left(clock::now()).expect("ejected");
        assert!(
            left > 59 * SECOND && left <= 60 * SECOND,
            "for longer: {left:?}"
        );
        let (cause, last, at) = record.ejection().expect("ejected");
        assert_eq!((cause, last), (Cause::Trial, Verdict::Error(Fault::Closed)));
        assert!(at.elapsed() < 10 * SECOND, "a moment ago");
        record.release(clock::now());
        assert_eq!(record.ejection(), None);
        take(pool, &pool.backends[0], Verdict::Good);
        assert_eq!(weights(), [1, 1]);
        fail_times(pool, 0, 2);
        assert_eq!(fresh(pool), [0, 1], "it begins anew");
        assert_eq!(record.ejections_ever(), [1, 0, 0, 1]);
    }

    #[test]
    fn timeouts_have_a_count_of_their_own() {
        let snapshot = snapshot(2, rules());
        let pool = &snapshot.pools[0];
        for _ in 0..3 {
            take(pool, &pool.backends[0], Verdict::Timeout);
            take(pool, &pool.backends[0], Verdict::Timeout);
            take(pool, &pool.backends[0], Verdict::Good);
        }
        assert_eq!(fresh(pool), [0, 1]);
        for _ in 0..4 {
            take(pool, &pool.backends[0], Verdict::Timeout);
        }
        assert_eq!(fresh(pool), [1]);
        assert!(!pool.backends[0].live.record().is_ejected_for_refusing());
    }

    #[test]
    fn a_success_writes_nothing_when_nothing_is_held_against_it() {
        let snapshot = snapshot(2, rules());
        let pool = &snapshot.pools[0];
        let epoch = pool.epoch.value();
        take(pool, &pool.backends[0], Verdict::Good);
        assert_eq!(pool.epoch.value(), epoch);
        assert_eq!(
            of_status(pool.passive.as_ref().unwrap(), 503),
            Verdict::Error(Fault::Status)
        );
        assert_eq!(
            of_status(pool.passive.as_ref().unwrap(), 500),
            Verdict::Good
        );
    }
}
