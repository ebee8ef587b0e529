//! The admin server: metrics, health of the process, status and reload, over HTTP/1.1 on an address of its own.
//! It must not be able to hang control: connections, heads, bodies and times are all bounded, and one connection carries one request.
//! Read `api.rs` (what is served), then `door.rs` (who may ask), `socket.rs` (where) and `answer.rs` (in what form).

mod answer;
mod api;
mod door;
mod socket;
mod status;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::door::Door;
use self::socket::{Connection, Socket};
use super::collector::Metrics;
use super::shared::Shared;
use crate::config::model::Admin;

/// Connections that are served at once; later ones wait in the kernel.
const CONNECTIONS: usize = 64;
/// A request head must be complete this long after the accept.
const HEAD_WAIT: Duration = Duration::from_secs(5);
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

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    door: Door,
}

/// Binds the address, and looks whether the token can be read.
///
/// # Errors
/// With the address or file in it: when the address is taken, or when the token file cannot be read or is empty.
///
/// # Panics
/// Outside of a runtime.
pub fn bind(admin: &Admin) -> Result<Bound, String> {
    if let Some(path) = &admin.token_file {
        std::fs::read(path)
            .map_err(|error| error.to_string())
            .and_then(door::token)
            .map_err(|why| format!("admin.token_file {}: {why}", path.display()))?;
    }
    let socket = Socket::bind(&admin.bind).map_err(|error| error.to_string())?;
    let door = Door::new(&admin.bind);
    Ok(Bound { socket, door })
}

/// Serves until it is dropped. What has been accepted by then is still answered.
pub async fn serve(bound: Bound, context: Context) {
    let (door, context) = (Arc::new(bound.door), Arc::new(context));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        match bound.socket.accept().await {
            Ok(connection) => {
                tokio::spawn(answer_one(connection, door.clone(), context.clone(), place));
            }
            Err(error) => {
                log::warn!("admin: cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, one request. Whatever goes wrong is the client's to notice.
async fn answer_one(
    connection: Connection,
    door: Arc<Door>,
    context: Arc<Context>,
    _place: OwnedSemaphorePermit,
) {
    let answer = async |request: Request<Incoming>| {
        Ok::<_, Infallible>(api::answer(request, &door, &context).await)
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service_fn(answer));
    let _ = tokio::time::timeout(CONNECTION_WAIT, served).await;
}
