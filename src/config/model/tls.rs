//! How listeners and pools speak TLS, and the files that they do it with.
//! It names files and never opens one: what is in them is for control to find out.
//! Here the walk ends; `control/certificates/` makes what is served from it.

use std::path::PathBuf;

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one; the first is for clients that ask for no name, or for one that no certificate has.
    pub certificates: Vec<CertificateFiles>,
    /// Whether such clients are refused instead.
    pub strict_sni: bool,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether clients must prove who they are.
    pub client_auth: ClientAuth,
}

/// A certificate chain and its private key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The certificate itself first, then those that lead to its root.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Whether clients must prove who they are, with a certificate that the authorities in a PEM file vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    Off,
    /// They are asked; one without a certificate is served too, one with a bad certificate is not.
    Request(PathBuf),
    /// One without a good certificate is not served.
    Require(PathBuf),
}

impl ClientAuth {
    /// The file of the authorities.
    pub fn ca(&self) -> Option<&PathBuf> {
        match self {
            ClientAuth::Off => None,
            ClientAuth::Request(ca) | ClientAuth::Require(ca) => Some(ca),
        }
    }
}

/// How TLS is spoken to the backends of a pool, its health check included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTls {
    /// A PEM file of the authorities that may vouch for a backend; absent: those of the system.
    pub ca: Option<PathBuf>,
    /// The name that a backend must prove to have, and is asked for; absent: its IP address.
    pub sni: Option<String>,
    /// What weir proves its own identity with.
    pub client: Option<CertificateFiles>,
    /// Whether a backend must prove anything.
    pub verify: bool,
}
