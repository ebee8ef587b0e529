//! What the filters of a route keep of one request, from its first plan to its answer.
//! It is made for requests on routes with filters only, and decides nothing.
//! The walk goes back to `mod.rs`.

use super::View;
use crate::http::text::push_id;

/// What was found out about a request.
#[derive(Debug, Default)]
pub struct Memory {
    /// Path and query that take the place of those that came; empty: these stay.
    pub(super) target: Vec<u8>,
    /// How many filters let it pass.
    pub(super) passed: usize,
    /// The second half of its id.
    salt: u64,
    /// The id that a trusted proxy gave it; empty: none.
    pub(super) given_id: Vec<u8>,
    /// The origin that its script may tell the answer; empty: none.
    pub(super) origin: Vec<u8>,
    /// Whether what it claimed is true, until the filter that asked knows.
    pub(super) verdict: Option<bool>,
    /// Who it is; empty: nobody was asked.
    pub(super) user: String,
    /// The codings that its client takes, if answers may be compressed.
    pub(super) accepts: Vec<u8>,
    /// Whether its id is shown to others.
    pub(super) shows_id: bool,
}

impl Memory {
    /// Nothing is known yet. `salt` is a random number: with the id in the log it makes an id of 128 bits.
    pub fn new(salt: u64) -> Memory {
        Memory {
            salt,
            ..Memory::default()
        }
    }

    /// Tells the filter that asked whether the claim is true.
    pub fn judge(&mut self, verdict: bool) {
        self.verdict = Some(verdict);
    }

    /// Who it is; empty: nobody was asked.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Path and query as they stand.
    pub(super) fn target<'a>(&'a self, view: &View<'a>) -> &'a [u8] {
        match self.target.is_empty() {
            true => view.target,
            false => &self.target,
        }
    }

    /// The path as it stands, and the query with its `?`.
    pub(super) fn path_and_query<'a>(&'a self, view: &View<'a>) -> (&'a [u8], &'a [u8]) {
        let target = self.target(view);
        let end = target.iter().position(|&byte| byte == b'?');
        match target.split_at(end.unwrap_or(target.len())) {
            (b"" | b"*", query) => (b"/", query),
            found => found,
        }
    }

    /// The id of the request, for whoever is shown one: 32 hexadecimal digits, of which the log's id is the first half, or what a
    /// trusted proxy gave.
    pub fn push_id(&self, id: u64, out: &mut Vec<u8>) {
        if self.given_id.is_empty() {
            push_id(id, out);
            push_id(self.salt, out);
        } else {
            out.extend_from_slice(&self.given_id);
        }
    }

    /// The id as the log has it beside its own; `None` when nobody was shown one.
    pub fn shown_id(&self, id: u64) -> Option<Vec<u8>> {
        self.shows_id.then(|| {
            let mut out = Vec::with_capacity(32);
            self.push_id(id, &mut out);
            out
        })
    }
}
