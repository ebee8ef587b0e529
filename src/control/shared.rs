//! What the parts of control tell each other: the published generation, how the last reload went, whether the process serves.
//! Everything here is a published value or a channel; whoever reads must not hold a borrow across an await.
//! The walk goes on in `run.rs`, which writes these values, and in `admin/`, which shows them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::discovery::Board;
use super::drains::{Mark, Subject};
use super::overrides::Overrides;
use super::probes::Ledger;
use super::scale;
use crate::config::model::Check;
use crate::metrics::rows::Budget;
use crate::metrics::worker::WorkerCounts;
use crate::policy::health::Health;
use crate::state::report::Report;
use crate::state::snapshot::Snapshot;

/// What probes, admin and the collector may look at. Cheap to share behind an `Arc`; it lives as long as the process.
#[derive(Debug)]
pub struct Shared {
    /// The configuration file.
    pub file: PathBuf,
    /// The generation that the workers serve; changes after every worker was told.
    pub current: watch::Receiver<Arc<Snapshot>>,
    /// How the last reload went.
    pub reload: watch::Receiver<ReloadStatus>,
    /// Where the process stands between start and end.
    pub lifecycle: watch::Receiver<Lifecycle>,
    /// What each worker counts, by its ordinal.
    pub workers: Vec<Arc<WorkerCounts>>,
    /// How many metric rows may exist.
    pub budget: Arc<Budget>,
    /// The administrative states that were set over the file's.
    pub overrides: Arc<Overrides>,
    /// How many backends pools should have, and what is done about it.
    pub scale: Arc<scale::Board>,
    /// What the checks of backends say.
    pub checks: Arc<Ledger>,
    /// What the sources of backends said.
    pub discovery: Arc<Board>,
    /// Asks for a reload.
    pub reload_requests: mpsc::Sender<ReloadRequest>,
    /// Asks for anything else that the process as a whole does.
    pub orders: mpsc::Sender<Order>,
    /// Why the last upgrade failed; absent when none did.
    pub upgrade: watch::Receiver<Option<Refusal>>,
    /// The process whose place this one took.
    pub predecessor: Option<u32>,
    /// When the process started, monotonic.
    pub started: Instant,
    /// When the process started, in milliseconds since the epoch.
    pub started_wall_millis: u64,
}

/// Where the process stands. `/readyz` is fine in [`Lifecycle::Ready`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Listeners are bound, or will be; not every backend has its first verdict.
    Starting,
    /// Serving. A backend that a later reload adds does not lead back: the virtual IP would flap.
    Ready,
    /// Ending: still accepting during `drain_delay`, then only finishing what is open.
    Draining,
}

/// How reloads went so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReloadStatus {
    /// The generation that is served.
    pub generation: u64,
    /// Wall time of the last success (the start is one), in milliseconds since the epoch.
    pub success_wall_millis: u64,
    /// Why the last attempt was refused; absent after a success.
    pub refusal: Option<Refusal>,
    /// What the served file makes weir warn about, a line each.
    pub warnings: Vec<String>,
    /// Whether cookies are sealed with a secret that lives in memory only, and will be no good after a restart.
    pub secret_ephemeral: bool,
    /// What changed with the last success, on one line.
    pub summary: String,
    /// What that cost whoever was served.
    pub report: Report,
    /// Those of the warnings that speak of files behind TLS, which are served as they were before.
    pub tls_problems: Vec<String>,
}

/// Why a file was refused. The old generation goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Every problem as text, as `weir check` would print it, without colour.
    pub text: String,
    /// When, in milliseconds since the epoch.
    pub wall_millis: u64,
}

/// Asks the reload loop to read the file again. Requests that come together are answered by one reload.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Result<Reloaded, Refusal>>,
}

/// What the process as a whole is asked to do.
#[derive(Debug)]
pub enum Order {
    /// Start the program anew and hand over to it.
    Upgrade {
        /// Where the outcome goes: why there is no new process, if there is none.
        reply: oneshot::Sender<Result<Upgraded, String>>,
    },
    /// Let a listener or the process drain, or serve again.
    Stand {
        /// Which.
        subject: Subject,
        /// Who lets it drain, and when; absent: it serves again.
        drain: Option<Mark>,
        /// Where the outcome goes: why it cannot serve again, if it cannot.
        reply: oneshot::Sender<Result<Stood, String>>,
    },
}

/// What became of a listener or the process, as the API tells it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stood {
    /// The state that it has now.
    pub state: &'static str,
    /// Whether it had another one.
    pub changed: bool,
    /// Whether a restart will find it.
    pub kept: bool,
    /// Client connections that it still has.
    pub connections: usize,
}

/// What an upgrade did, as the API tells it too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Upgraded {
    /// The process that serves now.
    pub pid: u32,
    /// The one before, which finishes what it has.
    pub predecessor: u32,
    /// Client connections that it still has.
    pub connections: usize,
    /// How long they may last, in seconds.
    pub drain_seconds: f64,
}

/// What a reload that was not refused did, as the API tells it too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reloaded {
    /// The generation that is served now.
    pub generation: u64,
    /// What changed, on one line; empty: the file says what it said before.
    pub summary: String,
    /// What the file makes weir warn about, a line each.
    pub warnings: Vec<String>,
    /// What it cost whoever was served.
    pub report: Report,
}

impl ReloadStatus {
    /// Whether the last attempt succeeded.
    pub fn successful(&self) -> bool {
        self.refusal.is_none()
    }
}

/// Whether every backend has a verdict: from a probe, from `health.initial`, or because its pool has no check.
pub fn verdicts_in(snapshot: &Snapshot) -> bool {
    let pools = snapshot.pools.iter().zip(&snapshot.config.pools);
    pools
        .filter(|(_, config)| config.health.check != Check::None)
        .flat_map(|(pool, _)| &pool.backends)
        .all(|backend| backend.live.health() != Health::Unknown)
}
