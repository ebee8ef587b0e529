//! `insert`: weir's own sealed cookie, which names the client's home and says when weir saw the client last.
//! It keeps nothing about a client, so that any weir with the same secrets and pool gives the same answer.
//! The walk goes on in `token.rs` (keys) and `http/cookie.rs` (the lines).

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::private::keep_private;
use super::token::Secrets;
use super::{
    Answered, Chosen, Home, Means, Persistence, Placed, Recall, Remembered, Tell, Ticket, Times,
};
use crate::config::model::{self, Cookie};
use crate::http::cookie::{self, SetCookie};
use crate::http::edits::Edits;
use crate::http::head::RequestHead;
use crate::policy::balance::BackendIndex;
use crate::policy::facts::Facts;
use crate::policy::rendezvous::{self, Rendezvous};

/// The keys' purpose. Another format of the cookie takes another version.
const PURPOSE: &str = "insert";
const VERSION: u8 = 1;
/// Cookies of weir's name that are opened in one request. A browser sends several when another host of its domain set one, too.
const MAX_COOKIES: usize = 4;
/// Bytes of a sealed token before base64, enough for three names of the greatest length; longer ones are not opened.
const MAX_SEALED: usize = 512;
/// Seconds by which the clocks of several weirs may differ. Less where `idle_timeout` is short.
const CLOCK_TOLERANCE: u32 = 60;

/// The sticky mode `insert`.
///
/// The cookie is base64url of a random nonce and of what AES-256-GCM-SIV makes of the payload, the cookie's name being
/// associated data: nobody else can make, change or read one, and one cookie's value is no good under another name.
#[derive(Debug)]
pub struct Insert {
    cookie: SetCookie,
    /// The first seals, all open. Never empty.
    keys: Vec<LessSafeKey>,
    pool: Box<str>,
    /// In pool order.
    names: Box<[Box<str>]>,
    backends: HashMap<Box<str>, BackendIndex>,
    times: InsertTimes,
    /// Tells cookie, pool, backends and secrets apart from all others, for [`Remembered`].
    scope: u64,
}

/// Lengths of time of an `insert` cookie, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct InsertTimes {
    /// Without a request for so long, and up to a quarter more, a client is forgotten.
    pub idle: u32,
    /// A client is forgotten so long after it came first.
    pub absolute: Option<u32>,
    /// Away from home for so long, a client stays where it is.
    pub rehome_after: u32,
}

impl InsertTimes {
    /// As the file says.
    pub fn new(idle_timeout: Duration, times: &model::InsertTimes) -> InsertTimes {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        InsertTimes {
            idle: seconds(idle_timeout),
            absolute: times.absolute_timeout.map(seconds),
            rehome_after: seconds(times.rehome_after),
        }
    }
}

impl InsertTimes {
    /// The cookie is written anew after so long, so that not every answer carries one.
    fn refresh(self) -> u32 {
        (self.idle / 4).max(1)
    }

    fn tolerance(self) -> u32 {
        self.refresh().min(CLOCK_TOLERANCE)
    }
}

