//! An answer's head, by the same rules as a request's; where its body ends follows from RFC 9112 section 6.3.

use weir::http::answer::{self, Answer};
use weir::http::framing::Framing;

use super::support::{LIMITS, Numbers, decimal, read_plainly, values};

pub fn run(bytes: &[u8]) {
    for is_head in [false, true] {
        let mut lines = Vec::new();
        let whole = answer::parse(bytes, &mut lines, &LIMITS, is_head);
        let end = match &whole {
            Ok(Some(answer)) => Some(answer.head.bytes.len()),
            _ => None,
        };
        let cut = Numbers::of(bytes).up_to(bytes.len());
        let mut others = Vec::new();
        match answer::parse(&bytes[..cut], &mut others, &LIMITS, is_head) {
            Ok(None) => assert!(end.is_none_or(|end| cut < end), "it was complete"),
            Ok(Some(part)) => assert_eq!(Some(part.head.bytes.len()), end),
            Err(_) => assert!(end.is_none(), "a fault that goes away"),
        }
        if let Ok(Some(answer)) = &whole {
            check(answer, is_head);
        }
    }
}

fn check(answer: &Answer<'_>, is_head: bool) {
    let head = &answer.head;
    assert!(head.bytes.len() <= LIMITS.head && head.lines.len() <= LIMITS.header_lines);
    let (first, fields) = read_plainly(head.bytes, head.lines);
    let status = first
        .strip_prefix(b"HTTP/1.1 ")
        .or(first.strip_prefix(b"HTTP/1.0 "));
    let (status, reason) = status.expect("a version").split_at(3);
    assert_eq!(decimal(status), Some(u64::from(head.status)));
    assert!((100..1000).contains(&head.status));
    assert!(reason.is_empty() || reason[0] == b' ');
    let lengths = values(&fields, "content-length");
    let codings = values(&fields, "transfer-encoding");
    assert!(lengths.len() + codings.len() <= 1, "one framing");
    let has_no_body = is_head || head.status < 200 || matches!(head.status, 204 | 304);
    match (has_no_body, lengths.first(), codings.first()) {
        (true, ..) => assert_eq!(answer.body, Framing::NONE),
        (_, Some(length), _) => {
            assert_eq!(Some(answer.body), decimal(length).map(Framing::Length));
        }
        (_, _, Some(_)) => assert!(matches!(answer.body, Framing::Chunked(_))),
        _ => assert_eq!(answer.body, Framing::Close),
    }
    assert!(answer.body != Framing::Close || !answer.keep_alive);
}
