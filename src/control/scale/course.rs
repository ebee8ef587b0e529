//! The course of one pool: measure, decide, have servers started, drain one, have it stopped, again.
//! One thing at a time, and a server is stopped only when nothing is left there or its time is up.
//! The walk goes on in `actor.rs`.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actor::{Named, Order, Running};
use super::measure::Meter;
use super::{STEPS, Standing};
use crate::clock;
use crate::config::model::{self, AdminState, Scale};
use crate::control::overrides::Overrides;
use crate::policy::balance::BackendIndex;
use crate::policy::health::Health;
use crate::policy::scale::{Action, Bounds, Scaler, Seen};
use crate::state::backend::Backend;
use crate::state::snapshot::Pool;

/// What was chosen for a backend just before it drains is counted there by then.
const SETTLE: Duration = Duration::from_secs(1);

/// One pool.
#[derive(Debug)]
pub(super) struct Course {
    settings: Scale,
    scaler: Scaler,
    meter: Meter,
    stage: Stage,
    /// When the next interval ends.
    next: Instant,
    /// For people.
    pub(super) standing: Standing,
}

/// What is being done.
#[derive(Debug)]
enum Stage {
    /// Nothing.
    Watching,
    /// Servers are asked for.
    Starting(Running),
    /// One drains.
    Draining(Leaving),
    /// It is to be stopped.
    Stopping(Leaving, Running),
    /// It was, and is still in the pool, since then.
    Going(Leaving, Instant),
}

/// A backend that is given up.
#[derive(Clone, Debug)]
struct Leaving {
    name: Arc<str>,
    since: Instant,
    /// It is not stopped before.
    not_before: Instant,
}

/// What a look has before it.
struct Look<'a> {
    now: Instant,
    pool: &'a Pool,
    config: &'a model::Pool,
    overrides: &'a Overrides,
}

impl Leaving {
    /// The backend drains from now on.
    fn begin(backend: &Backend, now: Instant) -> Leaving {
        backend.set_over(Some(AdminState::Drain));
        Leaving {
            name: backend.name.clone(),
            since: now,
            not_before: now + SETTLE,
        }
    }
}

impl Course {
    /// Nothing is known yet; `steps` were counted before.
    pub(super) fn new(settings: Scale, steps: [u64; STEPS.len()], now: Instant) -> Self {
        let bounds = Bounds {
            min: settings.min,
            max: settings.max,
            target: settings.target.value(),
            cool_down: settings.cool_down,
            hold: settings.hold,
        };
        Course {
            scaler: Scaler::new(bounds),
            meter: Meter::default(),
            stage: Stage::Watching,
            next: now + settings.interval,
            standing: Standing {
                steps,
                ..Standing::default()
            },
            settings,
        }
    }

    pub(super) fn settings(&self) -> &Scale {
        &self.settings
    }

    /// A look: a sample, what became of what is under way, and at the end of an interval a decision.
    pub(super) fn step(
        &mut self,
        now: Instant,
        pool: &Pool,
        config: &model::Pool,
        overrides: &Overrides,
        durations: &dyn Fn() -> (u64, f64),
    ) {
        let look = Look {
            now,
            pool,
            config,
            overrides,
        };
        self.meter.look(pool, self.settings.target);
        self.advance(&look);
        let mut seen = see(pool);
        self.standing.serving = seen.serving;
        if self.standing.wanted == 0 {
            // Nothing is known of its load yet; whoever follows the metric must not take that for an order to stop everything.
            self.standing.wanted = self.scaler.wanted(&seen);
        }
        if now >= self.next {
            self.next = now + self.settings.interval;
            let target = self.settings.target;
            seen.load = self.meter.read(target, seen.serving, durations);
            self.standing.wanted = self.scaler.wanted(&seen);
            let each = seen.load.filter(|_| seen.serving > 0);
            self.standing.load = each.map(|load| load / target.value() / seen.serving as f64);
            self.decide(&look, &seen);
        }
        self.standing.doing = self.doing();
    }

    /// It is over: what drains for its sake takes new work again.
    pub(super) fn leave(self, pool: &Pool, overrides: &Overrides) {
        if let Stage::Draining(leaving) | Stage::Stopping(leaving, _) | Stage::Going(leaving, _) =
            &self.stage
        {
            take_back(pool, &leaving.name, overrides);
        }
    }