impl Insert {
    /// The mode for one cookie and pool, whose backends' names come in pool order.
    pub fn new<'a>(
        cookie: &Cookie,
        secrets: &Secrets,
        pool: &str,
        names: impl IntoIterator<Item = &'a str>,
        times: InsertTimes,
    ) -> Insert {
        let names: Box<[Box<str>]> = names.into_iter().map(Box::from).collect();
        let indices = (0..=u16::MAX).map(BackendIndex);
        Insert {
            scope: scope(cookie, secrets, pool, &names),
            cookie: SetCookie::new(cookie),
            keys: secrets.sealing_keys(PURPOSE),
            pool: pool.into(),
            backends: names.iter().cloned().zip(indices).collect(),
            names,
            times,
        }
    }

    /// See [`AnyPersistence::scope`](super::AnyPersistence::scope).
    pub(super) fn scope(&self) -> u64 {
        self.scope
    }

    /// The home that a cookie's value names; the error says why there is none.
    fn open(&self, value: &[u8]) -> Result<Home, Recall> {
        let mut sealed = [0; MAX_SEALED];
        let length = BASE64_URL_SAFE_NO_PAD
            .decode_slice(value, &mut sealed)
            .map_err(|_| Recall::Forged)?;
        let (nonce, sealed) = sealed[..length]
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(Recall::Forged)?;
        for key in &self.keys {
            let mut payload = [0; MAX_SEALED];
            let payload = &mut payload[..sealed.len()];
            payload.copy_from_slice(sealed);
            let aad = Aad::from(self.cookie.name().as_bytes());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            if let Ok(payload) = key.open_in_place(nonce, aad, payload) {
                // What another version of weir or another pool sealed is nobody's forgery.
                return self.read(payload).ok_or(Recall::New);
            }
        }
        Err(Recall::Forged)
    }

    /// The home that a payload names; `None` when it speaks of another pool, or another language.
    fn read(&self, payload: &[u8]) -> Option<Home> {
        let mut rest = Payload(payload);
        if rest.bytes()? != [VERSION] {
            return None;
        }
        let key = u64::from_be_bytes(rest.bytes()?);
        let issued = rest.seconds()?;
        let seen = rest.seconds()?;
        let left = rest.seconds()?;
        if rest.name()? != self.pool.as_bytes() {
            return None;
        }
        let backend = self.backend(rest.name()?);
        let refuge = match rest.0.is_empty() {
            true => None,
            false => Some(self.backend(rest.name()?)),
        };
        Some(Home {
            backend,
            key,
            // A refuge that the pool has no more is forgotten, in the token too.
            refuge: refuge.flatten(),
            settled: false,
            stale: refuge == Some(None),
            times: Times { issued, seen, left },
        })
    }

    fn backend(&self, name: &[u8]) -> Option<BackendIndex> {
        self.backends.get(std::str::from_utf8(name).ok()?).copied()
    }

    /// What a token comes to at a point of time; `None` when it is too old. One from the future is as good as new, but is
    /// replaced if it comes from beyond the tolerance, lest it live for longer than it may.
    fn judge(&self, home: Home, now: u32) -> Option<Home> {
        let InsertTimes {
            idle,
            absolute,
            rehome_after,
        } = self.times;
        let (refresh, tolerance) = (self.times.refresh(), self.times.tolerance());
        let Times { issued, seen, left } = home.times;
        let age = |then: u32| now.saturating_sub(then);
        // The token may be a quarter older than the last request.
        let is_idle = age(seen) > idle.saturating_add(refresh).saturating_add(tolerance);
        let is_old = absolute.is_some_and(|most| age(issued) > most.saturating_add(tolerance));
        if is_idle || is_old {
            return None;
        }
        Some(Home {
            settled: home.refuge.is_some() && age(left) >= rehome_after,
            stale: home.stale
                || age(seen) >= refresh
                || seen.saturating_sub(now) > tolerance
                || issued.saturating_sub(now) > tolerance,
            ..home
        })
    }

    /// The cookie's value; `None` for names that are too long to be true.
    fn seal(&self, ticket: &Ticket, fill_secure: &mut dyn FnMut(&mut [u8])) -> Option<String> {
        let mut payload = Vec::with_capacity(MAX_SEALED);
        payload.push(VERSION);
        payload.extend(ticket.key);
        let Times { issued, seen, left } = ticket.times;
        payload.extend([issued, seen, left].map(u32::to_be_bytes).as_flattened());
        let home = self.names.get(ticket.home.index())?;
        let last = self.names.get(ticket.last.index())?;
        let count = if last == home { 2 } else { 3 };
        for name in &[&self.pool, home, last][..count] {
            payload.push(u8::try_from(name.len()).ok()?);
            payload.extend(name.as_bytes());
        }
        let mut nonce = [0; NONCE_LEN];
        fill_secure(&mut nonce);
        let aad = Aad::from(self.cookie.name().as_bytes());
        let tag = self
            .keys
            .first()?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut payload)
            .ok()?;
        let sealed = [&nonce, &payload[..], tag.as_ref()].concat();
        (sealed.len() <= MAX_SEALED).then(|| BASE64_URL_SAFE_NO_PAD.encode(sealed))
    }
}

