//! Names and the hashes of their passwords, argon2id (RFC 9106) and bcrypt, as `htpasswd` and `argon2` write them.
//! A check takes tens of milliseconds: no worker may ever do it. Who is unknown takes as long as who is known.
//! The walk goes on in control's `passwords.rs`, which checks.

use std::collections::HashMap;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};

/// Names in a file.
const MAX_USERS: usize = 10_000;

/// Memory that one check may take, in KiB, and rounds over it.
const MAX_MEMORY: u32 = 256 << 10;
const MAX_ROUNDS: u32 = 64;

/// The base-2 logarithm of the rounds of bcrypt: each step doubles the time, and this takes about a second.
const MAX_COST: u32 = 14;

/// Bytes of a name and of a password.
pub const MAX_NAME: usize = 255;
/// See above.
pub const MAX_PASSWORD: usize = 1024;

/// Who may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    hashes: HashMap<String, Hash>,
    /// What a name that is not there is checked against.
    decoy: Hash,
}

#[derive(Clone, PartialEq, Eq)]
enum Hash {
    Argon2id(String),
    Bcrypt(String),
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Hash(..)")
    }
}

impl Users {
    /// Reads lines of `name:hash`; empty ones and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// What is wrong, with the number of the line and nothing of its hash.
    pub fn parse(text: &str) -> Result<Users, String> {
        let mut hashes = HashMap::new();
        let mut decoy = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |what: &str| format!("line {number}: {what}");
            let (name, hash) = line.split_once(':').ok_or_else(|| at("not name:hash"))?;
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return Err(at("the name is empty, too long or not printable"));
            }
            let hash = Hash::parse(hash).map_err(|what| at(&what))?;
            decoy.get_or_insert_with(|| hash.clone());
            if hashes.insert(name.to_owned(), hash).is_some() {
                return Err(at("the name stands in an earlier line, too"));
            }
            if hashes.len() > MAX_USERS {
                return Err(format!("more than {MAX_USERS} names"));
            }
        }
        let decoy = decoy.ok_or("there is no name in it")?;
        Ok(Users { hashes, decoy })
    }

    /// Whether the password is that of the name. Takes as long as its hash was made to take.
    pub fn check(&self, name: &str, password: &[u8]) -> bool {
        let known = self.hashes.get(name);
        let fits = known.unwrap_or(&self.decoy).fits(password);
        fits && known.is_some()
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Hash, String> {
        if text.starts_with("$argon2id$") {
            let parsed = PasswordHash::new(text).map_err(|_| "the argon2id hash is not whole")?;
            let params = Params::try_from(&parsed).map_err(|_| "the argon2id hash is not whole")?;
            if parsed.hash.is_none() || parsed.salt.is_none() {
                return Err("the argon2id hash is not whole".to_owned());
            }
            if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_ROUNDS {
                return Err(format!(
                    "the argon2id hash takes more than {} MiB or {MAX_ROUNDS} rounds",
                    MAX_MEMORY >> 10
                ));
            }
            return Ok(Hash::Argon2id(text.to_owned()));
        }
        let is_bcrypt = ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|start| text.starts_with(start));
        if !is_bcrypt {
            return Err("the hash is neither argon2id nor bcrypt".to_owned());
        }
        let cost = text.get(4..6).and_then(|cost| cost.parse::<u32>().ok());
        let is_end = |end: &str| {
            end.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"./".contains(&b))
        };
        let is_whole =
            text.len() == 60 && text.as_bytes()[6] == b'$' && text.get(7..).is_some_and(is_end);
        match cost.filter(|_| is_whole) {
            None => Err("the bcrypt hash is not whole".to_owned()),
            Some(4..=MAX_COST) => Ok(Hash::Bcrypt(text.to_owned())),
            Some(_) => Err(format!("the bcrypt hash has a cost beyond 4 to {MAX_COST}")),
        }
    }

    fn fits(&self, password: &[u8]) -> bool {
        match self {
            Hash::Argon2id(text) => PasswordHash::new(text)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Hash::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, by bcrypt with the least cost, and by argon2id with 8 KiB and one round.
    const BCRYPT: &str = "$2y$04$a0j2bETjZg/gcVPjaw/tYuhozCBVdrhGO16Ow/.mBbxEvIsq.MeFq";
    const ARGON2: &str =
        "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A";

    #[test]
    fn passwords_are_checked() {
        let text = format!("# staff\n\njane:{BCRYPT}\n jürgen:{ARGON2}\n");
        let users = Users::parse(&text).unwrap();
        assert!(users.check("jürgen", b"secret"));
        assert!(!users.check("jürgen", b"Secret"));
        assert!(users.check("jane", b"secret"));
        assert!(!users.check("jane", b"secret2"));
        assert!(!users.check("john", b"secret"));
        assert!(!users.check("", b""));
    }

    #[test]
    fn what_is_no_file_of_users_is_refused() {
        for (text, what) in [
            ("", "no name"),
            ("# nobody\n", "no name"),
            ("jane", "line 1: not name:hash"),
            ("\njane:secret", "line 2: the hash is neither"),
            ("jane:$apr1$x$y", "neither"),
            (
                "jane:$2y$31$abcdefghijklmnopqrstuuQ0F1EkmzZQ0l9cS6TtAyZeRmhKyvAyW",
                "cost",
            ),
            ("jane:$2y$04$short", "not whole"),
            ("jane:$argon2id$v=19$m=65536,t=3,p=4", "not whole"),
            (
                "jane:$argon2id$v=19$m=4194304,t=3,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
                "256 MiB",
            ),
            (":$2y$04$", "the name"),
        ] {
            let refused = Users::parse(text).unwrap_err();
            assert!(refused.contains(what), "{text}: {refused}");
        }
        let twice = format!("jane:{BCRYPT}\njane:{BCRYPT}\n");
        assert!(Users::parse(&twice).unwrap_err().starts_with("line 2"));
        assert!(!format!("{:?}", Users::parse(&format!("j:{BCRYPT}"))).contains("$2y"));
    }
}
