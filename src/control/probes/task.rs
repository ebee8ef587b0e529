//! One backend under watch: probe, count, feed the machine, write the word when it changed, say so, wait, again.
//! It never decides about health itself; the machine of `policy/health` does.
//! The walk goes on in `http.rs` and `tcp.rs`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::ledger::PASSES;
use super::{Failure, Outcome, Probe, ProbeCounts, Target};
use crate::clock;
use crate::config::model::Health as Settings;
use crate::policy::health::{Health, Machine, Outcome as Verdict};
use crate::rng::Rng;
use crate::state::backend::Live;

/// First checks begin within this time: at once, yet not in one instant.
const FIRST_WITHIN: Duration = Duration::from_millis(5);
/// The longest time between two checks of a backend that has never passed one: a server that is still starting is noticed soon after
/// it is up.
const STARTING: Duration = Duration::from_millis(500);

/// What outlives the settings that a task was started with.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) pool: Arc<str>,
    pub(super) live: Arc<Live>,
    pub(super) counts: Arc<ProbeCounts>,
    /// The name may change by reload while the address stays.
    name: Mutex<Arc<str>>,
    /// When the health last changed.
    since: Mutex<Instant>,
}

impl Watched {
    pub(super) fn new(
        pool: Arc<str>,
        name: Arc<str>,
        live: Arc<Live>,
        counts: Arc<ProbeCounts>,
    ) -> Self {
        Watched {
            pool,
            live,
            counts,
            name: Mutex::new(name),
            since: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn rename(&self, name: &Arc<str>) {
        let mut current = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone_from(name);
    }

    /// Ends an ejection for connections that it refused, since it took one: it is on trial now.
    fn excuse(&self) {
        let record = self.live.record();
        if record.is_ejected_for_refusing() && record.release(clock::now()) {
            self.live.advance_epoch();
            let (pool, name) = (&self.pool, self.name());
            log::info!("health: {pool}/{name} is on trial: it takes connections again");
        }
    }

    /// Drains a backend that asks for it by the status of its answer, or ends that.
    pub(super) fn ask_to_drain(&self, status: Option<u16>) {
        if !self.live.set_leaving(status.is_some()) {
            return;
        }
        let leaving = status.map(|status| (status, clock::wall_millis()));
        self.counts.tell_leaving(leaving);
        let (pool, name) = (&self.pool, self.name());
        match status {
            Some(status) => log::info!("health: {pool}/{name} asks to be drained: status {status}"),
            None => log::info!("health: {pool}/{name} does not ask to be drained any more"),
        }
    }

    fn name(&self) -> Arc<str> {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        name.clone()
    }

    /// Writes the health and says so.
    pub(super) fn change(&self, health: Health, why: &str) {
        let before = self.live.health();
        if health == Health::Up {
            // It may be another server that was started in its place.
            self.live.record().release(clock::now());
        }
        self.counts.tell(why, Some(clock::wall_millis()));
        self.live.set_health(health, clock::now());
        let now = Instant::now();
        let since = {
            let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *since, now)
        };
        let name = self.name();
        let level = match health {
            Health::Down => log::Level::Warn,
            _ => log::Level::Info,
        };
        let (pool, health, before) = (&self.pool, health.as_str(), before.as_str());
        let lasted = short(now - since);
        log::log!(
            level,
            "health: {pool}/{name} is {health}: {why} (it was {before} for {lasted})"
        );
    }
}

/// Probes until it is aborted. The machine begins at the health that the backend has.
pub(super) async fn watch(
    watched: Arc<Watched>,
    probe: Box<dyn Probe>,
    settings: Settings,
    target: Target,
    mut rng: Rng,
) {
    let Settings { rise, fall, .. } = settings;
    let proven = watched.counts.any_passed();
    let mut course = Course {
        machine: Machine::new(rise, fall, watched.live.health(), proven),
        blind: false,
    };
    let mut start = Instant::now() + FIRST_WITHIN.mul_f64(fraction(&mut rng));
    loop {
        sleep_until(start).await;
        let outcome = match timeout(settings.timeout, probe.probe(&target)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Timeout(settings.timeout)),
        };
        watched.counts.count(&outcome);
        course.observe(&watched, &outcome);
        if matches!(outcome, Ok(()) | Err(Failure::Drain(_))) {
            watched.excuse();
        }
        let interval = match watched.counts.any_passed() {
            true => course.interval(&settings),
            false => settings.interval.min(STARTING),
        };
        start = Instant::now().max(start + jittered(interval, &mut rng));
    }
}

