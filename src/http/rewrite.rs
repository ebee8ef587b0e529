//! Paths that weir makes: what a prefix leaves, how a normal form is sent, and whether what was made may be sent.
//! It must never let a change of a path lead out of the place it was meant for, however a client spells it.
//! The walk goes back to `policy/filter/path.rs`, which makes them.

use super::path::{self, PathFault, next_unit};
use super::text::push_hex;
use crate::config::model::PathChecks;

/// What follows a prefix in a path as it was sent; `None` when it does not have the prefix. The prefix is in normal form and has no
/// slash at its end; the path is compared with it as its normal form would be, segment by segment. What is left is empty, or begins
/// with a single slash, or with the `;` of parameters at the path's end.
pub fn after_prefix<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let mut wanted = prefix.split(|&byte| byte == b'/').filter(|s| !s.is_empty());
    let mut rest = path;
    let Some(mut segment) = wanted.next() else {
        return Some(single_slash(rest));
    };
    loop {
        rest = rest.strip_prefix(b"/")?;
        let end = position(rest, |byte| byte == b'/');
        let name_end = position(&rest[..end], |byte| byte == b';');
        match &rest[..name_end] {
            [] => rest = &rest[end..],
            name if is_spelling_of(name, segment) => match wanted.next() {
                Some(next) => {
                    segment = next;
                    rest = &rest[end..];
                }
                None if end == rest.len() => return Some(&rest[name_end..]),
                None => return Some(single_slash(&rest[end..])),
            },
            _ => return None,
        }
    }
}

fn position(bytes: &[u8], is: impl Fn(u8) -> bool) -> usize {
    let found = bytes.iter().position(|&byte| is(byte));
    found.unwrap_or(bytes.len())
}

/// The path without all but one of the slashes that it begins with: `//host` would be another host.
pub fn single_slash(path: &[u8]) -> &[u8] {
    let slashes = position(path, |byte| byte != b'/');
    &path[slashes.saturating_sub(1)..]
}

/// Whether a segment as it was sent, without parameters, is `normal` once it is decoded.
fn is_spelling_of(sent: &[u8], normal: &[u8]) -> bool {
    let (mut sent, mut normal) = (sent, normal);
    while let Some((unit, after)) = next_unit(sent) {
        let Some((first, rest)) = normal.split_first() else {
            return false;
        };
        if unit.byte() != *first {
            return false;
        }
        (sent, normal) = (after, rest);
    }
    normal.is_empty()
}

/// Adds text to a path, with an escape for every byte that is no unreserved character, nor one of `also`.
pub fn push_encoded(text: &[u8], also: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            out.push(byte);
        } else {
            out.push(b'%');
            push_hex(byte, out);
        }
    }
}

/// Adds a path in normal form as it can be sent: what has a meaning in a path and was an escape becomes one again.
pub fn push_normal(normal: &[u8], out: &mut Vec<u8>) {
    push_encoded(normal, b"/!$&'()*+,=:@", out);
}

/// Adds a path or query as a URL has it: as it is, but for the few bytes that clients let pass and others read differently.
pub fn push_as_sent(text: &[u8], out: &mut Vec<u8>) {
    push_encoded(text, b"/!$&'()*+,=:@;%?", out);
}

