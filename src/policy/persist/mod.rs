//! Persistence ("sticky" in the configuration): knowing a client again and keeping it with its backend.
//! It never chooses among healthy backends itself, and never fails a request: a client it cannot read is a new one.
//! The walk goes on in `cookie_hash.rs` (a mode), `token.rs` (its keys) and `policy/choose.rs` (which asks it first).

mod cookie_hash;
pub mod token;

pub use cookie_hash::CookieHash;

use super::balance::BackendIndex;
use super::facts::Facts;
use super::rendezvous::Rendezvous;
use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, RequestHead};

/// What became of a client's stickiness in one request: the `result` of `weir_sticky_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stickiness {
    /// It went to its home.
    Kept,
    /// It had no home; it has now.
    New,
    /// It went to its successor while its home may still hold its session.
    Moved,
    /// It went home again after a time with its successor.
    Returned,
    /// It went to its successor, and what its home held in memory is gone or out of reach.
    Lost,
    /// Its token was too old.
    Expired,
    /// It showed a token that weir did not make.
    Forged,
}

impl Stickiness {
    /// Every result, in the order of their numbers.
    pub const ALL: [Stickiness; 7] = [
        Stickiness::Kept,
        Stickiness::New,
        Stickiness::Moved,
        Stickiness::Returned,
        Stickiness::Lost,
        Stickiness::Expired,
        Stickiness::Forged,
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Stickiness::Kept => "kept",
            Stickiness::New => "new",
            Stickiness::Moved => "moved",
            Stickiness::Returned => "returned",
            Stickiness::Lost => "lost",
            Stickiness::Expired => "expired",
            Stickiness::Forged => "forged",
        }
    }
}

/// What a request says about its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// Nothing.
    New,
    /// It has a home.
    Keep(Home),
    /// Something that weir did not make.
    Forged,
}

/// Where a client belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its backend, whatever the state that it is in.
    pub backend: BackendIndex,
    /// The client's key to the pool's [`Rendezvous`], which names the successors.
    pub key: u64,
}

/// Bytes of a token as a client sees it.
pub const TOKEN_LENGTH: usize = 43;

/// A token as a client sees it.
pub type Token = [u8; TOKEN_LENGTH];

/// A token that was found good, so that a connection which shows it again need not have it checked again.
///
/// A connection may keep one for as long as it likes, over other routes and reloads: it is good only for the same name and secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    token: Token,
    key: u64,
    scope: u64,
}

/// What was chosen for a client, as far as its answer must tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// How it came about.
    pub stickiness: Stickiness,
    /// What the client is to show from now on.
    pub token: Option<Token>,
}

/// One sticky mode.
pub trait Persistence {
    /// What the request says about its client. `remembered` is the connection's.
    fn recall(
        &self,
        facts: &Facts<'_>,
        ring: &Rendezvous,
        remembered: &mut Option<Remembered>,
    ) -> Recall;

    /// A token for a new client that the balancer gave to `backend`; `None` when there is none to be had, and the client stays new.
    /// `fill_secure` fills bytes from the system's CSPRNG.
    fn admit(
        &self,
        backend: BackendIndex,
        ring: &Rendezvous,
        fill_secure: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Token>;

    /// Takes what is between the client and weir out of a request.
    fn conceal(&self, head: &RequestHead<'_>, edits: &mut Edits);

    /// Tells the client on its final answer what to show from now on. `secure` says whether it came by TLS.
    fn remember(
        &self,
        chosen: &Chosen,
        answer: &AnswerHead<'_>,
        secure: bool,
        edits: &mut Edits,
    ) -> Stickiness;
}

/// Every sticky mode.
#[derive(Debug)]
pub enum AnyPersistence {
    /// See [`CookieHash`].
    CookieHash(CookieHash),
}

impl Persistence for AnyPersistence {
    #[inline]
    fn recall(
        &self,
        facts: &Facts<'_>,
        ring: &Rendezvous,
        remembered: &mut Option<Remembered>,
    ) -> Recall {
        match self {
            AnyPersistence::CookieHash(mode) => mode.recall(facts, ring, remembered),
        }
    }

    fn admit(
        &self,
        backend: BackendIndex,
        ring: &Rendezvous,
        fill_secure: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Token> {
        match self {
            AnyPersistence::CookieHash(mode) => mode.admit(backend, ring, fill_secure),
        }
    }

    fn conceal(&self, head: &RequestHead<'_>, edits: &mut Edits) {
        match self {
            AnyPersistence::CookieHash(mode) => mode.conceal(head, edits),
        }
    }

    fn remember(
        &self,
        chosen: &Chosen,
        answer: &AnswerHead<'_>,
        secure: bool,
        edits: &mut Edits,
    ) -> Stickiness {
        match self {
            AnyPersistence::CookieHash(mode) => mode.remember(chosen, answer, secure, edits),
        }
    }
}
