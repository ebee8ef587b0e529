//! Passive health: what the requests and connections of clients say of a backend, when that ejects it, for how long, and how it comes back.
//! It counts nothing itself and knows no time: the words are in `state/standing.rs`, and who asks says what they hold.
//! The walk goes on in `upstream/verdict.rs`, which asks after each try, and `balance/eligible.rs`, which reads the result.

use std::time::Duration;

use crate::config::model::Passive;

/// Tries below which a ratio says nothing.
pub const MIN_TRIES: u64 = 20;

/// Into so many parts the window of a ratio is cut: what is older goes a part at a time.
pub const PARTS: u32 = 10;

/// How a try at a backend went, as far as that is the backend's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did what it should.
    Good,
    /// It failed.
    Error(Fault),
    /// It did not answer in time, or stopped within its answer. Who is slow is not dead: this counts apart.
    Timeout,
}

/// What an error was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// No connection came about.
    Connect,
    /// The connection was closed before the end of an answer.
    Closed,
    /// The answer cannot be read.
    Answer,
    /// The answer's status is one that counts.
    Status,
}

impl Fault {
    /// Every fault, in the order of their numbers.
    pub const ALL: [Fault; 4] = [Fault::Connect, Fault::Closed, Fault::Answer, Fault::Status];

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Connect => "no connection",
            Fault::Closed => "closed before the end of an answer",
            Fault::Answer => "an answer that cannot be read",
            Fault::Status => "a status that counts as an error",
        }
    }
}

impl Verdict {
    /// For people: what went wrong.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Good => "nothing",
            Verdict::Error(fault) => fault.as_str(),
            Verdict::Timeout => "no answer in time",
        }
    }
}

/// Where a backend stands. Its number is what an atomic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Nothing is held against it.
    #[default]
    Good = 0,
    /// It is ejected.
    Ejected = 1,
    /// Its time is over, and nobody knows yet whether it is well again.
    Trial = 2,
}

impl Standing {
    /// The standing that a number stands for; an unheard-of number is a good one.
    #[inline]
    pub fn from_u8(number: u8) -> Standing {
        match number {
            1 => Standing::Ejected,
            2 => Standing::Trial,
            _ => Standing::Good,
        }
    }

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Good => "good",
            Standing::Ejected => "ejected",
            Standing::Trial => "trial",
        }
    }
}

/// What a backend is ejected for: the `cause` of `weir_backend_ejections_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// Errors in a row.
    Errors,
    /// Timeouts in a row.
    Timeouts,
    /// Too large a part of its tries.
    Ratio,
    /// A failure while it was on trial.
    Trial,
}

impl Cause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Cause; 4] = [Cause::Errors, Cause::Timeouts, Cause::Ratio, Cause::Trial];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Errors => "errors",
            Cause::Timeouts => "timeouts",
            Cause::Ratio => "ratio",
            Cause::Trial => "trial",
        }
    }

    /// For people: what ejects by these rules.
    pub fn told(self, rules: &Passive) -> String {
        match self {
            Cause::Errors => format!("{} errors in a row", rules.consecutive_errors),
            Cause::Timeouts => format!("{} timeouts in a row", rules.consecutive_timeouts),
            Cause::Ratio => format!(
                "errors were {} % of its tries or more within {:?}",
                rules.error_ratio * 100.0,
                rules.window
            ),
            Cause::Trial => "it failed on trial".to_owned(),
        }
    }
}

/// Whether an answer's status counts as an error.
#[inline]
pub fn is_error(rules: &Passive, status: u16) -> bool {
    let holds = |&(first, last): &(u16, u16)| (first..=last).contains(&status);
    rules.statuses.iter().any(holds)
}

/// Why a backend is to be ejected that has failed so often in a row, the last failure included; `None` when it is not.
pub fn cause(rules: &Passive, standing: Standing, errors: u32, timeouts: u32) -> Option<Cause> {
    let is_met = |count, most| most > 0 && count >= most;
    match standing {
        Standing::Ejected => None,
        // Where no number of them ejects, one does not either.
        Standing::Trial => (is_met(errors, rules.consecutive_errors.min(1))
            || is_met(timeouts, rules.consecutive_timeouts.min(1)))
        .then_some(Cause::Trial),
        Standing::Good if is_met(errors, rules.consecutive_errors) => Some(Cause::Errors),
        Standing::Good if is_met(timeouts, rules.consecutive_timeouts) => Some(Cause::Timeouts),
        Standing::Good => None,
    }
}

/// Whether so many errors among so many tries within the window eject a backend.
pub fn is_too_many(rules: &Passive, tries: u64, errors: u64) -> bool {
    rules.error_ratio > 0.0
        && tries >= MIN_TRIES
        && errors as f64 >= rules.error_ratio * tries as f64
}

/// How long an ejection lasts that is the `count`th of late, from 1.
pub fn ejection(rules: &Passive, count: u32) -> Duration {
    (rules.ejection.saturating_mul(count.max(1))).min(rules.max_ejection)
}

/// How many ejections still count for a backend that had `count` of them and did well for so long since.
pub fn remembered(rules: &Passive, count: u32, well: Duration) -> u32 {
    let made_up = (well.as_nanos()).checked_div(rules.ejection.as_nanos());
    let made_up = made_up.and_then(|times| u32::try_from(times).ok());
    count.saturating_sub(made_up.unwrap_or(u32::MAX))
}

/// Whether one more backend may be ejected of a pool of `backends`, of which `ejected` are.
pub fn may_eject(rules: &Passive, backends: usize, ejected: usize) -> bool {
    let most = (rules.max_ejected * backends as f64) as usize;
    ejected < most.max(1)
}

