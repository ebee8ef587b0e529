//! Scale: pools grow and shrink with their load, by a command or webhook of the operator's that starts and stops servers.
//! It drains a server before it lets it be stopped, and never asks for two things of one pool at once.
//! Read `course.rs` (one pool), `measure.rs` and `actor.rs`; what to do is the pure `policy/scale.rs`'s to say.

mod actor;
mod course;
mod measure;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use self::course::Course;
use super::collector::Metrics;
use super::shared::{Lifecycle, Shared};
use crate::clock;

/// Between two looks; what is measured is sampled so often.
const LOOK: Duration = Duration::from_millis(100);

/// What steps there are, and what comes of them, in the order of [`Standing::steps`].
pub const STEPS: [(&str, &str); 4] = [
    ("out", "done"),
    ("out", "failed"),
    ("in", "done"),
    ("in", "failed"),
];

/// How every pool with `scale` stands.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<String, Standing>>);

/// How one pool stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Standing {
    /// Backends that it should have.
    pub wanted: usize,
    /// Those that take new work.
    pub serving: usize,
    /// What is measured for each of them, over its target; absent while it cannot be told.
    pub load: Option<f64>,
    /// What is done about it at the moment.
    pub doing: String,
    /// Why the last step failed, if it did.
    pub problem: Option<String>,
    /// How many steps there were of each of [`STEPS`].
    pub steps: [u64; STEPS.len()],
}

impl Board {
    /// How every pool stands.
    pub fn all(&self) -> BTreeMap<String, Standing> {
        self.pools().clone()
    }

    /// How a pool stands; absent: nobody scales it.
    pub fn of(&self, pool: &str) -> Option<Standing> {
        self.pools().get(pool).cloned()
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after every pool of the served file that has `scale`, until the process is about to end.
pub async fn look_after(shared: Arc<Shared>, metrics: Metrics) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut courses: HashMap<String, Course> = HashMap::new();
    loop {
        looks.tick().await;
        match *shared.lifecycle.borrow() {
            Lifecycle::Starting => continue,
            Lifecycle::Ready => {}
            // Whoever comes after this process looks after the pools.
            Lifecycle::Draining => return,
        }
        look(&shared, &metrics, &mut courses);
    }
}

fn look(shared: &Shared, metrics: &Metrics, courses: &mut HashMap<String, Course>) {
    let snapshot = shared.current.borrow().clone();
    let now = clock::now();
    let mut before = std::mem::take(courses);
    for (pool, config) in snapshot.pools.iter().zip(&snapshot.config.pools) {
        let kept = before.remove(&config.name);
        let Some(settings) = &config.scale else {
            kept.into_iter()
                .for_each(|course| course.leave(pool, &shared.overrides));
            continue;
        };
        let mut course = match kept {
            Some(course) if course.settings() == settings => course,
            other => {
                let standing = shared.scale.of(&config.name).unwrap_or_default();
                other
                    .into_iter()
                    .for_each(|course| course.leave(pool, &shared.overrides));
                Course::new(settings.clone(), standing.steps, now)
            }
        };
        let durations = || metrics.durations(&config.name);
        course.step(now, pool, config, &shared.overrides, &durations);
        courses.insert(config.name.clone(), course);
    }
    let standings = courses.iter();
    let standings = standings.map(|(pool, course)| (pool.clone(), course.standing.clone()));
    *shared.scale.pools() = standings.collect();
}
