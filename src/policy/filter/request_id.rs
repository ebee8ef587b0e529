//! An id for each request, which the backend, the client and the access log see.
//! It believes an id from a trusted proxy only; of anybody else's nothing goes on.
//! Here the walk ends.

use super::{Flow, Memory, Request, View};
use crate::http::edits::Edits;
use crate::http::head::AnswerHead;

/// Characters that an id from elsewhere may have.
const MAX_ID: usize = 128;

/// The header that shows the id.
#[derive(Debug)]
pub(super) struct RequestId(String);

impl RequestId {
    pub(super) fn new(header: &str) -> RequestId {
        RequestId(header.to_owned())
    }

    pub(super) fn request(
        &self,
        request: &Request<'_>,
        memory: &mut Memory,
        edits: &mut Edits,
    ) -> Flow {
        let head = request.head;
        if request.view.trusted {
            let mut given = head.values(&self.0).filter(|value| is_id(value));
            memory.given_id = given.next().map(<[u8]>::to_vec).unwrap_or_default();
        }
        memory.shows_id = true;
        edits.remove_named(head.bytes, head.lines, self.0.as_bytes());
        edits.append_with(&self.0, |out| memory.push_id(request.view.id, out));
        Flow::Continue
    }

    pub(super) fn answer(
        &self,
        view: &View<'_>,
        memory: &Memory,
        head: &AnswerHead<'_>,
        edits: &mut Edits,
    ) {
        edits.remove_named(head.bytes, head.lines, self.0.as_bytes());
        edits.append_with(&self.0, |out| memory.push_id(view.id, out));
    }
}

/// Printable, without blanks and what could end a quoted string.
fn is_id(value: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_graphic() && !b"\"\\".contains(byte);
    (1..=MAX_ID).contains(&value.len()) && value.iter().all(fits)
}
