//! The life of the process: read the file, bind everything, start the workers, then answer signals, changes and requests until the end.
//! It runs on the main thread with a runtime of its own, and no worker ever waits for it.
//! The walk goes on in `reload.rs` for a change, in `drain.rs` for the end, and in `worker.rs` for the traffic.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::access_log_writer::{Place, Writer};
use super::admin::{self, Context};
use super::apply::{self, Prepared, Running};
use super::certificates::Material;
use super::certificates::watch::CertificateWatch;
use super::collector::Metrics;
use super::discovery::{self, Board};
use super::drain::{self, Patience};
use super::overrides::Overrides;
use super::reload::{Cause, Reloader};
use super::secrets::SecretSource;
use super::shared::{Lifecycle, Order, ReloadRequest, ReloadStatus, Shared, verdicts_in};
use super::signals::{Request, Signals};
use super::sockets::Sockets;
use super::supervisor::Supervisor;
use super::upgrade::attempt::{Reply, Upgrades};
use super::upgrade::take_over::Inheritance;
use super::watch::{FileWatch, Identity};
use super::{passive, probes, process_log, scale, sessions, slow_start, store, systemd};
use crate::clock;
use crate::config::Loaded;
use crate::config::diagnostic::{Diagnostics, counted};
use crate::config::model::{AccessTarget, Config};
use crate::metrics::rows::{Budget, NewRow};
use crate::net::descriptors;
use crate::policy::persist::token::Secrets;
use crate::rng::Rng;
use crate::state::access_log::Queue;
use crate::state::snapshot::Snapshot;
use crate::worker::Setup;

