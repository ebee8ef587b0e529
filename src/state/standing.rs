//! What traffic has shown of one server: how often in a row it failed, and whether it is ejected for that. All workers write it.
//! It is written only when something fails, or stops failing: a server that does well is only read.
//! The walk goes on in `upstream/verdict.rs`, which writes it after a try, and in control's `passive.rs`, which ends ejections.

use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use crate::config::model::Passive;
use crate::policy::health::passive::{self, Cause, Fault, Standing, Verdict};

/// The passive health of one server in one pool.
#[derive(Debug)]
pub struct Record {
    made: Instant,
    standing: AtomicU8,
    /// Errors in a row.
    errors: AtomicU32,
    /// Timeouts in a row.
    timeouts: AtomicU32,
    /// What the last failure was, as the number of a [`Fault`] or [`TIMEOUT`].
    last: AtomicU8,
    /// Errors ever.
    errors_ever: AtomicU64,
    /// Ejections that still count.
    ejections: AtomicU32,
    /// When the ejection ends, or ended last, in milliseconds after `made`.
    until: AtomicU64,
    /// When the last ejection began, in milliseconds after `made`.
    began: AtomicU64,
    /// What it was for, as the number of a [`Cause`].
    cause: AtomicU8,
    /// Ejections ever, by [`Cause`] as a number.
    ejections_ever: [AtomicU64; Cause::ALL.len()],
}

/// The number of a failure that is no [`Fault`].
const TIMEOUT: u8 = u8::MAX;

/// Lets one thread at a time eject a backend of a pool, so that no two of them take the last place. Who finds it taken does not wait:
/// the next failure asks again.
#[derive(Debug, Default)]
pub struct Turn(AtomicBool);

impl Turn {
    /// Does `work` unless somebody else is at it.
    pub fn take<T>(&self, work: impl FnOnce() -> Option<T>) -> Option<T> {
        self.0
            .compare_exchange(false, true, Acquire, Relaxed)
            .ok()?;
        let done = work();
        self.0.store(false, Release);
        done
    }
}

impl Record {
    /// Nothing is held against it at the time `made`.
    pub fn new(made: Instant) -> Record {
        Record {
            made,
            standing: AtomicU8::default(),
            errors: AtomicU32::default(),
            timeouts: AtomicU32::default(),
            last: AtomicU8::new(TIMEOUT),
            errors_ever: AtomicU64::default(),
            ejections: AtomicU32::default(),
            until: AtomicU64::default(),
            began: AtomicU64::default(),
            cause: AtomicU8::default(),
            ejections_ever: Default::default(),
        }
    }

    /// Where it stands.
    #[inline]
    pub fn standing(&self) -> Standing {
        Standing::from_u8(self.standing.load(Relaxed))
    }

    /// Whether a success would change anything. Everybody reads this after each of them, and mostly nobody has written it for long.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.errors.load(Relaxed) == 0
            && self.timeouts.load(Relaxed) == 0
            && self.standing() != Standing::Trial
    }

    /// Errors ever.
    pub fn errors_ever(&self) -> u64 {
        self.errors_ever.load(Relaxed)
    }

    /// Ejections ever, in the order of [`Cause::ALL`].
    pub fn ejections_ever(&self) -> [u64; Cause::ALL.len()] {
        std::array::from_fn(|cause| self.ejections_ever[cause].load(Relaxed))
    }

    /// How long the ejection lasts from `now` on; `None` when it is not ejected.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let is_ejected = self.standing() == Standing::Ejected;
        let until = self.made + Duration::from_millis(self.until.load(Relaxed));
        is_ejected.then(|| until.saturating_duration_since(now))
    }

    /// What it is ejected for, what its last failure was, and since when; `None` when it is not ejected.
    pub fn ejection(&self) -> Option<(Cause, Verdict, Instant)> {
        let is_ejected = self.standing() == Standing::Ejected;
        let cause = Cause::ALL.get(usize::from(self.cause.load(Relaxed)));
        let last = Fault::ALL.get(usize::from(self.last.load(Relaxed)));
        let last = last.map_or(Verdict::Timeout, |fault| Verdict::Error(*fault));
        let began = self.made + Duration::from_millis(self.began.load(Relaxed));
        cause
            .filter(|_| is_ejected)
            .map(|cause| (*cause, last, began))
    }

    /// Whether it is ejected, and the last failure was that no connection came about.
    pub fn is_ejected_for_refusing(&self) -> bool {
        self.standing() == Standing::Ejected && self.last.load(Relaxed) == Fault::Connect as u8
    }

    /// Takes a failure; returns what the server is to be ejected for, if it is.
    pub fn fail(&self, rules: &Passive, verdict: Verdict) -> Option<Cause> {
        match verdict {
            Verdict::Good => return None,
            Verdict::Error(fault) => {
                self.errors.fetch_add(1, Relaxed);
                self.errors_ever.fetch_add(1, Relaxed);
                self.last.store(fault as u8, Relaxed);
            }
            Verdict::Timeout => {
                self.last.store(TIMEOUT, Relaxed);
                self.timeouts.fetch_add(1, Relaxed);
            }
        }
        let (errors, timeouts) = (self.errors.load(Relaxed), self.timeouts.load(Relaxed));
        passive::cause(rules, self.standing(), errors, timeouts)
    }

    /// Takes a success after failures; whether it ends a trial.
    pub fn recover(&self) -> bool {
        self.errors.store(0, Relaxed);
        self.timeouts.store(0, Relaxed);
        self.turn_to(Standing::Trial, Standing::Good)
    }

    /// Ejects the server, which must not be ejected; for how long.
    pub fn eject(&self, rules: &Passive, cause: Cause, now: Instant) -> Duration {
        let well = now
            .saturating_duration_since(self.made + Duration::from_millis(self.until.load(Relaxed)));
        let before = passive::remembered(rules, self.ejections.load(Relaxed), well);
        let count = before.saturating_add(1);
        let time = passive::ejection(rules, count);
        self.ejections.store(count, Relaxed);
        self.began.store(self.millis(now), Relaxed);
        self.until.store(self.millis(now + time), Relaxed);
        self.cause.store(cause as u8, Relaxed);
        self.ejections_ever[cause as usize].fetch_add(1, Relaxed);
        self.standing.store(Standing::Ejected as u8, Release);
        time
    }

    /// Ends an ejection: from `now` on the server is on trial. False when it was not ejected.
    pub fn release(&self, now: Instant) -> bool {
        let is_ejected = self.turn_to(Standing::Ejected, Standing::Trial);
        if is_ejected {
            self.errors.store(0, Relaxed);
            self.timeouts.store(0, Relaxed);
            self.until.fetch_min(self.millis(now), Relaxed);
        }
        is_ejected
    }

    /// Forgets everything, ejections too; whether it was not in good standing.
    pub fn forgive(&self) -> bool {
        self.errors.store(0, Relaxed);
        self.timeouts.store(0, Relaxed);
        self.ejections.store(0, Relaxed);
        self.standing.swap(Standing::Good as u8, AcqRel) != Standing::Good as u8
    }

    /// Milliseconds since it was made.
    fn millis(&self, time: Instant) -> u64 {
        let after = time.saturating_duration_since(self.made);
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    }

    fn turn_to(&self, from: Standing, to: Standing) -> bool {
        let (from, to) = (from as u8, to as u8);
        (self.standing)
            .compare_exchange(from, to, AcqRel, Relaxed)
            .is_ok()
    }
}
