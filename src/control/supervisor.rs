//! The workers as control sees them: started once, told of generations, told to drain, counted out.
//! It never waits for a worker without a deadline.
//! The walk goes on in `worker.rs`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::sockets::Handed;
use crate::metrics::worker::WorkerCounts;
use crate::state::snapshot::Snapshot;
use crate::worker::{self, Command, Handle, Setup};

/// How long workers may take to adopt a generation before the log says so.
const ADOPTION: Duration = Duration::from_secs(2);
/// How long threads may take to end once nothing is open.
const END: Duration = Duration::from_secs(1);
/// Between two looks at something that has no event of its own.
const LOOK: Duration = Duration::from_millis(5);

/// Every worker of the process.
#[derive(Debug)]
pub struct Supervisor {
    workers: Vec<Handle>,
}

/// The answers of workers that were told of a generation.
#[derive(Debug)]
#[must_use = "workers that hang are found by waiting"]
pub struct Adoption(Vec<oneshot::Receiver<()>>);

impl Supervisor {
    /// Starts a worker for each setup. They serve nothing yet.
    ///
    /// # Errors
    /// When the system refuses a thread or a runtime.
    pub fn start(setups: impl Iterator<Item = Setup>) -> io::Result<Self> {
        let workers = setups.map(worker::spawn).collect::<io::Result<_>>()?;
        Ok(Supervisor { workers })
    }

    /// A supervisor of the given workers.
    #[cfg(test)]
    pub fn of(workers: Vec<Handle>) -> Self {
        Supervisor { workers }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// What each counts.
    pub fn counts(&self) -> Vec<Arc<WorkerCounts>> {
        self.workers
            .iter()
            .map(|worker| worker.counts.clone())
            .collect()
    }

    /// Client connections open now.
    pub fn open(&self) -> usize {
        self.workers.iter().map(|worker| worker.counts.open()).sum()
    }

    /// The worker whose thread has ended, which it does only when it is told to.
    pub fn dead(&self) -> Option<usize> {
        self.workers
            .iter()
            .position(|worker| worker.thread.is_finished())
    }

    /// Tells every worker to serve the generation from now on, and gives each its sockets.
    pub fn switch(&self, snapshot: &Arc<Snapshot>, sockets: Vec<Handed>) -> Adoption {
        let tell = |(worker, opened): (&Handle, _)| {
            let (adopted, answer) = oneshot::channel();
            // A worker that is gone is found by `dead`; its answer never comes.
            let _ = worker.commands.send(Command::Switch {
                snapshot: snapshot.clone(),
                opened,
                adopted,
            });
            answer
        };
        Adoption(self.workers.iter().zip(sockets).map(tell).collect())
    }

    /// Tells every worker to accept no more and to finish what is open.
    pub fn drain(&self) {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Drain);
        }
    }

    /// Tells every worker that another process serves the sockets, and to finish what is open.
    pub fn hand_over(&self) {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::HandOver);
        }
    }

    /// Waits until no client connection is open and no datagram is waited for, at two looks in a row: what was accepted last may not be
    /// counted yet.
    pub async fn idle(&self) {
        let mut calm = 0;
        while calm < 2 {
            sleep(LOOK).await;
            let is_idle = self.open() + self.drivers() == 0;
            calm = if is_idle { calm + 1 } else { 0 };
        }
    }

    /// Waits until the workers serve no more than so many sockets of datagrams.
    pub async fn drivers_down_to(&self, sockets: usize) {
        while self.drivers() > sockets {
            sleep(LOOK).await;
        }
    }

    fn drivers(&self) -> usize {
        let drivers = |worker: &Handle| worker.counts.drivers();
        self.workers.iter().map(drivers).sum()
    }

    /// Ends the threads, and waits a moment for them so that what they buffered is handed over.
    pub async fn end(self) {
        let threads: Vec<_> = self
            .workers
            .into_iter()
            .map(|worker| worker.thread)
            .collect();
        let deadline = Instant::now() + END;
        while !threads.iter().all(|thread| thread.is_finished()) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }
}

impl Adoption {
    /// Waits until every worker answered; the log names those that do not.
    pub async fn wait(self) {
        let deadline = Instant::now() + ADOPTION;
        for (index, answer) in self.0.into_iter().enumerate() {
            if !matches!(timeout_at(deadline, answer).await, Ok(Ok(()))) {
                log::error!("worker {index}: has not adopted the generation within {ADOPTION:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample::worker;

    #[tokio::test]
    async fn a_worker_that_is_gone_is_found_and_one_that_hangs_does_not_hold_the_end() {
        let (gone, _) = worker();
        while !gone.thread.is_finished() {
            sleep(LOOK).await;
        }
        let (mut hangs, _commands) = worker();
        let (release, held) = std::sync::mpsc::channel::<()>();
        hangs.thread = std::thread::spawn(move || {
            let _ = held.recv();
        });
        let supervisor = Supervisor::of(vec![hangs, gone]);
        assert_eq!(supervisor.dead(), Some(1));
        let started = Instant::now();
        supervisor.end().await;
        assert!(started.elapsed() < END * 3);
        drop(release);
    }
}
