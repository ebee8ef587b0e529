//! Which backends are probed: one task per pool and address of the served generation.
//! A reload leaves alone what did not change, schedule and all; what changed is asked again at once and keeps its health until then.
//! The walk goes on in `task.rs`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::task::{Watched, watch};
use super::{Probe, probe_for};
use crate::config::model::Health as Settings;
use crate::policy::health::Health;
use crate::rng::Rng;
use crate::state::backend::Backend;
use crate::state::snapshot::Snapshot;

type Key = (Arc<str>, SocketAddr);

/// Every running probe. All of them end when it is dropped.
#[derive(Debug)]
pub struct Supervisor {
    running: HashMap<Key, Running>,
    ledger: Arc<Ledger>,
    rng: Rng,
    probe_for: fn(&Settings) -> Option<Box<dyn Probe>>,
}

#[derive(Debug)]
struct Running {
    settings: Settings,
    watched: Arc<Watched>,
    /// Held for its end; absent: nothing is asked.
    _task: Option<Task>,
}

/// A task that ends when it is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Supervisor {
    /// Nothing is probed yet.
    pub fn new(rng: Rng) -> Self {
        Supervisor {
            running: HashMap::new(),
            ledger: Arc::default(),
            rng,
            probe_for,
        }
    }

    /// Where probes are counted.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.ledger.clone()
    }

    /// Makes the running probes those of the generation. The first checks of new backends begin within a few milliseconds.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn apply(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.running);
        for (pool, config) in snapshot.pools.iter().zip(&snapshot.config.pools) {
            for backend in &pool.backends {
                let key = (pool.name.clone(), backend.live.address);
                let kept = before.remove(&key);
                let running = self.follow(kept, &pool.name, backend, &config.health);
                self.running.insert(key, running);
            }
        }
        let running = &self.running;
        self.ledger
            .retain(|pool, address| running.contains_key(&(pool.clone(), address)));
    }

    fn follow(
        &mut self,
        kept: Option<Running>,
        pool: &Arc<str>,
        backend: &Backend,
        settings: &Settings,
    ) -> Running {
        let kept = kept.filter(|running| Arc::ptr_eq(&running.watched.live, &backend.live));
        if let Some(running) = &kept {
            running.watched.rename(&backend.name);
        }
        match kept {
            Some(running) if running.settings == *settings => running,
            Some(running) => self.start(running.watched.clone(), settings),
            None => {
                let counts = self.ledger.open(pool, backend.live.address);
                let (name, live) = (backend.name.clone(), backend.live.clone());
                self.start(
                    Arc::new(Watched::new(pool.clone(), name, live, counts)),
                    settings,
                )
            }
        }
    }

    fn start(&mut self, watched: Arc<Watched>, settings: &Settings) -> Running {
        let probe = (self.probe_for)(settings);
        if probe.is_none() && watched.live.health() != Health::Up {
            watched.change(Health::Up, "nothing is checked");
        }
        let task = probe.map(|probe| {
            let rng = Rng::from_seed(self.rng.next_u64());
            Task(tokio::spawn(watch(
                watched.clone(),
                probe,
                settings.clone(),
                rng,
            )))
        });
        Running {
            settings: settings.clone(),
            watched,
            _task: task,
        }
    }
}
