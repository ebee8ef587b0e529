//! The secrets that cookies are sealed with: the first seals, all open, so that they can be rotated.
//! It never prints one and never reads a file; keys for a purpose are derived where they are used.
//! The walk goes on in `compile.rs`, which gives them to the sticky routes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The least length of a secret in bytes.
pub const LEAST: usize = 32;

/// At least one secret, each of at least [`LEAST`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    first: Vec<u8>,
    others: Vec<Vec<u8>>,
}

impl Secrets {
    /// A secret nobody else has, from the system's CSPRNG.
    pub fn generate() -> Self {
        let mut first = vec![0; LEAST];
        crate::rng::fill_secure(&mut first);
        Secrets {
            first,
            others: Vec::new(),
        }
    }

    /// Reads one base64 secret a line; blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// What is wrong and in which line, in words that do not quote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).zip(1..);
        let mut secrets = lines
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, number)| match STANDARD.decode(line) {
                Err(_) => Err(format!("line {number} is not base64")),
                Ok(secret) if secret.len() < LEAST => Err(format!(
                    "line {number} holds {} bytes, at least {LEAST} are needed \
                     (`openssl rand -base64 {LEAST}` makes a line)",
                    secret.len()
                )),
                Ok(secret) => Ok(secret),
            });
        let none = || Err("it holds no secret; one base64 line is needed".to_owned());
        let first = secrets.next().unwrap_or_else(none)?;
        let others = secrets.collect::<Result<_, _>>()?;
        Ok(Secrets { first, others })
    }

    /// The secret that seals, as a line that [`Secrets::parse`] reads.
    pub fn to_line(&self) -> String {
        STANDARD.encode(&self.first) + "\n"
    }

    /// Every secret; the first one seals.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.first)
            .chain(&self.others)
            .map(Vec::as_slice)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.others.len() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_secret_is_read_back() {
        let made = Secrets::generate();
        assert_eq!(Secrets::parse(&made.to_line()), Ok(made.clone()));
        assert_eq!(made.iter().count(), 1);
        assert_eq!(format!("{made:?}"), "Secrets(1)");
    }

    #[test]
    fn the_first_line_seals_and_all_open() {
        let (a, b) = (Secrets::generate(), Secrets::generate());
        let text = format!("# rotated\n\n{}{}", a.to_line(), b.to_line());
        let both = Secrets::parse(&text).expect("two secrets");
        let expected = [a.iter().next(), b.iter().next()];
        assert_eq!(both.iter().map(Some).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_the_secret() {
        for (text, complaint) in [
            ("", "it holds no secret; one base64 line is needed"),
            ("# a\n!!", "line 2 is not base64"),
            (
                "c2hvcnQ=",
                "line 1 holds 5 bytes, at least 32 are needed (`openssl rand -base64 32` makes a line)",
            ),
        ] {
            assert_eq!(Secrets::parse(text), Err(complaint.to_owned()));
        }
    }
}
