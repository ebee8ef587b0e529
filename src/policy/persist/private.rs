//! Keeps an answer that carries weir's cookie out of shared caches.
//! It never touches an answer that is meant for them: the cookie stays away from it instead.
//! Here the walk ends.

use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, Field};

/// Makes sure that no shared cache keeps the answer (RFC 9111 section 5.2.2); `false`, and no change, when it is meant for them.
pub(super) fn keep_private(answer: &AnswerHead<'_>, edits: &mut Edits) -> bool {
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
