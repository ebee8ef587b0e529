//! What control itself asks of HTTP servers: one request on a connection of its own, one bounded answer.
//! It must never read more than it is told; the caller bounds the time.
//! The walk goes back to `discovery/http.rs` and `scale/actor.rs`.

use std::io;
use std::pin::pin;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::http::request::Builder;
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::model::HttpPlace;

/// Bytes that the head of an answer may have.
const HEAD: usize = 64 * 1024;
/// Addresses of a server that are tried.
const ADDRESSES: usize = 4;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Asks a server; the request gets its target and its `Host` here. The answer's body has at most `most` bytes.
///
/// # Errors
/// What went wrong, in words.
pub async fn ask(
    place: &HttpPlace,
    request: Builder,
    body: impl Into<Bytes>,
    most: usize,
) -> Result<Answer, String> {
    let connected = connect(place).await;
    let stream = connected.map_err(|error| format!("no connection: {error}"))?;
    let mut builder = http1::Builder::new();
    let handshake = builder.max_buf_size(HEAD).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(unreadable)?;
    let host = match place.port {
        80 => place.host.clone(),
        port => format!("{}:{port}", place.host),
    };
    let request = request
        .uri(place.target.as_str())
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Full::new(body.into()))
        .map_err(|error| error.to_string())?;
    let (mut connection, asked) = (pin!(connection), pin!(sender.send_request(request)));
    let mut answer = pin!(async {
        let (head, body) = asked.await.map_err(unreadable)?.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| format!("the answer cannot be read: {error}"))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    });
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What it read by then is still to be had.
        _ = &mut connection => answer.await,
    }
}

async fn connect(place: &HttpPlace) -> io::Result<TcpStream> {
    let HttpPlace { host, port, .. } = place;
    let mut failure = io::Error::other("the host has no address");
    let addresses = tokio::net::lookup_host(format!("{host}:{port}")).await?;
    for address in addresses.take(ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn unreadable(error: hyper::Error) -> String {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    format!("no answer: {}", cause.unwrap_or_else(|| error.to_string()))
}
