//! What one worker counts beside its rows: open connections, refusals by reason, failures to accept.
//! It must have a single writing thread, like the counters it is made of.
//! The walk goes on in control's collector.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::counter::Counter;

/// Room for the reasons of `l7/reject.rs`.
pub const REASONS: usize = 64;

/// Kinds of floods of `http/meter.rs`.
pub const FLOODS: usize = 5;
/// Why there was no TLS connection: the `reason` of `weir_tls_handshake_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TlsFailure {
    /// The client asked for a name that no certificate has.
    UnknownName,
    /// The client's certificate is missing or no good.
    ClientCertificate,
    /// The client speaks HTTP without TLS.
    PlainHttp,
    /// No version in common.
    Version,
    /// The client refused, as it does when it does not trust the certificate.
    Alert,
    /// It was not complete in time.
    Timeout,
    /// The client went away.
    Closed,
    /// All the rest.
    Other,
}

impl TlsFailure {
    /// Every reason, in the order of their numbers.
    pub const ALL: [TlsFailure; 8] = [
        TlsFailure::UnknownName,
        TlsFailure::ClientCertificate,
        TlsFailure::PlainHttp,
        TlsFailure::Version,
        TlsFailure::Alert,
        TlsFailure::Timeout,
        TlsFailure::Closed,
        TlsFailure::Other,
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsFailure::UnknownName => "unknown_name",
            TlsFailure::ClientCertificate => "client_certificate",
            TlsFailure::PlainHttp => "plain_http",
            TlsFailure::Version => "version",
            TlsFailure::Alert => "alert",
            TlsFailure::Timeout => "timeout",
            TlsFailure::Closed => "closed",
            TlsFailure::Other => "other",
        }
    }
}

/// Why a connection was closed before it was served, or a datagram dropped, where PROXY headers are read: the `reason` of `weir_proxy_protocol_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProxyFailure {
    /// It must begin with a header, and is not a trusted proxy's.
    Untrusted,
    /// It must begin with a header, and does not.
    Missing,
    /// What it begins with is no well-formed header.
    Malformed,
    /// The checksum of the header is wrong.
    Checksum,
    /// The header was not complete in time.
    Timeout,
    /// The connection ended before it was.
    Closed,
}

impl ProxyFailure {
    /// Every reason, in the order of their numbers.
    pub const ALL: [ProxyFailure; 6] = [
        ProxyFailure::Untrusted,
        ProxyFailure::Missing,
        ProxyFailure::Malformed,
        ProxyFailure::Checksum,
        ProxyFailure::Timeout,
        ProxyFailure::Closed,
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            ProxyFailure::Untrusted => "untrusted",
            ProxyFailure::Missing => "missing",
            ProxyFailure::Malformed => "malformed",
            ProxyFailure::Checksum => "checksum",
            ProxyFailure::Timeout => "timeout",
            ProxyFailure::Closed => "closed",
        }
    }
}

/// The counts of one worker, shared with control.
#[derive(Debug)]
pub struct WorkerCounts {
    open: AtomicUsize,
    drivers: AtomicUsize,
    /// Requests and answers refused, by the ordinal of their reason.
    pub refused: [Counter; REASONS],
    /// Calls to accept that failed.
    pub accept_errors: Counter,
    /// Connection tasks that panicked: always a bug, never the end of the worker.
    pub panics: Counter,
    /// HTTP/2 connections that were cut off, by the kind of their flood.
    pub floods: [Counter; FLOODS],
    /// HTTP/2 connections that ended in an error of the client's.
    pub http2_errors: Counter,
    /// TLS handshakes that succeeded: TLS 1.2, TLS 1.2 resumed, TLS 1.3, TLS 1.3 resumed.
    pub tls_handshakes: [Counter; 4],
    /// TLS handshakes that failed, by [`TlsFailure`] as a number.
    pub tls_failures: [Counter; TlsFailure::ALL.len()],
    /// Connections that were closed, and datagrams that were dropped, for their PROXY header, by [`ProxyFailure`] as a number.
    pub proxy_failures: [Counter; ProxyFailure::ALL.len()],
}

impl Default for WorkerCounts {
    fn default() -> Self {
        WorkerCounts {
            open: AtomicUsize::new(0),
            drivers: AtomicUsize::new(0),
            refused: std::array::from_fn(|_| Counter::default()),
            accept_errors: Counter::default(),
            panics: Counter::default(),
            floods: std::array::from_fn(|_| Counter::default()),
            http2_errors: Counter::default(),
            tls_handshakes: std::array::from_fn(|_| Counter::default()),
            tls_failures: std::array::from_fn(|_| Counter::default()),
            proxy_failures: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl WorkerCounts {
    /// Client connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Tells control how many client connections are open. Only the owning worker may call it.
    #[inline]
    pub fn set_open(&self, connections: usize) {
        self.open.store(connections, Relaxed);
    }

    /// Sockets of datagrams that are served; of a listener that closes, those that wait for answers.
    pub fn drivers(&self) -> usize {
        self.drivers.load(Relaxed)
    }

    /// Tells control how many there are. Only the owning worker may call it.
    pub fn set_drivers(&self, drivers: usize) {
        self.drivers.store(drivers, Relaxed);
    }
}
