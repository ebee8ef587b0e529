//! Bytes both ways between two connections until both have ended, one is gone, or nothing moves any more.
//! It knows nothing of what they mean, and reads from no side while the other has not taken what came before.
//! The walk goes on in `backlog.rs` and `splice.rs`; `l4/connection.rs` and `l7/upgrade.rs` drive it.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::backlog::Backlog;
use super::duplex::Duplex;
use super::splice::Pipes;
use super::timer::Timer;

/// Bytes of a way from which on its large pieces go by way of a pipe. Until then it may be one that carries small messages only.
const BULK: u64 = 64 * 1024;

/// What counts as a large piece: one so large is copied at the cost of the one more look at the socket that a pipe takes.
const LARGE: usize = 8 * 1024;

/// Bytes that a pipe takes at once.
const MAX_SPLICED: usize = 256 * 1024;

/// After so long a rest the system asks now and then whether the other ends are still there (RFC 9293 section 3.8.4).
const REST: Duration = Duration::from_secs(60);

/// Two ways between a client and a backend.
#[derive(Debug)]
pub struct Relay {
    up: Way,
    down: Way,
    /// Who was the first to end or fail.
    first: Option<Party>,
    idle: Duration,
    /// How far both ways were when the deadline was set last.
    progress: Option<u64>,
    is_resting: bool,
}

/// What the worker lends for one poll.
pub struct Means<'a> {
    /// The connection's one deadline.
    pub timer: &'a Timer,
    /// Its pipes.
    pub pipes: &'a Rc<Pipes>,
    /// Memory that pieces pass through.
    pub memory: &'a mut [u8],
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// Who connected to weir.
    Client,
    /// Whom weir connected to.
    Backend,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides said that they were done, this one first.
    Clean(Party),
    /// Nothing moved for too long.
    Idle,
    /// A side was reset, or does not take anything any more.
    Failed(Party),
}

/// One direction.
#[derive(Debug)]
struct Way {
    backlog: Backlog,
    /// Bytes read so far.
    bytes: u64,
    state: State,
    /// Whether the next piece goes by way of a pipe.
    is_bulk: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The source ended; the target was told when it had everything.
    Ended,
    SourceFailed,
    TargetFailed,
}

impl Relay {
    /// Begins with what is on its way to the backend and to the client already; only the former counts as read. It ends when
    /// nothing moves for as long as `idle`.
    pub fn new(up: Backlog, down: Backlog, idle: Duration) -> Self {
        let early = up.len() as u64;
        Relay {
            up: Way::new(up, early),
            down: Way::new(down, 0),
            first: None,
            idle,
            progress: None,
            is_resting: false,
        }
    }

    /// Bytes that came from the client, and from the backend.
    #[inline]
    pub fn bytes(&self) -> (u64, u64) {
        (self.up.bytes, self.down.bytes)
    }

    /// Waits no longer than this from now on, and from the last byte on.
    pub fn hurry(&mut self, idle: Duration) {
        self.idle = self.idle.min(idle);
        self.progress = None;
        self.is_resting = false;
    }

    /// Moves pieces in turns, so that one busy way does not hold the other up, until nothing can be moved.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut impl Duplex,
        backend: &mut impl Duplex,
        means: Means<'_>,
    ) -> Poll<End> {
        let Means {
            timer,
            pipes,
            memory,
        } = means;
        // A way that waits has said whom to wake, and what the other one does changes nothing for it.
        let (mut up, mut down) = (Poll::Ready(()), Poll::Ready(()));
        while up.is_ready() || down.is_ready() {
            if up.is_ready() {
                up = self.up.poll_piece(cx, client, backend, pipes, memory);
            }
            if down.is_ready() {
                down = self.down.poll_piece(cx, backend, client, pipes, memory);
            }
            if self.up.state != State::Open || self.down.state != State::Open {
                let first =
                    *(self.first).get_or_insert_with(|| self.up.state.blames(self.down.state));
                if let Some(end) = end(self.up.state, self.down.state, first) {
                    return Poll::Ready(end);
                }
            }
        }
        let progress = self.up.progress().wrapping_add(self.down.progress());
        if self.progress.replace(progress) != Some(progress) {
            self.is_resting = false;
            timer.set(cx, self.idle.min(REST));
        } else if timer.has_fired() {
            if self.is_resting || self.idle <= REST {
                return Poll::Ready(End::Idle);
            }
            self.is_resting = true;
            client.keep_alive();
            backend.keep_alive();
            timer.set(cx, self.idle - REST);
        }
        Poll::Pending
    }
}