    fn decide(&mut self, look: &Look<'_>, seen: &Seen) {
        if let Stage::Draining(leaving) = &self.stage {
            // Sooner than another server starts, this one is back.
            if self.scaler.wanted(seen) > seen.serving && seen.load.is_some() {
                let (pool, name) = (&look.pool.name, &leaving.name);
                log::info!("scale: pool {pool}: {name} is needed after all");
                take_back(look.pool, &leaving.name, look.overrides);
                self.watch(look.now);
            }
            return;
        }
        if !matches!(self.stage, Stage::Watching) {
            return;
        }
        match self.scaler.decide(look.now, seen) {
            Action::Stay => {}
            Action::Out(to) => self.grow(look, seen, to),
            Action::In => self.shrink(look, seen),
        }
    }

    fn grow(&mut self, look: &Look<'_>, seen: &Seen, to: usize) {
        let (pool, serving) = (&look.pool.name, seen.serving);
        log::info!("scale: pool {pool}: {serving} backends serve, {to} are to be there");
        if let Some(actor) = &self.settings.actor {
            let order = self.order(look, "out", to, None);
            let running = Running::start(actor, &order, self.settings.timeout);
            self.stage = Stage::Starting(running);
        }
    }

    fn shrink(&mut self, look: &Look<'_>, seen: &Seen) {
        if self.settings.actor.is_none() {
            return;
        }
        let Some(index) = choose(look.pool, look.config) else {
            return;
        };
        let backend = &look.pool.backends[index.index()];
        let (pool, name, serving) = (&look.pool.name, &backend.name, seen.serving);
        log::info!("scale: pool {pool}: fewer than {serving} backends are enough: {name} drains");
        self.stage = Stage::Draining(Leaving::begin(backend, look.now));
    }

    /// What became of what is under way.
    fn advance(&mut self, look: &Look<'_>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Watching);
        self.stage = match stage {
            Stage::Watching => Stage::Watching,
            Stage::Starting(mut running) => match running.outcome() {
                None => Stage::Starting(running),
                Some(outcome) => {
                    self.count(look, 0, outcome);
                    Stage::Watching
                }
            },
            Stage::Draining(leaving) => self.drain(look, leaving),
            Stage::Stopping(leaving, mut running) => match running.outcome() {
                None => Stage::Stopping(leaving, running),
                Some(outcome) => match self.count(look, 2, outcome) {
                    true => Stage::Going(leaving, look.now),
                    false => self.again(look, leaving),
                },
            },
            Stage::Going(leaving, since) => {
                let is_late = look.now > since + self.settings.cool_down.max(SETTLE * 10);
                match index_of(look.pool, &leaving.name) {
                    None => self.gone(look, &leaving),
                    Some(index) if is_ready(look.pool, index) => self.overruled(look),
                    Some(_) if is_late => self.again(look, leaving),
                    Some(_) => Stage::Going(leaving, since),
                }
            }
        };
    }

    /// A draining backend is stopped when nothing is left there, or its time is up.
    fn drain(&mut self, look: &Look<'_>, leaving: Leaving) -> Stage {
        let Some(index) = index_of(look.pool, &leaving.name) else {
            return self.gone(look, &leaving);
        };
        if is_ready(look.pool, index) {
            return self.overruled(look);
        }
        let backend = &look.pool.backends[index.index()];
        let is_over = look.now >= leaving.since + self.settings.drain_deadline;
        let is_due = look.now >= leaving.not_before;
        if !is_due {
            return Stage::Draining(leaving);
        }
        if !is_over && !is_empty(look.pool, index) {
            return Stage::Draining(rather(look, leaving));
        }
        let Some(actor) = &self.settings.actor else {
            return Stage::Draining(leaving);
        };
        let named = Named {
            name: backend.name.to_string(),
            address: backend.live.address,
        };
        let wanted = see(look.pool).present;
        let order = self.order(look, "in", wanted, Some(named));
        let running = Running::start(actor, &order, self.settings.timeout);
        Stage::Stopping(leaving, running)
    }

    /// An operator said that it takes new work.
    fn overruled(&mut self, look: &Look<'_>) -> Stage {
        self.scaler.gave_up(look.now);
        Stage::Watching
    }

    /// It was to be stopped in vain: it goes on to drain for a while.
    fn again(&self, look: &Look<'_>, leaving: Leaving) -> Stage {
        Stage::Draining(Leaving {
            not_before: look.now + self.settings.cool_down.max(SETTLE),
            ..leaving
        })
    }

    fn gone(&mut self, look: &Look<'_>, leaving: &Leaving) -> Stage {
        let took = look.now - leaving.since;
        let (pool, name) = (&look.pool.name, &leaving.name);
        log::info!("scale: pool {pool}: {name} is gone, {took:.1?} after it began to drain");
        self.scaler.gave_up(look.now);
        Stage::Watching
    }

    fn watch(&mut self, now: Instant) {
        self.scaler.gave_up(now);
        self.stage = Stage::Watching;
    }

