//! Datagrams of one listening socket: each flow has a socket of its own toward its backend, so that an answer finds its client.
//! It never waits for a single socket and never holds a datagram back: what cannot be sent now is lost, and counted.
//! The walk goes on in `flow.rs` (whose flows there are), `aim.rs` (where they go) and `net/udp/`.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::Interest;

use super::aim::{Aim, Nowhere};
use super::flow::{End, FlowId, FlowKey, Flows, LINGER};
use super::introduction;
use super::passage::{self, Passage};
use crate::clock;
use crate::config::model::ProxyProtocol;
use crate::metrics::datagrams::Lost;
use crate::net::introduction::Introduction;
use crate::net::proxy_protocol::Ends;
use crate::net::timer::Timer;
use crate::net::udp::batch::{Batch, MAX_DATAGRAMS};
use crate::net::udp::parcels::{Outbox, Parcel};
use crate::net::udp::poller::Poller;
use crate::net::{is_short, transparent, udp};
use crate::upstream::local::{ListenerView, Local};

/// Batches in one direction before others on the worker have their turn.
const ROUNDS: usize = 16;

/// Datagrams that are read from a backend's socket before the next one has its turn, and how often one is read in a look.
const AT_ONCE: usize = 16;
const TURNS: usize = 8;

/// How often it looks for flows that were silent for long enough.
const SWEEP: Duration = Duration::from_millis(500);

/// The same while it closes.
const LAST_SWEEP: Duration = Duration::from_millis(100);

/// The datagrams of one listening socket.
pub struct Driver {
    socket: tokio::net::UdpSocket,
    poller: Poller,
    /// Sockets of flows that can be read from.
    ready: Vec<u64>,
    /// Whether there may be more of these than the runtime has told of, or some were not read to the end.
    unread: bool,
    flows: Flows<Passage>,
    aim: Aim,
    memory: Memory,
    timer: Timer,
    is_set: bool,
    /// Since when nothing is taken from clients, because the listener closed.
    closed: Option<Instant>,
    view: Rc<ListenerView>,
    local: Rc<Local>,
}

/// What datagrams pass through.
struct Memory {
    batch: Batch,
    parcels: Vec<Parcel>,
    outbox: Outbox,
}

impl Driver {
    /// The driver of a socket that is one of `workers` of its listener.
    ///
    /// # Errors
    /// The system's error when it has no more descriptors.
    pub fn new(
        socket: UdpSocket,
        workers: usize,
        view: Rc<ListenerView>,
        local: Rc<Local>,
    ) -> io::Result<Driver> {
        let aim = Aim::new(&view, &local, workers);
        Ok(Driver {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            poller: Poller::new()?,
            ready: Vec::new(),
            unread: false,
            flows: Flows::new(aim.most(), aim.rules()),
            aim,
            memory: Memory {
                batch: Batch::default(),
                parcels: Vec::with_capacity(MAX_DATAGRAMS),
                outbox: Outbox::new(true),
            },
            timer: local.wheel.timer(),
            is_set: false,
            closed: None,
            view,
            local,
        })
    }

    /// Serves until the listener is closed and its flows have ended.
    pub async fn serve(mut self) {
        // The others of this worker get what has happened to them between two turns, however much comes here.
        while !poll_fn(|cx| self.poll(cx)).await {
            tokio::task::yield_now().await;
        }
    }

    /// Passes on what has arrived, for one turn; whether all is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.look_around();
        self.keep_time(cx, clock::now());
        for _ in 0..ROUNDS {
            let now = clock::now();
            let sent = match self.closed {
                Some(_) => Poll::Pending,
                None => self.poll_clients(cx, now),
            };
            let answered = self.poll_backends(cx, now);
            if self.closed.is_some() && self.flows.is_empty() {
                return Poll::Ready(true);
            }
            if sent.is_pending() && answered.is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(false)
    }

    /// Sees what a reload or a change of health means for the flows that there are.
    fn look_around(&mut self) {
        if !self.aim.look(&self.view, &self.local) {
            return;
        }
        while self.flows.len() > self.aim.most() {
            let evicted = self.flows.evict();
            self.note(evicted);
        }
        self.flows.resize(self.aim.most());
        self.flows.obey(self.aim.rules());
    }