/// What the outcomes so far add up to.
struct Course {
    machine: Machine,
    /// Whether weir could not ask the last time, which is said once.
    blind: bool,
}

impl Course {
    /// How long to wait for the next check: less while a change is in the air.
    fn interval(&self, settings: &Settings) -> Duration {
        match settings
            .fast_interval
            .filter(|_| self.machine.is_changing())
        {
            Some(fast) => fast.min(settings.interval),
            None => settings.interval,
        }
    }

    fn observe(&mut self, watched: &Watched, outcome: &Outcome) {
        let was_blind = std::mem::replace(&mut self.blind, false);
        match outcome {
            Ok(()) => watched.ask_to_drain(None),
            Err(Failure::Drain(status)) => watched.ask_to_drain(Some(*status)),
            Err(_) => {}
        }
        let changed = match outcome {
            Ok(()) | Err(Failure::Drain(_)) => self.machine.observe(Verdict::Pass),
            Err(failure @ Failure::Local(_)) => {
                self.blind = true;
                if !was_blind {
                    let (pool, address) = (&watched.pool, watched.live.address);
                    log::warn!("health: {pool}/{address}: {failure}; its health stays as it is");
                }
                None
            }
            Err(_) => self.machine.observe(Verdict::Fail),
        };
        let why = match outcome {
            Ok(()) | Err(Failure::Drain(_)) => PASSES.to_owned(),
            Err(failure) => failure.to_string(),
        };
        match changed {
            Some(health) => watched.change(health, &why),
            None if is_told(watched.live.health(), outcome) => watched.counts.tell(&why, None),
            None => {}
        }
    }
}

/// Whether an outcome that changes nothing tells why the health is what it is: what is down may have got another reason, what has
/// no verdict may have none because of weir.
fn is_told(health: Health, outcome: &Outcome) -> bool {
    match (health, outcome) {
        (Health::Up, Ok(()) | Err(Failure::Drain(_))) => true,
        (Health::Up, _) | (_, Ok(()) | Err(Failure::Drain(_))) => false,
        (Health::Unknown, _) => true,
        (Health::Down, Err(failure)) => !matches!(failure, Failure::Local(_)),
    }
}

/// The interval give or take a tenth.
fn jittered(interval: Duration, rng: &mut Rng) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fraction(rng))
}

/// From 0 to 1.
fn fraction(rng: &mut Rng) -> f64 {
    f64::from(rng.below(1 << 20)) / f64::from(1 << 20)
}

/// A time as an operator reads it: `850ms`, `42s`, `7m5s`, `3h10m`, `12d4h`.
fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..5 => format!("{}ms", duration.as_millis()),
        5..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth_and_averages_out() {
        let mut rng = Rng::from_seed(1);
        let interval = Duration::from_secs(2);
        let waits: Vec<_> = (0..1000).map(|_| jittered(interval, &mut rng)).collect();
        assert!(
            waits
                .iter()
                .all(|wait| (1.8..=2.2).contains(&wait.as_secs_f64()))
        );
        let mean = waits.iter().sum::<Duration>() / 1000;
        assert!((1.98..2.02).contains(&mean.as_secs_f64()), "{mean:?}");
    }

    #[test]
    fn times_are_short() {
        let written = |millis| short(Duration::from_millis(millis));
        assert_eq!(written(850), "850ms");
        assert_eq!(written(42_100), "42s");
        assert_eq!(written(425_000), "7m5s");
        assert_eq!(written(11_400_000), "3h10m");
        assert_eq!(written(1_051_200_000), "12d4h");
    }
}
