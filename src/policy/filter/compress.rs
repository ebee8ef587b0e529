//! Which answers are compressed, and how: what a client takes (RFC 9110 section 12.5.3) against what the route offers.
//! It never compresses anything; an answer that is coded already, is a part, or must not be changed passes as it is.
//! The walk goes on in `l7/compress.rs`.

use super::{Flow, Memory, Request};
use crate::config::model::{Algorithm, Compress as Settings};
use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, RequestHead, Version, list_members};

/// Type of streams of events: a coder for each of them would live as long as they do, so that it is wanted only by its name.
const EVENTS: &str = "text/event-stream";

/// Compresses answers.
#[derive(Debug)]
pub(super) struct Compress(Settings);

/// How an answer is to be coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// By what.
    pub algorithm: Algorithm,
    /// How hard to try, 1 to 9.
    pub level: u8,
}

impl Compress {
    pub(super) fn new(settings: &Settings) -> Compress {
        Compress(settings.clone())
    }

    /// Keeps what the client takes until there is an answer. HTTP/1.0 has no way to say where an answer of unknown length ends but
    /// the end of the connection, which its clients take for the end of a broken one too.
    pub(super) fn request(&self, request: &Request<'_>, memory: &mut Memory) -> Flow {
        let head = request.head;
        memory.accepts.clear();
        if head.version != Version::Http10 && head.method != b"HEAD" {
            keep_accepts(head, &mut memory.accepts);
        }
        Flow::Continue
    }

    /// What to do with an answer with a body of `length`, if that is known. `None`: it is no business of this filter.
    pub(super) fn judge(
        &self,
        memory: &Memory,
        head: &AnswerHead<'_>,
        length: Option<u64>,
        edits: &mut Edits,
    ) -> Option<Option<Wish>> {
        let is_large = length.is_none_or(|length| length >= self.0.min_size.max(1));
        if !is_large || !matches!(head.status, 200..=203) || !self.fits(head) {
            return None;
        }
        if !varies(head) {
            edits.append("Vary", b"Accept-Encoding");
        }
        let algorithm = choose(&self.0.algorithms, &memory.accepts);
        Some(algorithm.map(|algorithm| Wish {
            algorithm,
            level: self.0.level.unwrap_or(algorithm.usual_level()),
        }))
    }

    /// Whether nothing in the head speaks against it, and the type speaks for it.
    fn fits(&self, head: &AnswerHead<'_>) -> bool {
        let mut is_wanted = false;
        for line in head.lines {
            let name = line.name.of(head.bytes);
            let value = line.value.of(head.bytes);
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match name.len() {
                12 if is("content-type") => is_wanted = self.wants(value),
                13 if is("cache-control") && has_member(value, b"no-transform") => return false,
                16 if is("content-encoding") => return false,
                13 if is("content-range") => return false,
                // What vouches for the bytes would vouch for others.
                6 if is("digest") => return false,
                11 if is("content-md5") || is("repr-digest") => return false,
                14 if is("content-digest") => return false,
                _ => {}
            }
        }
        is_wanted
    }

    fn wants(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|&byte| byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        let is_events = essence.eq_ignore_ascii_case(EVENTS.as_bytes());
        self.0
            .types
            .iter()
            .any(|wanted| match wanted.strip_suffix('*') {
                Some(prefix) => {
                    let start = essence.get(..prefix.len());
                    !is_events
                        && start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
                }
                None => essence.eq_ignore_ascii_case(wanted.as_bytes()),
            })
    }
}

/// What becomes of a head whose body is coded: its length is not known any more, no part of it can be asked for, and it is the same
/// as the original by meaning only (RFC 9110 section 8.8.1).
pub fn code_head(head: &AnswerHead<'_>, algorithm: Algorithm, edits: &mut Edits) {
    for (ordinal, line) in head.lines.iter().enumerate() {
        let (name, value) = (line.name.of(head.bytes), line.value.of(head.bytes));
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("content-length") || is("accept-ranges") {
            edits.remove(ordinal);
        } else if is("etag") && value.starts_with(b"\"") {
            edits.replace(ordinal, &[b"W/", value].concat());
        }
    }
    edits.append("Content-Encoding", algorithm.as_str().as_bytes());
}

/// All of a request's `Accept-Encoding` in one list.
fn keep_accepts(head: &RequestHead<'_>, accepts: &mut Vec<u8>) {
    for value in head.values("accept-encoding") {
        if !accepts.is_empty() {
            accepts.push(b',');
        }
        accepts.extend_from_slice(value);
    }
}

