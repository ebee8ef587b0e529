//! What a handshake came to: the facts of a connection that stands, or the reason why there is none.
//! It never speaks of a key, and says no more to a client than an alert.
//! The walk goes on in `l7/`, which waits for it.

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::{AlertDescription, Error, HandshakeKind, PeerIncompatible, ProtocolVersion};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::certificates::{Certificate as Own, Chosen};
use super::stream::TlsStream;
use super::words;
use crate::http::text::push_hex;
use crate::metrics::worker::TlsFailure;

/// What is known of a client's connection that speaks TLS.
#[derive(Debug)]
pub struct Handshake {
    /// Whether it is TLS 1.3; else it is TLS 1.2.
    pub is_tls13: bool,
    /// Whether it goes on from an earlier connection.
    pub is_resumed: bool,
    /// The name that the client asked for, lower case.
    pub server_name: Option<Box<str>>,
    /// What it was shown.
    pub certificate: Option<Arc<Own>>,
    /// The certificate that the client proved to have; it was verified.
    pub client_certificate: Option<ClientCertificate>,
}

/// A client's certificate as backends are told of it.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The value of `Client-Cert` (RFC 9440 section 2.2): the certificate as a byte sequence of structured fields.
    pub field: Box<[u8]>,
    /// Its subject (RFC 4514), printable ASCII.
    pub subject: Box<[u8]>,
}

impl ClientCertificate {
    fn of(der: &[u8]) -> Self {
        let field = format!(":{}:", BASE64_STANDARD.encode(der));
        let subject = Certificate::from_der(der)
            .map(|certificate| certificate.tbs_certificate().subject().to_string());
        ClientCertificate {
            field: field.into_bytes().into(),
            subject: printable(&subject.unwrap_or_default()).into(),
        }
    }
}

/// The text with everything that a field value may not have, or a reader might read otherwise, as the hexadecimal escapes of RFC 4514.
fn printable(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b' '..=b'~' => out.push(byte),
            _ => {
                out.push(b'\\');
                push_hex(byte, &mut out);
            }
        }
    }
    out
}

impl Handshake {
    /// The facts of a client's connection after its handshake; `None` while there are none.
    pub fn of(stream: &TlsStream) -> Option<Handshake> {
        let state = stream.state();
        let (certificate, server_name) = match stream.chosen() {
            Some(Chosen::Certificate { certificate, name }) => {
                (Some(certificate.clone()), name.clone())
            }
            Some(Chosen::Unknown) | None => (None, None),
        };
        let client = state.peer_certificates().and_then(|chain| chain.first());
        Some(Handshake {
            is_tls13: state.protocol_version()? == ProtocolVersion::TLSv1_3,
            is_resumed: state.handshake_kind()? == HandshakeKind::Resumed,
            server_name,
            certificate,
            client_certificate: client.map(|certificate| ClientCertificate::of(certificate)),
        })
    }

    /// Whether a request for `host` may come on this connection: the client asked for no name or for this one, or was shown a certificate that is good for it too (RFC 9110 section 7.4, RFC 9113 section 9.1.1).
    pub fn is_for(&self, host: &[u8]) -> bool {
        let asked = self.server_name.as_deref();
        asked.is_none_or(|name| host.eq_ignore_ascii_case(name.as_bytes()))
            || self
                .certificate
                .as_ref()
                .is_some_and(|own| own.covers(host))
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum Refusal {
    /// The client asked for a name that no certificate has.
    UnknownName,
    /// The client speaks HTTP without TLS.
    PlainHttp,
    /// The connection ended.
    Closed,
    /// The backend did not agree to HTTP/2, which its pool is spoken to in.
    NotHttp2,
    /// rustls says why.
    Tls(Error),
    /// The system's error.
    System(io::Error),
}

impl Refusal {
    /// What it is counted as.
    pub fn reason(&self) -> TlsFailure {
        match self {
            Refusal::UnknownName => TlsFailure::UnknownName,
            Refusal::PlainHttp => TlsFailure::PlainHttp,
            Refusal::Closed | Refusal::System(_) => TlsFailure::Closed,
            Refusal::NotHttp2 => TlsFailure::Other,
            Refusal::Tls(error) => reason(error),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::UnknownName => write!(f, "no certificate has the name that was asked for"),
            Refusal::PlainHttp => write!(f, "plain HTTP on a port that speaks TLS"),
            Refusal::Closed => write!(f, "the connection ended within the handshake"),
            Refusal::NotHttp2 => write!(
                f,
                "it did not agree to HTTP/2 (ALPN h2), which `protocol = \"http2\"` asks for"
            ),
            Refusal::Tls(error) => f.write_str(&words::told(error)),
            Refusal::System(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Refusal::Closed;
        }
        match error.downcast::<Error>() {
            Ok(error) => Refusal::Tls(error),
            Err(error) => Refusal::System(error),
        }
    }
}

fn reason(error: &Error) -> TlsFailure {
    match error {
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => {
            TlsFailure::ClientCertificate
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Every client of TLS 1.2 has it.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => TlsFailure::Version,
        Error::AlertReceived(_) => TlsFailure::Alert,
        _ => TlsFailure::Other,
    }
}

/// The alert for a name that nobody has (RFC 6066 section 3), as a record before any key.
pub(super) const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