impl End {
    /// What one side did the other sees: an end is an end, a failure a reset.
    pub fn show(self, client: &mut impl Duplex, backend: &mut impl Duplex) {
        if let End::Failed(_) = self {
            client.reset_on_close();
            backend.reset_on_close();
        }
    }
}

impl Way {
    fn new(backlog: Backlog, bytes: u64) -> Self {
        Way {
            backlog,
            bytes,
            state: State::Open,
            is_bulk: false,
        }
    }

    /// Moves what is kept, or else one piece; pending when neither is possible now, and for good when the way has come to its end.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Duplex,
        target: &mut impl Duplex,
        pipes: &Rc<Pipes>,
        memory: &mut [u8],
    ) -> Poll<()> {
        if self.state != State::Open {
            return Poll::Pending;
        }
        if !self.backlog.is_empty() {
            if ready!(self.backlog.poll_flush(target, cx)).is_err() {
                self.state = State::TargetFailed;
            }
            return Poll::Ready(());
        }
        let spliced = match self.is_bulk {
            true => ready!((self.backlog).poll_splice(cx, source, target, pipes, MAX_SPLICED)),
            false => None,
        };
        let is_copied = spliced.is_none();
        let moved = match spliced {
            Some(moved) => moved,
            None => ready!(source.poll_read(cx, memory)),
        };
        let count = match moved {
            Ok(count) => count,
            // Within TLS many end without a word. Whoever is behind a reset might lose what came before it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                target.cut_write();
                self.state = State::Ended;
                return Poll::Ready(());
            }
            Err(_) => {
                self.state = State::SourceFailed;
                return Poll::Ready(());
            }
        };
        self.bytes += count as u64;
        self.is_bulk = self.bytes >= BULK && count >= LARGE;
        if count == 0 {
            target.shutdown_write();
            self.state = State::Ended;
        } else if is_copied && (self.backlog.send(target, cx, &memory[..count], &[])).is_err() {
            self.state = State::TargetFailed;
        }
        Poll::Ready(())
    }

    /// Grows with every byte that is read, and with every byte that is taken.
    fn progress(&self) -> u64 {
        (self.bytes * 2).wrapping_sub(self.backlog.len() as u64)
    }
}

impl State {
    /// Who ended a way of this state, or the other one.
    fn blames(self, down: State) -> Party {
        match (self, down) {
            (State::Ended | State::SourceFailed, _) | (State::Open, State::TargetFailed) => {
                Party::Client
            }
            (State::TargetFailed, _) | (State::Open, _) => Party::Backend,
        }
    }
}

/// Whether it is over. Who takes no more bytes may have sent some before, which are passed on to their end.
fn end(up: State, down: State, first: Party) -> Option<End> {
    match (up, down) {
        (State::SourceFailed, _) => Some(End::Failed(Party::Client)),
        (_, State::SourceFailed) => Some(End::Failed(Party::Backend)),
        (State::Open, _) | (_, State::Open) => None,
        (State::TargetFailed, _) => Some(End::Failed(Party::Backend)),
        (_, State::TargetFailed) => Some(End::Failed(Party::Client)),
        (State::Ended, State::Ended) => Some(End::Clean(first)),
    }
}
