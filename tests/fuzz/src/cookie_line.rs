//! Cookies in a request: weir's own goes, and not a byte of the others changes. The input's lines are the `Cookie` lines.

use weir::http::cookie::{self, Name};
use weir::http::edits::Edits;
use weir::http::request;

use super::support::{LIMITS, read_plainly, values};

pub fn run(bytes: &[u8]) {
    let mut wire = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for line in bytes.split(|byte| *byte == b'\n') {
        wire.extend_from_slice(&[b"Cookie: ", line, b"\r\n"].concat());
    }
    wire.extend_from_slice(b"\r\n");
    let mut lines = Vec::new();
    let Ok(Some(request)) = request::parse(&wire, &mut lines, &LIMITS) else {
        return;
    };
    let head = &request.head;
    let name: Name = "w".into();
    let (_, fields) = read_plainly(head.bytes, head.lines);
    let before = values(&fields, "cookie");
    let found: Vec<&[u8]> = cookie::values(head, &name).collect();
    let wanted: Vec<&[u8]> = pairs(&before)
        .filter_map(|pair| value(pair, b"w"))
        .collect();
    assert_eq!(found, wanted);

    let (mut edits, mut out) = (Edits::default(), b"GET / HTTP/1.1\r\n".to_vec());
    cookie::remove(head, &name, &mut edits);
    edits.apply(head.bytes, head.lines, &mut out);
    out.extend_from_slice(b"\r\n");
    let mut lines = Vec::new();
    let edited = request::parse(&out, &mut lines, &LIMITS);
    let edited = edited.expect("no fault").expect("a whole head").head;
    let (_, fields) = read_plainly(edited.bytes, edited.lines);
    let after = values(&fields, "cookie");
    let kept: Vec<&[u8]> = pairs(&before)
        .filter(|pair| value(pair, b"w").is_none() && !pair.trim_ascii().is_empty())
        .map(<[u8]>::trim_ascii)
        .collect();
    let left: Vec<&[u8]> = pairs(&after)
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
        .collect();
    assert_eq!(left, kept);
}

fn pairs<'a>(lines: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    lines
        .iter()
        .flat_map(|line| line.split(|byte| *byte == b';'))
}

fn value<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let value = pair[at + 1..].trim_ascii();
    let is_named = pair[..at].trim_ascii() == name;
    let bare = match value {
        [b'"', quoted @ .., b'"'] => quoted,
        _ => value,
    };
    is_named.then_some(bare)
}
