//! A new connection toward a backend of a pool: from which address, with which header before everything else, and within TLS or not.
//! It neither chooses the backend nor waits for longer than its caller lets it.
//! The walk goes back to `l7/handshake.rs` and `l4/connection.rs`.

use std::net::{IpAddr, SocketAddr};

use crate::net::introduction;
use crate::net::stream::Stream;
use crate::net::tls::handshake::Refusal;
use crate::net::tls::secure;
use crate::state::snapshot::Pool;

/// Connects to the backend at `address`, as `client` where the pool is transparent, and sends `header` first.
///
/// # Errors
/// What the system says, or why the backend is not believed.
pub async fn connect(
    pool: &Pool,
    address: SocketAddr,
    client: IpAddr,
    header: Option<Vec<u8>>,
) -> Result<Stream, Refusal> {
    let source = pool.transparent.then_some(client);
    let mut stream = Stream::connect_from(source, address).await?;
    if let Some(header) = &header {
        introduction::send(&mut stream, header).await?;
    }
    match &pool.tls {
        Some(tls) => secure(stream, tls, address).await,
        None => Ok(stream),
    }
}