    /// Ends what was silent for long enough, now and then.
    fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant) {
        if self.closed.is_none() && self.view.has_ended() {
            self.close(now);
        }
        let is_due = !std::mem::replace(&mut self.is_set, true) || self.timer.has_fired();
        if is_due || self.closed.is_some() {
            self.sweep(now);
            let next = self.closed.map_or(SWEEP, |_| LAST_SWEEP);
            self.timer.set(cx, next);
        }
    }

    /// Takes what clients have sent so far, and nothing from then on; where another process does that, it takes the rest, too.
    fn close(&mut self, now: Instant) {
        self.closed = Some(now);
        let rounds = if self.view.is_handed_over() {
            0
        } else {
            ROUNDS
        };
        for _ in 0..rounds {
            self.memory.batch.clear();
            // The runtime may not have heard yet of what has come.
            let read = self.memory.batch.receive(&self.socket, MAX_DATAGRAMS);
            self.pass_on(now);
            if !matches!(read, Ok(MAX_DATAGRAMS)) {
                return;
            }
        }
    }

    /// A flow of a listener that is closed has no time but for the answers that are on their way. Those that never end must not keep its
    /// address from others; where another process has that, they have the time that everything has.
    fn sweep(&mut self, now: Instant) {
        let is_late = |closed| now.saturating_duration_since(closed) >= LINGER;
        loop {
            let ended = match self.closed {
                None => self.flows.expire(now),
                Some(closed) if is_late(closed) && !self.view.is_handed_over() => {
                    self.flows.close_any()
                }
                Some(_) => self.flows.conclude(now),
            };
            if ended.is_none() {
                return;
            }
            self.note(ended);
        }
    }

    fn note(&self, ended: Option<super::flow::Ended<Passage>>) {
        if let Some(ended) = ended {
            passage::note(&self.local, &ended);
        }
    }

    /// One batch from clients to backends.
    fn poll_clients(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        std::task::ready!(self.socket.poll_recv_ready(cx)).ok();
        let (socket, batch) = (&self.socket, &mut self.memory.batch);
        batch.clear();
        // That fewer came than could means that there are no more: the next look would find nothing.
        let read = socket.try_io(Interest::READABLE, || {
            match batch.receive(socket, MAX_DATAGRAMS)? {
                MAX_DATAGRAMS => Ok(()),
                _ => Err(ErrorKind::WouldBlock.into()),
            }
        });
        if let Err(error) = read
            && error.kind() != ErrorKind::WouldBlock
        {
            log::debug!("worker {}: datagrams: {error}", self.local.index);
        }
        // Where more may wait, the runtime does not come to look at the sockets of backends for long: their answers would be lost there.
        self.unread |= self.memory.batch.received().len() == MAX_DATAGRAMS;
        self.pass_on(now);
        Poll::Ready(())
    }

    /// Sends what was read from clients to backends.
    fn pass_on(&mut self, now: Instant) {
        if self.aim.introduced() != ProxyProtocol::Off {
            self.introduce();
        }
        let count = self.memory.batch.received().len();
        let mut first = 0;
        while first < count {
            let run = self.run_from(first);
            first = run.end;
            self.forward(run, now);
        }
    }

    /// Sees for whom proxies sent what has come.
    fn introduce(&mut self) {
        let (wanted, batch) = (self.aim.introduced(), &mut self.memory.batch);
        let dropped = introduction::meet(batch, wanted, &self.view, &self.local);
        self.aim.counts().lost[Lost::ProxyHeader as usize].add(dropped.into());
    }

    /// The datagrams of one client that stand side by side from `first` on.
    fn run_from(&self, first: usize) -> Range<usize> {
        let received = self.memory.batch.received();
        let whose = |place: usize| {
            let one = &received[place];
            (one.from, one.local, one.announced)
        };
        let mut end = first + 1;
        while end < received.len() && whose(end) == whose(first) {
            end += 1;
        }
        first..end
    }

    /// Sends datagrams of one client to its backend; to another one if that is not there.
    fn forward(&mut self, run: Range<usize>, now: Instant) {
        let received = self.memory.batch.received()[run.start];
        let Some(sender) = received.from else {
            return;
        };
        let key = FlowKey {
            sender,
            local: received.local,
            announced: received.announced,
        };
        let mut run = run;
        // A backend that is not there is known to refuse from then on, so that each try is at another one.
        for _ in 0..=self.aim.backends() {
            let id = match self.flow(key, run.start, now) {
                Ok(id) => id,
                Err(why) => return self.lose(run, why),
            };
            let sent = self.send(id, run.clone(), now);
            run.start += sent;
            if run.is_empty() {
                return;
            }
            self.refuse(id, now);
        }
        self.lose(run, Lost::NoBackend);
    }

    /// Sends datagrams on their flow; how many of the run were done with, all unless the backend's host refuses.
    fn send(&mut self, id: FlowId, run: Range<usize>, now: Instant) -> usize {
        let Some(passage) = self.flows.get(id) else {
            return 0;
        };
        let Memory {
            batch,
            parcels,
            outbox,
        } = &mut self.memory;
        parcels.clear();
        parcels.extend(run.clone().map(|place| Parcel {
            place,
            to: None,
            local: None,
        }));
        let sent = outbox.send(&passage.socket, batch, parcels, &passage.header);
        let done = &batch.received()[run][..sent.parcels];
        let bytes = done.iter().map(|one| one.length).sum::<usize>();
        let datagrams = done.iter().map(|one| one.datagrams()).sum::<u32>();
        let counts = &passage.target.counts;
        counts.datagrams_in.add(datagrams.into());
        counts.bytes_in.add(bytes as u64);
        counts.lost[Lost::Backend as usize].add(sent.lost.into());
        if datagrams > 0 {
            self.flows.sent(id, datagrams, bytes, now);
        }
        sent.parcels
    }

    fn lose(&self, run: Range<usize>, why: Lost) {
        let lost = &self.memory.batch.received()[run];
        let lost = lost.iter().map(|one| one.datagrams()).sum::<u32>();
        self.aim.counts().lost[why as usize].add(lost.into());
    }

    /// The flow of a client, which begins with the datagram at `place` if there is none, or none that may go on.
    fn flow(&mut self, key: FlowKey, place: usize, now: Instant) -> Result<FlowId, Lost> {
        if let Some(id) = self.flows.find(&key) {
            let passage = self.flows.get(id);
            if passage.is_some_and(|passage| passage.target.serves.get()) {
                return Ok(id);
            }
            let ended = self.flows.close(id, End::Moved);
            self.note(ended);
        }
        self.aim.admit(&self.view, key.client().ip(), now)?;
        self.begin(key, place, now)
    }

    fn begin(&mut self, key: FlowKey, place: usize, now: Instant) -> Result<FlowId, Lost> {
        loop {
            let (target, chosen) = match self.aim.choose(&self.view, &self.local, key, now) {
                Ok(choice) => choice,
                Err(Nowhere) => return Err(Lost::NoBackend),
            };
            let (client, address) = (key.client().ip(), target.live.address);
            if target.transparent && !transparent::can_show(client, address) {
                return Err(Lost::NoBackend);
            }
            let connect = || match target.transparent {
                true => udp::connect_as(client, address),
                false => udp::connect(address),
            };
            let connected = match connect() {
                // Another flow's socket makes room for this one.
                Err(error) if is_short(&error) => {
                    let evicted = self.flows.evict();
                    self.note(evicted);
                    connect()
                }
                connected => connected,
            };
            let socket = match connected {
                Ok(socket) => socket,
                // That is no fault of the backend, and no other one would do better.
                Err(error) if is_short(&error) => return Err(Lost::NoSocket),
                Err(_) => {
                    let counts = target.live.connections(self.local.index);
                    counts.failed.increment();
                    if !self.aim.avoid(&target, now) {
                        return Err(Lost::NoSocket);
                    }
                    continue;
                }
            };
            let introduction = (self.aim.introduces()).then(|| self.introduction(&key, place));
            let (view, local) = (&self.view, &self.local);
            let passage = Passage::new(socket, target, chosen, introduction, view, local);
            let (id, evicted) = self.flows.open(key, passage, now);
            self.note(evicted);
            return self.watch(id);
        }
    }

    /// Who sent to whom, for a backend that is told: what the proxy before weir said of the datagram at `place`, or what weir saw.
    fn introduction(&self, key: &FlowKey, place: usize) -> Introduction {
        let own = || {
            let own = self.socket.local_addr().unwrap_or(key.sender);
            Introduction::own(Ends {
                source: key.sender,
                destination: SocketAddr::new(key.local.unwrap_or(own.ip()), own.port()),
            })
        };
        introduction::of(&self.memory.batch, place).unwrap_or_else(own)
    }

    /// Waits for what a new flow's backend says.
    fn watch(&mut self, id: FlowId) -> Result<FlowId, Lost> {
        let passage = self.flows.get(id).ok_or(Lost::NoSocket)?;
        match self.poller.add(&passage.socket, id.to_bits()) {
            Ok(()) => Ok(id),
            Err(_) => {
                let ended = self.flows.close(id, End::Closed);
                self.note(ended);
                Err(Lost::NoSocket)
            }
        }
    }

    /// Nobody listens at a flow's backend: it ends, and new ones go elsewhere for a while.
    fn refuse(&mut self, id: FlowId, now: Instant) {
        let Some(ended) = self.flows.close(id, End::Refused) else {
            return;
        };
        let target = &ended.value.target;
        let counts = target.live.connections(self.local.index);
        counts.failed.increment();
        self.aim.avoid(target, now);
        self.note(Some(ended));
    }

    /// One look at the sockets of backends; what they say goes to the clients.
    fn poll_backends(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let looked = match std::mem::take(&mut self.unread) {
            true => self.poller.look_again(&mut self.ready),
            false => std::task::ready!(self.poller.poll(cx, &mut self.ready)),
        };
        if let Err(error) = looked {
            log::error!("worker {}: datagrams: {error}", self.local.index);
            return Poll::Pending;
        }
        self.memory.batch.clear();
        self.memory.parcels.clear();
        for at in 0..self.ready.len() {
            self.read(FlowId::from_bits(self.ready[at]), now);
        }
        self.deliver();
        Poll::Ready(())
    }

    /// Reads what has come on a flow.
    fn read(&mut self, id: FlowId, now: Instant) {
        for _ in 0..TURNS {
            if self.memory.batch.is_full() {
                self.deliver();
            }
            let (Some(key), Some(passage)) = (self.flows.key(id), self.flows.get(id)) else {
                return;
            };
            let batch = &mut self.memory.batch;
            let first = batch.received().len();
            let room = AT_ONCE.min(MAX_DATAGRAMS - first);
            match batch.receive(&passage.socket, room) {
                Ok(count) => {
                    self.address(id, key, first, now);
                    if count < room {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    return self.refuse(id, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An error of the way there is told once, and is no end.
                Err(_) => {}
            }
        }
        self.unread = true;
    }

    /// Addresses what was read on a flow, from the place `first` on, to its client.
    fn address(&mut self, id: FlowId, key: FlowKey, first: usize, now: Instant) {
        let Memory { batch, parcels, .. } = &mut self.memory;
        let read = &batch.received()[first..];
        let bytes = read.iter().map(|one| one.length).sum::<usize>();
        let datagrams = read.iter().map(|one| one.datagrams()).sum::<u32>();
        parcels.extend((first..first + read.len()).map(|place| Parcel {
            place,
            to: Some(key.sender),
            local: key.local,
        }));
        if let Some(passage) = self.flows.get(id) {
            let counts = &passage.target.counts;
            counts.datagrams_out.add(datagrams.into());
            counts.bytes_out.add(bytes as u64);
        }
        self.flows.answered(id, datagrams, bytes, now);
    }

    /// Sends what was read to the clients.
    fn deliver(&mut self) {
        let Memory {
            batch,
            parcels,
            outbox,
        } = &mut self.memory;
        let sent = outbox.send(&self.socket, batch, parcels, b"");
        let lost = &self.aim.counts().lost[Lost::Client as usize];
        lost.add(sent.lost.into());
        batch.clear();
        parcels.clear();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        while let Some(ended) = self.flows.close_any() {
            passage::note(&self.local, &ended);
        }
    }
}
