//! The shadow model: what must be true, kept by other means than weir's and judged at every step.
//! It knows what the operator and the checks said, where each client's home is, and who is in flight where; it never asks weir for any of these.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use weir::config::model::AdminState;
use weir::policy::health::Health;
use weir::state::backend::Live;
use weir::state::snapshot::{Pool, Snapshot};

use crate::file;

#[derive(Default)]
pub struct Shadow {
    /// What was set over the file, by pool and name.
    pub set: BTreeMap<(String, String), AdminState>,
    /// What the checks of the present servers came to, by pool and address.
    pub health: BTreeMap<(String, std::net::SocketAddr), Watched>,
    in_flight: Rc<RefCell<InFlight>>,
    pub homes: BTreeMap<(usize, String), Home>,
    /// Where sessions that weir saw live: by pool, its incarnation, and id.
    pub learned: BTreeMap<(String, u64, String), (String, Instant)>,
    /// Since which generation a pool's sessions are watched, by generation and pool.
    pub incarnations: BTreeMap<(u64, String), u64>,
    pub file: Option<file::File>,
}

/// Requests in flight by server, and the server, so that no other takes its place in memory.
type InFlight = BTreeMap<*const Live, (Arc<Live>, u32)>;

/// The checks of one server under the settings of the moment.
#[derive(Clone, Debug)]
pub struct Watched {
    check: Option<file::Check>,
    pub health: Health,
    /// Since when.
    pub since: Instant,
    /// Whether a check ever passed.
    proven: bool,
    /// What came of the checks since the settings changed last.
    outcomes: Vec<bool>,
}

impl Watched {
    fn new(pool: &file::Pool, now: Instant) -> Watched {
        let health = match pool.check.as_ref().map(|check| check.initial) {
            None | Some("up") => Health::Up,
            Some("down") => Health::Down,
            Some(_) => Health::Unknown,
        };
        Watched {
            check: pool.check.clone(),
            health,
            since: now,
            proven: false,
            outcomes: Vec::new(),
        }
    }

    /// A check came to its end: enough of one kind in a row decide, and the first one of all, and the first that ever passes.
    pub fn observe(&mut self, passes: bool, now: Instant) {
        let Some(check) = &self.check else { return };
        self.outcomes.push(passes);
        let wanted = match passes {
            true if self.proven => check.rise,
            true => 1,
            false if self.health == Health::Unknown => 1,
            false => check.fall,
        };
        let row = self
            .outcomes
            .iter()
            .rev()
            .take_while(|own| **own == passes)
            .count();
        let is_first = self.health == Health::Unknown;
        self.proven |= passes;
        if row >= wanted as usize || is_first {
            self.become_(if passes { Health::Up } else { Health::Down }, now);
        }
    }

    /// The settings are others from now on.
    fn rejudge(&mut self, check: &Option<file::Check>, now: Instant) {
        if self.check != *check {
            self.check.clone_from(check);
            self.outcomes.clear();
        }
        if check.is_none() {
            self.become_(Health::Up, now);
        }
    }

    fn become_(&mut self, health: Health, now: Instant) {
        if self.health != health {
            self.health = health;
            self.since = now;
        }
    }
}

/// Where a client belongs.
#[derive(Clone, Debug)]
pub struct Home {
    pub name: String,
    /// Where it went while its home was away.
    pub refuge: Option<String>,
    /// The settings that it was told by.
    pub sticky: file::Sticky,
    /// Names and weights that it followed from.
    pub ring: Vec<(String, u16)>,
    /// When weir answered last, on the wall clock, and where.
    pub answered_millis: u64,
}

/// A request in flight, as the shadow counts.
pub struct Flying {
    counts: Rc<RefCell<InFlight>>,
    live: *const Live,
}

impl Drop for Flying {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut counts = self.counts.borrow_mut();
        let (live, count) = counts.get_mut(&self.live).expect("it was counted");
        // The lease beside it is dropped after it.
        assert_eq!(live.in_flight(), *count, "in flight at {}", live.address);
        *count = count.checked_sub(1).expect("never negative");
    }
}

