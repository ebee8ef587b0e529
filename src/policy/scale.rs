//! How many backends a pool should have: as many as bring what is measured down to its target on each of them.
//! It starts and stops nothing, and sees neither a clock nor a server; whatever it is told, the number stays between `min` and `max`.
//! The walk goes on in control's `scale/`, which measures and acts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A pool whose load is off its target by no more than this part is as large as it should be.
const TOLERANCE: f64 = 0.1;
/// Decisions that are remembered; of more, the oldest two become one.
const MOST: usize = 1024;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Backends at least.
    pub min: usize,
    /// Backends at most.
    pub max: usize,
    /// What each should have of what is measured.
    pub target: f64,
    /// From one step out to the next.
    pub cool_down: Duration,
    /// Fewer must have been enough for so long.
    pub hold: Duration,
}

/// A pool at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Backends that take new work.
    pub serving: usize,
    /// All of them, but for those that an operator or this keeps from new work.
    pub present: usize,
    /// What is measured, over all of them together: in units of which each should have `target`. Absent: it cannot be told.
    pub load: Option<f64>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Stay,
    /// Servers are started, until so many are there.
    Out(usize),
    /// One is given up.
    In,
}

/// What was found for one pool so far.
#[derive(Debug)]
pub struct Scaler {
    bounds: Bounds,
    /// Numbers that were wanted within `hold`, oldest first; only those that no later one exceeds.
    wanted: VecDeque<(Instant, usize)>,
    /// Since when every decision is known, or the pool is as it is.
    since: Option<Instant>,
    /// When servers were last asked for.
    last_out: Option<Instant>,
}

impl Scaler {
    /// Nothing was seen yet.
    pub fn new(bounds: Bounds) -> Self {
        Scaler {
            bounds,
            wanted: VecDeque::new(),
            since: None,
            last_out: None,
        }
    }

    /// How many there should be for what is seen, by this moment alone.
    pub fn wanted(&self, seen: &Seen) -> usize {
        let Bounds {
            min, max, target, ..
        } = self.bounds;
        let serving = seen.serving;
        let wanted = match seen.load {
            // Of a pool that is dead nothing is known but that.
            Some(load) if serving > 0 && load.is_finite() => {
                let ratio = load.max(0.0) / target;
                match (ratio / serving as f64 - 1.0).abs() <= TOLERANCE {
                    true => serving,
                    false => ratio.ceil() as usize,
                }
            }
            _ => seen.present,
        };
        wanted.clamp(min, max)
    }

    /// What to do about what is seen. A step out counts as done with this.
    pub fn decide(&mut self, now: Instant, seen: &Seen) -> Action {
        let wanted = self.wanted(seen);
        self.note(now, wanted);
        let Bounds {
            min,
            max,
            cool_down,
            hold,
            ..
        } = self.bounds;
        let is_known = seen.load.is_some() && seen.serving > 0;
        let lacks = is_known && wanted > seen.serving || seen.present < min;
        if lacks {
            // A pool doubles at most, so that one odd figure does not start a hundred servers; dead ones count, so that they
            // are replaced and still bounded.
            let step = wanted
                .saturating_sub(seen.serving)
                .min(seen.present.max(1))
                .max(min.saturating_sub(seen.present));
            let to = (seen.present + step).min(max);
            let is_cool = self.last_out.is_none_or(|last| now >= last + cool_down);
            if to <= seen.present || !is_cool {
                return Action::Stay;
            }
            self.last_out = Some(now);
            self.restart(now, wanted);
            return Action::Out(to);
        }
        let is_held = self.since.is_some_and(|since| now >= since + hold);
        let most = self.wanted.front().map_or(wanted, |(_, most)| *most);
        let is_idle = is_held && most < seen.serving && seen.present > min;
        match is_idle || seen.present > max {
            true => Action::In,
            false => Action::Stay,
        }
    }

    /// A server was given up, or was not after all: the next one is looked for from now on.
    pub fn gave_up(&mut self, now: Instant) {
        let last = self.wanted.back().map_or(0, |(_, wanted)| *wanted);
        self.restart(now, last);
    }

    fn restart(&mut self, now: Instant, wanted: usize) {
        self.wanted.clear();
        self.wanted.push_back((now, wanted));
        self.since = Some(now);
    }

