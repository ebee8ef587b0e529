//! The admin server: metrics, health of the process, status, reload and the state of backends, over HTTP/1.1 on an address of its own.
//! It must not be able to hang control: connections, heads, bodies and times are all bounded, and one connection carries one request.
//! Read `api.rs` (what is served), then `door.rs` (who may ask), `socket.rs` (where) and `answer.rs` (in what form).

mod answer;
mod api;
mod asked;
mod backend_state;
mod diff;
mod door;
mod explain;
mod outcome;
mod passed_on;
mod socket;
mod stand;
mod status;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};

use self::door::Door;
use self::socket::{Connection, Socket, Spare};
use super::collector::Metrics;
use super::shared::Shared;
use super::task::Task;
use crate::config::model::{Admin, AdminBind};

/// Connections that are served at once; later ones wait in the kernel.
const CONNECTIONS: usize = 256;
/// A request head must be complete this long after the accept.
const HEAD_WAIT: Duration = Duration::from_secs(3);
/// A connection lasts no longer than this, however slowly its client reads.
const CONNECTION_WAIT: Duration = Duration::from_secs(30);
/// Bytes that a request head may have.
const HEAD: usize = 16 * 1024;
/// After a failed accept, before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server shows.
#[derive(Clone, Debug)]
pub struct Context {
    /// Snapshot, workers and reloads.
    pub shared: Arc<Shared>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
}

/// The running server. It stops accepting when it is dropped; what it has accepted is answered.
#[derive(Debug)]
pub struct Server {
    bind: AdminBind,
    context: Context,
    door: watch::Sender<Arc<Door>>,
    accepting: Option<Task>,
    /// For a process that takes over; absent when the system had no descriptor left.
    spare: Option<Spare>,
}

/// A socket of the admin server that this process was given at its start.
#[derive(Debug)]
pub struct Given {
    /// The socket.
    pub socket: OwnedFd,
    /// Whether the file of a Unix socket is to be removed at the end.
    pub owns_file: bool,
}

/// What a server needs from the system: an open socket unless it keeps the one it has, and the token.
#[derive(Debug)]
pub struct Prepared {
    bind: AdminBind,
    socket: Option<Socket>,
    door: Door,
}

impl Prepared {
    /// Binds the address, or takes the socket that was given, and reads the token. `running` keeps its socket when the address did not
    /// change.
    ///
    /// # Errors
    /// With the address or file in it: when the address is taken, or when the token file cannot be read or is empty.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(
        admin: &Admin,
        running: Option<&Server>,
        given: Option<Given>,
    ) -> io::Result<Prepared> {
        let door = Door::new(admin)?;
        let kept = running.is_some_and(|server| server.bind == admin.bind);
        let socket = match given {
            _ if kept => None,
            Some(given) => Some(Socket::adopt(&admin.bind, given.socket, given.owns_file)?),
            None => Some(Socket::bind(&admin.bind)?),
        };
        Ok(Prepared {
            bind: admin.bind.clone(),
            socket,
            door,
        })
    }
}

impl Server {
    /// Serves.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(prepared: Prepared, context: Context) -> Server {
        let (door, doors) = watch::channel(Arc::new(prepared.door));
        let spare = spare(prepared.socket.as_ref());
        // Only what was prepared beside another server has no socket.
        let accepting =
            (prepared.socket).map(|socket| Task::spawn(accept(socket, doors, context.clone())));
        Server {
            bind: prepared.bind,
            context,
            door,
            accepting,
            spare,
        }
    }

    /// One more descriptor of its socket, for a process that takes over.
    ///
    /// # Errors
    /// The system's error when it has none left.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        let none = || io::Error::other("no descriptor of the admin server's socket is left");
        self.spare.as_ref().ok_or_else(none)?.another()
    }

    /// Stops accepting, for another process does; what was accepted is answered.
    pub fn give_away(&mut self) {
        if let Some(spare) = self.spare.take() {
            spare.give_away();
        }
        self.accepting = None;
    }

    /// Goes on as the new generation says.
    pub fn switch(&mut self, prepared: Prepared) {
        if let Some(socket) = prepared.socket {
            self.spare = spare(Some(&socket));
            let (door, doors) = watch::channel(Arc::new(prepared.door));
            self.accepting = Some(Task::spawn(accept(socket, doors, self.context.clone())));
            (self.bind, self.door) = (prepared.bind, door);
        } else {
            self.door.send_replace(Arc::new(prepared.door));
        }
    }
}

fn spare(socket: Option<&Socket>) -> Option<Spare> {
    socket?.spare().ok()
}

async fn accept(socket: Socket, doors: watch::Receiver<Arc<Door>>, context: Context) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match socket.accept().await {
            Ok(connection) => {
                let (door, context) = (doors.borrow().clone(), context.clone());
                tokio::spawn(async move {
                    serve(connection, &door, &context).await;
                    drop(place);
                });
            }
            Err(error) => {
                log::warn!("admin: cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, one request. Whatever goes wrong is the client's to notice.
async fn serve(connection: Connection, door: &Door, context: &Context) {
    let from = connection.remote();
    let answer = |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(api::answer(request, from, door, context).await)
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service_fn(answer));
    let _ = tokio::time::timeout(CONNECTION_WAIT, served).await;
}
