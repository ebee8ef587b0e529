//! A worker's queue for a pool: who waits until a backend may take more, and whoever is called when one may.
//! It takes no seat for anybody: who is called tries again, and whoever finds nothing keeps its place.
//! The walk goes on in `policy/line.rs` (whose turn it is) and `state/waiting.rs` (what workers tell each other).

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::generation::{Generation, PoolView};
use super::local::Local;
use crate::clock;
use crate::config::model::QueueOrder;
use crate::policy::balance::BackendIndex;
use crate::policy::choose::Choice;
use crate::policy::line::{Line, Ticket};
use crate::state::snapshot::Pool;

/// How often a queue looks by itself, for what no bell rings for: a backend that comes up, a limit that a reload raised, a bell that rang
/// while two generations waited.
const LOOK: Duration = Duration::from_millis(20);

/// The queue of one pool on one worker.
#[derive(Debug)]
pub struct Queue {
    line: RefCell<Line<Waiter>>,
    /// Whether a task attends to it, as one does while somebody waits.
    is_attended: Cell<bool>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any backend of the pool that takes new work.
    Any,
    /// This one, where the client's session is.
    Backend(BackendIndex),
}

impl Want {
    /// What the client of a choice waits for: its home, if that was chosen because it is that.
    pub fn of(choice: Choice) -> Want {
        let kept = choice.sticky.filter(|chosen| !chosen.stickiness.is_new());
        kept.map_or(Want::Any, |_| Want::Backend(choice.backend))
    }

    /// The one that is waited for.
    pub fn backend(self) -> Option<BackendIndex> {
        match self {
            Want::Any => None,
            Want::Backend(own) => Some(own),
        }
    }
}

#[derive(Debug)]
struct Waiter {
    want: Want,
    waker: Option<Waker>,
    is_called: bool,
}

/// A place in a queue; it is left when this is dropped, and the next one is called if there is room.
#[derive(Debug)]
pub struct Place {
    generation: Rc<Generation>,
    pool: usize,
    worker: usize,
    ticket: Ticket,
}

impl Queue {
    /// An empty queue.
    pub fn new(order: QueueOrder) -> Queue {
        Queue {
            line: RefCell::new(Line::new(order)),
            is_attended: Cell::new(false),
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.line.borrow().is_empty()
    }

    /// Calls the first in turn whom there is room for, and who was not called yet; with `behind` of those behind that one.
    fn call(&self, pool: &Pool, view: &PoolView, behind: Option<Ticket>, now: Instant) -> bool {
        let any = OnceCell::new();
        let has_room = |waiter: &Waiter| {
            !waiter.is_called
                && match waiter.want {
                    Want::Any => *any.get_or_init(|| view.has_room(pool, Want::Any)),
                    want => view.has_room(pool, want),
                }
        };
        let mut line = self.line.borrow_mut();
        let Some(called) = line.first(behind, now, has_room) else {
            return false;
        };
        called.is_called = true;
        if let Some(waker) = called.waker.take() {
            waker.wake();
        }
        true
    }
}

impl Place {
    /// Takes the last place of a pool's queue; `None` when as many wait as may.
    pub fn take(
        local: &Rc<Local>,
        generation: &Rc<Generation>,
        pool: usize,
        want: Want,
        now: Instant,
    ) -> Option<Place> {
        let from = &generation.snapshot.pools[pool];
        if !from.waiting.join(local.index, from.queue.most) {
            return None;
        }
        let queue = &generation.pool(pool).queue;
        let waiter = Waiter {
            want,
            waker: None,
            is_called: false,
        };
        let ticket = queue.line.borrow_mut().join(waiter, now);
        if !queue.is_attended.replace(true) {
            tokio::task::spawn_local(attend(local.clone(), generation.clone(), pool));
        } else {
            // What was freed before this one joined rang for nobody.
            queue.call(from, generation.pool(pool), None, now);
        }
        Some(Place {
            generation: generation.clone(),
            pool,
            worker: local.index,
            ticket,
        })
    }

    /// Waits on for `want`, after it was called in vain: somebody behind it may have more luck.
    pub fn stay(&self, want: Want, now: Instant) {
        if let Some(waiter) = self.queue().line.borrow_mut().at(self.ticket) {
            waiter.want = want;
            waiter.is_called = false;
        }
        self.call(Some(self.ticket), now);
    }

    /// Ready when it is called.
    pub fn poll_called(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.queue().line.borrow_mut().at(self.ticket) {
            Some(waiter) if !waiter.is_called => {
                waiter.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn queue(&self) -> &Queue {
        &self.generation.pool(self.pool).queue
    }

    fn call(&self, behind: Option<Ticket>, now: Instant) {
        let pool = &self.generation.snapshot.pools[self.pool];
        let view = self.generation.pool(self.pool);
        view.queue.call(pool, view, behind, now);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue().line.borrow_mut().leave(self.ticket);
        self.generation.snapshot.pools[self.pool]
            .waiting
            .leave(self.worker);
        if !self.queue().is_empty() {
            self.call(None, clock::now());
        }
    }
}

/// Calls whoever there is room for, as long as somebody waits: when the bell rings, and now and then.
async fn attend(local: Rc<Local>, generation: Rc<Generation>, pool: usize) {
    let (from, view) = (&generation.snapshot.pools[pool], generation.pool(pool));
    let timer = local.wheel.timer();
    loop {
        let has_called = view.queue.call(from, view, None, clock::now());
        if view.queue.is_empty() {
            break;
        }
        if !has_called {
            from.waiting.pass(local.index);
        }
        timer.within(LOOK, from.waiting.heard(local.index)).await;
    }
    view.queue.is_attended.set(false);
}
