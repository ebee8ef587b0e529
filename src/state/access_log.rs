//! The access log as the data path sees it: a record becomes bytes in the worker's own buffer, full buffers go to control's writer.
//! It must never block: a buffer that finds no place in the bounded queue is dropped and its lines are counted.
//! The walk goes on in control's access-log writer.

use std::net::SocketAddr;
use std::time::Duration;

/// One finished request, or one that weir answered itself.
#[derive(Debug)]
pub struct Record<'a> {
    /// Wall time of the request's first byte, in milliseconds since the epoch.
    pub wall_millis: u64,
    /// Unique within the fleet, for all practical purposes.
    pub id: u64,
    /// Listener name.
    pub listener: &'a str,
    /// The connection's other end.
    pub remote: SocketAddr,
    /// The client's address, past trusted proxies.
    pub client: std::net::IpAddr,
    /// As received; empty when there was no request line.
    pub method: &'a [u8],
    /// Authority as received.
    pub host: &'a [u8],
    /// Path and query as received; session ids in it are masked on the way out.
    pub path: &'a [u8],
    /// `HTTP/1.1` and the like.
    pub version: &'a str,
    /// Status sent to the client; 499 when it went away first.
    pub status: u16,
    /// Bytes read from the client for this request.
    pub bytes_in: u64,
    /// Bytes written to the client for this request.
    pub bytes_out: u64,
    /// Route name; empty: none matched.
    pub route: &'a str,
    /// Pool name; empty: none.
    pub pool: &'a str,
    /// Backend name; empty: none was reached.
    pub backend: &'a str,
    /// Backends tried, 0 when none was.
    pub tries: u8,
    /// Whether the upstream connection came from the pool.
    pub reused: bool,
    /// What persistence did; empty on a route that is not sticky.
    pub sticky: &'static str,
    /// First byte to the last.
    pub duration: Duration,
    /// weir's own time.
    pub overhead: Duration,
    /// What went wrong, in a few words; empty: nothing.
    pub error: &'a str,
    /// `Referer` and `User-Agent`, for the combined format.
    pub referer: &'a [u8],
    /// See above.
    pub user_agent: &'a [u8],
}

/// A worker's end of the access log.
#[derive(Debug)]
pub struct AccessLog {}

impl AccessLog {
    /// Whether anyone wants records; when not, the caller saves itself the work.
    pub fn is_on(&self) -> bool {
        false
    }

    /// Whether records need `Referer` and `User-Agent`, which cost a second look at the head.
    pub fn wants_client_fields(&self) -> bool {
        false
    }

    /// Formats the record into the worker's buffer, and sends the buffer off when it is full.
    pub fn write(&self, _record: &Record<'_>) {}

    /// Takes over format and target of a generation.
    pub fn configure(&self, _log: &crate::config::model::Log) {}

    /// Sends off what is buffered; a worker calls it a few times a second.
    pub fn flush(&self) {}
}
