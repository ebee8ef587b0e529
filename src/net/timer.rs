//! Deadlines: one coarse timer wheel per worker (Varghese and Lauck 1987), 20 ms a tick.
//! Moving a deadline further away, which every request does several times, is a store; nothing is sorted and no clock is read.
//! The walk goes on in `worker.rs`, which turns the wheel, and in `l7/`, which waits.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The grain of every deadline: one fires up to three ticks late, never early.
pub const TICK: Duration = Duration::from_millis(20);

/// Ticks that one turn may move on. When the thread stood still for longer, so did its time: nobody is to blame for a wait that
/// nobody could end, and a deadline that is set before the next turn must not count from a time long past.
const MAX_STEP: u64 = 2;

/// Ticks that the wheel spans; what lies further away is looked at once per turn.
const SLOTS: usize = 1024;

const NEVER: u64 = u64::MAX;

/// The wheel of one worker.
#[derive(Debug)]
pub struct Wheel {
    turned: Cell<Instant>,
    now: Cell<u64>,
    entries: RefCell<Entries>,
}

/// A deadline of one task. It can be set and moved any number of times; dropping it ends it.
#[derive(Debug)]
pub struct Timer {
    wheel: Rc<Wheel>,
    id: u32,
}

#[derive(Debug)]
struct Entries {
    list: Vec<Entry>,
    free: Vec<u32>,
    slots: Vec<Vec<u32>>,
}

#[derive(Debug)]
struct Entry {
    /// When it is due.
    deadline: u64,
    /// When the wheel looks at it: never after the deadline, often before.
    scheduled: u64,
    fired: bool,
    waker: Option<Waker>,
}

impl Wheel {
    /// An empty wheel whose time begins at `now`.
    pub fn new(now: Instant) -> Rc<Self> {
        let slots = vec![Vec::new(); SLOTS];
        Rc::new(Wheel {
            turned: Cell::new(now),
            now: Cell::new(0),
            entries: RefCell::new(Entries {
                list: Vec::new(),
                free: Vec::new(),
                slots,
            }),
        })
    }

    /// A timer without a deadline.
    pub fn timer(self: &Rc<Self>) -> Timer {
        let entries = &mut *self.entries.borrow_mut();
        let entry = Entry {
            deadline: NEVER,
            scheduled: NEVER,
            fired: false,
            waker: None,
        };
        let id = match entries.free.pop() {
            Some(id) => {
                entries.list[id as usize] = entry;
                id
            }
            None => {
                entries.list.push(entry);
                (entries.list.len() - 1) as u32
            }
        };
        Timer {
            wheel: self.clone(),
            id,
        }
    }

