//! The old process's side of an upgrade: it starts the new one and waits until that serves.
//! It must serve on whatever the new one does: nothing is given up before the new one said that it serves.
//! The walk goes on in `drain.rs`, where the old process ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::words::{Known, Last, Offer, Talk, VERSION, Word};
use super::{Program, VARIABLE};
use crate::clock;
use crate::control::overrides::Overrides;
use crate::net::handover::Channel;
use crate::state::snapshot::Snapshot;

/// How long the new process may take until it serves.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take to end when it failed, before it is killed.
const LAST_WORDS: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

/// What is handed over.
#[derive(Debug)]
pub struct Estate {
    /// Listening sockets, the admin server's among them.
    pub sockets: Vec<OwnedFd>,
    /// What is known.
    pub offer: Offer,
}

impl Estate {
    /// What is known of a generation's backends, beside the sockets.
    pub fn new(
        snapshot: &Snapshot,
        sockets: Vec<OwnedFd>,
        is_ready: bool,
        secret: Option<String>,
    ) -> Estate {
        let known = |pool: &crate::state::snapshot::Pool| {
            let name = pool.name.clone();
            let backends = pool.backends.iter().map(move |backend| Known {
                pool: name.to_string(),
                address: backend.live.address,
                health: backend.live.health().as_str().to_owned(),
                warm_millis: u64::try_from(backend.live.warm().as_millis()).unwrap_or(u64::MAX),
            });
            backends.collect::<Vec<_>>()
        };
        let offer = Offer {
            version: VERSION,
            pid: std::process::id(),
            is_ready,
            secret,
            backends: snapshot.pools.iter().flat_map(known).collect(),
        };
        Estate { sockets, offer }
    }
}

/// Starts the program anew and hands everything over. The id of the process that serves now.
///
/// # Errors
/// Why there is none: then this one serves on, and nothing that operators may set is held back any more.
///
/// # Panics
/// Outside of a runtime.
pub async fn hand_over(
    program: &Program,
    estate: Estate,
    overrides: &Arc<Overrides>,
) -> Result<u32, String> {
    // Its end would be that of everything beside it.
    if std::process::id() == 1 {
        return Err(
            "weir is the first process of its container and cannot hand over to another: \
                    start a container of the new image beside it"
                .to_owned(),
        );
    }
    let (program, until) = (program.clone(), clock::now() + PATIENCE);
    let path = program.path().display().to_string();
    let failed = |why| format!("{path}: {why}");
    let successor = beside(move || Successor::start(&program, estate, until));
    let mut successor = successor.await.map_err(&failed)?;
    // From here on nothing may be set that the new process would not know of.
    let frozen = overrides.freeze();
    let last = Last {
        overrides: overrides.document(),
    };
    let pid = beside(move || {
        let served = successor.let_serve(last, until);
        served.map(|()| successor.release())
    });
    let pid = pid.await.map_err(&failed);
    drop(frozen);
    pid
}

/// Does what waits for another process where nobody else waits for it.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
}

/// The new process, which is ended with this value unless it was released.
#[derive(Debug)]
struct Successor {
    child: Option<Child>,
    talk: Talk,
}

impl Successor {
    /// Starts it and waits until it is ready.
    fn start(program: &Program, estate: Estate, until: Instant) -> Result<Successor, String> {
        let (channel, other) = Channel::pair().map_err(|error| error.to_string())?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env(VARIABLE, std::process::id().to_string())
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .stdin(other);
        let child = command.spawn().map_err(|error| error.to_string())?;
        // The other end is the new process's alone, so that its end is noticed.
        drop(command);
        log::info!(
            "upgrade: started {} as process {}",
            program.path.display(),
            child.id()
        );
        let mut own = Successor {
            child: Some(child),
            talk: Talk(channel),
        };
        let sockets: Vec<_> = estate.sockets.iter().map(AsFd::as_fd).collect();
        match own.ask(&Word::Offer(estate.offer), &sockets, until) {
            Ok(Word::Ready) => Ok(own),
            Ok(_) => Err(own.end("it speaks out of turn")),
            Err(why) => Err(own.end(&why)),
        }
    }

    /// Lets it serve, and waits until it does.
    fn let_serve(&mut self, last: Last, until: Instant) -> Result<(), String> {
        match self.ask(&Word::Go(last), &[], until) {
            Ok(Word::Serving) => Ok(()),
            Ok(_) => Err(self.end("it speaks out of turn")),
            Err(why) => Err(self.end(&why)),
        }
    }

    /// Says a word and hears the answer to it. Nothing is said of a process that is gone: its status says more.
    fn ask(&self, word: &Word, sockets: &[BorrowedFd<'_>], until: Instant) -> Result<Word, String> {
        let left = until.saturating_duration_since(clock::now());
        match self.talk.say(word, sockets, left) {
            Ok(()) => self.hear(until),
            // It may have said why.
            Err(why) => self.hear(until).and(Err(why)),
        }
    }

    fn hear(&self, until: Instant) -> Result<Word, String> {
        let left = until.saturating_duration_since(clock::now());
        match self.talk.hear(left)? {
            Some((Word::Failed { why }, _)) => Err(why),
            Some((word, _)) => Ok(word),
            None => Err(String::new()),
        }
    }

    /// Ends the process; why it does not serve, in words.
    fn end(&mut self, why: &str) -> String {
        let Some(mut child) = self.child.take() else {
            return why.to_owned();
        };
        let pid = child.id();
        let until = clock::now() + LAST_WORDS;
        // A status says more than that the channel was closed.
        while why.is_empty() || clock::now() < until {
            match child.try_wait() {
                Ok(Some(status)) if why.is_empty() => {
                    return format!("the new process {pid} ended before it served: {status}");
                }
                Ok(Some(_)) => return format!("the new process {pid} does not serve: {why}"),
                Ok(None) if clock::now() < until => std::thread::sleep(LOOK),
                Ok(None) | Err(_) => break,
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        let why = match why {
            "" => "it closed the channel",
            why => why,
        };
        format!("the new process {pid} did not serve and was killed: {why}")
    }

    /// Lets it live; its id.
    fn release(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
