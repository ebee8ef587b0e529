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
use super::turn::GATHERED;

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

    /// Whether bytes that were read were not sent, so that an end now must not look like one that somebody meant.
    pub fn holds_any(&self) -> bool {
        !self.up.backlog.is_empty() || !self.down.backlog.is_empty()
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
            let (is_up_over, is_down_over) = (self.up.is_over(), self.down.is_over());
            if up.is_ready() {
                up = (self.up).poll_piece(cx, (client, backend), pipes, memory, is_down_over);
            }
            if down.is_ready() {
                down = (self.down).poll_piece(cx, (backend, client), pipes, memory, is_up_over);
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

    /// Whether its source ended.
    fn is_over(&self) -> bool {
        self.state == State::Ended
    }

    /// Moves what is kept, or else one piece; pending when neither is possible now, and for good when the way has come to its end.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        (source, target): (&mut impl Duplex, &mut impl Duplex),
        pipes: &Rc<Pipes>,
        memory: &mut [u8],
        is_last: bool,
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
            // A socket that has nothing more to hear either is closed next, which says the same.
            if !is_last || target.plain().is_none() {
                target.shutdown_write();
            }
            self.state = State::Ended;
        } else if is_copied && count <= GATHERED {
            // It is sent in the next poll, behind what other tasks read in this turn.
            self.backlog.push(&memory[..count]);
            cx.waker().wake_by_ref();
            return Poll::Pending;
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use proptest::prelude::*;
    use tokio::net::TcpStream;

    use super::*;
    use crate::clock;
    use crate::net::timer::Wheel;

    /// What a read finds next.
    #[derive(Clone, Debug)]
    enum Event {
        Bytes(Vec<u8>),
        Wait,
        End,
        Cut,
        Reset,
    }

    /// A connection whose other end follows a script.
    #[derive(Debug, Default)]
    struct Scripted {
        events: VecDeque<Event>,
        /// How much each write takes, in turns; 0: it waits.
        room: VecDeque<usize>,
        written: Vec<u8>,
        is_ended: bool,
        is_cut: bool,
        is_reset: bool,
    }

    impl Duplex for Scripted {
        fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            match self.events.pop_front() {
                Some(Event::Bytes(mut bytes)) => {
                    let count = bytes.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&bytes[..count]);
                    if count < bytes.len() {
                        self.events.push_front(Event::Bytes(bytes.split_off(count)));
                    }
                    Poll::Ready(Ok(count))
                }
                Some(Event::Wait) | None => Poll::Pending,
                Some(Event::End) => Poll::Ready(Ok(0)),
                Some(Event::Cut) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Some(Event::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }

        fn poll_write(
            &mut self,
            _: &mut Context<'_>,
            first: &[u8],
            second: &[u8],
        ) -> Poll<io::Result<usize>> {
            assert!(!self.is_ended, "a byte behind the end");
            let bytes = [first, second].concat();
            let room = self.room.pop_front().unwrap_or(usize::MAX);
            self.room.push_back(room);
            match room.min(bytes.len()) {
                0 => Poll::Pending,
                count => {
                    self.written.extend_from_slice(&bytes[..count]);
                    Poll::Ready(Ok(count))
                }
            }
        }

        fn plain(&self) -> Option<&TcpStream> {
            None
        }

        fn shutdown_write(&mut self) {
            self.is_ended = true;
        }

        fn cut_write(&mut self) {
            (self.is_ended, self.is_cut) = (true, true);
        }

        fn reset_on_close(&mut self) {
            self.is_reset = true;
        }

        fn keep_alive(&self) {}
    }

    /// Turns until it is over, or nothing is left to happen.
    fn run(relay: &mut Relay, client: &mut Scripted, backend: &mut Scripted) -> Option<End> {
        let timer = Wheel::new(clock::now()).timer();
        let pipes = Rc::default();
        let mut memory = [0; 7];
        let mut cx = Context::from_waker(Waker::noop());
        (0..10_000).find_map(|_| {
            let means = Means {
                timer: &timer,
                pipes: &pipes,
                memory: &mut memory,
            };
            match relay.poll(&mut cx, client, backend, means) {
                Poll::Ready(end) => Some(end),
                Poll::Pending => None,
            }
        })
    }

    fn relay(early: &[u8]) -> Relay {
        let mut up = Backlog::default();
        up.push(early);
        Relay::new(up, Backlog::default(), Duration::from_secs(1))
    }

    fn side() -> impl Strategy<Value = Scripted> {
        let bytes = proptest::collection::vec(any::<u8>(), 1..20).prop_map(Event::Bytes);
        let event = prop_oneof![3 => bytes, 1 => Just(Event::Wait)];
        let room = proptest::collection::vec(0..9_usize, 0..6);
        (proptest::collection::vec(event, 0..12), room).prop_map(|(events, mut room)| {
            // It takes something now and then.
            room.push(3);
            Scripted {
                events: events.into(),
                room: room.into(),
                ..Scripted::default()
            }
        })
    }

    fn said(side: &Scripted) -> Vec<u8> {
        let bytes = side.events.iter().filter_map(|event| match event {
            Event::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        });
        bytes.flatten().collect()
    }

    proptest! {
        #[test]
        fn everything_arrives_in_order_and_then_the_end(
            mut client in side(),
            mut backend in side(),
            early in proptest::collection::vec(any::<u8>(), 0..20),
            is_cut in any::<bool>(),
        ) {
            let (up, down) = ([early.clone(), said(&client)].concat(), said(&backend));
            client.events.push_back(if is_cut { Event::Cut } else { Event::End });
            backend.events.push_back(Event::End);
            let mut relay = relay(&early);
            let end = run(&mut relay, &mut client, &mut backend);
            prop_assert!(matches!(end, Some(End::Clean(_))), "{:?}", end);
            prop_assert_eq!(&backend.written, &up);
            prop_assert_eq!(&client.written, &down);
            prop_assert!(client.is_ended && backend.is_ended);
            prop_assert_eq!((client.is_cut, backend.is_cut), (false, is_cut));
            prop_assert_eq!(relay.bytes(), (up.len() as u64, down.len() as u64));
        }

        #[test]
        fn a_reset_is_one_for_both(mut client in side(), mut backend in side(), is_client in any::<bool>()) {
            let (own, party) = match is_client {
                true => (&mut client, Party::Client),
                false => (&mut backend, Party::Backend),
            };
            own.events.push_back(Event::Reset);
            let end = run(&mut relay(b""), &mut client, &mut backend);
            prop_assert_eq!(end, Some(End::Failed(party)));
            End::Failed(party).show(&mut client, &mut backend);
            prop_assert!(client.is_reset && backend.is_reset);
        }
    }

    #[test]
    fn who_ends_first_is_told() {
        for (client, backend, first) in [
            (
                vec![Event::End],
                vec![Event::Wait, Event::End],
                Party::Client,
            ),
            (
                vec![Event::Wait, Event::End],
                vec![Event::End],
                Party::Backend,
            ),
        ] {
            let side = |events: Vec<Event>| Scripted {
                events: events.into(),
                ..Scripted::default()
            };
            let end = run(&mut relay(b""), &mut side(client), &mut side(backend));
            assert_eq!(end, Some(End::Clean(first)));
        }
    }
}
