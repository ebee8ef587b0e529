//! Upgrades as the process makes them: what is handed over, and what is said of the outcome.
//! An attempt that fails leaves everything as it was and says why; after one that succeeds this process has nothing left to answer.
//! The walk goes on in `hand_over.rs`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::sync::{oneshot, watch};

use super::Program;
use super::hand_over::{Estate, hand_over};
use crate::clock;
use crate::control::reload::Reloader;
use crate::control::shared::{Refusal, Upgraded};
use crate::control::systemd;

/// Where the outcome of an upgrade goes.
pub type Reply = oneshot::Sender<Result<Upgraded, String>>;

/// What upgrades of this process need, and how the last one went.
#[derive(Debug)]
pub struct Upgrades {
    program: Result<Program, String>,
    failed: watch::Sender<Option<Refusal>>,
}

impl Upgrades {
    /// Remembers what this process was started as.
    pub fn of_this_process() -> Upgrades {
        Upgrades {
            program: Program::of_this_process().map_err(|error| error.to_string()),
            failed: watch::Sender::new(None),
        }
    }

    /// Why the last attempt failed.
    pub fn failed(&self) -> watch::Receiver<Option<Refusal>> {
        self.failed.subscribe()
    }

    /// Hands over to a new process.
    ///
    /// # Errors
    /// Why there is none; this one serves on.
    pub async fn attempt(
        &self,
        reloader: &mut Reloader,
        is_ready: bool,
    ) -> Result<Upgraded, String> {
        systemd::reloading();
        match self.hand_over(reloader, is_ready).await {
            Ok(pid) => {
                reloader.admin.give_away();
                systemd::handed_over(pid);
                let predecessor = std::process::id();
                log::info!("upgrade: process {pid} serves, {predecessor} finishes what it has");
                Ok(Upgraded {
                    pid,
                    predecessor,
                    connections: reloader.running.workers.open(),
                    drain_seconds: reloader.config().drain_timeout.as_secs_f64(),
                })
            }
            Err(why) => {
                systemd::ready();
                log::error!("upgrade: failed, this process serves on: {why}");
                self.failed.send_replace(Some(Refusal {
                    text: why.clone(),
                    wall_millis: clock::wall_millis(),
                }));
                Err(why)
            }
        }
    }

    async fn hand_over(&self, reloader: &Reloader, is_ready: bool) -> Result<u32, String> {
        let program = self.program.clone()?;
        let sockets = sockets(reloader).map_err(|error| error.to_string())?;
        let snapshot = reloader.current.borrow().clone();
        let secret = reloader.source.unkept().map(str::to_owned);
        let estate = Estate::new(&snapshot, sockets, is_ready, secret);
        hand_over(&program, estate, &reloader.overrides).await
    }
}

/// A descriptor of every socket that the process listens on.
fn sockets(reloader: &Reloader) -> io::Result<Vec<OwnedFd>> {
    let own = reloader.running.sockets.iter();
    let own = own.map(|(_, socket)| socket.as_fd().try_clone_to_owned());
    own.chain(std::iter::once(reloader.admin.socket()))
        .collect()
}
