//! One data-plane thread: a single-threaded runtime, its listening sockets, its upstream connections, its counters.
//! It shares nothing with other workers but the live words of backends, and never waits for control.
//! The walk goes on in `worker/introduction.rs` where a proxy may stand before the client, in `l7/connection.rs` (requests),
//! `l4/connection.rs` (bytes) and `l4/udp.rs` (datagrams).

mod introduction;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::coop::has_budget_remaining;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::config::model::Protocol;
use crate::l4::connection::Connection;
use crate::l4::udp;
use crate::l7::client::{Client, Origin};
use crate::l7::http2::connection as http2;
use crate::l7::side::Side;
use crate::metrics::rows::{Budget, NewRow, Rows};
use crate::metrics::worker::{TlsFailure, WorkerCounts};
use crate::net::introduction::Introduction;
use crate::net::listener::{BACKLOG, Bound};
use crate::net::stream::Stream;
use crate::net::timer::{TICK, Timer, Wheel};
use crate::rng::Rng;
use crate::state::access_log::AccessLog;
use crate::state::snapshot::{ListenerKey, Snapshot};
use crate::state::sources::Seat;
use crate::upstream::admission::admit;
use crate::upstream::generation::{Generation, IdleStacks};
use crate::upstream::local::{Buffers, Closing, ListenerView, Local, Scratch, body_memory};

/// How long accepting pauses when descriptors or memory ran out.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a full listener waits before it looks whether a connection ended.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Turns of the wheel between two looks at idle upstream connections.
const SWEEP: u32 = 50;

/// Turns of the wheel between two flushes of the access log.
const FLUSH: u32 = 10;

/// Tasks that run before the worker looks for new events; a message costs two (`net/turn.rs`).
const TASKS_PER_LOOK: u32 = 256;

/// What a worker is made with.
pub struct Setup {
    /// Its ordinal.
    pub index: usize,
    /// How many there are.
    pub workers: usize,
    /// Where new rows are told.
    pub rows: Sender<NewRow>,
    /// How many rows may exist.
    pub budget: Arc<Budget>,
    /// Its end of the access log.
    pub access_log: AccessLog,
}

/// What control tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve this generation from now on.
    Switch {
        /// The generation.
        snapshot: Arc<Snapshot>,
        /// Sockets of listeners that the worker does not have yet, several of one address perhaps; those that the generation no
        /// longer names are closed after what they have queued is accepted.
        opened: Vec<(ListenerKey, Bound)>,
        /// Answered when new connections see the generation.
        adopted: oneshot::Sender<()>,
    },
    /// Accept no more, end idle connections, close every other after its answer.
    Drain,
    /// Another process serves the same sockets: accept no more, and close every connection after its next answer.
    HandOver,
}

/// Control's end of a worker. The thread ends when the handle is dropped.
#[derive(Debug)]
pub struct Handle {
    /// Where commands go.
    pub commands: mpsc::UnboundedSender<Command>,
    /// What it counts.
    pub counts: Arc<WorkerCounts>,
    /// Its thread.
    pub thread: JoinHandle<()>,
}

/// Starts a worker that serves nothing until the first [`Command::Switch`].
///
/// # Errors
/// When the system refuses a thread or a runtime.
pub fn spawn(setup: Setup) -> io::Result<Handle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let counts = Arc::new(WorkerCounts::default());
    let (ready, is_ready) = std::sync::mpsc::channel();
    let shared = counts.clone();
    let name = format!("weir-{}", setup.index);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .event_interval(TASKS_PER_LOOK)
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                let _ = ready.send(Ok(()));
                runtime.block_on(run(Worker::new(setup, shared), receiver));
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    is_ready
        .recv()
        .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
    Ok(Handle {
        commands,
        counts,
        thread,
    })
}

