//! What workers know of each other's queues for one pool: how many wait where, and a bell to ring when there may be room.
//! It holds nobody's place and owns no room: a bell that rings in vain, or not at all, costs a moment and never a seat.
//! The walk goes on in `upstream/queue.rs`, where each worker keeps its own line.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use tokio::sync::Notify;

/// Who waits for the backends of a pool. It survives reloads under the pool's name.
#[derive(Debug)]
pub struct Waiting {
    all: AtomicUsize,
    /// Whose bell is rung next.
    turn: AtomicUsize,
    workers: Box<[Bell]>,
    joined: AtomicU64,
    shed: [AtomicU64; 2],
}

/// Why something that waited, or would have, was turned away: the `cause` of `weir_pool_shed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shed {
    /// As many waited as may.
    Full,
    /// It waited for as long as it may.
    Timeout,
}

impl Shed {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Shed; 2] = [Shed::Full, Shed::Timeout];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Shed::Full => "full",
            Shed::Timeout => "timeout",
        }
    }
}

/// What one worker waits with.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Bell {
    waiting: AtomicUsize,
    /// How many other workers are to be asked if nobody here can use the room.
    others: AtomicUsize,
    rings: Notify,
}

impl Waiting {
    /// Nobody, for `workers` workers.
    pub fn new(workers: usize) -> Waiting {
        Waiting {
            all: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            workers: (0..workers).map(|_| Bell::default()).collect(),
            joined: AtomicU64::new(0),
            shed: Default::default(),
        }
    }

    /// How many wait, over all workers.
    #[inline]
    pub fn all(&self) -> usize {
        self.all.load(SeqCst)
    }

    /// Counts one more who waits at `worker`; false, and counted as shed, when `most` do.
    ///
    /// Whoever waits looks for room once more after this: room that was freed before was freed without a bell.
    pub fn join(&self, worker: usize, most: usize) -> bool {
        let is_room = |all: usize| (all < most).then_some(all + 1);
        if self.all.fetch_update(SeqCst, SeqCst, is_room).is_err() {
            self.shed(Shed::Full);
            return false;
        }
        if let Some(bell) = self.workers.get(worker) {
            bell.waiting.fetch_add(1, SeqCst);
        }
        self.joined.fetch_add(1, Relaxed);
        true
    }

    /// Counts one less.
    pub fn leave(&self, worker: usize) {
        if let Some(bell) = self.workers.get(worker) {
            bell.waiting.fetch_sub(1, SeqCst);
        }
        self.all.fetch_sub(1, SeqCst);
    }

    /// There is room for one more, which was made known before: the bell of the next worker with somebody waiting rings. Workers take
    /// turns, so that those that free much do not serve their own clients only.
    #[inline]
    pub fn freed(&self) {
        if self.all.load(SeqCst) > 0 {
            self.ring(self.turn.fetch_add(1, Relaxed), self.workers.len());
        }
    }

    /// Nobody at `worker` could use the room that its bell rang for: others are asked, each once.
    pub fn pass(&self, worker: usize) {
        if let Some(bell) = self.workers.get(worker) {
            self.ring(worker + 1, bell.others.swap(0, Relaxed));
        }
    }

    #[cold]
    fn ring(&self, from: usize, asked: usize) {
        for step in 0..asked {
            let bell = &self.workers[from.wrapping_add(step) % self.workers.len()];
            if bell.waiting.load(SeqCst) > 0 {
                bell.others.store(asked - step - 1, Relaxed);
                bell.rings.notify_one();
                return;
            }
        }
    }

    /// Waits for the bell of `worker`. It may have rung before; a ring is heard once.
    pub async fn heard(&self, worker: usize) {
        match self.workers.get(worker) {
            Some(bell) => bell.rings.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Counts one that is turned away.
    pub fn shed(&self, cause: Shed) {
        self.shed[cause as usize].fetch_add(1, Relaxed);
    }

    /// How many were turned away, and why.
    pub fn shed_total(&self, cause: Shed) -> u64 {
        self.shed[cause as usize].load(Relaxed)
    }

    /// How many have waited so far, or wait.
    pub fn joined_total(&self) -> u64 {
        self.joined.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(waiting: &Waiting) -> Vec<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let heard = |worker: &usize| {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = waiting.heard(*worker) => true,
                    () = std::future::ready(()) => false,
                }
            })
        };
        (0..waiting.workers.len()).filter(heard).collect()
    }

    #[test]
    fn bells_ring_in_turn_where_somebody_waits() {
        let waiting = Waiting::new(3);
        waiting.freed();
        assert!(rings(&waiting).is_empty());
        assert!(waiting.join(0, 9) && waiting.join(2, 9));
        let heard: Vec<_> = (0..6)
            .map(|_| {
                waiting.freed();
                rings(&waiting)[0]
            })
            .collect();
        assert!(
            heard.iter().filter(|worker| **worker == 0).count() >= 2,
            "{heard:?}"
        );
        assert!(
            heard.iter().filter(|worker| **worker == 2).count() >= 2,
            "{heard:?}"
        );
        waiting.leave(0);
        waiting.freed();
        assert_eq!(rings(&waiting), [2]);
    }

    #[test]
    fn each_worker_is_asked_once() {
        let waiting = Waiting::new(3);
        (0..3).for_each(|worker| assert!(waiting.join(worker, 9)));
        waiting.freed();
        for asked in 0..3 {
            let heard = rings(&waiting);
            assert_eq!(heard.len(), 1, "{asked}");
            waiting.pass(heard[0]);
        }
        assert!(rings(&waiting).is_empty());
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let waiting = Waiting::new(2);
        assert!(waiting.join(0, 2) && waiting.join(1, 2) && !waiting.join(1, 2));
        waiting.leave(0);
        assert!(waiting.join(1, 2));
        assert_eq!((waiting.all(), waiting.joined_total()), (2, 3));
        assert_eq!(waiting.shed_total(Shed::Full), 1);
        assert!(!Waiting::new(1).join(0, 0));
    }
}
