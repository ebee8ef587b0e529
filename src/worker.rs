//! One data-plane thread: a single-threaded runtime, its listening sockets, its upstream connections, its counters.
//! It shares nothing with other workers but the live words of backends, and never waits for control.
//! The walk goes on in `l7/connection.rs`.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::metrics::rows::{Budget, NewRow};
use crate::metrics::worker::WorkerCounts;
use crate::state::access_log::AccessLog;
use crate::state::snapshot::{ListenerKey, Snapshot};

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
        /// Sockets of listeners that the worker does not have yet; those that the generation no longer names are closed
        /// after what they have queued is accepted.
        opened: Vec<(ListenerKey, TcpListener)>,
        /// Answered when new connections see the generation.
        adopted: oneshot::Sender<()>,
    },
    /// Accept no more, end idle connections, close every other after its answer.
    Drain,
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
pub fn spawn(setup: Setup) -> std::io::Result<Handle> {
    let _ = setup;
    Err(std::io::ErrorKind::Unsupported.into())
}
