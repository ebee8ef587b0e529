//! What the load of a pool is: samples over an interval, and their mean at its end.
//! It never decides.
//! The walk goes back to `course.rs`.

use crate::config::model::Target;
use crate::policy::balance::BackendIndex;
use crate::policy::health::Health;
use crate::state::snapshot::Pool;

/// Samples of one pool.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sum: f64,
    samples: u32,
    /// Requests and seconds at the end of the last interval.
    last: Option<(u64, f64)>,
}

impl Meter {
    /// Takes a sample of what has a value at every moment.
    pub(super) fn look(&mut self, pool: &Pool, target: Target) {
        let sample = match target {
            Target::InFlight(_) => {
                let lives = pool.backends.iter().map(|backend| &backend.live);
                Some(lives.map(|live| f64::from(live.load())).sum::<f64>())
            }
            Target::Sessions(_) => Some(sessions(pool)),
            Target::Latency(_) => None,
            Target::Load(_) => reported(pool),
        };
        if let Some(sample) = sample {
            self.sum += sample;
            self.samples += 1;
        }
    }

    /// The load of the whole pool over the interval that ends now, so that each of `serving` backends has its target when it is
    /// `serving` times that.
    pub(super) fn read(
        &mut self,
        target: Target,
        serving: usize,
        durations: &dyn Fn() -> (u64, f64),
    ) -> Option<f64> {
        let (sum, samples) = (self.sum, self.samples);
        (self.sum, self.samples) = (0.0, 0);
        match target {
            Target::InFlight(_) | Target::Sessions(_) => {
                (samples > 0).then(|| sum / f64::from(samples))
            }
            Target::Load(_) => (samples > 0).then(|| sum / f64::from(samples) * serving as f64),
            Target::Latency(_) => {
                let (requests, seconds) = durations();
                let (before, seconds_before) = self.last.replace((requests, seconds))?;
                // Rows that are forgotten take theirs along.
                let requests = requests.checked_sub(before)?;
                let mean = match requests {
                    0 => 0.0,
                    requests => (seconds - seconds_before).max(0.0) / requests as f64,
                };
                Some(mean * serving as f64)
            }
        }
    }
}

/// The mean of what backends say of their load that are up; who says nothing is taken to be like the others.
fn reported(pool: &Pool) -> Option<f64> {
    let lives = pool.backends.iter().map(|backend| &backend.live);
    let known = lives.filter(|live| live.health() == Health::Up);
    let said: Vec<f64> = known
        .filter_map(|live| live.reported().map(f64::from))
        .collect();
    (!said.is_empty()).then(|| said.iter().sum::<f64>() / said.len() as f64)
}

fn sessions(pool: &Pool) -> f64 {
    let Some(sessions) = &pool.sessions else {
        return 0.0;
    };
    let backends = pool.backends.iter().zip(0..=u16::MAX);
    let counts = backends.map(|(_, index)| f64::from(sessions.count(BackendIndex(index))));
    counts.sum()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn latency_is_the_mean_of_the_interval() {
        let (mut meter, total) = (Meter::default(), Cell::new((100, 50.0)));
        let target = Target::Latency(0.1);
        let mut read = |serving| meter.read(target, serving, &|| total.get());
        assert_eq!(read(2), None, "an interval has two ends");
        total.set((110, 52.0));
        assert_eq!(read(3).map(|load| (load * 10.0).round()), Some(6.0));
        assert_eq!(read(3), Some(0.0), "nobody asked");
        total.set((5, 1.0));
        assert_eq!(read(3), None);
    }
}
