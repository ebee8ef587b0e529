//! The end of the process: stop being ready, stop accepting, finish what is open, give up at the deadline.
//! It must always come to an end, whatever clients and backends do.
//! Nothing follows from here but `run.rs`, which flushes the logs.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::shared::Lifecycle;
use super::signals::{Request, Signals};
use super::supervisor::Supervisor;
use super::systemd;

/// How long the end may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// New connections are still accepted for this long, so that others notice that `/readyz` fails.
    pub delay: Duration,
    /// What is open after that may last this long.
    pub timeout: Duration,
}

/// Lets the workers finish, until nothing is open, the deadline, or a second signal to stop.
pub async fn drain(
    supervisor: &Supervisor,
    patience: Patience,
    lifecycle: &watch::Sender<Lifecycle>,
    signals: &mut Signals,
) {
    lifecycle.send_replace(Lifecycle::Draining);
    systemd::stopping();
    log::info!(
        "stop: {} connections are open, they may take {:?}",
        supervisor.open(),
        patience.delay + patience.timeout
    );
    tokio::select! {
        () = finish(supervisor, patience) => {}
        () = second(signals) => log::warn!("stop: told to stop now"),
    }
    match supervisor.open() {
        0 => log::info!("stop: all connections have ended"),
        open => log::warn!("stop: {open} connections were cut off"),
    }
}

async fn finish(supervisor: &Supervisor, patience: Patience) {
    sleep(patience.delay).await;
    supervisor.drain();
    // At the deadline what is left is counted and cut off.
    let _ = timeout(patience.timeout, supervisor.idle()).await;
}

async fn second(signals: &mut Signals) {
    while signals.next().await != Request::Stop {}
}