/// Obeys control until it goes away; everything else happens in tasks beside it.
async fn run(mut worker: Worker, mut commands: mpsc::UnboundedReceiver<Command>) {
    tokio::task::spawn_local(keep_time(worker.local.clone(), worker.generation.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Switch {
                snapshot,
                opened,
                adopted,
            } => {
                worker.switch(snapshot, opened);
                // Control may have stopped waiting.
                let _ = adopted.send(());
            }
            Command::Drain => worker.close(Closing::Closed),
            Command::HandOver => worker.close(Closing::HandedOver),
        }
    }
}

struct Worker {
    workers: usize,
    local: Rc<Local>,
    generation: Rc<RefCell<Option<Rc<Generation>>>>,
    idle: IdleStacks,
    views: HashMap<ListenerKey, Rc<ListenerView>>,
    /// Those of listeners that ended, while they have connections.
    draining: Vec<Weak<ListenerView>>,
}

impl Worker {
    fn new(setup: Setup, counts: Arc<WorkerCounts>) -> Self {
        let workers = setup.workers;
        let local = Local {
            index: setup.index,
            wheel: Wheel::new(clock::now()),
            body: body_memory(),
            scratch: RefCell::new(Scratch::default()),
            rng: RefCell::new(Rng::from_system()),
            rows: Rows::new(setup.rows, setup.budget),
            counts,
            access_log: setup.access_log,
            buffers: Buffers::default(),
            told_of_tls: Cell::new(None),
            pipes: Rc::default(),
            coders: Rc::default(),
        };
        Worker {
            workers,
            local: Rc::new(local),
            generation: Rc::default(),
            idle: IdleStacks::new(),
            views: HashMap::new(),
            draining: Vec::new(),
        }
    }

    /// Serves a generation: listeners that stay see it at once, new ones begin, removed ones close.
    fn switch(&mut self, snapshot: Arc<Snapshot>, opened: Vec<(ListenerKey, Bound)>) {
        let generation = Rc::new(Generation::new(
            snapshot.clone(),
            &mut self.idle,
            self.local.index,
            self.workers,
        ));
        self.generation.replace(Some(generation.clone()));
        retain_rows(&self.local.rows, &snapshot);
        self.local.access_log.configure(&snapshot.config.log);
        let ordinals: HashMap<ListenerKey, usize> = (snapshot.listeners.iter().enumerate())
            .flat_map(|(ordinal, listener)| listener.keys.iter().map(move |&key| (key, ordinal)))
            .collect();
        self.views.retain(|key, view| match ordinals.get(key) {
            Some(&ordinal) => {
                view.switch(generation.clone(), ordinal);
                true
            }
            None => {
                let is_drained = snapshot.listeners.iter().any(|it| it.drained.contains(key));
                view.close(match is_drained {
                    true => Closing::Drained,
                    false => Closing::Closed,
                });
                self.draining.push(Rc::downgrade(view));
                false
            }
        });
        self.draining.retain(|view| view.strong_count() > 0);
        for (key, socket) in opened {
            let Some(&ordinal) = ordinals.get(&key) else {
                continue;
            };
            let begin = || Rc::new(ListenerView::new(generation.clone(), ordinal));
            let view = self.views.entry(key).or_insert_with(begin).clone();
            match self.begin(socket, &view) {
                Ok(()) => {}
                Err(error) => log::error!(
                    "worker {}: {}: cannot serve: {error}",
                    self.local.index,
                    key.address
                ),
            }
        }
        self.local.wheel.wake_all();
    }

    /// Serves what comes to a socket.
    fn begin(&self, socket: Bound, view: &Rc<ListenerView>) -> io::Result<()> {
        let (view, local) = (view.clone(), self.local.clone());
        match socket {
            Bound::Stream(socket) => {
                let listener = tokio::net::TcpListener::from_std(socket)?;
                tokio::task::spawn_local(accept(listener, view, local));
            }
            Bound::Datagram(socket) => {
                let driver = udp::Driver::new(socket, self.workers, view, local.clone())?;
                local.counts.set_drivers(local.counts.drivers() + 1);
                tokio::task::spawn_local(async move {
                    driver.serve().await;
                    local.counts.set_drivers(local.counts.drivers() - 1);
                });
            }
        }
        Ok(())
    }

