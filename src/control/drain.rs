//! The end of the process: stop being ready, stop accepting, finish what is open, give up at the deadline.
//! It must always come to an end, whatever clients and backends do.
//! Nothing follows from here but `run.rs`, which flushes the logs.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::shared::Lifecycle;
use super::signals::Signals;
use super::supervisor::Supervisor;
use super::systemd;
use crate::config::diagnostic::counted;

/// How long connections that rest may take to end at the deadline.
const FAREWELL: Duration = Duration::from_millis(100);

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
        "stop: {} open, at most {:?} to finish",
        counted(supervisor.open(), "connection"),
        patience.delay + patience.timeout
    );
    tokio::select! {
        () = finish(supervisor, patience) => {}
        () = signals.stop() => log::warn!("stop: told to stop now"),
    }
    match supervisor.open() {
        0 => log::info!("stop: all connections have ended"),
        open => log::warn!("stop: {} cut off", counted(open, "connection")),
    }
}

/// Lets the workers finish beside the process that took over, until nothing is open, the deadline, or a signal to stop.
pub async fn retire(supervisor: &Supervisor, time: Duration, signals: &mut Signals) {
    supervisor.hand_over();
    log::info!(
        "upgrade: {} open here, at most {time:?} to finish",
        counted(supervisor.open(), "connection"),
    );
    tokio::select! {
        done = timeout(time, supervisor.idle()) => if done.is_err() {
            // Who rests is told now, so that only what is busy is cut off.
            supervisor.drain();
            let _ = timeout(FAREWELL, supervisor.idle()).await;
        },
        () = signals.stop() => log::warn!("stop: told to stop now"),
    }
    match supervisor.open() {
        0 => log::info!("upgrade: all connections of this process have ended"),
        open => log::warn!("upgrade: {} cut off", counted(open, "connection")),
    }
}

async fn finish(supervisor: &Supervisor, patience: Patience) {
    sleep(patience.delay).await;
    supervisor.drain();
    // At the deadline what is left is counted and cut off.
    let _ = timeout(patience.timeout, supervisor.idle()).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc::UnboundedReceiver;
    use tokio::time::Instant;

    use super::*;
    use crate::control::sample::worker;
    use crate::metrics::worker::WorkerCounts;
    use crate::worker::Command;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    fn supervisor(open: usize) -> (Supervisor, Arc<WorkerCounts>, UnboundedReceiver<Command>) {
        let (handle, commands) = worker();
        let counts = handle.counts.clone();
        counts.set_open(open);
        (Supervisor::of(vec![handle]), counts, commands)
    }

    #[tokio::test]
    async fn readiness_ends_first_and_the_end_comes_with_the_last_connection() {
        let (supervisor, counts, mut commands) = supervisor(1);
        let lifecycle = watch::Sender::new(Lifecycle::Ready);
        let mut seen = lifecycle.subscribe();
        let mut signals = Signals::new().expect("handlers");
        let patience = Patience {
            delay: SHORT,
            timeout: LONG,
        };
        let worker = async {
            let state = *seen
                .wait_for(|state| *state != Lifecycle::Ready)
                .await
                .expect("open");
            let first = commands.try_recv().is_err();
            let told = Instant::now();
            let command = commands.recv().await;
            counts.set_open(0);
            (state, first, told.elapsed() >= SHORT / 2, command)
        };
        let end = drain(&supervisor, patience, &lifecycle, &mut signals);
        let both = async { tokio::join!(end, worker).1 };
        let (state, accepted, delayed, command) = timeout(LONG / 2, both)
            .await
            .expect("it ends with the connection");
        assert_eq!(state, Lifecycle::Draining);
        assert!(accepted && delayed, "still accepting during the delay");
        assert!(matches!(command, Some(Command::Drain)));
    }

    #[tokio::test]
    async fn a_connection_that_does_not_end_is_cut_off_at_the_deadline() {
        let (supervisor, _counts, _commands) = supervisor(1);
        let lifecycle = watch::Sender::new(Lifecycle::Ready);
        let mut signals = Signals::new().expect("handlers");
        let patience = Patience {
            delay: Duration::ZERO,
            timeout: SHORT,
        };
        let end = drain(&supervisor, patience, &lifecycle, &mut signals);
        timeout(LONG / 2, end)
            .await
            .expect("it ends at the deadline");
        assert_eq!(supervisor.open(), 1);
    }
}
