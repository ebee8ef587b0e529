//! Signals as values: reload on SIGHUP, upgrade on SIGUSR2, stop on SIGTERM and SIGINT.
//! It must not act on them; it only says which came.
//! The walk goes on in `run.rs`, which acts.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read the file again and reopen the logs (SIGHUP).
    Reload,
    /// Start the program anew and hand over to it (SIGUSR2).
    Upgrade,
    /// Drain and end (SIGTERM, SIGINT); a second one ends now.
    Stop,
}

/// Catches signals from its making on.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    user2: Signal,
}

impl Signals {
    /// Begins to catch signals; needs a runtime.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn new() -> std::io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal. Safe to cancel.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.hangup.recv() => Request::Reload,
            _ = self.user2.recv() => Request::Upgrade,
        }
    }

    /// Waits for a signal to stop; any other stays for [`Signals::next`]. Safe to cancel.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
