//! What a generation knows of TLS: how each listener and pool speaks it, and how the files behind it are.
//! It holds no file, no socket and no connection; control makes it, and a change of a file is another generation.
//! The walk goes on in `net/tls/`, which speaks it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

/// How a listener speaks TLS.
#[derive(Clone)]
pub struct ListenerTls {
    /// With its certificates, and whatever it asks of clients.
    pub config: Arc<ServerConfig>,
    /// What it may show, in the order of the file.
    pub certificates: Vec<Shown>,
}

/// A certificate that a listener may show.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The path of its file, as the configuration has it.
    pub file: Arc<str>,
    /// DNS names that it is good for, lower case.
    pub names: Vec<String>,
    /// When it expires, in seconds since the epoch.
    pub not_after: i64,
}

/// How TLS is spoken to the backends of a pool.
#[derive(Clone)]
pub struct PoolTls {
    /// With the authorities that are believed, and what weir shows.
    pub config: Arc<ClientConfig>,
    /// What every backend must prove to be; absent: its address.
    pub name: Option<ServerName<'static>>,
    /// Tells connections that were made under other settings apart; never 0.
    pub identity: u64,
}

impl PoolTls {
    /// What the backend at `address` must prove to be.
    pub fn name_of(&self, address: IpAddr) -> ServerName<'static> {
        let named = self.name.clone();
        named.unwrap_or_else(|| ServerName::IpAddress(address.to_canonical().into()))
    }
}

/// A file that TLS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFile {
    /// Its path, as the configuration has it.
    pub file: Arc<str>,
    /// Why it cannot be used as it is now; what it held before is served.
    pub problem: Option<String>,
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ListenerTls({:?})", self.certificates)
    }
}

impl fmt::Debug for PoolTls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PoolTls({:?})", self.name)
    }
}
