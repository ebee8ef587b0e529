//! TLS over a socket: rustls makes the records, this module moves them between the socket and memory that the thread lends.
//! It knows no configuration file and chooses no certificate but by the name that the client asks for; no idle connection holds a buffer.
//! Read `stream.rs`, then `records.rs`, which drives rustls, and `certificates.rs`.

pub mod certificates;
pub mod handshake;
mod memory;
mod records;
#[cfg(test)]
pub mod sample;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod tickets;
mod words;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use self::handshake::Refusal;
use super::stream::Stream;
use crate::clock;
use crate::state::tls::PoolTls;

/// HTTP/2 as a protocol within TLS (RFC 9113 section 3.1).
pub const HTTP2: &[u8] = b"h2";
/// HTTP/1.1 as one (RFC 7301 section 6).
pub const HTTP1: &[u8] = b"http/1.1";

/// The cryptography of this process: aws-lc-rs, with X25519MLKEM768 before the older groups. It is handed to every configuration by
/// name and never installed for the whole process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The time of day for whoever judges certificates and tickets.
#[derive(Debug)]
pub struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch = Duration::from_millis(clock::wall_millis());
        Some(UnixTime::since_unix_epoch(since_epoch))
    }
}

/// Begins TLS with a backend at `address`.
///
/// # Errors
/// Why the backend is not believed, or cannot be talked to.
pub async fn secure(stream: Stream, tls: &PoolTls, address: SocketAddr) -> Result<Stream, Refusal> {
    let name = tls.name_of(address.ip());
    let begun = stream.begin_tls(tls.config.clone(), name);
    let mut stream = begun.map_err(Refusal::Tls)?;
    let shaken = poll_fn(|cx| stream.poll_handshake(cx)).await;
    let wants_http2 = tls.config.alpn_protocols.iter().any(|known| known == HTTP2);
    match shaken {
        Err(Refusal::Tls(rustls::Error::AlertReceived(
            AlertDescription::NoApplicationProtocol,
        ))) if wants_http2 => Err(Refusal::NotHttp2),
        Err(refusal) => Err(refusal),
        Ok(()) if wants_http2 && stream.alpn() != Some(HTTP2) => Err(Refusal::NotHttp2),
        Ok(()) => Ok(stream),
    }
}
