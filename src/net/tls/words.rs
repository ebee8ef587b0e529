//! Why a certificate is not believed, in words for whoever reads logs, with what to do about it.
//! It judges nothing: rustls has done that.
//! The walk goes back to `handshake.rs`.

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError};

use crate::clock::Rfc3339;

/// Names of a certificate that are told.
const NAMES: usize = 5;

/// What rustls says, without its own way of writing things down where an operator meets it.
pub(super) fn told(error: &Error) -> String {
    let Error::InvalidCertificate(fault) = error else {
        return error.to_string();
    };
    match fault {
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "its certificate expired at {}",
            time(*not_after)
        ),
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::NotValidYetContext { time: now, not_before } => format!(
            "its certificate begins only at {}, and the clock of this machine says {}",
            time(*not_before),
            time(*now)
        ),
        CertificateError::UnknownIssuer => "its certificate is of an authority that is not trusted: give that authority's certificate as `ca`, and have the other side send those between it and its own".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => wrong_name(expected, presented),
        CertificateError::InvalidPurposeContext { required, .. } => format!(
            "its certificate is not for {required}: its extendedKeyUsage says otherwise"
        ),
        CertificateError::BadEncoding => "its certificate cannot be read".to_owned(),
        CertificateError::BadSignature => "its certificate, or the handshake, is not signed by the key that it should be: is the right authority given as `ca`?".to_owned(),
        CertificateError::Other(other) => of_the_verifier(other).map_or_else(|| error.to_string(), str::to_owned),
        _ => error.to_string(),
    }
}

fn time(time: UnixTime) -> Rfc3339 {
    Rfc3339(time.as_secs().saturating_mul(1000))
}

fn wrong_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    let names: Vec<_> = presented
        .iter()
        .take(NAMES)
        .map(|name| bare(name))
        .collect();
    let more = match presented.len() > NAMES {
        true => " and more",
        false => "",
    };
    let has = match names.is_empty() {
        true => "it has no subjectAltName".to_owned(),
        false => format!("it is for {}{more}", names.join(", ")),
    };
    match expected {
        ServerName::DnsName(name) => {
            let name = name.as_ref();
            format!("its certificate is not for {name}, which `sni` asks for: {has}")
        }
        other => format!(
            "its certificate is not for {}, which is asked for without `sni`: {has}",
            other.to_str()
        ),
    }
}

/// The name in `DnsName("a")`.
fn bare(name: &str) -> &str {
    let inside = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

/// Faults that rustls has no words for. It passes on the verifier's own error, which is known by its name alone.
fn of_the_verifier(other: &OtherError) -> Option<&'static str> {
    match &*other.to_string() {
        "CaUsedAsEndEntity" => Some(
            "the certificate that it shows is an authority's own (basicConstraints CA:TRUE): give it one that an authority issued, and that authority's as `ca`; one that it signed itself may be its own `ca` if it says CA:FALSE",
        ),
        "UnsupportedCertVersion" => Some(
            "its certificate is not of version 3 of X.509, so that it has no subjectAltName: make it anew",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn faults_have_words() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let words = |fault| told(&Error::InvalidCertificate(fault));
        let expired = words(CertificateError::ExpiredContext {
            time: at(100),
            not_after: at(1),
        });
        assert_eq!(
            expired,
            "its certificate expired at 1970-01-01T00:00:01.000Z"
        );
        let name = |presented: &[&str]| {
            words(CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("was.internal").unwrap(),
                presented: presented.iter().map(|&name| name.to_owned()).collect(),
            })
        };
        let wrong = name(&["DnsName(\"a.test\")", "IpAddress(10.0.0.1)"]);
        assert!(
            wrong.contains("was.internal, which")
                && wrong.ends_with(": it is for a.test, 10.0.0.1"),
            "{wrong}"
        );
        assert!(name(&[]).ends_with("it has no subjectAltName"));
        assert!(name(&["a"; 9]).ends_with("a, a and more"));
        let issuer = words(CertificateError::UnknownIssuer);
        assert!(issuer.contains("`ca`"), "{issuer}");
        let other = told(&Error::HandshakeNotComplete);
        assert_eq!(other, Error::HandshakeNotComplete.to_string());
    }
}
