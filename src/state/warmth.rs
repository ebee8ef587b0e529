//! For how long backends have been serving, in pools that let them warm up.
//! It decides nothing and knows no clock: what a time means is `policy/health/slow_start`'s to say, and control says what time went by.
//! The walk goes on in `upstream/generation.rs`, where each worker weighs its backends anew.

use std::time::Duration;

use super::backend::Backend;
use super::snapshot::Pool;
use crate::config::model::AdminState;
use crate::policy::health::Health;
use crate::policy::health::slow_start::share;

/// Counts the time that went by, and makes the workers look again when a share grew. In a pool without `slow_start` nobody grows warm, so that those who serve by the time it gets one are
/// equal, and none of them is held back.
pub fn warm(pool: &Pool, elapsed: Duration) {
    let Some(slow_start) = pool.slow_start else {
        return;
    };
    let mut grew = false;
    for backend in &pool.backends {
        let before = backend.live.warm();
        let after = match serves(backend) {
            true => (before + elapsed).min(slow_start),
            false => Duration::ZERO,
        };
        if before != after {
            backend.live.set_warm(after);
            grew |= share(before, slow_start) != share(after, slow_start);
        }
    }
    if grew {
        pool.epoch.advance();
    }
}

/// Whether clients are served there, be it only those that it has.
fn serves(backend: &Backend) -> bool {
    backend.live.health() == Health::Up && backend.admin() != AdminState::Maint
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::policy::health::slow_start::FULL;
    use crate::state::compile::compile;
    use crate::state::sample::{config, loopback};
    use crate::state::snapshot::Snapshot;

    const TIME: Duration = Duration::from_secs(10);
    const LOOK: Duration = Duration::from_millis(100);

    fn snapshot(slow_start: Option<Duration>) -> Snapshot {
        let mut config = config(
            &[("web", &[loopback(80)])],
            &[("was", &[loopback(1), loopback(2)])],
        );
        config.pools[0].slow_start = slow_start;
        compile(Arc::new(config), None, None, 1, 1, clock::now())
    }

    fn shares(pool: &Pool) -> Vec<u16> {
        let lives = pool.backends.iter().map(|backend| &backend.live);
        lives.map(|live| share(live.warm(), TIME)).collect()
    }

    #[test]
    fn who_came_up_later_catches_up_and_who_is_taken_out_begins_anew() {
        let snapshot = snapshot(Some(TIME));
        let pool = &snapshot.pools[0];
        let [one, two] = &pool.backends[..] else {
            panic!("two backends");
        };
        one.live.set_health(Health::Up, clock::now());
        warm(pool, TIME);
        assert_eq!(shares(pool), [FULL, FULL / 10]);
        two.live.set_health(Health::Up, clock::now());
        warm(pool, TIME / 2);
        assert_eq!(shares(pool), [FULL, 137]);
        one.set_over(Some(AdminState::Drain));
        warm(pool, TIME / 2);
        assert_eq!(shares(pool), [FULL, FULL], "a drain keeps warm");
        one.set_over(Some(AdminState::Maint));
        warm(pool, LOOK);
        two.live.set_health(Health::Down, clock::now());
        assert_eq!(shares(pool), [FULL / 10, FULL / 10]);
    }

    #[test]
    fn workers_look_again_only_when_a_share_grew() {
        let snapshot = snapshot(Some(TIME));
        let pool = &snapshot.pools[0];
        pool.backends[0].live.set_health(Health::Up, clock::now());
        let before = pool.epoch.value();
        for _ in 0..200 {
            warm(pool, LOOK);
        }
        assert_eq!(pool.epoch.value() - before, 32);
    }

    #[test]
    fn without_a_time_nobody_grows_warm() {
        let snapshot = snapshot(None);
        let pool = &snapshot.pools[0];
        pool.backends[0].live.set_health(Health::Up, clock::now());
        warm(pool, TIME);
        assert_eq!(pool.backends[0].live.warm(), Duration::ZERO);
    }
}
