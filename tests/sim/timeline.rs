//! Time as the story has it, and the tasks that wait in it: whoever waits for the earliest moment goes on next.
//! Nobody can be woken but by time, so that one order of events is all there is.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The wall time at which stories begin, in milliseconds since the epoch.
const BEGINNING: i64 = 1_800_000_000_000;

#[derive(Debug)]
pub struct Timeline {
    /// Where monotonic time begins; which instant that is makes no difference to anything.
    began: Instant,
    elapsed: Cell<Duration>,
    /// How far the wall clock was put.
    skew_millis: Cell<i64>,
    alarms: RefCell<BinaryHeap<Reverse<(Duration, u64, usize)>>>,
    sequence: Cell<u64>,
    /// The task that runs.
    current: Cell<usize>,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

impl Timeline {
    pub fn new() -> Rc<Timeline> {
        Rc::new(Timeline {
            began: Instant::now(),
            elapsed: Cell::default(),
            skew_millis: Cell::default(),
            alarms: RefCell::default(),
            sequence: Cell::default(),
            current: Cell::default(),
        })
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        self.began + self.elapsed.get()
    }

    /// Since the story began.
    pub fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }

    pub fn wall_millis(&self) -> u64 {
        let elapsed = self.elapsed.get().as_millis() as i64;
        (BEGINNING + elapsed + self.skew_millis.get()) as u64
    }

    /// Somebody puts the wall clock forward or back.
    pub fn put_wall(&self, by_millis: i64) {
        self.skew_millis.set(self.skew_millis.get() + by_millis);
    }

    /// The machine sleeps: what should have happened meanwhile happens when it is awake again.
    pub fn sleep_through(&self, time: Duration) {
        self.elapsed.set(self.elapsed.get() + time);
    }

    pub async fn wait(&self, time: Duration) {
        self.wait_until(self.elapsed.get() + time).await;
    }

    pub async fn wait_until(&self, moment: Duration) {
        let mut is_set = false;
        poll_fn(|_| {
            if self.elapsed.get() >= moment {
                return Poll::Ready(());
            }
            if !is_set {
                is_set = true;
                self.set_alarm(moment);
            }
            Poll::Pending
        })
        .await;
    }

    /// What comes of `future` until then; `None`, and an end to it, when that takes longer.
    pub async fn within<T>(&self, time: Duration, future: impl Future<Output = T>) -> Option<T> {
        let until = self.elapsed.get() + time;
        self.set_alarm(until);
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.elapsed.get() >= until => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn set_alarm(&self, moment: Duration) {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        let alarm = (moment, sequence, self.current.get());
        self.alarms.borrow_mut().push(Reverse(alarm));
    }

    /// Runs the tasks until all have ended.
    pub fn run(&self, tasks: Vec<Task>) {
        let mut tasks: Vec<Option<Task>> = tasks.into_iter().map(Some).collect();
        for task in 0..tasks.len() {
            self.step(&mut tasks, task);
        }
        loop {
            let Some(Reverse((moment, _, task))) = self.alarms.borrow_mut().pop() else {
                break;
            };
            self.elapsed.set(self.elapsed.get().max(moment));
            self.step(&mut tasks, task);
        }
        assert!(
            tasks.iter().all(Option::is_none),
            "a task waits for nothing"
        );
    }

    fn step(&self, tasks: &mut [Option<Task>], task: usize) {
        self.current.set(task);
        let mut context = Context::from_waker(Waker::noop());
        if let Some(running) = &mut tasks[task]
            && running.as_mut().poll(&mut context).is_ready()
        {
            tasks[task] = None;
        }
    }
}
