//! Things that control's tests need: a directory of their own, workers that only answer.
//! It is compiled for tests only.
//! Nothing follows from here.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};

use super::access_log_writer::{Place, Writer};
use super::admin::{self, Context};
use super::apply::{self, Running};
use super::certificates;
use super::collector::Metrics;
use super::discovery::{self, Board};
use super::drains::Drains;
use super::overrides::Overrides;
use super::probes;
use super::reload::{Cause, Reloader};
use super::secrets::SecretSource;
use super::shared::{Lifecycle, Refusal, ReloadRequest, ReloadStatus, Reloaded, Shared};
use super::sockets::Sockets;
use super::supervisor::Supervisor;
use crate::clock;
use crate::config;
use crate::config::model::AccessTarget;
use crate::config::model::{Config, Store};
use crate::metrics::rows::Budget;
use crate::metrics::worker::WorkerCounts;
use crate::policy::persist::token::Secrets;
use crate::rng::Rng;
use crate::state;
use crate::state::access_log::Queue;
use crate::state::compile::compile;
use crate::state::sample::loopback;
use crate::state::snapshot::Snapshot;
use crate::state::store::StoreEnd;
use crate::worker::{Command, Handle};

/// A directory that is gone with the value.
pub struct TestDir(PathBuf);

impl TestDir {
    /// A new, empty one.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("weir-control-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a writable temporary directory");
        TestDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A worker that keeps what it is told in a channel.
pub fn worker() -> (Handle, mpsc::UnboundedReceiver<Command>) {
    let (commands, told) = mpsc::unbounded_channel();
    let thread = std::thread::spawn(|| ());
    let handle = Handle {
        commands,
        counts: Arc::new(WorkerCounts::default()),
        thread,
    };
    (handle, told)
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

type Told = Arc<Mutex<Vec<(u64, Vec<u16>)>>>;

/// A whole control plane over one worker that adopts everything at once.
pub struct Stage {
    /// Where its files are.
    pub dir: TestDir,
    /// Its reloads.
    pub reloader: Reloader,
    told: Told,
}

impl Stage {
    /// One listener `web` on the given ports, one pool `was` with backends on others, and `more` at the top of the file.
    pub async fn new(web: &[u16], was: &[u16], more: &str) -> Self {
        let dir = TestDir::new();
        let path = dir.path().join("weir.toml");
        std::fs::write(&path, text(dir.path(), web, was, more)).expect("a writable directory");
        let loaded = config::load(&path).expect("a good file");
        let told = Told::default();
        let reloader = reloader(path, loaded, told.clone());
        Stage {
            dir,
            reloader,
            told,
        }
    }

    /// The text of a file like that of [`Stage::new`].
    pub fn text(&self, web: &[u16], was: &[u16], more: &str) -> String {
        text(self.dir.path(), web, was, more)
    }

    /// Writes the file anew.
    pub fn write(&self, web: &[u16], was: &[u16], more: &str) {
        let text = self.text(web, was, more);
        std::fs::write(&self.reloader.path, text).expect("a writable file");
    }

    /// Reads it again.
    pub async fn reload(&mut self) -> Result<Reloaded, Refusal> {
        self.reloader.reload(Cause::File).await
    }

    /// Generations that the worker was told of since the start, each with the ports of the sockets that came along.
    pub fn told(&self) -> Vec<(u64, Vec<u16>)> {
        let told = self.told.lock().expect("no panic");
        told.iter().filter(|told| told.0 > 1).cloned().collect()
    }
}

fn text(dir: &Path, web: &[u16], was: &[u16], more: &str) -> String {
    let list = |ports: &[u16]| {
        let addresses = ports.iter().map(|port| format!("\"127.0.0.1:{port}\""));
        addresses.collect::<Vec<_>>().join(", ")
    };
    let quiet = if more.contains("[log]") {
        ""
    } else {
        "[log]\naccess = \"off\"\n"
    };
    format!(
        "state_dir = {dir:?}\n{more}{quiet}\
         [admin]\nbind = \"unix:{}\"\n\
         [listeners.web]\nbind = [{}]\n\
         [[routes]]\npool = \"was\"\n\
         [pools.was]\nbackends = [{}]\nhealth = {{ type = \"none\" }}\n",
        dir.join("admin.sock").display(),
        list(web),
        list(was)
    )
}

fn reloader(path: PathBuf, loaded: config::Loaded, told: Told) -> Reloader {
    let (handle, mut commands) = worker();
    tokio::spawn(async move {
        let mut sockets = Vec::new();
        while let Some(command) = commands.recv().await {
            if let Command::Switch {
                snapshot,
                opened,
                adopted,
            } = command
            {
                let ports = opened.iter().map(|(key, _)| key.address.port()).collect();
                let mut told = told.lock().expect("no panic");
                told.push((snapshot.generation, ports));
                sockets.push(opened);
                let _ = adopted.send(());
            }
        }
    });
    let (loaded, material) = certificates::load(loaded, None).expect("good files");
    let started = Arc::new(loaded.config);
    let mut source = SecretSource::new(&started.state_dir);
    let secrets = source.load(&started).expect("a writable directory");
    let prepared = apply::prepare(
        started.clone(),
        secrets.as_ref(),
        &material,
        None,
        (&Sockets::default(), &Drains::default()),
        1,
    )
    .expect("free ports");
    let first = prepared.snapshot.clone();
    let overrides = Arc::new(Overrides::load(&started.state_dir));
    overrides.adopt(&first);
    let discovery = discovery::Sources::new(&started.state_dir);
    let (queue, batches) = Queue::new();
    let nowhere = Place::open(&AccessTarget::Off).expect("nothing to open");
    let running = Running {
        workers: Supervisor::of(vec![handle]),
        sockets: Sockets::default(),
        probes: probes::Supervisor::new(Rng::from_seed(0)),
        access_log: Writer::start(queue.clone(), batches, nowhere).expect("a thread"),
        budget: Arc::new(Budget::default()),
    };
    let current = watch::Sender::new(first);
    let status = watch::Sender::new(ReloadStatus {
        generation: 1,
        ..ReloadStatus::default()
    });
    let (_, rows) = std::sync::mpsc::channel();
    let shared = Arc::new(Shared {
        file: path.clone(),
        current: current.subscribe(),
        reload: status.subscribe(),
        lifecycle: watch::channel(Lifecycle::Ready).1,
        workers: running.workers.counts(),
        budget: running.budget.clone(),
        overrides: overrides.clone(),
        checks: running.probes.ledger(),
        discovery: discovery.board(),
        scale: Arc::default(),
        reload_requests: mpsc::channel(1).0,
        orders: mpsc::channel(1).0,
        upgrade: watch::channel(None).1,
        predecessor: None,
        started: crate::clock::now(),
        started_wall_millis: 0,
    });
    let metrics = Metrics::new(shared.clone(), rows, queue).expect("good names");
    let admin = admin::Prepared::new(&started.admin, None, None).expect("a writable directory");
    let admin = admin::Server::start(admin, Context { shared, metrics });
    let mut reloader = Reloader {
        path,
        started,
        source,
        secrets,
        material,
        overrides,
        warnings: loaded.warnings.without_advice(),
        discovery,
        running,
        admin,
        current,
        status,
    };
    let _ = reloader.running.commit(prepared);
    reloader
}

/// The other ends of what [`Shared`] shows.
pub struct Ends {
    pub current: watch::Sender<Arc<Snapshot>>,
    pub reload: watch::Sender<ReloadStatus>,
    pub lifecycle: watch::Sender<Lifecycle>,
    pub requests: mpsc::Receiver<ReloadRequest>,
}

/// A store at an address where there is none.
pub fn store() -> Store {
    Store {
        host: "127.0.0.1".to_owned(),
        port: 6379,
        database: 0,
        user: None,
        password: Some("hunter2".to_owned()),
    }
}

/// A process with two workers that serves generation 1 of a configuration with the given pools on `127.0.0.1:8080`.
pub fn shared(pools: &[(&str, &[SocketAddr])]) -> (Arc<Shared>, Ends) {
    let mut config = state::sample::config(&[("web", &[loopback(8080)])], pools);
    config.routes[0].sticky = Some(state::sample::sticky_by_source());
    config.listeners[0].max_connections_per_source = 10;
    let mut snapshot = snapshot(config, None);
    // One that nobody serves.
    snapshot.routes[0].store = Some(Arc::new(StoreEnd::new(store()).0));
    let (reload_requests, requests) = mpsc::channel(8);
    let ends = Ends {
        current: watch::Sender::new(Arc::new(snapshot)),
        reload: watch::Sender::new(ReloadStatus {
            generation: 1,
            ..ReloadStatus::default()
        }),
        lifecycle: watch::Sender::new(Lifecycle::Ready),
        requests,
    };
    let budget = Arc::new(Budget::default());
    budget.limit(100);
    let shared = Shared {
        file: "/nonexistent/weir.toml".into(),
        current: ends.current.subscribe(),
        reload: ends.reload.subscribe(),
        lifecycle: ends.lifecycle.subscribe(),
        workers: vec![Arc::default(), Arc::default()],
        budget,
        overrides: Arc::new(Overrides::load(Path::new("/proc/nowhere"))),
        checks: Arc::default(),
        discovery: Arc::<Board>::default(),
        scale: Arc::default(),
        reload_requests,
        orders: mpsc::channel(1).0,
        upgrade: watch::channel(None).1,
        predecessor: None,
        started: clock::now(),
        started_wall_millis: clock::wall_millis(),
    };
    (Arc::new(shared), ends)
}

/// The generation after `previous`, for two workers.
pub fn snapshot(config: Config, previous: Option<&Snapshot>) -> Snapshot {
    let secrets = Secrets::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("a secret");
    let generation = previous.map_or(1, |snapshot| snapshot.generation + 1);
    compile(
        Arc::new(config),
        Some(&secrets),
        previous,
        generation,
        2,
        clock::now(),
    )
}