    fn note(&mut self, now: Instant, wanted: usize) {
        self.since.get_or_insert(now);
        while self.wanted.back().is_some_and(|(_, last)| *last <= wanted) {
            self.wanted.pop_back();
        }
        self.wanted.push_back((now, wanted));
        let hold = self.bounds.hold;
        let is_old = |(at, _): &(Instant, usize)| *at + hold <= now;
        while self.wanted.len() > MOST || self.wanted.front().is_some_and(is_old) {
            self.wanted.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_secs(10);

    fn bounds(min: usize, max: usize) -> Bounds {
        Bounds {
            min,
            max,
            target: 10.0,
            cool_down: 3 * TICK,
            hold: 6 * TICK,
        }
    }

    fn pool(count: usize, load: f64) -> Seen {
        Seen {
            serving: count,
            present: count,
            load: Some(load),
        }
    }

    #[test]
    fn it_grows_at_once_and_shrinks_one_at_a_time_when_fewer_were_enough_for_long() {
        let (mut scaler, start) = (Scaler::new(bounds(2, 8)), Instant::now());
        let mut at =
            |tick: u32, count, load| scaler.decide(start + tick * TICK, &pool(count, load));
        assert_eq!(at(0, 2, 20.0), Action::Stay);
        assert_eq!(at(1, 2, 21.9), Action::Stay, "within the tolerance");
        assert_eq!(at(2, 2, 35.0), Action::Out(4));
        assert_eq!(at(3, 2, 35.0), Action::Stay, "they are on their way");
        assert_eq!(at(4, 4, 90.0), Action::Stay, "too early");
        assert_eq!(at(5, 4, 90.0), Action::Out(8), "not nine");
        for tick in 6..11 {
            assert_eq!(at(tick, 8, 20.0), Action::Stay, "{tick}");
        }
        assert_eq!(at(11, 8, 20.0), Action::In);
        assert_eq!(at(12, 7, 65.0), Action::Stay);
        assert_eq!(
            at(13, 7, 20.0),
            Action::Stay,
            "all seven were needed a moment ago"
        );
    }

    #[test]
    fn what_is_dead_is_replaced_within_the_bounds_and_a_dead_pool_is_left_alone() {
        let (mut scaler, start) = (Scaler::new(bounds(2, 4)), Instant::now());
        let seen = |serving, present, load| Seen {
            serving,
            present,
            load,
        };
        assert_eq!(scaler.decide(start, &seen(0, 3, Some(0.0))), Action::Stay);
        assert_eq!(scaler.decide(start, &seen(0, 0, None)), Action::Out(2));
        let later = start + 10 * TICK;
        assert_eq!(
            scaler.decide(later, &seen(2, 3, Some(30.0))),
            Action::Out(4)
        );
        let later = later + 10 * TICK;
        assert_eq!(scaler.decide(later, &seen(2, 4, Some(90.0))), Action::Stay);
        assert_eq!(scaler.decide(later, &seen(2, 3, None)), Action::Stay);
        assert_eq!(
            scaler.decide(later, &seen(5, 5, Some(50.0))),
            Action::In,
            "too many"
        );
    }

    proptest! {
        /// Whatever is measured: the number wanted lies within the bounds, and so does where a step leads.
        #[test]
        fn within_the_bounds(
            min in 1..5usize, more in 0..10usize,
            figures in prop::collection::vec((0..20usize, 0..5usize, prop::option::of(prop::num::f64::ANY), 0..100u64), 1..50),
        ) {
            let bounds = bounds(min, min + more);
            let mut scaler = Scaler::new(bounds);
            let mut now = Instant::now();
            for (serving, dead, load, seconds) in figures {
                now += Duration::from_secs(seconds);
                let seen = Seen { serving, present: serving + dead, load };
                let wanted = scaler.wanted(&seen);
                prop_assert!((bounds.min..=bounds.max).contains(&wanted));
                match scaler.decide(now, &seen) {
                    Action::Out(to) => prop_assert!(to > seen.present && to <= bounds.max),
                    Action::In => prop_assert!(seen.present > bounds.min),
                    Action::Stay => {}
                }
            }
        }

        /// Under a constant load it comes to rest where every backend has its target or less, and stays there.
        #[test]
        fn a_constant_load_brings_it_to_rest(min in 1..4usize, more in 0..12usize, start_at in 0..16usize, load in 0.0..200.0f64) {
            let bounds = bounds(min, min + more);
            let mut scaler = Scaler::new(bounds);
            let (start, mut count) = (Instant::now(), start_at.clamp(bounds.min, bounds.max));
            let mut last_change = 0;
            for tick in 0..400u32 {
                let now = start + tick * TICK;
                match scaler.decide(now, &pool(count, load)) {
                    Action::Out(to) => (count, last_change) = (to, tick),
                    Action::In => {
                        (count, last_change) = (count - 1, tick);
                        scaler.gave_up(now);
                    }
                    Action::Stay => {}
                }
            }
            prop_assert!(last_change < 200, "still changing at {}", last_change);
            let each = load / count as f64;
            prop_assert!(count == bounds.max || each <= bounds.target * (1.0 + TOLERANCE) + 1e-9);
            let fewer = load / (count as f64 - 1.0);
            prop_assert!(count == bounds.min || fewer > bounds.target * (1.0 - TOLERANCE) - 1e-9, "{} of {}", count, load);
        }

        /// Nobody is given up so soon after servers were asked for, or after another was given up.
        #[test]
        fn no_haste(loads in prop::collection::vec(0.0..100.0f64, 1..200)) {
            let bounds = bounds(1, 10);
            let mut scaler = Scaler::new(bounds);
            let (start, mut count, mut changed) = (Instant::now(), 3, None::<Instant>);
            for (load, tick) in loads.into_iter().zip(0u32..) {
                let now = start + tick * TICK;
                match scaler.decide(now, &pool(count, load)) {
                    Action::Out(to) => (count, changed) = (to, Some(now)),
                    Action::In => {
                        prop_assert!(changed.is_none_or(|changed| now >= changed + bounds.hold));
                        (count, changed) = (count - 1, Some(now));
                        scaler.gave_up(now);
                    }
                    Action::Stay => {}
                }
            }
        }
    }
}
