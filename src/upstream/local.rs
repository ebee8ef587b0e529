//! What one worker owns and lends to every connection on it: scratch memory, deadlines, chance, rows.
//! Nothing here is shared with another thread, and nothing borrowed from it may be held while waiting.
//! The walk goes on in `worker.rs`, which makes it, and in `l7/`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::coders::Coders;
use super::generation::Generation;
use crate::config::model::Protocol;
use crate::http::edits::Edits;
use crate::http::head::Line;
use crate::metrics::rows::Rows;
use crate::metrics::worker::WorkerCounts;
use crate::net::splice::Pipes;
use crate::net::timer::Wheel;
use crate::rng::Rng;
use crate::state::access_log::AccessLog;

/// Bytes of a body that pass at once: a head and 64 KiB fit in several times, which is what large bodies gain from.
const BODY: usize = 136 * 1024;

/// Bytes that a buffer for a head begins with; most heads are shorter.
const HEAD: usize = 4 * 1024;

/// Buffers kept for the next request; more than that many waited at once only after a burst.
const MAX_BUFFERS: usize = 512;

/// What one worker owns.
#[derive(Debug)]
pub struct Local {
    /// Its ordinal.
    pub index: usize,
    /// Its deadlines.
    pub wheel: Rc<Wheel>,
    /// Body bytes on their way through; borrowed within one poll only.
    pub body: RefCell<Box<[u8]>>,
    /// Memory for heads; borrowed within one poll only.
    pub scratch: RefCell<Scratch>,
    /// Its generator for balancing.
    pub rng: RefCell<Rng>,
    /// Its rows.
    pub rows: Rows,
    /// What it counts beside them.
    pub counts: Arc<WorkerCounts>,
    /// Its end of the access log.
    pub access_log: AccessLog,
    /// Buffers for heads that wait.
    pub buffers: Buffers,
    /// When the log was last told of a backend whose handshake failed.
    pub told_of_tls: Cell<Option<Instant>>,
    /// Pipes for bodies that pass without a copy.
    pub pipes: Rc<Pipes>,
    /// Coders for answers that are compressed.
    pub coders: Rc<Coders>,
}

/// Memory for heads that one poll uses and nobody keeps.
#[derive(Debug)]
pub struct Scratch {
    /// A head on its way out.
    pub out: Vec<u8>,
    /// Field lines of the head at hand.
    pub lines: Vec<Line>,
    /// Changes to it.
    pub edits: Edits,
    /// A path in normal form.
    pub path: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            out: Vec::with_capacity(HEAD),
            lines: Vec::new(),
            edits: Edits::default(),
            path: Vec::new(),
        }
    }
}

/// The memory that bodies pass through.
pub fn body_memory() -> RefCell<Box<[u8]>> {
    RefCell::new(vec![0; BODY].into())
}

/// A free list of head buffers.
#[derive(Debug, Default)]
pub struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer with room for a usual head.
    #[inline]
    pub fn take(&self) -> Vec<u8> {
        self.0
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(HEAD))
    }

    /// Takes a buffer back; one that grew large is not worth keeping.
    #[inline]
    pub fn put(&self, mut buffer: Vec<u8>) {
        let mut list = self.0.borrow_mut();
        if list.len() < MAX_BUFFERS && (HEAD..=HEAD * 4).contains(&buffer.capacity()) {
            buffer.clear();
            list.push(buffer);
        }
    }
}

/// A listening address as its connections see it: which generation serves it, and as which listener.
#[derive(Debug)]
pub struct ListenerView {
    generation: RefCell<Rc<Generation>>,
    listener: Cell<usize>,
    closing: Cell<Closing>,
    handed_over: Cell<bool>,
}

/// How a listener ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// It does not.
    #[default]
    Open,
    /// Another process serves its sockets from now on. Connections close after their next answer; a client that rests is not cut off in
    /// the moment in which its next request may be on the way.
    HandedOver,
    /// Connections close after their answer, and those that rest at once.
    Closed,
}

impl ListenerView {
    /// A view of the listener with this ordinal.
    pub fn new(generation: Rc<Generation>, listener: usize) -> Self {
        ListenerView {
            generation: RefCell::new(generation),
            listener: Cell::new(listener),
            closing: Cell::default(),
            handed_over: Cell::new(false),
        }
    }

    /// Serves another generation from now on; requests under way end in theirs.
    pub fn switch(&self, generation: Rc<Generation>, listener: usize) {
        self.generation.replace(generation);
        self.listener.set(listener);
    }

    /// From now on it ends so, if it does not end sooner already.
    pub fn close(&self, closing: Closing) {
        self.closing.set(self.closing.get().max(closing));
        if closing == Closing::HandedOver {
            self.handed_over.set(true);
        }
    }

    /// Whether connections close after their answer.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closing.get() != Closing::Open
    }

    /// Whether connections that rest close at once.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closing.get() == Closing::Closed
    }

    /// Whether another process reads from its sockets.
    #[inline]
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.get()
    }

    /// What is spoken there.
    pub fn protocol(&self) -> Protocol {
        self.generation.borrow().snapshot.listeners[self.listener()].protocol
    }

    /// The number of the generation that serves it.
    #[inline]
    pub fn generation_number(&self) -> u64 {
        self.generation.borrow().snapshot.generation
    }

    /// The generation that a new request belongs to.
    #[inline]
    pub fn generation(&self) -> Rc<Generation> {
        self.generation.borrow().clone()
    }

    /// The ordinal of the listener in [`ListenerView::generation`].
    #[inline]
    pub fn listener(&self) -> usize {
        self.listener.get()
    }
}
