//! Things that control's tests need: a directory of their own, workers that only answer.
//! It is compiled for tests only.
//! Nothing follows from here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{mpsc, watch};

use super::shared::{Lifecycle, ReloadRequest, ReloadStatus, Shared};
use crate::clock;
use crate::config::model::Config;
use crate::metrics::rows::Budget;
use crate::metrics::worker::WorkerCounts;
use crate::policy::persist::token::Secrets;
use crate::state;
use crate::state::compile::compile;
use crate::state::sample::loopback;
use crate::state::snapshot::Snapshot;
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

/// The other ends of what [`Shared`] shows.
pub struct Ends {
    pub current: watch::Sender<Arc<Snapshot>>,
    pub reload: watch::Sender<ReloadStatus>,
    pub lifecycle: watch::Sender<Lifecycle>,
    pub requests: mpsc::Receiver<ReloadRequest>,
}

/// A process with two workers that serves generation 1 of a configuration with the given pools on `127.0.0.1:8080`.
pub fn shared(pools: &[(&str, &[SocketAddr])]) -> (Arc<Shared>, Ends) {
    let snapshot = snapshot(
        state::sample::config(&[("web", &[loopback(8080)])], pools),
        None,
    );
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
        current: ends.current.subscribe(),
        reload: ends.reload.subscribe(),
        lifecycle: ends.lifecycle.subscribe(),
        workers: vec![Arc::default(), Arc::default()],
        budget,
        reload_requests,
        started: clock::now(),
        started_wall_millis: clock::wall_millis(),
    };
    (Arc::new(shared), ends)
}

/// The generation after `previous`, for two workers.
pub fn snapshot(config: Config, previous: Option<&Snapshot>) -> Snapshot {
    let secrets = Secrets::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("a secret");
    let generation = previous.map_or(1, |snapshot| snapshot.generation + 1);
    compile(Arc::new(config), &secrets, previous, generation, 2)
}