/// Whether a path that was made may be sent: one of the few bytes that no target has, or a dot segment, would be somebody's way
/// out. The other faults count where they count on requests.
///
/// # Errors
/// The fault.
pub fn check_made(made: &[u8], checks: PathChecks, scratch: &mut Vec<u8>) -> Result<(), PathFault> {
    let bad = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#');
    if !made.starts_with(b"/") || made.starts_with(b"//") || made.iter().any(|&byte| bad(byte)) {
        return Err(PathFault::BadEscape);
    }
    let normal = path::normalize(made, scratch, checks)?;
    let dots = |segment: &[u8]| segment == b"." || segment == b"..";
    if normal.split(|&byte| byte == b'/').any(dots) {
        return Err(PathFault::DotSegment);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_are_found_however_they_are_spelled() {
        for (path, prefix, rest) in [
            ("/shop/a", "/shop", Some("/a")),
            ("/shop", "/shop", Some("")),
            ("/shop/", "/shop", Some("/")),
            ("/shopping", "/shop", None),
            ("/sho", "/shop", None),
            ("/", "/shop", None),
            ("/a", "", Some("/a")),
            ("//a", "", Some("/a")),
            ("/%73hop/a%2Bb", "/shop", Some("/a%2Bb")),
            ("//shop//a", "/shop", Some("/a")),
            ("/;x/shop;y/a;z", "/shop", Some("/a;z")),
            ("/shop;jsessionid=1", "/shop", Some(";jsessionid=1")),
            ("/shop/a/b/c", "/shop/a", Some("/b/c")),
            ("/shop//a", "/shop/a", Some("")),
            ("/shop/b", "/shop/a", None),
            ("/shop%2Fa", "/shop", None),
        ] {
            let found = after_prefix(path.as_bytes(), prefix.as_bytes());
            assert_eq!(found, rest.map(str::as_bytes), "{path} {prefix}");
        }
    }

    #[test]
    fn what_was_made_is_checked() {
        let mut scratch = Vec::new();
        for made in ["/", "/a/b", "/a;x=1", "/a%20b"] {
            assert_eq!(
                check_made(made.as_bytes(), PathChecks::Strict, &mut scratch),
                Ok(())
            );
        }
        for made in [
            "",
            "a",
            "//a",
            "/a b",
            "/a?b",
            "/a#b",
            "/../a",
            "/a/%2e%2e",
            "/a\r\n",
        ] {
            for checks in [PathChecks::Strict, PathChecks::Off] {
                let checked = check_made(made.as_bytes(), checks, &mut scratch);
                assert!(checked.is_err(), "{made}");
            }
        }
        assert!(check_made(b"/a%2Fb", PathChecks::Off, &mut scratch).is_ok());
        assert!(check_made(b"/a%2Fb", PathChecks::Strict, &mut scratch).is_err());
    }

    proptest! {
        /// A path has a prefix if, and only if, its normal form has: so a route and its rewrite agree.
        #[test]
        fn the_prefix_is_that_of_the_normal_form(path in "(/[ab%;6162/]{0,6}){1,4}", prefix in "(/[ab]{1,2}){0,2}") {
            let mut scratch = Vec::new();
            let Ok(normal) = path::normalize(path.as_bytes(), &mut scratch, PathChecks::Strict) else {
                return Ok(());
            };
            let has = normal.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
            let rest = after_prefix(path.as_bytes(), prefix.as_bytes());
            prop_assert_eq!(rest.is_some(), has, "{} {}", path, prefix);
            if let Some(rest) = rest {
                let whole = [prefix.as_bytes(), rest].concat();
                let whole = if whole.is_empty() { b"/".to_vec() } else { whole };
                let mut again = Vec::new();
                let again = path::normalize(&whole, &mut again, PathChecks::Strict);
                prop_assert_eq!(again.ok(), Some(normal), "{} {}", path, prefix);
                prop_assert!(!rest.starts_with(b"//"));
            }
        }

        /// A normal form is sent so that it is read as the same again.
        #[test]
        fn a_normal_form_is_read_as_it_was_meant(normal in "(/[a-z%;?# \\u{e9}+]{1,5}){1,3}") {
            let (mut sent, mut scratch) = (Vec::new(), Vec::new());
            push_normal(normal.as_bytes(), &mut sent);
            prop_assert_eq!(check_made(&sent, PathChecks::Strict, &mut scratch), Ok(()));
            let again = path::normalize(&sent, &mut scratch, PathChecks::Strict);
            prop_assert_eq!(again, Ok(normal.as_bytes()));
        }
    }
}