/// Requests to reload that may wait; they are answered together.
const REQUESTS: usize = 64;
/// Between two looks at whether the first verdicts are in.
const LOOK: Duration = Duration::from_millis(10);
/// How long the workers wait for the first verdicts before they begin to accept.
const FIRST_VERDICTS: Duration = Duration::from_secs(1);
/// Between two looks at whether a worker is gone.
const WATCH_WORKERS: Duration = Duration::from_secs(1);
/// How long the access log may take to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Serves what was loaded from the file, in the state `read`, until told to stop. What is wrong with the start is said on
/// standard error.
pub fn run(
    path: &Path,
    read: Identity,
    (loaded, material): (Loaded, Material),
    mut inheritance: Inheritance,
) -> ExitCode {
    let outcome = begin(path, read, (loaded, material), &mut inheritance);
    process_log::flush();
    match outcome {
        Ok(code) => code,
        Err(problem) => {
            inheritance.fail(&problem);
            for line in problem.lines() {
                eprintln!("error: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn begin(
    path: &Path,
    read: Identity,
    files: (Loaded, Material),
    inheritance: &mut Inheritance,
) -> Result<ExitCode, String> {
    process_log::start(files.0.config.log.level)
        .map_err(|error| format!("process log: {error}"))?;
    if let Err(error) = descriptors::raise_limit() {
        log::warn!("start: the limit of open descriptors stays as it is: {error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the control runtime cannot start: {error}"))?;
    let code = runtime.block_on(async {
        Ok(Process::start(path, read, files, inheritance)
            .await?
            .live()
            .await)
    });
    runtime.shutdown_background();
    code
}

/// A serving process.
struct Process {
    reloader: Reloader,
    file: FileWatch,
    certificates: CertificateWatch,
    signals: Signals,
    requests: mpsc::Receiver<ReloadRequest>,
    orders: mpsc::Receiver<Order>,
    upgrades: Upgrades,
    lifecycle: watch::Sender<Lifecycle>,
}

/// How the process ends.
enum Ending {
    /// It was told to stop, or cannot go on.
    Stop(ExitCode),
    /// Another one serves.
    Replaced,
}

enum Event {
    Signal(Request),
    FileChanged,
    CertificatesChanged,
    Discovered,
    Requested(ReloadRequest),
    Ordered(Order),
    WorkerDied(usize),
}

impl Process {
    async fn start(
        path: &Path,
        read: Identity,
        (loaded, material): (Loaded, Material),
        inheritance: &mut Inheritance,
    ) -> Result<Self, String> {
        let born = (clock::now(), clock::wall_millis());
        let signals = Signals::new().map_err(|error| format!("signals: {error}"))?;
        let (discovery, config) = discovery::Sources::start(loaded.config).await;
        let config = Arc::new(config);
        let warnings = loaded.warnings.without_advice();
        let begun = Begun::new(&config, &material, inheritance).await?;
        let (first, source) = (begun.first, begun.source);
        let (current, status) = (
            watch::Sender::new(first.clone()),
            watch::Sender::new(first_status(first.generation, born.1, &warnings, &source)),
        );
        let lifecycle = watch::Sender::new(inheritance.lifecycle());
        let (reload_requests, requests) = mpsc::channel(REQUESTS);
        let (order_sender, orders) = mpsc::channel(REQUESTS);
        let upgrades = Upgrades::of_this_process();
        let shared = Arc::new(Shared {
            file: path.to_owned(),
            current: current.subscribe(),
            reload: status.subscribe(),
            lifecycle: lifecycle.subscribe(),
            workers: begun.running.workers.counts(),
            budget: begun.running.budget.clone(),
            overrides: begun.overrides.clone(),
            checks: begun.running.probes.ledger(),
            discovery: discovery.board(),
            scale: Arc::default(),
            reload_requests,
            orders: order_sender,
            upgrade: upgrades.failed(),
            predecessor: inheritance.predecessor(),
            started: born.0,
            started_wall_millis: born.1,
        });
        let metrics = Metrics::new(shared.clone(), begun.rows, begun.lines)
            .map_err(|error| format!("metrics: {error}"))?;
        accompany(&shared, &metrics, &lifecycle);
        let admin = admin::Server::start(begun.admin, Context { shared, metrics });
        if !inheritance.serves() {
            systemd::ready();
        }
        Ok(Process {
            file: FileWatch::new(path, read, config.watch),
            certificates: CertificateWatch::new(&material, config.watch),
            reloader: Reloader {
                path: path.to_owned(),
                started: config,
                source,
                secrets: begun.secrets,
                material,
                overrides: begun.overrides,
                warnings,
                discovery,
                running: begun.running,
                admin,
                current,
                status,
            },
            signals,
            requests,
            orders,
            upgrades,
            lifecycle,
        })
    }

    /// Serves until told to stop, or until a worker is gone.
    async fn live(mut self) -> ExitCode {
        let ending = loop {
            let event = self.next().await;
            let (cause, requests) = match event {
                Event::Signal(Request::Stop) => break Ending::Stop(ExitCode::SUCCESS),
                Event::Signal(Request::Upgrade) => match self.upgrade(None).await {
                    Some(ending) => break ending,
                    None => continue,
                },
                Event::Ordered(Order::Stand {
                    subject,
                    drain,
                    reply,
                }) => {
                    // Who asked may have gone away.
                    let _ = reply.send(self.reloader.stand(&subject, drain).await);
                    continue;
                }
                Event::Ordered(Order::Upgrade { reply }) => match self.upgrade(Some(reply)).await {
                    Some(ending) => break ending,
                    None => continue,
                },
                Event::WorkerDied(index) => {
                    log::error!("worker {index}: its thread is gone; weir ends");
                    break Ending::Stop(ExitCode::FAILURE);
                }
                Event::Signal(Request::Reload) => (Cause::Signal, Vec::new()),
                Event::FileChanged => (Cause::File, Vec::new()),
                Event::CertificatesChanged => match self.renew_certificates().await {
                    Some(()) => continue,
                    None => break Ending::Stop(ExitCode::SUCCESS),
                },
                Event::Discovered => match self.rediscover().await {
                    Some(()) => continue,
                    None => break Ending::Stop(ExitCode::SUCCESS),
                },
                Event::Requested(request) => (Cause::Request, vec![request]),
            };
            if self.reload(cause, requests).await.is_none() {
                break Ending::Stop(ExitCode::SUCCESS);
            }
            if cause == Cause::Signal {
                self.reloader.running.access_log.reopen();
            }
        };
        self.end(ending).await
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            request = self.signals.next() => Event::Signal(request),
            index = died(&self.reloader.running.workers) => Event::WorkerDied(index),
            () = self.file.changed() => Event::FileChanged,
            () = self.certificates.changed() => Event::CertificatesChanged,
            () = self.reloader.discovery.changed() => Event::Discovered,
            Some(request) = self.requests.recv() => Event::Requested(request),
            Some(order) = self.orders.recv() => Event::Ordered(order),
        }
    }

    /// One reload answers every request that is there by now. Nothing when told to stop meanwhile, as one must be able to
    /// when the file's disk hangs.
    async fn reload(&mut self, cause: Cause, mut requests: Vec<ReloadRequest>) -> Option<()> {
        while let Ok(request) = self.requests.try_recv() {
            requests.push(request);
        }
        self.file.reading();
        let outcome = tokio::select! {
            biased;
            outcome = self.reloader.reload(cause) => outcome,
            () = self.signals.stop() => return None,
        };
        self.file.set_mode(self.reloader.config().watch);
        self.watch_certificates();
        for request in requests {
            // Who asked may have gone away.
            let _ = request.reply.send(outcome.clone());
        }
        Some(())
    }

    /// Hands over to a new process and tells who asked how it went. How this process ends then; nothing when it serves on.
    async fn upgrade(&mut self, reply: Option<Reply>) -> Option<Ending> {
        let is_ready = *self.lifecycle.borrow() == Lifecycle::Ready;
        let outcome = tokio::select! {
            biased;
            outcome = self.upgrades.attempt(&mut self.reloader, is_ready) => outcome,
            () = self.signals.stop() => return Some(Ending::Stop(ExitCode::SUCCESS)),
        };
        let is_over = outcome.is_ok();
        if let Some(reply) = reply {
            // Who asked may have gone away.
            let _ = reply.send(outcome);
        }
        is_over.then_some(Ending::Replaced)
    }

    /// Nothing when told to stop meanwhile.
    async fn renew_certificates(&mut self) -> Option<()> {
        tokio::select! {
            biased;
            () = self.reloader.renew_certificates() => {}
            () = self.signals.stop() => return None,
        }
        self.watch_certificates();
        Some(())
    }

    /// Nothing when told to stop meanwhile.
    async fn rediscover(&mut self) -> Option<()> {
        tokio::select! {
            biased;
            () = self.reloader.rediscover() => Some(()),
            () = self.signals.stop() => None,
        }
    }

    fn watch_certificates(&mut self) {
        let mode = self.reloader.config().watch;
        self.certificates = CertificateWatch::new(&self.reloader.material, mode);
    }

    async fn end(mut self, ending: Ending) -> ExitCode {
        // Whoever asks for a reload now is told at once that there is none.
        drop((self.requests, self.orders));
        let config = self.reloader.config();
        let patience = Patience {
            delay: config.drain_delay,
            timeout: config.drain_timeout,
        };
        let Running {
            workers,
            access_log,
            probes,
            sockets,
            ..
        } = self.reloader.running;
        let signals = &mut self.signals;
        drop(sockets);
        let code = match ending {
            Ending::Stop(code) => {
                drain::drain(&workers, patience, &self.lifecycle, signals).await;
                code
            }
            Ending::Replaced => {
                self.lifecycle.send_replace(Lifecycle::Draining);
                drain::retire(&workers, patience.timeout, signals).await;
                ExitCode::SUCCESS
            }
        };
        drop(probes);
        workers.end().await;
        access_log.stop(LAST_LINES);
        code
    }
}

/// What serves before anybody can ask about it.
struct Begun {
    source: SecretSource,
    secrets: Option<Secrets>,
    first: Arc<Snapshot>,
    running: Running,
    rows: Receiver<NewRow>,
    lines: Queue,
    overrides: Arc<Overrides>,
    admin: admin::Prepared,
}

impl Begun {
    /// Serves the first generation as soon as it may be served.
    async fn new(
        config: &Arc<Config>,
        material: &Material,
        inheritance: &mut Inheritance,
    ) -> Result<Begun, String> {
        let mut source = SecretSource::after(&config.state_dir, inheritance.secret());
        let secrets = source.load(config)?;
        let workers = worker_count(config.workers);
        let overrides = Overrides::load(&config.state_dir);
        let overrides = Arc::new(overrides.after(inheritance.overrides()));
        let drains = overrides.drains();
        let given = inheritance.admin(&config.admin.bind);
        let sockets = Sockets::given(inheritance.take_sockets());
        let (own, known) = (config.clone(), secrets.as_ref());
        let prepared = apply::prepare(own, known, material, None, (&sockets, &drains), workers)?;
        let admin = admin::Prepared::new(&config.admin, None, given);
        let admin = admin.map_err(|error| error.to_string())?;
        let first = prepared.snapshot.clone();
        sessions::follow(&first);
        greet(&first, workers);
        overrides.start(&first).await;
        inheritance.inform(&first);
        let (mut running, rows, lines) = set_up(&prepared, sockets, workers).await?;
        overrides.take_over(inheritance.turn().await?, &first).await;
        running.commit(prepared).wait().await;
        inheritance.tell_of(&running.sockets.dismiss());
        Ok(Begun {
            source,
            secrets,
            first,
            running,
            rows,
            lines,
            overrides,
            admin,
        })
    }
}

/// Starts everything that the first generation acts on, and waits until the workers may serve it: until every backend has its first
/// verdict, or a moment.
async fn set_up(
    prepared: &Prepared,
    sockets: Sockets,
    workers: usize,
) -> Result<(Running, Receiver<NewRow>, Queue), String> {
    let budget = Arc::new(Budget::default());
    let (queue, batches) = Queue::new();
    let (rows, new_rows) = std::sync::mpsc::channel();
    let setups = (0..workers).map(|index| Setup {
        index,
        workers,
        rows: rows.clone(),
        budget: budget.clone(),
        access_log: queue.worker_end(),
    });
    let workers =
        Supervisor::start(setups).map_err(|error| format!("a worker cannot start: {error}"))?;
    // The commit gives it its place.
    let access_log = Place::open(&AccessTarget::Off)
        .and_then(|nowhere| Writer::start(queue.clone(), batches, nowhere))
        .map_err(|error| format!("access log: {error}"))?;
    let mut running = Running {
        workers,
        sockets,
        probes: probes::Supervisor::new(Rng::from_system()),
        access_log,
        budget,
    };
    // Connections wait in the kernel meanwhile: a client whose home is still unknown would be served elsewhere and lose its session.
    running.probes.apply(&prepared.snapshot);
    let snapshot = &prepared.snapshot;
    let verdicts = holds(|| verdicts_in(snapshot) && store::all_judged(snapshot));
    let _ = timeout(FIRST_VERDICTS, verdicts).await;
    Ok((running, new_rows, queue))
}

/// Starts what looks after the served generation by itself, until the process ends.
fn accompany(shared: &Arc<Shared>, metrics: &Metrics, lifecycle: &watch::Sender<Lifecycle>) {
    let current = || shared.current.clone();
    tokio::spawn(metrics.clone().sweep());
    tokio::spawn(sessions::sweep(current()));
    tokio::spawn(slow_start::warm_up(current()));
    tokio::spawn(passive::look_after(current()));
    tokio::spawn(scale::look_after(shared.clone(), metrics.clone()));
    let board = shared.discovery.clone();
    tokio::spawn(become_ready(current(), board, lifecycle.clone()));
}

/// How the start went, as the first reload.
fn first_status(
    generation: u64,
    wall_millis: u64,
    warnings: &Diagnostics,
    source: &SecretSource,
) -> ReloadStatus {
    let warning = source.warning().map(str::to_owned);
    ReloadStatus {
        generation,
        success_wall_millis: wall_millis,
        refusal: None,
        secret_ephemeral: warning.is_some(),
        warnings: warnings.lines().chain(warning).collect(),
        tls_problems: Vec::new(),
        ..ReloadStatus::default()
    }
}

/// The configured number; 0: one per core that the process may use, which is bounded by its affinity and its cgroup.
fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    }
}

/// The first line of the log.
fn greet(snapshot: &Snapshot, workers: usize) {
    let config: &Config = &snapshot.config;
    let listeners = config.listeners.iter().map(|listener| {
        let addresses: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
        format!("{} ({})", listener.name, addresses.join(", "))
    });
    let pools = config.pools.iter().map(|pool| {
        format!(
            "{} ({})",
            pool.name,
            counted(pool.backends.len(), "backend")
        )
    });
    let pools: Vec<String> = pools.collect();
    let generation = snapshot.generation;
    log::info!(
        "start: weir {}: generation {generation}, {}, admin {}, listeners {}, pools {}",
        env!("CARGO_PKG_VERSION"),
        counted(workers, "worker"),
        config.admin.bind,
        listeners.collect::<Vec<_>>().join(", "),
        match pools.is_empty() {
            true => "none".to_owned(),
            false => pools.join(", "),
        },
    );
}

async fn holds(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(LOOK).await;
    }
}

/// Waits for the first answer of every source of backends, for a while, and for the first verdict on every backend. A pool that is dead then does not matter: that is a verdict too.
async fn become_ready(
    current: watch::Receiver<Arc<Snapshot>>,
    board: Arc<Board>,
    lifecycle: watch::Sender<Lifecycle>,
) {
    discovery::answered(&board).await;
    // Not the first generation's alone: a reload may add backends meanwhile.
    holds(|| verdicts_in(&current.borrow())).await;
    let became_ready = lifecycle.send_if_modified(|lifecycle| {
        let starting = *lifecycle == Lifecycle::Starting;
        if starting {
            *lifecycle = Lifecycle::Ready;
        }
        starting
    });
    if became_ready {
        log::info!("start: ready");
    }
}

async fn died(supervisor: &Supervisor) -> usize {
    loop {
        if let Some(index) = supervisor.dead() {
            return index;
        }
        sleep(WATCH_WORKERS).await;
    }
}
