//! Which side of a canary a client is on: where it has its home, else where chance or its key leads it.
//! It draws nothing itself, and never moves a client that has a home.
//! The walk goes back to `l7/way.rs`, `l4/way.rs` and control's `explain.rs`, which ask it alike.

use super::facts::Facts;
use super::persist::{Home, Persistence, Recall, Sticky};
use super::rendezvous::{self, Rendezvous};

/// A part of all clients, in 2^-32 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Takes the part in hundredths, at most 100.
    pub fn new(percent: f64) -> Share {
        Share((percent.clamp(0.0, 100.0) / 100.0 * 4_294_967_296.0).round() as u64)
    }

    /// Whether a client at this point of all clients, which lie evenly from 0 to 2^32, is of the part. Who is of a part is of every
    /// greater one.
    pub fn takes(self, point: u32) -> bool {
        u64::from(point) < self.0
    }
}

/// A side as a decision sees it.
pub struct Side<'a> {
    /// The stickiness toward its pool.
    pub sticky: &'a Sticky,
    /// The backends of its pool, ranked for every client.
    pub ring: &'a Rendezvous,
    /// What is known of the client, its session in that pool included.
    pub facts: &'a Facts<'a>,
}

impl Side<'_> {
    fn home(&self) -> Option<Home> {
        match self.sticky.mode.recall(self.facts, self.ring, &mut None) {
            Recall::Keep(home) => Some(home),
            _ => None,
        }
    }
}

/// Whether a client of a sticky route belongs to the canary; `None`: it is new, and chance decides.
///
/// A client that is known by its key alone, such as its address, is on the side that the key says, so that the canary's part can grow
/// without moving those who are there. Everyone else is where it has a home, at its own pool if at both.
pub fn is_canary(share: Share, own: &Side<'_>, canary: &Side<'_>) -> Option<bool> {
    let home = own.home();
    if own.sticky.mode.is_by_key() {
        // Other bits than those that find the home.
        let point = |home: Home| (rendezvous::key(&home.key.to_le_bytes()) >> 32) as u32;
        return home.map(|home| share.takes(point(home)));
    }
    let other = canary.home();
    let is_there = |home: &Option<Home>| home.is_some_and(|home| home.backend.is_some());
    match (is_there(&home), is_there(&other)) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        // One whose home left its pool has none on the other side either.
        (false, false) => home.map(|_| false).or(other.map(|_| true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_and_grow() {
        assert!(!Share::new(0.0).takes(0));
        assert!(Share::new(100.0).takes(u32::MAX));
        for percent in [0.5, 5.0, 50.0, 99.0] {
            let most = (percent / 100.0 * 4_294_967_296.0) as u64;
            let share = Share::new(percent);
            assert!(share.takes((most - 2) as u32) && !share.takes((most + 2) as u32));
        }
    }
}
