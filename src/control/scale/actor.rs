//! Whoever starts and stops servers: a program that reads JSON, or a server that gets it.
//! It must never outlive its time, fill the log or the memory, or leave a child unattended.
//! The walk goes back to `course.rs`.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::model::{Actor, HttpPlace};
use crate::control::outbound;
use crate::control::task::Task;

/// Who weir says it is.
const AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"), " (scale)");
/// Bytes of what a program writes that are logged; the rest is read and thrown away.
const SHOWN: usize = 4096;
/// How long what a program wrote last may take after its end: another one may hold its output open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Order {
    pub(super) pool: String,
    /// `out`: so many are to be there; `in`: `backend` is to be stopped.
    pub(super) action: &'static str,
    /// Backends that the pool should have when this is done.
    pub(super) wanted: usize,
    /// Those that take new work now.
    pub(super) serving: usize,
    pub(super) min: usize,
    pub(super) max: usize,
    /// What is measured.
    pub(super) measure: &'static str,
    /// What each backend has of it, over its target.
    pub(super) load: Option<f64>,
    /// Which one is to be stopped. Nothing is open there any more, unless its time was up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backend: Option<Named>,
    /// All of them.
    pub(super) backends: Vec<Named>,
}

/// A backend.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

/// An order under way. It is given up when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    outcome: oneshot::Receiver<Result<(), String>>,
    _task: Task,
}

impl Running {
    /// Gives the order.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn start(actor: &Actor, order: &Order, limit: Duration) -> Running {
        let (tell, outcome) = oneshot::channel();
        let document = serde_json::to_string(order).unwrap_or_default() + "\n";
        let (actor, pool) = (actor.clone(), order.pool.clone());
        let carry_out = async move {
            let outcome = match &actor {
                Actor::Command(words) => run(words, &document, &pool, limit).await,
                Actor::Webhook(place) => post(place, document, limit).await,
            };
            // Whoever asked may have lost interest.
            let _ = tell.send(outcome);
        };
        Running {
            outcome,
            _task: Task::spawn(carry_out),
        }
    }

    /// What came of it, once that is known.
    pub(super) fn outcome(&mut self) -> Option<Result<(), String>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err("it was given up".to_owned())),
        }
    }
}

async fn post(place: &HttpPlace, document: String, limit: Duration) -> Result<(), String> {
    let request = Request::post("/")
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, "application/json");
    let asked = timeout(limit, outbound::ask(place, request, document, SHOWN)).await;
    let answer = asked.map_err(|_| format!("{place} did not answer within {limit:?}"))?;
    let answer = answer.map_err(|problem| format!("{place}: {problem}"))?;
    match answer.status.is_success() {
        true => Ok(()),
        false => Err(format!("{place}: status {}", answer.status.as_u16())),
    }
}

async fn run(words: &[String], document: &str, pool: &str, limit: Duration) -> Result<(), String> {
    let [program, arguments @ ..] = words else {
        return Err("there is no program".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let outputs = [collect(child.stdout.take()), collect(child.stderr.take())];
    let ended = timeout(limit, feed(&mut child, document)).await;
    let outcome = match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program}: {status}")),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => {
            // It is also waited for here.
            let _ = child.kill().await;
            Err(format!("{program} did not end within {limit:?}"))
        }
    };
    let mut said = Vec::new();
    for (text, reading) in outputs {
        let _ = timeout(LAST_WORDS, reading).await;
        said.extend_from_slice(&text.lock().unwrap_or_else(PoisonError::into_inner));
    }
    for line in String::from_utf8_lossy(&said).lines() {
        log::info!("scale: pool {pool}: {program}: {}", line.escape_debug());
    }
    outcome
}

/// Gives the program its input and waits for its end.
async fn feed(child: &mut Child, document: &str) -> std::io::Result<std::process::ExitStatus> {
    if let Some(mut input) = child.stdin.take() {
        // It need not read it.
        let _ = input.write_all(document.as_bytes()).await;
    }
    child.wait().await
}

type Output = (Arc<Mutex<Vec<u8>>>, tokio::task::JoinHandle<()>);

/// Reads what a program writes, to its end; the beginning is kept.
fn collect(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Output {
    let text = Arc::<Mutex<Vec<u8>>>::default();
    let kept = text.clone();
    let reading = tokio::spawn(async move {
        let Some(mut pipe) = pipe else {
            return;
        };
        let mut bytes = [0; 1024];
        while let Ok(length @ 1..) = pipe.read(&mut bytes).await {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let room = SHOWN.saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..length.min(room)]);
        }
    });
    (text, reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit: Duration) -> Result<(), String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words, "{\"pool\":\"was\"}\n", "was", limit).await
    }

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_program_reads_the_order_and_its_exit_code_counts() {
        assert_eq!(
            sh("read order; test \"$order\" = '{\"pool\":\"was\"}'", LONG).await,
            Ok(())
        );
        assert_eq!(
            sh("exit 3", LONG).await,
            Err("/bin/sh: exit status: 3".into())
        );
        // It need not read, and may say more than anybody wants to know.
        assert_eq!(sh("head -c 1000000 /dev/zero; exit 0", LONG).await, Ok(()));
        let words = ["/nowhere/scale".to_owned()];
        let outcome = run(&words, "", "was", LONG).await;
        assert!(outcome.is_err_and(|why| why.starts_with("/nowhere/scale cannot be started")));
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_ended() {
        let began = std::time::Instant::now();
        let outcome = sh("exec sleep 60", Duration::from_millis(50)).await;
        assert_eq!(outcome, Err("/bin/sh did not end within 50ms".into()));
        // One that leaves another behind, which holds its output, is not waited for.
        assert_eq!(sh("sleep 5 & exit 0", LONG).await, Ok(()));
        assert!(began.elapsed() < Duration::from_secs(4));
    }
}