    fn close(&mut self, closing: Closing) {
        self.views.values().for_each(|view| view.close(closing));
        let draining = self.draining.iter().filter_map(Weak::upgrade);
        draining.for_each(|view| view.close(closing));
        self.local.wheel.wake_all();
    }
}

/// Lets go of the rows whose names the snapshot does not have any more.
fn retain_rows(rows: &Rows, snapshot: &Snapshot) {
    let listeners: HashSet<&str> = snapshot
        .listeners
        .iter()
        .map(|listener| &*listener.name)
        .collect();
    let routes: HashSet<(&str, &str)> = snapshot
        .routes
        .iter()
        .map(|route| (&*route.name, &*snapshot.pools[route.pool].name))
        .collect();
    let backends: HashSet<(&str, &str)> = (snapshot.pools.iter())
        .flat_map(|pool| {
            pool.backends
                .iter()
                .map(|backend| (&*pool.name, &*backend.name))
        })
        .collect();
    let leads_to = |route: &str, pool: &str| routes.contains(&(route, pool));
    use crate::metrics::rows::{NONE, OTHER};
    rows.retain(
        |labels| {
            let (route, pool, backend) = (&*labels.route, &*labels.pool, &*labels.backend);
            &*labels.listener == OTHER
                || listeners.contains(&*labels.listener)
                    && (route == NONE || leads_to(route, pool))
                    && (backend == NONE || backends.contains(&(pool, backend)))
        },
        |labels| &*labels.route == OTHER || leads_to(&labels.route, &labels.pool),
    );
}

/// Turns the wheel, and does now and then what nobody waits for.
async fn keep_time(local: Rc<Local>, generation: Rc<RefCell<Option<Rc<Generation>>>>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for turn in (0..u32::MAX).cycle() {
        ticks.tick().await;
        let now = clock::now();
        local.wheel.turn(now);
        if let Some(generation) = &*generation.borrow() {
            generation.give_way();
        }
        if turn % FLUSH == 0 {
            local.access_log.flush();
        }
        if turn % SWEEP == 0 {
            let generation = generation.borrow().clone();
            generation
                .iter()
                .for_each(|generation| generation.sweep(now));
        }
    }
}

/// Accepts until the listener closes, and then what can be queued at most. It never gives up: running out of something is waited out.
async fn accept(listener: tokio::net::TcpListener, view: Rc<ListenerView>, local: Rc<Local>) {
    let timer = local.wheel.timer();
    let mut is_failing = false;
    let mut queued = BACKLOG;
    while let Some(accepted) = poll_fn(|cx| poll_accept(cx, &listener, &view, &timer)).await {
        match accepted {
            Ok((stream, remote)) => {
                is_failing = false;
                queued -= i32::from(view.has_ended());
                start(stream, remote, &view, &local);
            }
            // The connection is gone already; the next one is not to blame.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                local.counts.accept_errors.increment();
                if !std::mem::replace(&mut is_failing, true) {
                    log::error!("worker {}: accepting pauses: {error}", local.index);
                }
                pause(&timer).await;
            }
        }
        if queued == 0 {
            return;
        }
    }
}

fn poll_accept(
    cx: &mut Context<'_>,
    listener: &tokio::net::TcpListener,
    view: &ListenerView,
    timer: &Timer,
) -> Poll<Option<io::Result<(TcpStream, SocketAddr)>>> {
    if is_full(view) && !view.has_ended() {
        timer.set(cx, FULL_PAUSE);
        return Poll::Pending;
    }
    match listener.poll_accept(cx) {
        Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
        // Without a budget the runtime says so too, while more may be queued: it wakes the task again by itself.
        Poll::Pending if view.has_ended() && has_budget_remaining() => Poll::Ready(None),
        Poll::Pending => {
            // Without a deadline of its own it is still woken when the listener closes.
            timer.attach(cx);
            Poll::Pending
        }
    }
}

