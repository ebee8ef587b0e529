//! Header lines removed, set and added, in this order, on requests or on answers.
//! What it sets no client can say beside it: every line of the name goes first, also one spelled with underscores.
//! Here the walk ends.

use super::template::render;
use super::{Flow, Memory, Request, View};
use crate::config::model::{HeaderEdits, Template};
use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, Line};

/// What is done to a header.
#[derive(Debug)]
pub(super) struct Headers(HeaderEdits);

impl Headers {
    pub(super) fn new(edits: &HeaderEdits) -> Headers {
        Headers(edits.clone())
    }

    pub(super) fn request(
        &self,
        request: &Request<'_>,
        memory: &Memory,
        edits: &mut Edits,
    ) -> Flow {
        let head = request.head;
        self.apply(request.view, memory, head.bytes, head.lines, edits);
        Flow::Continue
    }

    pub(super) fn answer(
        &self,
        view: &View<'_>,
        memory: &Memory,
        head: &AnswerHead<'_>,
        edits: &mut Edits,
    ) {
        self.apply(view, memory, head.bytes, head.lines, edits);
    }

    fn apply(
        &self,
        view: &View<'_>,
        memory: &Memory,
        bytes: &[u8],
        lines: &[Line],
        edits: &mut Edits,
    ) {
        let HeaderEdits { remove, set, add } = &self.0;
        for name in remove.iter().chain(set.iter().map(|(name, _)| name)) {
            edits.remove_named(bytes, lines, name.as_bytes());
        }
        if set
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            edits.keep_host();
        }
        let mut append = |(name, value): &(String, Template)| {
            edits.append_with(name, |out| render(value, view, memory, out));
        };
        set.iter().for_each(&mut append);
        add.iter().for_each(&mut append);
    }
}
