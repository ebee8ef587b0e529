//! Keeps count of how long backends have been serving, in pools that let them warm up.
//! It only says what time went by; it counts and decides nothing.
//! The walk goes on in `state/warmth.rs`, which counts and makes the workers look again step by step.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::state::snapshot::Snapshot;
use crate::state::warmth::warm;

/// Between two looks; a share does not grow oftener.
const LOOK: Duration = Duration::from_millis(100);

/// Counts until it is aborted.
pub async fn warm_up(current: watch::Receiver<Arc<Snapshot>>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        let now = looks.tick().await;
        let snapshot = current.borrow().clone();
        for pool in &snapshot.pools {
            warm(pool, now - last);
        }
        last = now;
    }
}