impl Persistence for Insert {
    fn recall(
        &self,
        facts: &Facts<'_>,
        _: &Rendezvous,
        remembered: &mut Option<Remembered>,
    ) -> Recall {
        let Some(request) = &facts.request else {
            return Recall::New;
        };
        let now = seconds(facts);
        let mut none = Recall::New;
        for value in cookie::values(request.head, self.cookie.name()).take(MAX_COOKIES) {
            let known = Remembered::home(remembered, self.scope, value);
            let home = match known.map_or_else(|| self.open(value), Ok) {
                Ok(home) => home,
                Err(why) if none == Recall::New => {
                    none = why;
                    continue;
                }
                Err(_) => continue,
            };
            match self.judge(home, now) {
                Some(judged) => {
                    if known.is_none() {
                        Remembered::keep(remembered, self.scope, value, home);
                    }
                    return Recall::Keep(judged);
                }
                None => none = Recall::Expired,
            }
        }
        none
    }

    fn admit(&self, backend: BackendIndex, means: &mut Means<'_>) -> Option<Tell> {
        let mut key = [0; 8];
        (means.fill_secure)(&mut key);
        let now = seconds(means.facts);
        Some(Tell::Ticket(Ticket {
            key,
            home: backend,
            last: backend,
            times: Times {
                issued: now,
                seen: now,
                left: 0,
            },
        }))
    }

    /// The token keeps its home while its client is away for a while, and says where that is and since when.
    fn place(
        &self,
        home: &Home,
        to: BackendIndex,
        for_good: bool,
        means: &mut Means<'_>,
    ) -> Placed {
        let now = seconds(means.facts);
        let own = home.backend.filter(|_| !for_good).unwrap_or(to);
        let is_away = own != to;
        let left = match home.refuge {
            _ if !is_away => 0,
            Some(_) => home.times.left.min(now),
            None => now,
        };
        let refuge = is_away.then_some(to);
        let changes = home.stale || home.backend != Some(own) || home.refuge != refuge;
        let ticket = Ticket {
            key: home.key.to_be_bytes(),
            home: own,
            last: to,
            times: Times {
                issued: home.times.issued.min(now),
                seen: now,
                left,
            },
        };
        Placed {
            tell: (changes || is_away).then_some(Tell::Ticket(ticket)),
            only_with_session: !changes,
        }
    }

    fn conceal(&self, head: &RequestHead<'_>, edits: &mut Edits) {
        cookie::remove(head, self.cookie.name(), edits);
    }

    /// Sets the cookie, except on an answer that shared caches may keep: they would hand it to others. A session that is
    /// opened away from home makes the refuge the home.
    fn remember(
        &self,
        chosen: &Chosen,
        answer: &Answered<'_>,
        fill_secure: &mut dyn FnMut(&mut [u8]),
        edits: &mut Edits,
    ) -> bool {
        let Some(Tell::Ticket(mut ticket)) = chosen.tell else {
            return false;
        };
        if answer.opens_session {
            ticket.home = ticket.last;
            ticket.times.left = 0;
        }
        let token = self.seal(&ticket, fill_secure);
        let token = token.filter(|_| keep_private(answer.head, edits));
        token.is_some_and(|token| {
            self.cookie.write(token.as_bytes(), answer.secure, edits);
            true
        })
    }
}

/// What is left to read of a payload.
struct Payload<'a>(&'a [u8]);

impl<'a> Payload<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn seconds(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let [length] = self.bytes()?;
        let (name, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(name)
    }
}

/// Wall time in seconds since the epoch; it fits until 2106.
fn seconds(facts: &Facts<'_>) -> u32 {
    u32::try_from(facts.wall_millis / 1000).unwrap_or(u32::MAX)
}

/// A number that follows from everything that a token's meaning follows from, and that nobody without the secrets can hit.
fn scope(cookie: &Cookie, secrets: &Secrets, pool: &str, names: &[Box<str>]) -> u64 {
    let names = names.iter().map(|name| &**name);
    let parts: Vec<&str> = [cookie.name.as_str(), pool]
        .into_iter()
        .chain(names)
        .collect();
    // No name has a blank.
    let said = parts.join(" ");
    let keys = secrets.mac_keys("insert scope");
    let macs = keys
        .iter()
        .flat_map(|key| hmac::sign(key, said.as_bytes()).as_ref().to_vec());
    rendezvous::key(&macs.collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests;
