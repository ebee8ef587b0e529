//! The normal form of a request path: what routes are matched against, never what is sent.
//! It must never let two spellings that a server takes for one path have two normal forms, and never looks at a query.
//! The walk goes on in `policy/route.rs`, which matches the result.

use std::fmt;

use crate::config::model::PathChecks;

/// Why a path is refused: servers read such paths differently, so weir cannot know which route they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// A segment `.` or `..`, raw, encoded, or with parameters as in `..;x`.
    DotSegment,
    /// `%2F`.
    EncodedSlash,
    /// `\` or `%5C`, which some servers take for a slash.
    Backslash,
    /// NUL or `%00`, which ends the path for some servers.
    Nul,
    /// A `%` without two hexadecimal digits after it.
    BadEscape,
}

impl fmt::Display for PathFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            PathFault::DotSegment => "a dot segment in the path",
            PathFault::EncodedSlash => "an encoded slash in the path",
            PathFault::Backslash => "a backslash in the path",
            PathFault::Nul => "a NUL in the path",
            PathFault::BadEscape => "a bad percent escape in the path",
        })
    }
}

impl std::error::Error for PathFault {}

/// The normal form of `path`: borrowed from `path` when that is normal already, else built in `scratch`.
///
/// Segment by segment, in this order:
/// 1. Parameters, from the first raw `;` to the end of the segment, are cut, as servlet containers do before they map a path:
///    `/cart;jsessionid=x` is `/cart`.
/// 2. Every `%XX` is decoded, once. RFC 3986 section 6.2.2.2 asks this for unreserved characters only; servers decode the
///    others too, and `/api%3Av2` must not slip past a route `/api:v2`. A decoded `;` is text and cuts nothing.
/// 3. Runs of slashes become one, since servers merge them: `//manager` and `/;x/manager` are `/manager`. A slash at the end stays.
///
/// With strict checks, what is dangerous is a [`PathFault`], also inside of parameters, which not every server cuts. A dot
/// segment is one by what stands before its first `;`, raw or encoded. With checks off nothing is a fault: bad escapes stay
/// as they are, `%2F`, `%5C` and `%00` stay escapes (in upper case) so that they cannot make up a boundary, and dot segments stay
/// as segments of that name.
///
/// Configured paths are compared with this form, so they must be in it themselves. Doing it twice changes nothing unless an
/// escape hid a `%` or a `;`.
///
/// # Errors
/// With [`PathChecks::Strict`], the first fault met.
#[inline]
pub fn normalize<'a>(
    path: &'a [u8],
    scratch: &'a mut Vec<u8>,
    checks: PathChecks,
) -> Result<&'a [u8], PathFault> {
    if is_plain(path) {
        return Ok(path);
    }
    rewrite(path, scratch, checks)?;
    Ok(scratch)
}

/// The byte is a slash.
const SLASH: u8 = 1;
/// The byte calls for a closer look right after a slash.
const AFTER_SLASH: u8 = SLASH << 1;
/// The byte calls for a closer look anywhere.
const ANYWHERE: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    classes[b'/' as usize] = SLASH | AFTER_SLASH;
    classes[b'.' as usize] = AFTER_SLASH;
    classes[b'%' as usize] = ANYWHERE;
    classes[b';' as usize] = ANYWHERE;
    classes[b'\\' as usize] = ANYWHERE;
    classes[0] = ANYWHERE;
    classes
};

/// Whether the path is surely normal and faultless. A segment that only begins with a dot is left to the closer look.
#[inline]
fn is_plain(path: &[u8]) -> bool {
    let mut found = 0;
    let mut previous = 0;
    for &byte in path {
        let class = CLASSES[byte as usize];
        found |= (class & ANYWHERE) | (class & AFTER_SLASH & (previous << 1));
        previous = class & SLASH;
    }
    found == 0 && path.first() != Some(&b'.')
}