/// Whether caches know already that the answer depends on what a client takes.
fn varies(head: &AnswerHead<'_>) -> bool {
    let lines = head.lines.iter();
    let mut vary = lines.filter(|line| line.name.of(head.bytes).eq_ignore_ascii_case(b"vary"));
    vary.any(|line| {
        let value = line.value.of(head.bytes);
        has_member(value, b"accept-encoding") || has_member(value, b"*")
    })
}

fn has_member(value: &[u8], wanted: &[u8]) -> bool {
    list_members(value).any(|member| member.eq_ignore_ascii_case(wanted))
}

/// The coding of the highest weight; of several the one that is offered first. `None`: as it is. Who says nothing takes anything, but
/// may be too old to know of it; who refuses everything gets what is there.
fn choose(offered: &[Algorithm], accepts: &[u8]) -> Option<Algorithm> {
    let identity = weight(accepts, &["identity"], false).unwrap_or(0);
    let mut best = None;
    for &algorithm in offered {
        let names: &[&str] = match algorithm {
            Algorithm::Gzip => &["gzip", "x-gzip"],
            Algorithm::Brotli => &["br"],
            Algorithm::Zstd => &["zstd"],
        };
        let weight = weight(accepts, names, true).unwrap_or(0);
        if weight > 0 && weight >= identity && best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, algorithm));
        }
    }
    best.map(|(_, algorithm)| algorithm)
}

/// The weight of a coding in thousandths, by its name or else, if it may stand for it, by `*`.
fn weight(accepts: &[u8], names: &[&str], or_any: bool) -> Option<u16> {
    let mut any = None;
    for member in list_members(accepts) {
        let mut parts = member.split(|&byte| byte == b';');
        let coding = parts.next().unwrap_or_default().trim_ascii();
        let weight = parts.find_map(quality).unwrap_or(1000);
        let is_named = |name: &&str| coding.eq_ignore_ascii_case(name.as_bytes());
        if names.iter().any(is_named) {
            return Some(weight);
        }
        if coding == b"*" {
            any = Some(weight);
        }
    }
    any.filter(|_| or_any)
}

/// `q=0.5` in thousandths; one that cannot be read is none.
fn quality(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.trim_ascii().split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, rest) = value.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] => digits,
        _ => return Some(0),
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) || !b"01".contains(whole) {
        return Some(0);
    }
    let digit = |place: usize| digits.get(place).map_or(0, |digit| u16::from(digit - b'0'));
    let parts = digit(0) * 100 + digit(1) * 10 + digit(2);
    Some((u16::from(whole - b'0') * 1000 + parts).min(1000))
}

#[cfg(test)]
mod tests {
    use Algorithm::{Brotli, Gzip, Zstd};
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Limits;
    use crate::http::answer;

    #[test]
    fn the_client_chooses_and_then_the_route() {
        let cases: &[(&str, Option<Algorithm>)] = &[
            ("", None),
            ("gzip", Some(Gzip)),
            ("GZip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("deflate", None),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip;q=1.0, br;q=0.9, zstd;q=0.899", Some(Gzip)),
            ("gzip ; q=0.5 , br ; Q=0.501", Some(Brotli)),
            ("gzip;q=0", None),
            ("gzip;q=0.000, br;q=0.001", Some(Brotli)),
            ("*", Some(Zstd)),
            ("*, zstd;q=0", Some(Brotli)),
            ("*;q=0", None),
            ("*;q=0.5, gzip", Some(Gzip)),
            ("identity", None),
            ("identity, gzip", Some(Gzip)),
            ("identity;q=0.5, gzip;q=0.4", None),
            ("identity;q=0", None),
            ("identity;q=0, *", Some(Zstd)),
            ("gzip;q=nonsense", None),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=", Some(Gzip)),
            ("gzip;level=9;q=0", None),
            (",,gzip,,", Some(Gzip)),
        ];
        for (accepts, expected) in cases {
            let chosen = choose(&Algorithm::ALL, accepts.as_bytes());
            assert_eq!(chosen, *expected, "{accepts}");
        }
        assert_eq!(choose(&[Gzip], b"gzip;q=0.1, br"), Some(Gzip));
        assert_eq!(choose(&[Gzip, Brotli], b"br, gzip"), Some(Gzip));
    }

