//! Active checks: one task per pool and address asks the backend, and the pure machine of `policy/health` turns the outcomes into its health.
//! It writes a backend's word only when the health changes, and never holds a failure of weir itself against a backend.
//! Read `supervisor.rs` (which tasks exist), `task.rs` (one backend's life), then `http.rs`, `http2.rs`, `tcp.rs` and `udp.rs` (one check).

mod http;
mod http2;
mod ledger;
mod supervisor;
mod task;
mod tcp;
mod udp;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::{Check, Health as Settings, ProxyVersion};
use crate::net::introduction;
use crate::net::is_short;
use crate::net::proxy_protocol::Ends;
use crate::net::stream::Stream;
use crate::net::tls::secure;
use crate::state::backend::Live;
use crate::state::tls::PoolTls;

pub use self::ledger::{Ledger, ProbeCounts, RESULTS, Verdict};
pub use self::supervisor::Supervisor;

/// Who weir says it is.
const AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"), " (health)");

/// A way to ask a backend how it is.
pub trait Probe: Send + Sync {
    /// Asks once. The caller bounds the time.
    fn probe<'a>(
        &'a self,
        target: &'a Target,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;
}

/// Whom a probe asks.
#[derive(Clone, Debug)]
pub struct Target {
    /// The backend's address.
    pub address: SocketAddr,
    /// What TLS is spoken with, where it is.
    pub tls: Option<PoolTls>,
    /// What header the connection begins with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Who keeps what it says of its load.
    pub live: Option<Arc<Live>>,
}

impl Target {
    /// A connection, with its handshake behind it where TLS is spoken.
    async fn connect(&self) -> Result<Stream, Failure> {
        let connected = Stream::connect(self.address).await;
        let mut stream = connected.map_err(|error| Failure::from_connect(&error))?;
        if let Some(version) = self.proxy_protocol {
            let introduced = self.introduce(&mut stream, version).await;
            introduced.map_err(|error| Failure::from_connect(&error))?;
        }
        let Some(tls) = &self.tls else {
            return Ok(stream);
        };
        let secured = secure(stream, tls, self.address).await;
        secured.map_err(|refusal| Failure::Connect(format!("no TLS: {refusal}")))
    }
}

impl Target {
    /// Says that the connection is weir's own.
    async fn introduce(&self, stream: &mut Stream, version: ProxyVersion) -> io::Result<()> {
        let ends = Ends {
            source: stream.local_addr()?,
            destination: self.address,
        };
        introduction::send(stream, &introduction::own_header(version, &ends)).await
    }
}

/// How a check ended.
pub type Outcome = Result<(), Failure>;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect(String),
    /// No answer within the time.
    Timeout(Duration),
    /// An answer with a status that does not mean health.
    Status(u16),
    /// An answer whose body has not what it should: this.
    Body(String),
    /// No failure: an answer with a status by which a backend that is well asks to be drained.
    Drain(u16),
    /// A connection, but no answer that can be read.
    Protocol(String),
    /// weir could not ask, which says nothing about the backend.
    Local(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(why) | Failure::Protocol(why) => f.write_str(why),
            Failure::Timeout(after) => write!(f, "timeout after {after:?}"),
            Failure::Status(status) => write!(f, "status {status}"),
            Failure::Drain(status) => write!(f, "it asks to be drained: status {status}"),
            Failure::Body(text) => write!(f, "the body has no {text:?}"),
            Failure::Local(why) => write!(f, "cannot ask: {why}"),
        }
    }
}

impl Failure {
    /// Tells a backend that refuses from a weir that has run out of sockets, ports or memory.
    fn from_connect(error: &io::Error) -> Failure {
        if is_short(error) {
            return Failure::Local(error.to_string());
        }
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        match error.kind() {
            kind @ (ConnectionRefused | HostUnreachable | NetworkUnreachable) => {
                Failure::Connect(kind.to_string())
            }
            _ => Failure::Connect(error.to_string()),
        }
    }
}

/// The probe that the settings ask for; `None` when nothing is to be asked.
fn probe_for(settings: &Settings) -> Option<Box<dyn Probe>> {
    match &settings.check {
        Check::None => None,
        Check::Tcp => Some(Box::new(tcp::Tcp)),
        Check::Http {
            path,
            host,
            expect,
            drain_on,
            body,
            load_header,
            http2,
        } => Some(Box::new(http::Http {
            path: path.clone(),
            host: host.clone(),
            expect: expect.clone(),
            drain_on: drain_on.clone(),
            body: body.clone(),
            load_header: load_header.clone(),
            http2: *http2,
        })),
        Check::Udp { send, expect } => Some(Box::new(udp::Udp {
            send: send.clone(),
            expect: expect.clone(),
        })),
        Check::Grpc { service, host } => Some(Box::new(http2::Grpc {
            service: service.clone(),
            host: host.clone(),
        })),
    }
}
