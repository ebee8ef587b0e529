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

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The cryptography of this process: aws-lc-rs, with X25519MLKEM768 before the older groups. It is handed to every configuration by
/// name and never installed for the whole process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
