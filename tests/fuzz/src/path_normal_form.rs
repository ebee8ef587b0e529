//! The normal form of a path, and the paths that rewrites make: no dot segment, no second spelling, nothing outside of the prefix.

use weir::config::model::PathChecks;
use weir::http::path::normalize;
use weir::http::rewrite::{after_prefix, check_made, push_as_sent, push_normal};

pub fn run(bytes: &[u8]) {
    let mut scratch = Vec::new();
    let loose = normalize(bytes, &mut scratch, PathChecks::Off).expect("nothing is a fault");
    let loose = loose.to_vec();
    let mut scratch = Vec::new();
    let Ok(normal) = normalize(bytes, &mut scratch, PathChecks::Strict) else {
        return;
    };
    assert_eq!(normal, loose, "checks change no path that passes them");
    assert_eq!(normal, plainly(bytes), "{}", bytes.escape_ascii());
    check_normal(bytes, normal);
    for prefix in ["", "/a", "/shop", "/a/b"] {
        check_prefix(bytes, normal, prefix.as_bytes());
    }
    let mut sent = Vec::new();
    push_as_sent(bytes, &mut sent);
    assert!(
        sent.iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'#')
    );
}

fn check_normal(path: &[u8], normal: &[u8]) {
    assert!(!normal.windows(2).any(|pair| pair == b"//"));
    let is_dots = |segment: &[u8]| segment == b"." || segment == b"..";
    assert!(!normal.split(|byte| *byte == b'/').any(is_dots));
    assert!(!normal.contains(&0) && !normal.contains(&b'\\'));
    if !path.starts_with(b"/") {
        return;
    }
    let mut scratch = Vec::new();
    if !normal.contains(&b'%') && !normal.contains(&b';') {
        let again = normalize(normal, &mut scratch, PathChecks::Strict);
        assert_eq!(again, Ok(normal), "twice is once");
    }
    // What is sent for a normal form is read as that again.
    let (mut spelled, mut scratch) = (Vec::new(), Vec::new());
    push_normal(normal, &mut spelled);
    assert_eq!(
        normalize(&spelled, &mut scratch, PathChecks::Strict),
        Ok(normal)
    );
    assert_eq!(
        check_made(&spelled, PathChecks::Strict, &mut Vec::new()),
        Ok(())
    );
}

/// A rewrite replaces a prefix where, and only where, a route of that prefix matches.
fn check_prefix(path: &[u8], normal: &[u8], prefix: &[u8]) {
    if !path.starts_with(b"/") {
        return;
    }
    let rest = normal.strip_prefix(prefix);
    let has = rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
    let left = after_prefix(path, prefix);
    assert_eq!(left.is_some(), has, "{}", path.escape_ascii());
    if let Some(left) = left {
        assert!(!left.starts_with(b"//") && path.ends_with(left));
        let whole = [b"/new", left].concat();
        let mut scratch = Vec::new();
        if check_made(&whole, PathChecks::Strict, &mut Vec::new()).is_ok() {
            let made = normalize(&whole, &mut scratch, PathChecks::Strict).expect("it was checked");
            assert!(made == b"/new" || made.starts_with(b"/new/"));
        }
    }
}

/// Segments without parameters, decoded, with the runs of slashes merged.
fn plainly(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for (ordinal, segment) in path.split(|byte| *byte == b'/').enumerate() {
        if ordinal > 0 && out.last() != Some(&b'/') {
            out.push(b'/');
        }
        let name = segment
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        let mut bytes = name.iter();
        while let Some(byte) = bytes.next() {
            let mut digit = || (*bytes.next().expect("a digit") as char).to_digit(16);
            out.push(match byte {
                b'%' => (digit().expect("a digit") << 4 | digit().expect("a digit")) as u8,
                byte => *byte,
            });
        }
    }
    out
}
