//! The workers' end of a store that several weirs share: questions and news go to control by a bounded channel, and are never waited for there.
//! It never holds a session id, only the names that a store knows sessions by, and asks nothing of a store that is down.
//! The walk goes on in control's `store.rs`, which speaks to the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::model::Store;

/// Requests to one store that may wait for it, over all workers.
const QUEUE: usize = 1024;

/// What control is asked for.
#[derive(Debug)]
pub enum Request {
    /// Who has the session of one of these names?
    Find {
        /// Its names; the first that the store knows counts.
        names: Vec<String>,
        /// Dropped when there is no answer.
        reply: oneshot::Sender<Option<Found>>,
    },
    /// A session is with this backend.
    Put {
        /// Its name in the store.
        name: String,
        /// Who has it since when.
        found: Found,
        /// Whether that is new; if not, what the store says already stands, and lives on.
        changed: bool,
        /// How long the store keeps it.
        kept_for: Duration,
    },
    /// A session is over.
    End {
        /// Its names.
        names: Vec<String>,
    },
}

/// What a store knows of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name of the backend that has it.
    pub backend: String,
    /// When it was opened, in seconds since the epoch.
    pub opened: u64,
}

/// What became of a request to a store: the `result` of `weir_sticky_store_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The session was found.
    Found,
    /// It was not.
    Unknown,
    /// The answer did not come in time.
    Late,
    /// The store was down, and was not asked.
    Skipped,
    /// News were written.
    Written,
    /// The store refused, its answer made no sense, or it went away.
    Failed,
    /// Too many requests waited.
    Full,
}

impl Outcome {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Outcome; 7] = [
        Outcome::Found,
        Outcome::Unknown,
        Outcome::Late,
        Outcome::Skipped,
        Outcome::Written,
        Outcome::Failed,
        Outcome::Full,
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Found => "found",
            Outcome::Unknown => "unknown",
            Outcome::Late => "late",
            Outcome::Skipped => "skipped",
            Outcome::Written => "written",
            Outcome::Failed => "failed",
            Outcome::Full => "full",
        }
    }
}

/// What is known of a store's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Nothing yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not, or too slowly.
    Down,
}

/// How a store does; control writes it, workers read it.
#[derive(Debug, Default)]
pub struct Health {
    standing: AtomicU8,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Health {
    /// How it does now.
    pub fn standing(&self) -> Standing {
        match self.standing.load(Relaxed) {
            0 => Standing::Unknown,
            1 => Standing::Up,
            _ => Standing::Down,
        }
    }

    /// Says how it does; what was said before.
    pub fn set(&self, standing: Standing) -> Standing {
        let before = self.standing();
        self.standing.store(standing as u8, Relaxed);
        before
    }

    /// Counts an outcome.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    /// How often each outcome was counted, in the order of [`Outcome::ALL`].
    pub fn counts(&self) -> [u64; Outcome::ALL.len()] {
        self.outcomes.each_ref().map(|count| count.load(Relaxed))
    }
}

/// The workers' end of one store. It lives as long as a generation uses it, and the server's other end with it.
#[derive(Debug)]
pub struct StoreEnd {
    /// Which store it is.
    pub store: Store,
    /// How it does.
    pub health: Arc<Health>,
    requests: mpsc::Sender<Request>,
}

impl StoreEnd {
    /// An end, and what comes out at the other.
    pub fn new(store: Store) -> (StoreEnd, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let health = Arc::default();
        let end = StoreEnd {
            store,
            health,
            requests,
        };
        (end, receiver)
    }

    /// Asks who has the session of one of these names. `None`: there will be no answer.
    pub fn find(
        &self,
        names: impl FnOnce() -> Vec<String>,
    ) -> Option<oneshot::Receiver<Option<Found>>> {
        let (reply, answer) = oneshot::channel();
        let request = || {
            Some(Request::Find {
                names: names(),
                reply,
            })
        };
        self.tell(request).then_some(answer)
    }

    /// Hands on a request, which is not even made if the store is down; whether that was possible.
    pub fn tell(&self, request: impl FnOnce() -> Option<Request>) -> bool {
        if self.health.standing() == Standing::Down {
            self.health.count(Outcome::Skipped);
            return false;
        }
        let Some(request) = request() else {
            return false;
        };
        let is_sent = self.requests.try_send(request).is_ok();
        if !is_sent {
            self.health.count(Outcome::Full);
        }
        is_sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> (StoreEnd, mpsc::Receiver<Request>) {
        StoreEnd::new(Store {
            host: "h".into(),
            port: 1,
            database: 0,
            user: None,
            password: None,
        })
    }

    #[test]
    fn a_store_that_is_down_is_not_asked_and_a_full_queue_is_not_waited_for() {
        let (end, mut requests) = end();
        let names = || vec!["a".to_owned()];
        let asked: Vec<_> = (0..QUEUE).filter_map(|_| end.find(names)).collect();
        assert_eq!(asked.len(), QUEUE);
        assert!(end.find(names).is_none());
        assert!(requests.try_recv().is_ok());
        assert!(end.find(names).is_some());
        assert_eq!(end.health.set(Standing::Down), Standing::Unknown);
        assert!(
            end.find(|| unreachable!("nobody names what is not asked for"))
                .is_none()
        );
        let counts = end.health.counts();
        assert_eq!(counts[Outcome::Full as usize], 1);
        assert_eq!(counts[Outcome::Skipped as usize], 1);
    }

    #[test]
    fn outcomes_are_in_the_order_of_their_numbers() {
        for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number);
        }
    }
}
