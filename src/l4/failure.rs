//! Why a client got no connection to a backend.
//! The client is told nothing but the end of its connection; the words are for the access log, and the same as those of requests.
//! Here the walk ends.

use std::io::ErrorKind;

use crate::net::client_hello::Fault;
use crate::policy::choose::Nowhere;

/// Why a client got no connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// TLS that ends here did not come about.
    Handshake,
    /// The client went away before it had a backend.
    ClientGone,
    /// It did not say it in time.
    HelloTimeout,
    /// What it said is no ClientHello, although it began like one.
    Hello(Fault),
    /// It opens connections too often.
    Limited,
    /// No route matches.
    NoRoute,
    /// No backend may be chosen.
    NoBackend,
    /// The client's home is down, and its route wants no other.
    HomeDown,
    /// As many wait for a backend as may.
    QueueFull,
    /// It has waited for a backend for as long as it may.
    QueueTimeout,
    /// A backend did not take the connection.
    Connect(ErrorKind),
    /// There was no socket to reach it with: no descriptor, port or memory, or none that may bear the client's address.
    NoSocket,
    /// It did not in time.
    ConnectTimeout,
    /// It did not prove who it is, or spoke no TLS.
    Unproven,
}

impl Failure {
    /// The word in the access log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Failure::Handshake => "no_tls",
            Failure::ClientGone => "client_gone",
            Failure::HelloTimeout => "head_timeout",
            Failure::Hello(fault) => fault.as_str(),
            Failure::Limited => "limited",
            Failure::NoRoute => "no_route",
            Failure::NoBackend => "no_backend",
            Failure::HomeDown => "home_down",
            Failure::QueueFull => "queue_full",
            Failure::QueueTimeout => "queue_timeout",
            Failure::Connect(ErrorKind::ConnectionRefused) => "connect_refused",
            Failure::Connect(_) => "connect_failed",
            Failure::NoSocket => "no_socket",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::Unproven => "unproven",
        }
    }
}

impl From<Nowhere> for Failure {
    fn from(nowhere: Nowhere) -> Self {
        match nowhere {
            Nowhere::HomeDown => Failure::HomeDown,
            // No connection is held, and no store is asked for one.
            Nowhere::NoBackend | Nowhere::HomeAway | Nowhere::Ask => Failure::NoBackend,
            Nowhere::Full(_) => Failure::QueueFull,
        }
    }
}
