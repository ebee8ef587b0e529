//! What control does with live sessions: it forgets those that expired, and tells how unevenly they lie.
//! It never touches one that is alive.
//! The walk goes on in `state/live_sessions.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::config::model::AdminState;
use crate::control::state_dir::has_served;
use crate::policy::balance::BackendIndex;
use crate::policy::health::Health;
use crate::state::live_sessions::LiveSessions;
use crate::state::snapshot::{Pool, Snapshot};

/// Between two looks at a part of every table.
const TURN: Duration = Duration::from_secs(1);

/// Forgets what expired, until the process ends.
pub async fn sweep(current: watch::Receiver<Arc<Snapshot>>) {
    loop {
        tokio::time::sleep(TURN).await;
        let snapshot = current.borrow().clone();
        let pools = snapshot.pools.iter();
        let tables = pools.filter_map(|pool| pool.sessions.as_ref());
        tables.for_each(|sessions| sessions.sweep(clock::now()));
    }
}

/// Tells the tables of a first generation when another weir served before: clients may have sessions that they do not know.
pub fn follow(first: &Snapshot) {
    let tables = first.pools.iter().filter_map(|pool| pool.sessions.as_ref());
    if tables.clone().any(LiveSessions::is_local) && has_served(&first.config.state_dir) {
        tables.for_each(LiveSessions::follow);
    }
}

/// The live sessions of the busiest backend for its weight over the mean, among those that are up and ready; 1 is even. `None`
/// where there is no such backend or no session.
pub fn skew(pool: &Pool, sessions: &LiveSessions) -> Option<f64> {
    let backends = pool.backends.iter().zip(0..=u16::MAX);
    let able = backends.filter(|(backend, _)| {
        backend.admin() == AdminState::Ready && backend.live.health() == Health::Up
    });
    ratio(able.map(|(backend, index)| (backend.weight, sessions.count(BackendIndex(index)))))
}

/// The most over the mean, of counts that weights divide.
fn ratio(counts: impl Iterator<Item = (u16, u32)>) -> Option<f64> {
    let (mut sum, mut weights, mut most) = (0.0, 0.0, 0.0_f64);
    for (weight, count) in counts {
        let (weight, count) = (f64::from(weight), f64::from(count));
        sum += count;
        weights += weight;
        most = most.max(count / weight);
    }
    (sum > 0.0).then(|| most * weights / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_relative_to_weight() {
        let of = |counts: &[(u16, u32)]| ratio(counts.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(1, 0), (2, 0)]), None);
        assert_eq!(of(&[(1, 5), (2, 10)]), Some(1.0));
        assert_eq!(of(&[(1, 2), (1, 1), (1, 1)]), Some(1.5));
        assert_eq!(of(&[(1, 4), (1, 0)]), Some(2.0));
    }
}