impl Shadow {
    /// A generation was made: what outlives it is the same, what is new begins as the file says.
    pub fn follow(
        &mut self,
        file: &file::File,
        before: Option<&Snapshot>,
        snapshot: &Snapshot,
        now: Instant,
    ) {
        assert_eq!(snapshot.pools.len(), file.pools.len());
        for (pool, from) in snapshot.pools.iter().zip(&file.pools) {
            assert_eq!(*pool.name, *from.name);
            let known =
                before.and_then(|before| before.pools.iter().find(|own| own.name == pool.name));
            self.follow_pool(from, known, pool, now);
            let key = |generation| (generation, from.name.clone());
            let is_watched = known.is_some_and(|known| known.sessions.is_some());
            let last = snapshot.generation - 1;
            let inherited = self
                .incarnations
                .get(&key(last))
                .copied()
                .filter(|_| is_watched);
            let since = inherited.unwrap_or(snapshot.generation);
            self.incarnations.insert(key(snapshot.generation), since);
        }
        let is_served = |pool: &str, address| {
            let pool = file.pool(pool);
            pool.is_some_and(|pool| pool.backends.iter().any(|own| own.address == address))
        };
        self.health
            .retain(|(pool, address), _| is_served(pool, *address));
        let set = std::mem::take(&mut self.set);
        self.set = set
            .into_iter()
            .filter(|((pool, name), state)| {
                let written = file
                    .pool(pool)
                    .and_then(|pool| pool.backends.iter().find(|own| own.name == *name));
                *state != AdminState::Ready || written.is_none_or(|own| own.state != "ready")
            })
            .collect();
        self.file = Some(file.clone());
    }

    fn follow_pool(&mut self, from: &file::Pool, known: Option<&Pool>, pool: &Pool, now: Instant) {
        assert_eq!(pool.backends.len(), from.backends.len());
        assert!(
            known.is_none_or(|known| Arc::ptr_eq(&known.epoch, &pool.epoch)),
            "the pool's epoch"
        );
        for (backend, own) in pool.backends.iter().zip(&from.backends) {
            let said = (&*backend.name, backend.live.address, backend.weight);
            assert_eq!(
                said,
                (&*own.name, own.address, own.weight),
                "apply converges"
            );
            let lives = known.into_iter().flat_map(|known| &known.backends);
            let before = lives
                .map(|own| &own.live)
                .find(|live| live.address == own.address);
            assert!(
                before.is_none_or(|before| Arc::ptr_eq(before, &backend.live)),
                "what is known of {} outlives the reload",
                own.address
            );
            let key = (from.name.clone(), own.address);
            match before.is_some() {
                true => self
                    .health
                    .get_mut(&key)
                    .expect("known")
                    .rejudge(&from.check, now),
                false => drop(self.health.insert(key, Watched::new(from, now))),
            }
            if before.is_none() {
                assert_eq!(
                    backend.live.in_flight(),
                    0,
                    "a new server has nothing to do"
                );
            }
        }
    }

    /// Counts a request in flight until that is dropped.
    pub fn enter(&self, live: &Arc<Live>) -> Flying {
        let key = Arc::as_ptr(live);
        let mut counts = self.in_flight.borrow_mut();
        counts.entry(key).or_insert_with(|| (live.clone(), 0)).1 += 1;
        Flying {
            counts: self.in_flight.clone(),
            live: key,
        }
    }

    /// weir counts what is in flight as the shadow does.
    pub fn expect_loads(&self, pool: &Pool) {
        let counts = self.in_flight.borrow();
        for backend in &pool.backends {
            let own = counts
                .get(&Arc::as_ptr(&backend.live))
                .map_or(0, |(_, count)| *count);
            assert_eq!(
                backend.live.in_flight(),
                own,
                "in flight at {}",
                backend.name
            );
        }
    }

    pub fn expect_nothing_in_flight(&self) {
        for (live, count) in self.in_flight.borrow().values() {
            let left = (*count, live.in_flight(), live.arriving(), live.upgraded());
            assert_eq!(
                left,
                (0, 0, 0, 0),
                "at the end nothing is in flight at {}",
                live.address
            );
        }
    }

    /// A client lost its cookies, or spoiled them: it need not be known any more.
    pub fn forget(&mut self, client: usize, pool: &str) {
        self.homes.remove(&(client, pool.to_owned()));
    }
}
