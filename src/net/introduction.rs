//! How connections are introduced: what a proxy before weir says of a client, and what weir says of it to a backend in turn.
//! It decides nothing: who may introduce whom, and for how long that is waited for, is the accepting side's business.
//! The walk goes on in `worker/introduction.rs` (in), and in `l7/handshake.rs`, `l4/connection.rs` and `control/probes/` (out).

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use super::proxy_protocol::{self, Ends, Extensions, Fault, Header, Transport, Writer, kind};
use super::stream::Stream;
use super::tls::handshake::Handshake;
use crate::config::model::ProxyVersion;

/// What is known of a client's connection from a header before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The ends of the client's connection.
    pub ends: Ends,
    /// Extensions of the header, as they stood there.
    extensions: Box<[u8]>,
}

impl Introduction {
    /// What a header says. `None`: that the connection at hand speaks for itself.
    pub fn of(header: &Header<'_>) -> Option<Self> {
        Some(Introduction {
            ends: header.ends?,
            extensions: header.extensions.as_bytes().into(),
        })
    }

    /// A connection that nobody introduced.
    pub fn own(ends: Ends) -> Self {
        Introduction {
            ends,
            extensions: Box::default(),
        }
    }

    fn find(&self, kind: u8) -> Option<&[u8]> {
        Extensions::new(&self.extensions).find(kind)
    }
}

/// Why there is no introduction.
#[derive(Debug)]
pub enum Refusal {
    /// What came is no header.
    Fault(Fault),
    /// The connection ended before one was complete.
    Closed,
}

/// Reads the header at the start of a connection off `received`, which keeps what came behind it. `None`: the connection speaks for itself.
/// What is in `received` after an error came instead of a header.
pub fn poll_header(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    received: &mut Vec<u8>,
) -> Poll<Result<Option<Introduction>, Refusal>> {
    loop {
        match proxy_protocol::read(received) {
            Ok(Some(header)) => {
                let introduction = Introduction::of(&header);
                let length = header.length;
                received.drain(..length);
                return Poll::Ready(Ok(introduction));
            }
            Ok(None) => {}
            Err(fault) => return Poll::Ready(Err(Refusal::Fault(fault))),
        }
        if received.len() == received.capacity() {
            received.reserve(received.len().max(256));
        }
        let Ok(1..) = ready!(stream.poll_read_into(cx, received)) else {
            return Poll::Ready(Err(Refusal::Closed));
        };
    }
}

/// A client's connection as a backend is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its ends.
    pub ends: Ends,
    /// What it carries.
    pub transport: Transport,
    /// What the proxy before weir said of it.
    pub before: Option<&'a Introduction>,
    /// What its handshake came to, if TLS ended at weir.
    pub tls: Option<&'a Handshake>,
    /// The name that the client asked for, where TLS passes through.
    pub server_name: Option<&'a str>,
    /// The protocol that was agreed on within TLS.
    pub alpn: Option<&'a [u8]>,
    /// The id of its line in the access log.
    pub id: u64,
}

impl Outgoing<'_> {
    /// The header for a backend. Of TLS that ended before weir it says what the proxy there said; an id that was given there is kept, so that
    /// it is the same on every hop.
    pub fn header(&self, version: ProxyVersion) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        match version {
            ProxyVersion::V1 => proxy_protocol::write_line(&self.ends, &mut out),
            ProxyVersion::V2 => self.write_extended(&mut out),
        }
        out
    }

    fn write_extended(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::proxy(&self.ends, self.transport, out);
        let before = |kind| self.before.and_then(|before| before.find(kind));
        let told = |kind| before(kind).filter(|_| self.tls.is_none());
        let asked = self
            .tls
            .map_or(self.server_name, |tls| tls.server_name.as_deref());
        let own_id = format!("{:016x}", self.id);
        let ssl = self.tls.map(ssl);
        let values = [
            (kind::ALPN, self.alpn.or(told(kind::ALPN))),
            (
                kind::AUTHORITY,
                asked.map(str::as_bytes).or(told(kind::AUTHORITY)),
            ),
            (
                kind::UNIQUE_ID,
                before(kind::UNIQUE_ID).or(Some(own_id.as_bytes())),
            ),
            (kind::SSL, ssl.as_deref().or(told(kind::SSL))),
        ];
        for (kind, value) in values {
            if let Some(value) = value {
                writer.extension(kind, value);
            }
        }
    }
}

/// What is told of TLS that ends here: its version, and whether the client proved who it is.
fn ssl(tls: &Handshake) -> Vec<u8> {
    const TLS: u8 = 1;
    const CERTIFICATE_NOW: u8 = 2;
    const CERTIFICATE_IN_SESSION: u8 = 4;
    let is_proven = tls.client_certificate.is_some();
    let certificate = match (is_proven, tls.is_resumed) {
        (false, _) => 0,
        (true, true) => CERTIFICATE_IN_SESSION,
        (true, false) => CERTIFICATE_IN_SESSION | CERTIFICATE_NOW,
    };
    let mut out = vec![TLS | certificate];
    out.extend_from_slice(&u32::from(!is_proven).to_be_bytes());
    let version: &[u8] = if tls.is_tls13 { b"TLSv1.3" } else { b"TLSv1.2" };
    proxy_protocol::push(kind::SSL_VERSION, version, &mut out);
    out
}

/// The header of a connection that is weir's own, such as a health check. A line has no word for it that every server takes, and names
/// the ends of the very connection.
pub fn own_header(version: ProxyVersion, ends: &Ends) -> Vec<u8> {
    let mut out = Vec::new();
    match version {
        ProxyVersion::V1 => proxy_protocol::write_line(ends, &mut out),
        ProxyVersion::V2 => drop(Writer::local(&mut out)),
    }
    out
}

/// Sends a header on a new connection, before everything else.
///
/// # Errors
/// The system's error.
pub async fn send(stream: &mut Stream, header: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while sent < header.len() {
        match std::future::poll_fn(|cx| stream.poll_write(cx, &header[sent..], &[])).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => sent += count,
        }
    }
    Ok(())
}

/// The ends of a connection whose other end is `source`. An address that the system does not tell of stands for a connection that is gone.
pub fn ends_toward(source: SocketAddr, stream: &Stream) -> Ends {
    Ends {
        source,
        destination: stream.local_addr().unwrap_or(source),
    }
}
