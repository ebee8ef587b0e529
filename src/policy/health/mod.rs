//! Health of a backend: what is observed, and the machine that turns outcomes of checks into it.
//! It never runs a check and knows no time: control asks, this counts.
//! The walk goes on in `passive.rs` (what traffic says), `slow_start.rs`, then in `balance/eligible.rs`, which reads the result.

pub mod passive;
pub mod slow_start;

use crate::config::model::Initial;

/// The observed state of a backend. Its number is what an atomic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// No verdict yet: chosen only while its pool has no backend that is up.
    #[default]
    Unknown = 0,
    /// Its checks pass.
    Up = 1,
    /// Its checks fail.
    Down = 2,
}

impl Health {
    /// The health that a number stands for; an unheard-of number is unknown.
    #[inline]
    pub fn from_u8(number: u8) -> Health {
        match number {
            1 => Health::Up,
            2 => Health::Down,
            _ => Health::Unknown,
        }
    }

    /// The word for status pages and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        }
    }
}

impl From<Initial> for Health {
    fn from(initial: Initial) -> Health {
        match initial {
            Initial::Probe => Health::Unknown,
            Initial::Up => Health::Up,
            Initial::Down => Health::Down,
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Pass,
    /// It failed or took too long.
    Fail,
}

/// Counts outcomes in a row until they change the health. The first verdict on an unknown backend decides at once, and so does the
/// first pass of all: a server that was still starting is not one that cannot be relied on.
#[derive(Clone, Debug)]
pub struct Machine {
    rise: u32,
    fall: u32,
    health: Health,
    /// Whether a check has ever passed.
    proven: bool,
    /// Outcomes in a row that speak against `health`.
    streak: u32,
}

impl Machine {
    /// A machine that begins at the configured initial state, or at the health that a reload carries over.
    ///
    /// `rise` and `fall` are outcomes in a row; 0 counts as 1. `proven`: whether a check of the backend has passed before.
    pub fn new(rise: u32, fall: u32, initial: impl Into<Health>, proven: bool) -> Machine {
        Machine {
            proven,
            rise: rise.max(1),
            fall: fall.max(1),
            health: initial.into(),
            streak: 0,
        }
    }

    /// Whether the last outcome speaks against the health, and others like it would change it.
    pub fn is_changing(&self) -> bool {
        self.streak > 0
    }

    /// Takes an outcome; returns the new health when it changed.
    pub fn observe(&mut self, outcome: Outcome) -> Option<Health> {
        let (verdict, wanted) = match outcome {
            Outcome::Pass if !self.proven => (Health::Up, 1),
            Outcome::Pass => (Health::Up, self.rise),
            Outcome::Fail => (Health::Down, self.fall),
        };
        self.proven |= outcome == Outcome::Pass;
        if verdict == self.health {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        if self.health != Health::Unknown && self.streak < wanted {
            return None;
        }
        self.streak = 0;
        self.health = verdict;
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Outcome::{Fail, Pass};

    #[test]
    fn rise_and_fall_count_in_a_row() {
        let mut machine = Machine::new(2, 3, Initial::Up, true);
        assert_eq!(machine.observe(Fail), None);
        assert_eq!(machine.observe(Fail), None);
        assert_eq!(machine.observe(Pass), None);
        assert_eq!(machine.observe(Fail), None);
        assert_eq!(machine.observe(Fail), None);
        assert_eq!(machine.observe(Fail), Some(Health::Down));
        assert_eq!(machine.observe(Fail), None);
        assert_eq!(machine.observe(Pass), None);
        assert_eq!(machine.observe(Pass), Some(Health::Up));
        assert_eq!(machine.health, Health::Up);
    }

    #[test]
    fn the_first_verdict_decides_at_once() {
        for (outcome, health) in [(Pass, Health::Up), (Fail, Health::Down)] {
            let mut machine = Machine::new(5, 5, Initial::Probe, true);
            assert_eq!(machine.health, Health::Unknown);
            assert_eq!(machine.observe(outcome), Some(health));
        }
    }

    #[test]
    fn the_first_pass_of_all_decides_at_once_and_later_ones_count() {
        for initial in [Initial::Probe, Initial::Down] {
            let mut machine = Machine::new(3, 1, initial, false);
            machine.observe(Fail);
            assert_eq!(machine.observe(Fail), None);
            assert_eq!(machine.observe(Pass), Some(Health::Up));
            assert_eq!(machine.observe(Fail), Some(Health::Down));
            assert_eq!(machine.observe(Pass), None);
            assert_eq!(machine.observe(Pass), None);
            assert_eq!(machine.observe(Pass), Some(Health::Up));
        }
    }

    #[test]
    fn numbers_round_trip() {
        for health in [Health::Unknown, Health::Up, Health::Down] {
            assert_eq!(Health::from_u8(health as u8), health);
        }
        assert_eq!(Health::from_u8(77), Health::Unknown);
    }

    proptest! {
        #[test]
        fn health_follows_the_last_decisive_run(
            outcomes in proptest::collection::vec(any::<bool>(), 0..200),
            rise in 1..5_u32,
            fall in 1..5_u32,
            initial in 0..3_u8,
            proven in any::<bool>(),
        ) {
            let initial = Health::from_u8(initial);
            let mut machine = Machine::new(rise, fall, initial, proven);
            for upto in 0..=outcomes.len() {
                let seen = &outcomes[..upto];
                // Reference: the latest place where a run of one kind reached its length.
                let mut expected = initial;
                for end in 1..=upto {
                    let last = seen[end - 1];
                    let run = seen[..end].iter().rev().take_while(|&&o| o == last).count() as u32;
                    let first = end == 1 && initial == Health::Unknown;
                    let rise = if proven || seen[..end - 1].contains(&true) { rise } else { 1 };
                    if run >= if last { rise } else { fall } || first {
                        expected = if last { Health::Up } else { Health::Down };
                    }
                }
                prop_assert_eq!(machine.health, expected);
                if let Some(&next) = outcomes.get(upto) {
                    let before = machine.health;
                    let change = machine.observe(if next { Pass } else { Fail });
                    prop_assert_eq!(change, Some(machine.health).filter(|&now| now != before));
                }
            }
        }
    }
}
