//! `cookie-hash`: weir's own random, authenticated cookie, whose rendezvous among the pool's backends is the client's home.
//! It keeps nothing about a client, so that any weir with the same secrets and pool gives the same answer.
//! The walk goes on in `policy/rendezvous.rs` (homes) and `http/cookie.rs` (the lines).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::token::Secrets;
use super::{Chosen, Home, Persistence, Recall, Remembered, Stickiness, TOKEN_LENGTH, Token};
use crate::config::model::Cookie;
use crate::http::cookie::{self, SetCookie};
use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, Field, RequestHead};
use crate::policy::balance::BackendIndex;
use crate::policy::facts::Facts;
use crate::policy::rendezvous::{self, Rendezvous};

/// The keys' purpose. Another format of the cookie takes another.
const PURPOSE: &str = "cookie-hash 1";
/// Bytes of an id and of its MAC.
const HALF: usize = 16;
/// Cookies of weir's name that are checked in one request. A browser sends several when another host of its domain set one, too.
const MAX_COOKIES: usize = 4;
/// Ids that are tried for each that it takes on average, before a client is left without one.
const PATIENCE: u64 = 64;

/// The sticky mode `cookie-hash`.
///
/// The cookie is base64url of a random id of 128 bits and of the first 128 bits of HMAC-SHA256 over the id and the cookie's name.
/// Only weir can make one, so that nobody can aim clients at a backend, and one cookie's value is no good under another name.
#[derive(Debug)]
pub struct CookieHash {
    cookie: SetCookie,
    /// The first seals, all open. Never empty.
    keys: Vec<hmac::Key>,
    /// Tells name and secrets apart from all others, for [`Remembered`].
    scope: u64,
}

impl CookieHash {
    /// The mode for one cookie.
    pub fn new(cookie: &Cookie, secrets: &Secrets) -> CookieHash {
        let mut mode = CookieHash {
            cookie: SetCookie::new(cookie),
            keys: secrets.mac_keys(PURPOSE),
            scope: 0,
        };
        // The MAC of a message that no id gives, by every key: whoever has other keys has another scope.
        let macs = mode.keys.iter().flat_map(|key| mode.mac(key, b"scope"));
        mode.scope = rendezvous::key(&macs.collect::<Vec<u8>>());
        mode
    }

    fn mac(&self, key: &hmac::Key, id: &[u8]) -> [u8; HALF] {
        let mut context = hmac::Context::with_key(key);
        context.update(id);
        context.update(self.cookie.name().as_bytes());
        let tag = context.sign();
        std::array::from_fn(|at| tag.as_ref()[at])
    }

    /// The key that a cookie's value stands for; `None` when weir did not make it.
    fn open(&self, value: &[u8]) -> Option<u64> {
        let mut bytes = [0; 2 * HALF];
        if value.len() != TOKEN_LENGTH
            || BASE64_URL_SAFE_NO_PAD.decode_slice(value, &mut bytes) != Ok(bytes.len())
        {
            return None;
        }
        let (id, mac) = bytes.split_at(HALF);
        self.keys
            .iter()
            .any(|key| verify_slices_are_equal(&self.mac(key, id), mac).is_ok())
            .then(|| rendezvous::key(id))
    }

    fn seal(&self, id: [u8; HALF]) -> Option<Token> {
        let mut bytes = [0; 2 * HALF];
        bytes[..HALF].copy_from_slice(&id);
        bytes[HALF..].copy_from_slice(&self.mac(self.keys.first()?, &id));
        let mut token = [0; TOKEN_LENGTH];
        BASE64_URL_SAFE_NO_PAD
            .encode_slice(bytes, &mut token)
            .ok()
            .map(|_| token)
    }

