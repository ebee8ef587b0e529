//! Where a pool's backends come from when the file does not name them all.
//! It says whom to ask and how often; what the answer was is control's to know.
//! The walk goes on in control's `discovery/`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A source of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// A name of the domain name system.
    Dns(Dns),
    /// Files that somebody else writes.
    File {
        /// A directory whose lists are put together, or one list.
        path: PathBuf,
    },
    /// A list that a server hands out.
    Http(HttpList),
}

/// A name whose addresses are backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// What is asked for.
    pub name: String,
    /// Which records.
    pub records: Records,
    /// The port of every backend; 0 with [`Records::Srv`], whose records tell it.
    pub port: u16,
    /// Whom to ask; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// An answer holds at least so long, whatever its records say.
    pub min_ttl: Duration,
    /// And at most so long.
    pub max_ttl: Duration,
    /// One answer is waited for so long.
    pub timeout: Duration,
}

/// Which records of a name lead to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// A, and AAAA where the name has none.
    Auto,
    /// A alone.
    A,
    /// AAAA alone.
    Aaaa,
    /// A and AAAA together.
    Both,
    /// SRV (RFC 2782), whose targets are looked up as [`Records::Auto`].
    Srv,
}

/// A list at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpList {
    /// Where it is.
    pub place: HttpPlace,
    /// Between two questions; spread by up to a tenth.
    pub interval: Duration,
    /// After this a question has failed.
    pub timeout: Duration,
}

/// What an `http://` URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPlace {
    /// The server's name or address; one of IPv6 in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The target, beginning with `/`.
    pub target: String,
}

impl Discovery {
    /// As the file spells its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Discovery::Dns(_) => "dns",
            Discovery::File { .. } => "file",
            Discovery::Http(_) => "http",
        }
    }
}

/// Its type and whom it asks: `dns was.internal:8080`.
impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Discovery::Dns(dns) if dns.records == Records::Srv => write!(f, "dns {} SRV", dns.name),
            Discovery::Dns(dns) => write!(f, "dns {}:{}", dns.name, dns.port),
            Discovery::File { path } => write!(f, "file {}", path.display()),
            Discovery::Http(list) => write!(f, "http {}", list.place),
        }
    }
}

/// Its URL.
impl fmt::Display for HttpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HttpPlace { host, port, target } = self;
        write!(f, "http://{host}:{port}{target}")
    }
}