    fn usual() -> Compress {
        Compress(Settings {
            algorithms: Algorithm::ALL.to_vec(),
            min_size: 100,
            types: vec!["text/*".into(), "application/json".into()],
            level: None,
        })
    }

    /// What is made of an answer: `None` when the filter leaves it alone, else its coding and the head.
    fn judged(
        filter: &Compress,
        status: &str,
        fields: &str,
        length: Option<u64>,
    ) -> Option<(Option<Algorithm>, String)> {
        let head = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        let (mut lines, mut edits) = (Vec::new(), Edits::default());
        let limits = Limits {
            head: 65536,
            header_lines: 128,
        };
        let parsed = answer::parse(head.as_bytes(), &mut lines, &limits, false);
        let answer = parsed.unwrap().unwrap();
        let mut memory = Memory::new(1);
        memory.accepts.extend_from_slice(b"gzip");
        let wish = filter.judge(&memory, &answer.head, length, &mut edits)?;
        if let Some(wish) = wish {
            code_head(&answer.head, wish.algorithm, &mut edits);
        }
        let mut out = Vec::new();
        edits.apply(answer.head.bytes, answer.head.lines, &mut out);
        let fields = String::from_utf8(out).unwrap();
        Some((wish.map(|wish| wish.algorithm), fields))
    }

    #[test]
    fn what_is_coded_says_so() {
        let fields = "Content-Type: Text/HTML; charset=utf-8\r\nContent-Length: 5000\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\nX-A: 1\r\n";
        let (coding, head) = judged(&usual(), "200", fields, Some(5000)).unwrap();
        assert_eq!(coding, Some(Gzip));
        assert_eq!(
            head,
            "Content-Type: Text/HTML; charset=utf-8\r\nETag: W/\"a\"\r\nX-A: 1\r\nVary: Accept-Encoding\r\nContent-Encoding: gzip\r\n"
        );
        let fields = "content-type: application/json\r\nVary: Origin\r\nvary: x, accept-encoding\r\netag: W/\"a\"\r\n";
        let (_, head) = judged(&usual(), "200", fields, None).unwrap();
        assert_eq!(head, format!("{fields}Content-Encoding: gzip\r\n"));
        let (_, head) = judged(
            &usual(),
            "200",
            "Content-Type: text/css\r\nVary: *\r\n",
            None,
        )
        .unwrap();
        assert_eq!(head.matches("ary").count(), 1);
    }

    #[test]
    fn what_must_not_be_changed_is_left_alone() {
        let page = "Content-Type: text/html\r\n";
        assert!(judged(&usual(), "200", page, Some(100)).is_some());
        for (status, fields, length) in [
            ("200", "", Some(5000)),
            ("200", "Content-Type: image/png\r\n", Some(5000)),
            ("200", "Content-Type: textual/html\r\n", Some(5000)),
            ("200", "Content-Type: application/json-seq\r\n", Some(5000)),
            ("200", "Content-Type: text/event-stream\r\n", None),
            ("200", page, Some(99)),
            ("206", page, Some(5000)),
            ("204", page, None),
            ("304", page, None),
            ("404", page, Some(5000)),
            (
                "200",
                &format!("{page}Content-Encoding: br\r\n"),
                Some(5000),
            ),
            (
                "200",
                &format!("{page}Content-Encoding: identity\r\n"),
                Some(5000),
            ),
            (
                "200",
                &format!("{page}Cache-Control: public, No-Transform\r\n"),
                Some(5000),
            ),
            (
                "200",
                &format!("{page}Content-Range: bytes 0-9/10\r\n"),
                Some(5000),
            ),
            (
                "200",
                &format!("{page}Content-Digest: sha-256=:AA==:\r\n"),
                Some(5000),
            ),
            ("200", &format!("{page}Content-MD5: AA==\r\n"), Some(5000)),
        ] {
            assert_eq!(
                judged(&usual(), status, fields, length),
                None,
                "{status} {fields}"
            );
        }
        let mut events = usual();
        events.0.types.push(EVENTS.into());
        assert!(judged(&events, "200", "Content-Type: text/event-stream\r\n", None).is_some());
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic(accepts in "[a-z*;q=0-9., ]{0,60}") {
            let chosen = choose(&Algorithm::ALL, accepts.as_bytes());
            prop_assert!(chosen.is_none() || !accepts.is_empty());
        }
    }
}