    /// The key of the first good cookie of the request, or why there is none.
    fn key_of(
        &self,
        head: &RequestHead<'_>,
        remembered: &mut Option<Remembered>,
    ) -> Result<u64, Recall> {
        let mut none = Recall::New;
        for value in cookie::values(head, self.cookie.name().as_bytes()).take(MAX_COOKIES) {
            if let Some(known) = remembered
                && known.scope == self.scope
                && known.token == value
            {
                return Ok(known.key);
            }
            if let Some(key) = self.open(value)
                && let Ok(token) = value.try_into()
            {
                let scope = self.scope;
                *remembered = Some(Remembered { token, key, scope });
                return Ok(key);
            }
            none = Recall::Forged;
        }
        Err(none)
    }
}

impl Persistence for CookieHash {
    fn recall(
        &self,
        facts: &Facts<'_>,
        ring: &Rendezvous,
        remembered: &mut Option<Remembered>,
    ) -> Recall {
        let Some(request) = &facts.request else {
            return Recall::New;
        };
        let key = match self.key_of(request.head, remembered) {
            Ok(key) => key,
            Err(none) => return none,
        };
        match ring.first(key, |_| true) {
            Some(backend) => Recall::Keep(Home { backend, key }),
            None => Recall::New,
        }
    }

    /// An id whose home is `backend`: the first such from a random one upward. The placement thus follows from the balancer, and
    /// every weir finds it again. Counting up costs a hash where drawing anew would cost a call of the CSPRNG, and leaves
    /// an id as hard to guess, which the MAC does not even need.
    fn admit(
        &self,
        backend: BackendIndex,
        ring: &Rendezvous,
        fill_secure: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Token> {
        let mut bytes = [0; HALF];
        fill_secure(&mut bytes);
        let start = u128::from_le_bytes(bytes);
        (0..PATIENCE * ring.keys_per_hit(backend))
            .map(|step| start.wrapping_add(u128::from(step)).to_le_bytes())
            .find(|id| ring.is_first(rendezvous::key(id), backend))
            .and_then(|id| self.seal(id))
    }

    fn conceal(&self, head: &RequestHead<'_>, edits: &mut Edits) {
        cookie::remove(head, self.cookie.name().as_bytes(), edits);
    }

    /// Sets the cookie of a new client, except on an answer that shared caches may keep: they would hand it to others.
    fn remember(
        &self,
        chosen: &Chosen,
        answer: &AnswerHead<'_>,
        secure: bool,
        edits: &mut Edits,
    ) -> Stickiness {
        if let Some(token) = &chosen.token
            && keep_private(answer, edits)
        {
            self.cookie.write(token, secure, edits);
        }
        chosen.stickiness
    }
}

/// Makes sure that no shared cache keeps the answer (RFC 9111 section 5.2.2); `false`, and no change, when it is meant for them.
fn keep_private(answer: &AnswerHead<'_>, edits: &mut Edits) -> bool {
    let mut first = None;
    let mut is_private = false;
    for (line, value) in answer.field(Field::CacheControl) {
        first = first.or(Some((line, value)));
        for directive in directives(value) {
            let is = |name: &str| directive.eq_ignore_ascii_case(name.as_bytes());
            let argument_of = |name: &str| {
                directive.len() > name.len()
                    && directive[name.len()..].trim_ascii_start().starts_with(b"=")
                    && directive[..name.len()].eq_ignore_ascii_case(name.as_bytes())
            };
            if is("public") || is("s-maxage") || argument_of("s-maxage") {
                return false;
            }
            // `private="field"` speaks of that field alone.
            is_private |= is("private") || is("no-store");
        }
    }
    match first {
        _ if is_private => {}
        None => edits.append("Cache-Control", b"private"),
        Some((line, value)) => edits.replace_with(line, |out| {
            out.extend_from_slice(value);
            out.extend_from_slice(if value.is_empty() {
                b"private"
            } else {
                b", private"
            });
        }),
    }
    true
}

/// The members of a list, trimmed; commas within quotes are text.
fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value
        .split(move |&byte| {
            quoted ^= byte == b'"';
            byte == b',' && !quoted
        })
        .map(<[u8]>::trim_ascii)
}