#[cold]
fn rewrite(path: &[u8], out: &mut Vec<u8>, checks: PathChecks) -> Result<(), PathFault> {
    out.clear();
    for (ordinal, segment) in path.split(|&byte| byte == b'/').enumerate() {
        if ordinal > 0 && out.last() != Some(&b'/') {
            out.push(b'/');
        }
        match checks {
            PathChecks::Strict => push_checked(segment, out)?,
            PathChecks::Off => push_unchecked(segment, out),
        }
    }
    Ok(())
}

fn push_checked(segment: &[u8], out: &mut Vec<u8>) -> Result<(), PathFault> {
    let start = out.len();
    let mut in_parameters = false;
    let mut rest = segment;
    while let Some((unit, after)) = next_unit(rest) {
        match unit {
            Unit::Escaped(b'/') => return Err(PathFault::EncodedSlash),
            Unit::Raw(b'\\') | Unit::Escaped(b'\\') => return Err(PathFault::Backslash),
            Unit::Raw(0) | Unit::Escaped(0) => return Err(PathFault::Nul),
            Unit::Raw(b'%') => return Err(PathFault::BadEscape),
            Unit::Raw(b';') => in_parameters = true,
            Unit::Raw(byte) | Unit::Escaped(byte) if !in_parameters => out.push(byte),
            _ => {}
        }
        rest = after;
    }
    let name = out[start..]
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or_default();
    if name == b"." || name == b".." {
        return Err(PathFault::DotSegment);
    }
    Ok(())
}

fn push_unchecked(segment: &[u8], out: &mut Vec<u8>) {
    let mut rest = segment;
    while let Some((unit, after)) = next_unit(rest) {
        match unit {
            Unit::Raw(b';') => return,
            Unit::Escaped(b'/') => out.extend_from_slice(b"%2F"),
            Unit::Escaped(b'\\') => out.extend_from_slice(b"%5C"),
            Unit::Escaped(0) => out.extend_from_slice(b"%00"),
            Unit::Raw(byte) | Unit::Escaped(byte) => out.push(byte),
        }
        rest = after;
    }
}

/// One character of a path. A raw `%` is one that begins no escape.
pub(super) enum Unit {
    Raw(u8),
    Escaped(u8),
}

impl Unit {
    /// The character, decoded.
    pub(super) fn byte(&self) -> u8 {
        match self {
            Unit::Raw(byte) | Unit::Escaped(byte) => *byte,
        }
    }
}