async fn pause(timer: &Timer) {
    let mut is_set = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut is_set, true) {
            timer.set(cx, PAUSE);
        }
        if timer.has_fired() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

fn is_full(view: &ListenerView) -> bool {
    let generation = view.generation();
    let listener = &generation.snapshot.listeners[view.listener()];
    listener.connections.load(Relaxed) >= listener.max_connections
}

/// Errors that Linux passes on from the connection at hand (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | TimedOut
    )
}

/// A connection that was let in.
struct Accepted {
    stream: Stream,
    /// Whose it is: the other end, or the client that a proxy there speaks for.
    remote: SocketAddr,
    /// What that proxy said of it.
    introduction: Option<Rc<Introduction>>,
    /// What was read of it already.
    early: Vec<u8>,
    open: Open,
}

fn start(stream: TcpStream, remote: SocketAddr, view: &Rc<ListenerView>, local: &Rc<Local>) {
    let Some(seat) = admit(view, remote.ip()) else {
        return;
    };
    let accepted = Accepted {
        stream: Stream::accepted(stream),
        remote,
        introduction: None,
        early: Vec::new(),
        open: Open::new(view, local, seat),
    };
    if !introduction::is_expected(view) {
        return serve(accepted, view.clone(), local.clone());
    }
    let (view, local) = (view.clone(), local.clone());
    tokio::task::spawn_local(async move {
        if let Some(accepted) = introduction::meet(accepted, &view, &local).await {
            serve(accepted, view, local);
        }
    });
}

/// Gives a connection a task of its own.
fn serve(accepted: Accepted, view: Rc<ListenerView>, local: Rc<Local>) {
    let Accepted {
        stream,
        remote,
        introduction,
        mut early,
        open,
    } = accepted;
    let Some(stream) = begin_tls(stream, &mut early, &view, &local) else {
        return;
    };
    match view.protocol() {
        Protocol::Http => {
            let origin = Origin {
                local,
                view,
                remote,
                introduction,
                tls: None,
            };
            let mut client = Client::new(Side::Http1(stream), origin);
            client.early = early;
            tokio::task::spawn_local(async move {
                let _open = open;
                if let Some(early) = client.serve().await {
                    Box::pin(http2::serve(client, early)).await;
                }
            });
        }
        Protocol::Tcp => {
            let mut connection = Connection::new(stream, remote, local, view);
            (connection.introduction, connection.early) = (introduction, early);
            tokio::task::spawn_local(async move {
                let _open = open;
                connection.serve().await;
            });
        }
        // Datagrams come without a connection.
        Protocol::Udp => {}
    }
}

/// The stream with its handshake before it, where the listener speaks TLS; what was read of it is the handshake's then.
fn begin_tls(
    stream: Stream,
    early: &mut Vec<u8>,
    view: &ListenerView,
    local: &Local,
) -> Option<Stream> {
    let generation = view.generation();
    let Some(tls) = &generation.snapshot.listeners[view.listener()].tls else {
        return Some(stream);
    };
    let begun = stream.serve_tls(tls.config.clone(), std::mem::take(early));
    let counted = begun.inspect_err(|error| {
        local.counts.tls_failures[TlsFailure::Other as usize].increment();
        log::error!("worker {}: no TLS: {error}", local.index);
    });
    counted.ok()
}

/// Counts a connection while it is open.
struct Open {
    counts: Arc<WorkerCounts>,
    listener: Arc<AtomicUsize>,
    /// Counts it among those of its address.
    seat: Option<Seat>,
}

impl Open {
    fn new(view: &ListenerView, local: &Local, seat: Option<Seat>) -> Self {
        let listener = view.generation().snapshot.listeners[view.listener()]
            .connections
            .clone();
        let counts = local.counts.clone();
        listener.fetch_add(1, Relaxed);
        counts.set_open(counts.open() + 1);
        Open {
            counts,
            listener,
            seat,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listener.fetch_sub(1, Relaxed);
        self.counts.set_open(self.counts.open() - 1);
        if std::thread::panicking() {
            self.counts.panics.increment();
        }
    }
}