/// Whether ejections are not heeded: of `ready` backends that take new clients if they can, `left` can and are not ejected.
pub fn is_panic(rules: &Passive, ready: usize, left: usize) -> bool {
    (left as f64) < rules.panic_threshold * ready as f64
}

/// Sums over the last while, of two counts that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// What the counts were at the end of each part; the oldest is the next to be overwritten.
    ends: [(u64, u64); PARTS as usize],
    next: usize,
}

impl Window {
    /// A window that begins with the counts at these.
    pub fn new(tries: u64, errors: u64) -> Window {
        Window {
            ends: [(tries, errors); PARTS as usize],
            next: 0,
        }
    }

    /// Takes the counts at the end of a part; returns how much they grew within the window.
    pub fn slide(&mut self, tries: u64, errors: u64) -> (u64, u64) {
        let (first_tries, first_errors) = self.ends[self.next];
        self.ends[self.next] = (tries, errors);
        self.next = (self.next + 1) % self.ends.len();
        (
            tries.saturating_sub(first_tries),
            errors.saturating_sub(first_errors),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Passive {
        Passive {
            consecutive_errors: 5,
            consecutive_timeouts: 10,
            statuses: vec![(502, 504)],
            error_ratio: 0.5,
            window: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: 0.1,
            panic_threshold: 0.5,
        }
    }

    #[test]
    fn errors_and_timeouts_count_apart() {
        let rules = rules();
        let of = |errors, timeouts| cause(&rules, Standing::Good, errors, timeouts);
        assert_eq!(of(4, 9), None, "nine and four are not ten");
        assert_eq!(of(5, 0), Some(Cause::Errors));
        assert_eq!(of(0, 10), Some(Cause::Timeouts));
        assert_eq!(cause(&rules, Standing::Ejected, 50, 50), None);
    }

    #[test]
    fn on_trial_one_failure_is_enough_if_any_number_is() {
        let mut rules = rules();
        assert_eq!(cause(&rules, Standing::Trial, 1, 0), Some(Cause::Trial));
        assert_eq!(cause(&rules, Standing::Trial, 0, 1), Some(Cause::Trial));
        assert_eq!(cause(&rules, Standing::Trial, 0, 0), None);
        rules.consecutive_timeouts = 0;
        assert_eq!(cause(&rules, Standing::Trial, 0, 1), None);
        assert_eq!(cause(&rules, Standing::Good, 0, 999), None);
    }

    #[test]
    fn an_ejection_lasts_longer_each_time_and_is_made_up_for() {
        let rules = rules();
        let lengths = [1, 2, 9, 10, 11, u32::MAX].map(|count| ejection(&rules, count).as_secs());
        assert_eq!(lengths, [30, 60, 270, 300, 300, 300]);
        let left = |seconds| remembered(&rules, 3, Duration::from_secs(seconds));
        assert_eq!([left(0), left(29), left(30), left(89)], [3, 3, 2, 1]);
        assert_eq!([left(90), left(1 << 40)], [0, 0]);
    }

    #[test]
    fn a_tenth_and_at_least_one_may_be_ejected() {
        let most = |rules: &Passive, backends| {
            let mut counts = 0..;
            counts.find(|&ejected| !may_eject(rules, backends, ejected))
        };
        let mut rules = rules();
        for (backends, wanted) in [(1, 1), (2, 1), (10, 1), (19, 1), (20, 2), (100, 10)] {
            assert_eq!(most(&rules, backends), Some(wanted), "{backends}");
        }
        rules.max_ejected = 1.0;
        assert_eq!(most(&rules, 7), Some(7));
    }

    #[test]
    fn panic_begins_below_its_threshold() {
        let rules = rules();
        assert!(!is_panic(&rules, 4, 2) && is_panic(&rules, 4, 1));
        assert!(is_panic(&rules, 1, 0) && !is_panic(&rules, 0, 0));
        let calm = Passive {
            panic_threshold: 0.0,
            ..rules
        };
        assert!(!is_panic(&calm, 4, 0));
    }

    #[test]
    fn a_ratio_of_few_says_nothing() {
        let rules = rules();
        assert!(!is_too_many(&rules, 19, 19));
        assert!(is_too_many(&rules, 20, 10) && !is_too_many(&rules, 20, 9));
        let off = Passive {
            error_ratio: 0.0,
            ..rules
        };
        assert!(!is_too_many(&off, 100, 100));
    }

    proptest! {
        /// A window knows what the last parts brought and nothing else.
        #[test]
        fn a_window_sums_its_parts(parts in proptest::collection::vec((0..50_u64, 0..50_u64), 1..60)) {
            let (mut tries, mut errors) = (1000, 10);
            let mut window = Window::new(tries, errors);
            for (ordinal, (more, bad)) in parts.iter().enumerate() {
                tries += more;
                errors += bad;
                let sum = window.slide(tries, errors);
                let seen = &parts[(ordinal + 1).saturating_sub(PARTS as usize)..=ordinal];
                let wanted = seen.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
                prop_assert_eq!(sum, wanted);
            }
        }

        /// However backends fail, the share that is out stays within its bound, and never is it all but one's.
        #[test]
        fn ejections_stay_within_their_bound(backends in 1..200_usize, share in 0.0..1.0_f64, wants in 0..400_usize) {
            let rules = Passive { max_ejected: share, ..rules() };
            let mut ejected = 0;
            for _ in 0..wants {
                ejected += usize::from(may_eject(&rules, backends, ejected));
            }
            prop_assert!(ejected <= ((backends as f64 * share) as usize).max(1));
        }
    }
}