pub(super) fn next_unit(text: &[u8]) -> Option<(Unit, &[u8])> {
    if let [b'%', high, low, rest @ ..] = text
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Some((Unit::Escaped(high << 4 | low), rest));
    }
    text.split_first()
        .map(|(&byte, rest)| (Unit::Raw(byte), rest))
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strict(path: &str) -> Result<String, PathFault> {
        let mut scratch = Vec::new();
        normalize(path.as_bytes(), &mut scratch, PathChecks::Strict)
            .map(|normal| String::from_utf8_lossy(normal).into_owned())
    }

    fn off(path: &str) -> String {
        let mut scratch = Vec::new();
        let normal = normalize(path.as_bytes(), &mut scratch, PathChecks::Off).unwrap();
        String::from_utf8_lossy(normal).into_owned()
    }

    #[test]
    fn plain_paths_are_borrowed() {
        for path in ["/", "/cart", "/a/b.c/d", "*", "/caf\u{e9}", "/a:b@c!d", ""] {
            let mut scratch = Vec::new();
            let normal = normalize(path.as_bytes(), &mut scratch, PathChecks::Strict).unwrap();
            assert_eq!(normal.as_ptr(), path.as_ptr());
            assert_eq!(normal, path.as_bytes());
        }
    }

    #[test]
    fn parameters_escapes_and_slashes() {
        for (path, normal) in [
            ("/cart;jsessionid=x", "/cart"),
            ("/cart;a=1;b=2/items;c", "/cart/items"),
            ("/;x/manager", "/manager"),
            ("//manager", "/manager"),
            ("/a///b//", "/a/b/"),
            ("/cart/;x", "/cart/"),
            ("/%63art", "/cart"),
            ("/api%3Av2", "/api:v2"),
            ("/100%25", "/100%"),
            ("/%252e%252e/x", "/%2e%2e/x"),
            ("/a%3Bb", "/a;b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/%c3%a9", "/\u{e9}"),
        ] {
            assert_eq!(strict(path).as_deref(), Ok(normal), "{path}");
            assert_eq!(off(path), normal, "{path}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        use PathFault::*;
        for (path, fault, unchecked) in [
            ("/public/../manager", DotSegment, "/public/../manager"),
            ("/public/..;/manager", DotSegment, "/public/../manager"),
            ("/public/..;x=y/manager", DotSegment, "/public/../manager"),
            ("/public/%2e%2E/manager", DotSegment, "/public/../manager"),
            ("/public/.%2e;x/manager", DotSegment, "/public/../manager"),
            ("/public/..%3Bx/manager", DotSegment, "/public/..;x/manager"),
            ("/.", DotSegment, "/."),
            ("/./a", DotSegment, "/./a"),
            ("..", DotSegment, ".."),
            ("/a%2fb", EncodedSlash, "/a%2Fb"),
            ("/a;x=%2F..%2Fmanager", EncodedSlash, "/a"),
            ("/a\\..\\b", Backslash, "/a\\..\\b"),
            ("/a%5cb", Backslash, "/a%5Cb"),
            ("/a%00b", Nul, "/a%00b"),
            ("/a\0b", Nul, "/a\0b"),
            ("/a%", BadEscape, "/a%"),
            ("/a%4", BadEscape, "/a%4"),
            ("/a%4g", BadEscape, "/a%4g"),
            ("/a%+4", BadEscape, "/a%+4"),
            ("/a;%zz", BadEscape, "/a"),
        ] {
            assert_eq!(strict(path), Err(fault), "{path}");
            assert_eq!(off(path), unchecked, "{path}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_taken(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut scratch = Vec::new();
            let _ = normalize(&path, &mut scratch, PathChecks::Strict);
            prop_assert!(normalize(&path, &mut scratch, PathChecks::Off).is_ok());
        }

        #[test]
        fn a_normal_form_has_no_structure_left(path in "/[ab./%;2eEfF5c\\\\]{0,24}") {
            let mut scratch = Vec::new();
            let Ok(normal) = normalize(path.as_bytes(), &mut scratch, PathChecks::Strict) else {
                return Ok(());
            };
            let normal = normal.to_vec();
            prop_assert!(normal.starts_with(b"/"));
            prop_assert!(!normal.windows(2).any(|pair| pair == b"//"));
            for segment in normal.split(|&byte| byte == b'/') {
                prop_assert!(segment != b"." && segment != b"..");
            }
            if !normal.contains(&b'%') && !normal.contains(&b';') {
                let again = normalize(&normal, &mut scratch, PathChecks::Strict);
                prop_assert_eq!(again, Ok(&normal[..]));
            }
        }

        #[test]
        fn spelling_does_not_matter(path in "(/[a-z:@~-]{1,5}){1,4}/?", seed in any::<u64>()) {
            let mut bits = seed;
            let mut spelled = String::new();
            for byte in path.bytes() {
                bits = bits.rotate_left(3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                match (byte, bits % 4) {
                    (b'/', 0) => spelled.push_str("//"),
                    (b'/', 1) => spelled.push_str(";p=1/"),
                    (b'/', _) => spelled.push('/'),
                    (_, 0) => spelled.push_str(&format!("%{byte:02x}")),
                    (_, 1) => spelled.push_str(&format!("%{byte:02X}")),
                    _ => spelled.push(byte as char),
                }
            }
            // The first segment is empty, so parameters before the first slash are not a path at all.
            let spelled = spelled.trim_start_matches(";p=1");
            prop_assert_eq!(strict(spelled), Ok(path));
        }
    }
}
