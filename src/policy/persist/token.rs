//! Secrets and the keys that are derived from them.
//! It never shows a secret, not in an error nor in debug output.
//! The walk goes on in `insert.rs` and `cookie_hash.rs`, which seal and open with these keys.

use std::fmt;

use aws_lc_rs::aead::{self, LessSafeKey, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Bytes that a secret must have at least.
pub const MIN_SECRET: usize = 32;

/// The secrets of `secrets_file`: the first seals, all open.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Never empty.
    secrets: Vec<Vec<u8>>,
}

impl Secrets {
    /// Reads one base64 secret of at least 32 bytes a line (either alphabet, padded or not); blank lines and lines that begin
    /// with `#` do not count.
    ///
    /// # Errors
    /// Every fault of the text, in order.
    pub fn parse(text: &str) -> Result<Secrets, Vec<SecretsFault>> {
        let mut secrets = Vec::new();
        let mut faults = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            match decode(content) {
                None => faults.push(SecretsFault::NotBase64 { line }),
                Some(secret) if secret.len() < MIN_SECRET => {
                    let bytes = secret.len();
                    faults.push(SecretsFault::TooShort { line, bytes });
                }
                Some(secret) => secrets.push(secret),
            }
        }
        if faults.is_empty() && secrets.is_empty() {
            faults.push(SecretsFault::Empty);
        }
        match faults.is_empty() {
            true => Ok(Secrets { secrets }),
            false => Err(faults),
        }
    }

    /// The text of a file with one new secret, from the system's CSPRNG.
    pub fn new_file(fill_secure: impl FnOnce(&mut [u8])) -> String {
        let mut secret = [0; MIN_SECRET];
        fill_secure(&mut secret);
        let secret = base64::prelude::BASE64_STANDARD.encode(secret);
        format!("# One base64 secret a line: the first seals, all open.\n{secret}\n")
    }

    /// A MAC key from each secret, for one purpose (HKDF-SHA256, RFC 5869: salt `weir`, info the purpose).
    pub(super) fn mac_keys(&self, purpose: &str) -> Vec<hmac::Key> {
        self.derive(purpose, hmac::HMAC_SHA256)
    }

    /// A key of AES-256-GCM-SIV (RFC 8452) from each secret, for one purpose, derived in the same way.
    pub fn sealing_keys(&self, purpose: &str) -> Vec<LessSafeKey> {
        let keys: Vec<UnboundKey> = self.derive(purpose, &aead::AES_256_GCM_SIV);
        keys.into_iter().map(LessSafeKey::new).collect()
    }

    fn derive<L, K>(&self, purpose: &str, kind: L) -> Vec<K>
    where
        L: hkdf::KeyType + Copy,
        K: for<'a> From<hkdf::Okm<'a, L>>,
    {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"weir");
        let keys = self.secrets.iter().map(|secret| {
            let pseudorandom = salt.extract(secret);
            let info = [purpose.as_bytes()];
            let material = pseudorandom.expand(&info, kind);
            K::from(material.expect("a key is shorter than HKDF's limit"))
        });
        keys.collect()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secrets({})", self.secrets.len())
    }
}

/// What is wrong with a file of secrets. Lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsFault {
    /// The line is no base64.
    NotBase64 {
        /// Its number.
        line: usize,
    },
    /// The secret has fewer than [`MIN_SECRET`] bytes.
    TooShort {
        /// The line's number.
        line: usize,
        /// How many bytes it has.
        bytes: usize,
    },
    /// There is no secret at all.
    Empty,
}

impl fmt::Display for SecretsFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretsFault::NotBase64 { line } => write!(out, "line {line} is not base64"),
            SecretsFault::TooShort { line, bytes } => write!(
                out,
                "the secret in line {line} has {bytes} bytes, {MIN_SECRET} are needed"
            ),
            SecretsFault::Empty => out.write_str("there is no secret"),
        }
    }
}

impl std::error::Error for SecretsFault {}

fn decode(text: &str) -> Option<Vec<u8>> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [STANDARD, URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_line_by_line() {
        let text = "# new\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n  __-_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA  \n";
        let secrets = Secrets::parse(text).unwrap();
        assert_eq!(secrets.secrets.len(), 2);
        assert_eq!(secrets.secrets[0], [0; 32]);
        assert_eq!(format!("{secrets:?}"), "Secrets(2)");
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let faults = Secrets::parse("#\nnot base64!\nAAAA\n").unwrap_err();
        assert_eq!(
            faults,
            [
                SecretsFault::NotBase64 { line: 2 },
                SecretsFault::TooShort { line: 3, bytes: 3 },
            ]
        );
        assert_eq!(
            faults[1].to_string(),
            "the secret in line 3 has 3 bytes, 32 are needed"
        );
        assert_eq!(Secrets::parse("# x\n").unwrap_err(), [SecretsFault::Empty]);
    }

    #[test]
    fn a_new_file_can_be_read() {
        let text = Secrets::new_file(|bytes| bytes.fill(7));
        assert_eq!(Secrets::parse(&text).unwrap().secrets, [vec![7; 32]]);
    }

    #[test]
    fn purposes_have_keys_of_their_own() {
        let secrets = Secrets::parse(&Secrets::new_file(|bytes| bytes.fill(7))).unwrap();
        let tag = |purpose| {
            let keys = secrets.mac_keys(purpose);
            hmac::sign(&keys[0], b"x").as_ref().to_vec()
        };
        assert_eq!(tag("a"), tag("a"));
        assert_ne!(tag("a"), tag("b"));
    }
}
