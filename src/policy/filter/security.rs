//! Headers that tell a browser what a page may do, on answers that say nothing about it.
//! A backend knows its pages better: a header that it sends stays as it is.
//! Here the walk ends.

use super::View;
use crate::config::model;
use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, is_same_name};

/// What is added.
#[derive(Debug)]
pub(super) struct SecurityHeaders(model::SecurityHeaders);

impl SecurityHeaders {
    pub(super) fn new(headers: &model::SecurityHeaders) -> SecurityHeaders {
        SecurityHeaders(headers.clone())
    }

    pub(super) fn answer(&self, view: &View<'_>, head: &AnswerHead<'_>, edits: &mut Edits) {
        let hsts = self.0.hsts.as_ref().filter(|_| view.secure);
        let hsts = hsts.map(|value| ("Strict-Transport-Security", value));
        let always = self.0.always.iter().map(|(name, value)| (*name, value));
        for (name, value) in always.chain(hsts) {
            let is_same = |own: &[u8]| is_same_name(own, name.as_bytes());
            let is_there = head
                .lines
                .iter()
                .any(|line| is_same(line.name.of(head.bytes)));
            if !is_there && !edits.has_appended(name.as_bytes()) {
                edits.append(name, value.as_bytes());
            }
        }
    }
}
