//! Asks for a name and a password (RFC 7617), and lets pass who is known.
//! It checks no password: that takes long, and is asked of whoever may take long.
//! Here the walk ends; what is asked goes by way of `l7/authenticate.rs`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::users::{MAX_NAME, MAX_PASSWORD};
use super::{Answer, Body, Flow, Memory, Reason, Request};
use crate::config::model;
use crate::http::edits::Edits;
use crate::http::head::RequestHead;

const AUTHORIZATION: &str = "Authorization";

/// Who is let in.
#[derive(Debug)]
pub(super) struct BasicAuth {
    /// Which of the route's doors it is.
    door: usize,
    challenge: Vec<u8>,
    users_file: PathBuf,
    forward: bool,
}

/// Whether a password is that of a name.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which of the route's doors asks.
    pub door: usize,
    /// The name.
    pub name: String,
    /// The password.
    pub password: Vec<u8>,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Claim({:?})", self.name)
    }
}

impl BasicAuth {
    pub(super) fn new(auth: &model::BasicAuth, door: usize) -> BasicAuth {
        let mut realm = String::new();
        for character in auth.realm.chars() {
            if matches!(character, '"' | '\\') {
                realm.push('\\');
            }
            realm.push(character);
        }
        let challenge = format!(
            "WWW-Authenticate: Basic realm=\"{realm}\", charset=\"UTF-8\"\r\nCache-Control: no-store\r\n"
        );
        BasicAuth {
            door,
            challenge: challenge.into_bytes(),
            users_file: auth.users_file.clone(),
            forward: auth.forward,
        }
    }

    pub(super) fn users_file(&self) -> &Path {
        &self.users_file
    }

    pub(super) fn request(
        &self,
        request: &Request<'_>,
        memory: &mut Memory,
        edits: &mut Edits,
    ) -> Flow {
        let head = request.head;
        if !request.again {
            let Some((name, password)) = credentials(head) else {
                return Flow::Answer(self.refusal());
            };
            match memory.verdict.take() {
                None => {
                    return Flow::Ask(Claim {
                        door: self.door,
                        name,
                        password,
                    });
                }
                Some(false) => return Flow::Answer(self.refusal()),
                Some(true) => memory.user = name,
            }
        }
        if !self.forward {
            edits.remove_named(head.bytes, head.lines, AUTHORIZATION.as_bytes());
        }
        Flow::Continue
    }

    fn refusal(&self) -> Answer {
        Answer {
            reason: Reason::Unauthorized,
            status: 401,
            fields: self.challenge.clone(),
            body: Body::default(),
        }
    }
}

/// Name and password of the one `Authorization` line; `None` when they are missing, malformed or longer than any are.
fn credentials(head: &RequestHead<'_>) -> Option<(String, Vec<u8>)> {
    const LONGEST: usize = (MAX_NAME + 1 + MAX_PASSWORD).div_ceil(3) * 4;
    let mut lines = head.values(AUTHORIZATION);
    let line = lines.next().filter(|_| lines.next().is_none())?;
    let (scheme, rest) = line.split_at_checked("basic ".len())?;
    let encoded = rest.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"basic ") || encoded.len() > LONGEST {
        return None;
    }
    let decoded = STANDARD
        .decode(encoded)
        .or_else(|_| STANDARD_NO_PAD.decode(encoded))
        .ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let (name, password) = (&decoded[..colon], &decoded[colon + 1..]);
    let name = std::str::from_utf8(name).ok()?;
    let is_sound = name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    (is_sound && password.len() <= MAX_PASSWORD).then(|| (name.to_owned(), password.to_vec()))
}
