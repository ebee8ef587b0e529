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
    /// How often the deadline has passed since then.
    rests: u32,
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
    /// The target takes no more: it was reset, or else had ended before.
    TargetFailed {
        was_reset: bool,
    },
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
            rests: 0,
        }
    }

    /// Bytes that came from the client, and from the backend.
    #[inline]
    pub fn bytes(&self) -> (u64, u64) {
        (self.up.bytes, self.down.bytes)
    }

    /// What one side did the other sees: an end is an end, a failure a reset, and so is an end while bytes that were read were not sent,
    /// which must not look like one that somebody meant. Whether it was a reset.
    pub fn show(&self, end: End, client: &mut impl Duplex, backend: &mut impl Duplex) -> bool {
        let holds_any = !self.up.backlog.is_empty() || !self.down.backlog.is_empty();
        let is_reset = matches!(end, End::Failed(_)) || holds_any;
        if is_reset {
            client.reset_on_close();
            backend.reset_on_close();
        }
        is_reset
    }

    /// Waits no longer than this from now on, and from the last byte on.
    pub fn hurry(&mut self, idle: Duration) {
        self.idle = self.idle.min(idle);
        self.progress = None;
        self.rests = 0;
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
                up = (self.up).poll_piece(cx, (client, backend), pipes, memory, self.down.state);
            }
            if down.is_ready() {
                down = (self.down).poll_piece(cx, (backend, client), pipes, memory, self.up.state);
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
            self.rests = 0;
            timer.set(cx, self.idle.min(REST));
            return Poll::Pending;
        }
        if !timer.has_fired() {
            return Poll::Pending;
        }
        self.rests += 1;
        let rested = REST * self.rests;
        if rested >= self.idle {
            return Poll::Ready(End::Idle);
        }
        timer.set(cx, (self.idle - rested).min(REST));
        self.look_after(cx, client, backend)
    }

    /// Has both ends looked after while nothing moves. From a side that has ended nobody reads any more, which else would tell of its failure.
    fn look_after(
        &self,
        cx: &mut Context<'_>,
        client: &mut impl Duplex,
        backend: &mut impl Duplex,
    ) -> Poll<End> {
        if self.up.state == State::Ended && client.has_failed(cx) {
            return Poll::Ready(End::Failed(Party::Client));
        }
        if self.down.state == State::Ended && backend.has_failed(cx) {
            return Poll::Ready(End::Failed(Party::Backend));
        }
        if self.rests == 1 {
            client.keep_alive();
            backend.keep_alive();
        }
        Poll::Pending
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

    /// Moves what is kept, or else one piece; pending when neither is possible now, and for good when the way has come to its end. `back` is
    /// how the other way is, whose target is the source of this one.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        (source, target): (&mut impl Duplex, &mut impl Duplex),
        pipes: &Rc<Pipes>,
        memory: &mut [u8],
        back: State,
    ) -> Poll<()> {
        if self.state != State::Open {
            return Poll::Pending;
        }
        if !self.backlog.is_empty() {
            if let Err(error) = ready!(self.backlog.poll_flush(target, cx)) {
                self.state = State::refused(&error);
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
        // The system tells of a reset once. Whoever heard of it by writing finds an end behind what came before it.
        let was_reset = back == State::TargetFailed { was_reset: true };
        let count = match moved {
            Ok(0) if was_reset => {
                self.state = State::SourceFailed;
                return Poll::Ready(());
            }
            Ok(count) => count,
            // Within TLS many end without a word. Whoever is behind a reset might lose what came before it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !was_reset => {
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
            if back != State::Ended || target.plain().is_none() {
                target.shutdown_write();
            }
            self.state = State::Ended;
        } else if is_copied && count <= GATHERED {
            // It is sent in the next poll, behind what other tasks read in this turn.
            self.backlog.push(&memory[..count]);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        } else if is_copied && let Err(error) = self.backlog.send(target, cx, &memory[..count], &[])
        {
            self.state = State::refused(&error);
        }
        Poll::Ready(())
    }

    /// Grows with every byte that is read, and with every byte that is taken.
    fn progress(&self) -> u64 {
        (self.bytes * 2).wrapping_sub(self.backlog.len() as u64)
    }
}

impl State {
    /// Of a way whose target did not take a piece. Who ended and is gone is written to in vain (EPIPE), and what it sent is whole.
    fn refused(error: &io::Error) -> State {
        State::TargetFailed {
            was_reset: error.kind() != io::ErrorKind::BrokenPipe,
        }
    }

    /// Who ended a way of this state, or the other one.
    fn blames(self, down: State) -> Party {
        match (self, down) {
            (State::Ended | State::SourceFailed, _) | (State::Open, State::TargetFailed { .. }) => {
                Party::Client
            }
            (State::TargetFailed { .. }, _) | (State::Open, _) => Party::Backend,
        }
    }
}

/// Whether it is over. Who takes no more bytes may have sent some before, which are passed on to their end.
fn end(up: State, down: State, first: Party) -> Option<End> {
    match (up, down) {
        (State::SourceFailed, _) => Some(End::Failed(Party::Client)),
        (_, State::SourceFailed) => Some(End::Failed(Party::Backend)),
        (State::Open, _) | (_, State::Open) => None,
        (State::TargetFailed { .. }, _) => Some(End::Failed(Party::Backend)),
        (_, State::TargetFailed { .. }) => Some(End::Failed(Party::Client)),
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
    use crate::net::timer::{TICK, Wheel};

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
        /// What a write fails with, once; reads behind what is to be read find an end then.
        refuses: Option<io::ErrorKind>,
        has_refused: bool,
        /// What the system knows, and a read does not tell.
        is_gone: bool,
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
                Some(Event::Reset) if self.has_refused => Poll::Ready(Ok(0)),
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
            if let Some(kind) = self.refuses {
                self.has_refused = true;
                return Poll::Ready(Err(kind.into()));
            }
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

        fn has_failed(&mut self, _: &mut Context<'_>) -> bool {
            self.is_gone
        }
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
        fn a_reset_is_one_for_both(
            mut client in side(),
            mut backend in side(),
            is_client in any::<bool>(),
            is_written_to in any::<bool>(),
        ) {
            let (own, party) = match is_client {
                true => (&mut client, Party::Client),
                false => (&mut backend, Party::Backend),
            };
            own.events.push_back(Event::Reset);
            own.refuses = is_written_to.then_some(io::ErrorKind::ConnectionReset);
            let sent = said(own);
            let mut relay = relay(b"");
            let end = run(&mut relay, &mut client, &mut backend);
            prop_assert_eq!(end, Some(End::Failed(party)));
            prop_assert!(relay.show(End::Failed(party), &mut client, &mut backend));
            prop_assert!(client.is_reset && backend.is_reset);
            let other = if is_client { &backend } else { &client };
            prop_assert!(!other.is_ended, "nothing that looks clean");
            prop_assert_eq!(&other.written, &sent);
        }

        #[test]
        fn who_ended_and_is_gone_has_sent_all(mut client in side(), mut backend in side()) {
            client.events.push_back(Event::Bytes(b"QUIT".to_vec()));
            backend.events.push_back(Event::End);
            backend.refuses = Some(io::ErrorKind::BrokenPipe);
            let sent = said(&backend);
            let end = run(&mut relay(b""), &mut client, &mut backend);
            prop_assert_eq!(end, Some(End::Failed(Party::Backend)));
            prop_assert!(client.is_ended);
            prop_assert_eq!(&client.written, &sent);
        }
    }

    /// Whoever waits for its next byte must be able to tell that there is none.
    #[test]
    fn what_was_not_sent_ends_as_a_reset() {
        for (room, is_reset) in [(0, true), (9, false)] {
            let mut client = Scripted {
                room: [room].into(),
                ..Scripted::default()
            };
            let mut backend = Scripted {
                events: [Event::Bytes(b"answer".to_vec())].into(),
                ..Scripted::default()
            };
            let mut relay = relay(b"");
            assert_eq!(run(&mut relay, &mut client, &mut backend), None);
            assert_eq!(relay.show(End::Idle, &mut client, &mut backend), is_reset);
            assert_eq!((client.is_reset, backend.is_reset), (is_reset, is_reset));
        }
    }

    /// What it comes to when nothing happens any more, and after how long.
    fn rest(relay: &mut Relay, client: &mut Scripted, backend: &mut Scripted) -> (End, Duration) {
        let began = clock::now();
        let wheel = Wheel::new(began);
        let (timer, pipes) = (wheel.timer(), Rc::default());
        let mut cx = Context::from_waker(Waker::noop());
        let ended = (0_u32..).find_map(|tick| {
            let passed = TICK * tick;
            wheel.turn(began + passed);
            let means = Means {
                timer: &timer,
                pipes: &pipes,
                memory: &mut [0; 7],
            };
            match relay.poll(&mut cx, client, backend, means) {
                Poll::Ready(end) => Some((end, passed)),
                Poll::Pending => None,
            }
        });
        ended.expect("it rests for as long as it may")
    }

    #[test]
    fn who_has_ended_is_looked_after_while_nothing_moves() {
        for (is_gone, expected, after) in [
            (false, End::Idle, 150),
            (true, End::Failed(Party::Client), 60),
        ] {
            let mut client = Scripted {
                events: [Event::End].into(),
                is_gone,
                ..Scripted::default()
            };
            let mut relay = relay(b"");
            relay.idle = Duration::from_secs(150);
            let (end, passed) = rest(&mut relay, &mut client, &mut Scripted::default());
            assert_eq!((end, passed.as_secs()), (expected, after));
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