    /// Counts how a step ended; `first` is the place of its success among [`STEPS`]. Whether it was one.
    fn count(&mut self, look: &Look<'_>, first: usize, outcome: Result<(), String>) -> bool {
        let is_done = outcome.is_ok();
        self.standing.steps[first + usize::from(!is_done)] += 1;
        self.standing.problem = outcome.err();
        if let Some(problem) = &self.standing.problem {
            let (pool, action) = (&look.pool.name, STEPS[first].0);
            log::warn!("scale: pool {pool}: the step {action} failed: {problem}");
        }
        is_done
    }

    fn order(
        &self,
        look: &Look<'_>,
        action: &'static str,
        wanted: usize,
        backend: Option<Named>,
    ) -> Order {
        let backends = look.pool.backends.iter().map(|backend| Named {
            name: backend.name.to_string(),
            address: backend.live.address,
        });
        Order {
            pool: look.pool.name.to_string(),
            action,
            wanted,
            serving: self.standing.serving,
            min: self.settings.min,
            max: self.settings.max,
            measure: self.settings.target.as_str(),
            load: self.standing.load,
            backend,
            backends: backends.collect(),
        }
    }

    fn doing(&self) -> String {
        match &self.stage {
            Stage::Watching => "nothing".to_owned(),
            Stage::Starting(_) => "servers are asked for".to_owned(),
            Stage::Draining(leaving) => format!("{} drains", leaving.name),
            Stage::Stopping(leaving, _) => format!("{} is to be stopped", leaving.name),
            Stage::Going(leaving, _) => format!("{} was stopped", leaving.name),
        }
    }
}

/// The pool without its load. Backups are not part of what it has for its load.
fn see(pool: &Pool) -> Seen {
    let ready = pool
        .backends
        .iter()
        .filter(|backend| backend.admin() == AdminState::Ready && !backend.backup);
    let (mut serving, mut present) = (0, 0);
    for backend in ready {
        present += 1;
        serving += usize::from(backend.live.health() != Health::Down);
    }
    Seen {
        serving,
        present,
        load: None,
    }
}

/// One that nothing is left at goes sooner than one whose sessions last, which then takes new work again.
fn rather(look: &Look<'_>, leaving: Leaving) -> Leaving {
    let other = choose(look.pool, look.config).filter(|other| is_empty(look.pool, *other));
    let Some(other) = other else {
        return leaving;
    };
    let backend = &look.pool.backends[other.index()];
    let (pool, name, former) = (&look.pool.name, &backend.name, &leaving.name);
    log::info!("scale: pool {pool}: {name} is empty before {former}: it goes in its place");
    take_back(look.pool, former, look.overrides);
    Leaving::begin(backend, look.now)
}

/// Whom to give up: one that is down, else the one with the fewest sessions to lose, then with the least to do, then the last. Where
/// backends are discovered, those of the file are always there.
fn choose(pool: &Pool, config: &model::Pool) -> Option<BackendIndex> {
    let backends = pool.backends.iter().zip(&config.backends).zip(0..=u16::MAX);
    let able = backends.filter(|((backend, from), _)| {
        backend.admin() == AdminState::Ready
            && !backend.backup
            && (from.discovered || config.discovery.is_none())
    });
    let least = able.min_by_key(|((backend, _), index)| {
        let sessions = pool.sessions.as_ref();
        let held = sessions.map_or(0, |sessions| sessions.held(BackendIndex(*index)));
        let live = &backend.live;
        (
            live.health() != Health::Down,
            held,
            live.load(),
            Reverse(*index),
        )
    });
    least.map(|(_, index)| BackendIndex(index))
}

fn index_of(pool: &Pool, name: &str) -> Option<BackendIndex> {
    let place = pool.backends.iter().position(|own| &*own.name == name)?;
    u16::try_from(place).ok().map(BackendIndex)
}

fn is_ready(pool: &Pool, index: BackendIndex) -> bool {
    pool.backends[index.index()].set() == AdminState::Ready
}

/// Whether nothing is open there, and no session would be lost.
fn is_empty(pool: &Pool, index: BackendIndex) -> bool {
    let live = &pool.backends[index.index()].live;
    let sessions = pool.sessions.as_ref();
    live.load() == 0
        && live.arriving() == 0
        && sessions.is_none_or(|sessions| {
            sessions.held(index) == 0 && sessions.unseen_for(clock::now()).is_none()
        })
}

/// What drains takes new work again, unless an operator said otherwise.
fn take_back(pool: &Pool, name: &str, overrides: &Overrides) {
    if let Some(backend) = pool.backends.iter().find(|own| &*own.name == name) {
        backend.set_over(overrides.of(&pool.name, name).map(|over| over.state));
    }
}