    /// Moves time on to `now` and wakes the tasks whose deadlines passed.
    pub fn turn(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.turned.get());
        let ticks = (passed.as_millis() / TICK.as_millis()) as u64;
        self.turned.set(match ticks {
            0..=MAX_STEP => self.turned.get() + TICK * ticks as u32,
            _ => now,
        });
        let first = self.now.get() + 1;
        let target = self.now.get() + ticks.min(MAX_STEP);
        self.now.set(target);
        let mut due = Vec::new();
        for tick in first..=target {
            self.entries.borrow_mut().look(tick, target, &mut due);
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// How many ticks it turned so far: time in the grain of deadlines, without a look at a clock.
    #[inline]
    pub fn turns(&self) -> u64 {
        self.now.get()
    }

    /// Wakes every task that has a timer, so that each looks at what changed around it.
    pub fn wake_all(&self) {
        let wakers: Vec<Waker> = self
            .entries
            .borrow_mut()
            .list
            .iter_mut()
            .filter_map(|entry| entry.waker.clone())
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Entries {
    fn look(&mut self, tick: u64, now: u64, due: &mut Vec<Waker>) {
        let slot = tick as usize % SLOTS;
        for id in std::mem::take(&mut self.slots[slot]) {
            let entry = &mut self.list[id as usize];
            if entry.scheduled > now {
                // Either it stands here for the next turn of the wheel, or it was moved nearer and stands there.
                if entry.scheduled != NEVER && entry.scheduled as usize % SLOTS == slot {
                    self.slots[slot].push(id);
                }
                continue;
            }
            entry.scheduled = NEVER;
            if entry.deadline <= now {
                entry.fired = true;
                entry.deadline = NEVER;
                due.extend(entry.waker.clone());
            } else if entry.deadline != NEVER {
                self.schedule(id, now);
            }
        }
    }

    fn schedule(&mut self, id: u32, now: u64) {
        let entry = &mut self.list[id as usize];
        let tick = entry.deadline.min(now + SLOTS as u64 - 1);
        if tick < entry.scheduled {
            entry.scheduled = tick;
            self.slots[tick as usize % SLOTS].push(id);
        }
    }
}

impl Entry {
    fn attach(&mut self, cx: &Context<'_>) {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
    }
}

impl Timer {
    /// Wakes the task of `cx` after `duration`, in place of any earlier deadline.
    pub fn set(&self, cx: &Context<'_>, duration: Duration) {
        let now = self.wheel.now.get();
        let ticks = ticks_in(duration);
        let entries = &mut *self.wheel.entries.borrow_mut();
        let entry = &mut entries.list[self.id as usize];
        entry.deadline = now + ticks + MAX_STEP;
        entry.fired = false;
        entry.attach(cx);
        if entry.deadline < entry.scheduled {
            entries.schedule(self.id, now);
        }
    }

    /// Makes the task of `cx` the one that [`Wheel::wake_all`] wakes, without a deadline.
    pub fn attach(&self, cx: &Context<'_>) {
        self.wheel.entries.borrow_mut().list[self.id as usize].attach(cx);
    }

    /// Waits for something at most for `duration`; `None` when that was in vain.
    pub async fn within<T>(&self, duration: Duration, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        let mut is_set = false;
        poll_fn(|cx| match wait.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if !std::mem::replace(&mut is_set, true) => {
                self.set(cx, duration);
                Poll::Pending
            }
            Poll::Pending if self.has_fired() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Whether the last deadline passed.
    #[inline]
    pub fn has_fired(&self) -> bool {
        self.wheel.entries.borrow().list[self.id as usize].fired
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let entries = &mut *self.wheel.entries.borrow_mut();
        let entry = &mut entries.list[self.id as usize];
        entry.deadline = NEVER;
        entry.waker = None;
        entries.free.push(self.id);
    }
}

/// The ticks that a duration lasts, the last one begun counting whole; a million years at most. Every request asks several times, so
/// the numbers stay within one word.
#[inline]
fn ticks_in(duration: Duration) -> u64 {
    const A_SECOND: u64 = 1000 / TICK.as_millis() as u64;
    let seconds = duration.as_secs().min(u64::MAX / 4 / A_SECOND);
    seconds * A_SECOND + u64::from(duration.subsec_millis()).div_ceil(TICK.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rings(bell: &Arc<Bell>) -> usize {
        bell.0.load(Ordering::Relaxed)
    }

    /// Turns the wheel as a worker does, once a tick.
    fn pass(wheel: &Wheel, from: Instant, to: Instant) {
        let mut now = from;
        while now < to {
            now += TICK;
            wheel.turn(now);
        }
    }

    #[test]
    fn a_deadline_that_moves_away_fires_once_at_its_last_place() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let wheel = Wheel::new(start);
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let cx = Context::from_waker(&waker);
        let timer = wheel.timer();
        timer.set(&cx, Duration::from_secs(2));
        pass(&wheel, start, at(1));
        timer.set(&cx, Duration::from_secs(60));
        pass(&wheel, at(1), at(60));
        assert_eq!(rings(&bell), 0);
        pass(&wheel, at(60), at(62));
        assert!(timer.has_fired());
        pass(&wheel, at(62), at(200));
        assert_eq!(rings(&bell), 1);
    }

    #[test]
    fn a_stall_is_nobodys_wait() {
        let start = Instant::now();
        let wheel = Wheel::new(start);
        let cx = Context::from_waker(Waker::noop());
        let stalled = start + Duration::from_secs(10);
        let timer = wheel.timer();
        timer.set(&cx, Duration::from_secs(1));
        wheel.turn(stalled);
        assert!(!timer.has_fired());
        pass(&wheel, stalled, stalled + Duration::from_secs(2));
        assert!(timer.has_fired());
    }

    #[test]
    fn a_dropped_timer_wakes_nobody() {
        let start = Instant::now();
        let wheel = Wheel::new(start);
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let cx = Context::from_waker(&waker);
        let timer = wheel.timer();
        timer.set(&cx, Duration::from_millis(100));
        drop(timer);
        let _next = wheel.timer();
        pass(&wheel, start, start + Duration::from_secs(1));
        assert_eq!(rings(&bell), 0);
    }

    proptest! {
        /// Against the obvious model.
        #[test]
        fn never_early_and_at_most_three_ticks_late(
            steps in prop::collection::vec((0usize..4, 0u64..50_000, 1u64..3_000, 1u64..40), 1..60),
        ) {
            let start = Instant::now();
            let wheel = Wheel::new(start);
            let timers: Vec<_> = (0..4).map(|_| wheel.timer()).collect();
            let mut deadlines = [None; 4];
            let mut now = 0;
            for (which, duration, span, step) in steps {
                timers[which].set(&Context::from_waker(Waker::noop()), Duration::from_millis(duration));
                deadlines[which] = Some(now + duration);
                let end = now + span;
                while now < end {
                    now += step;
                    wheel.turn(start + Duration::from_millis(now));
                    for (timer, deadline) in timers.iter().zip(&mut deadlines) {
                        let Some(at) = *deadline else { continue };
                        if timer.has_fired() {
                            prop_assert!(now >= at, "early");
                            *deadline = None;
                        } else {
                            prop_assert!(now < at + 60 + step, "late");
                        }
                    }
                }
            }
        }
    }

    /// Against the plain division.
    #[test]
    fn ticks_are_those_of_the_duration() {
        for millis in [
            0,
            1,
            19,
            20,
            21,
            999,
            1000,
            1001,
            86_400_000,
            u64::from(u32::MAX),
        ] {
            let duration = Duration::from_millis(millis);
            let plain = duration.as_millis().div_ceil(TICK.as_millis());
            assert_eq!(u128::from(ticks_in(duration)), plain, "{millis} ms");
        }
        assert!(ticks_in(Duration::MAX) < NEVER / 2);
    }
}
