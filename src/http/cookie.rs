//! Cookies: finding and removing one in a request, and writing one on an answer.
//! It never changes a byte of another cookie and never interprets a value.
//! The walk goes on in `policy/persist/`, which decides what weir's own cookie says.

use super::edits::Edits;
use super::head::{AnswerHead, Field, RequestHead};
use crate::config::model::{Cookie, SameSite, Secure};

/// The values of every cookie named `name` (case-sensitive), in order, over all `Cookie` lines (RFC 6265 section 5.4).
///
/// Lenient: blanks around names and values do not count, nor do quotes around a value; a pair without `=` is passed over.
#[inline]
pub fn values<'a, 'n>(
    head: &RequestHead<'a>,
    name: &'n [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    let mut lines = head.field(Field::Cookie);
    let mut pairs = Pairs::default();
    // Looked for several times a request: a loop, since nested adapters cost as much as the search itself.
    std::iter::from_fn(move || {
        loop {
            match pairs.next().map(|pair| value_of(pair, name)) {
                Some(Some(value)) => return Some(value),
                Some(None) => {}
                None => pairs = Pairs::of(lines.next()?.1),
            }
        }
    })
}

/// What an answer does to a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// Nothing.
    Nothing,
    /// It deletes it.
    Deleted,
    /// It gives it this value.
    Value(&'a [u8]),
}

/// What the answer does to the cookie of this name in the end: the last `Set-Cookie` line counts (RFC 6265 section 5.3).
#[inline]
pub fn given<'a>(head: &AnswerHead<'a>, name: &[u8]) -> Given<'a> {
    let lines = head.field(Field::SetCookie);
    let given = lines.filter_map(|(_, line)| {
        let mut parts = Pairs::of(line);
        let value = value_of(parts.next()?, name)?;
        Some(match value.is_empty() || parts.any(is_past) {
            true => Given::Deleted,
            false => Given::Value(value),
        })
    });
    given.last().unwrap_or(Given::Nothing)
}

/// Whether an attribute ends a cookie's life at once. Applications that delete one by date give the beginning of the epoch.
fn is_past(attribute: &[u8]) -> bool {
    let Some(at) = attribute.iter().position(|&byte| byte == b'=') else {
        return false;
    };
    let (name, value) = (
        attribute[..at].trim_ascii(),
        attribute[at + 1..].trim_ascii(),
    );
    if name.eq_ignore_ascii_case(b"max-age") {
        matches!(value, [b'-', ..] | b"0")
    } else {
        name.eq_ignore_ascii_case(b"expires") && value.windows(4).any(|year| year == b"1970")
    }
}

/// Takes every cookie named `name` out of the request; the bytes of the others stay as they are.
pub fn remove(head: &RequestHead<'_>, name: &[u8], edits: &mut Edits) {
    for (line, value) in head.field(Field::Cookie) {
        let Some(Cut { before, mut after }) = Cut::out_of(value, name) else {
            continue;
        };
        let mut is_empty = true;
        edits.replace_with(line, |out| {
            let start = out.len();
            out.extend_from_slice(before.unwrap_or_default());
            while let Some(rest) = after {
                let last = Cut {
                    before: Some(rest),
                    after: None,
                };
                let next = Cut::out_of(rest, name).unwrap_or(last);
                match next.before {
                    Some(others) if out.len() == start => {
                        out.extend_from_slice(others.trim_ascii_start());
                    }
                    Some(others) => {
                        out.push(b';');
                        out.extend_from_slice(others);
                    }
                    None => {}
                }
                after = next.after;
            }
            let says_nothing = |&byte| byte == b';' || byte == b' ' || byte == b'\t';
            is_empty = out[start..].iter().all(says_nothing);
        });
        if is_empty {
            edits.remove(line);
        }
    }
}

/// A cookie that weir sets, with everything but its value written in advance.
#[derive(Clone, Debug)]
pub struct SetCookie {
    name: Box<str>,
    attributes: Box<str>,
    secure: Secure,
}

impl SetCookie {
    /// Prepares a cookie as configured.
    pub fn new(cookie: &Cookie) -> SetCookie {
        let mut attributes = format!("; Path={}", cookie.path);
        if let Some(domain) = &cookie.domain {
            attributes.push_str("; Domain=");
            attributes.push_str(domain);
        }
        if let Some(age) = cookie.max_age {
            attributes.push_str(&format!("; Max-Age={}", age.as_secs()));
        }
        if cookie.http_only {
            attributes.push_str("; HttpOnly");
        }
        attributes.push_str(match cookie.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        SetCookie {
            name: cookie.name.as_str().into(),
            attributes: attributes.into(),
            secure: cookie.secure,
        }
    }

    /// The cookie's name.
    #[inline]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds the `Set-Cookie` line (RFC 6265 section 4.1). `secure` says whether the client came by TLS.
    pub fn write(&self, value: &[u8], secure: bool, edits: &mut Edits) {
        let secure = match self.secure {
            Secure::Auto => secure,
            Secure::Always => true,
            Secure::Never => false,
        };
        edits.append_parts(
            "Set-Cookie",
            &[
                self.name.as_bytes(),
                b"=",
                value,
                self.attributes.as_bytes(),
                if secure { b"; Secure" } else { b"" },
            ],
        );
    }
}

/// What stands before and after a pair, without the semicolons between; absent where there is no semicolon.
struct Cut<'a> {
    before: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
}

impl<'a> Cut<'a> {
    /// Cuts the first pair of this name out; `None` when there is no such pair.
    fn out_of(value: &'a [u8], name: &[u8]) -> Option<Cut<'a>> {
        let mut start = 0;
        for pair in Pairs::of(value) {
            let end = start + pair.len();
            if value_of(pair, name).is_some() {
                return Some(Cut {
                    before: start.checked_sub(1).map(|semicolon| &value[..semicolon]),
                    after: value.get(end + 1..),
                });
            }
            start = end + 1;
        }
        None
    }
}

/// What stands between the semicolons of a line.
#[derive(Default)]
struct Pairs<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Pairs<'a> {
    #[inline]
    fn of(line: &'a [u8]) -> Pairs<'a> {
        Pairs { rest: Some(line) }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let Some(end) = memchr::memchr(b';', rest) else {
            self.rest = None;
            return Some(rest);
        };
        self.rest = Some(&rest[end + 1..]);
        Some(&rest[..end])
    }
}

/// The value of a cookie pair when it has this name.
#[inline]
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pair = pair.trim_ascii_start();
    if pair.first() != name.first() {
        return None;
    }
    let value = pair
        .strip_prefix(name)?
        .trim_ascii_start()
        .strip_prefix(b"=")?
        .trim_ascii();
    match value {
        [b'"', quoted @ .., b'"'] => Some(quoted),
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::http::Sample;

    fn request(cookies: &[&str]) -> Sample {
        let mut fields = vec![("Host", "a")];
        fields.extend(cookies.iter().map(|value| ("Cookie", *value)));
        fields.push(("Accept", "*/*"));
        Sample::new("GET / HTTP/1.1", &fields)
    }

    fn found(cookies: &[&str], name: &str) -> Vec<String> {
        values(&request(cookies).request(), name.as_bytes())
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
            .collect()
    }

    fn removed(cookies: &[&str], name: &str) -> Vec<String> {
        let sample = request(cookies);
        let mut edits = Edits::default();
        remove(&sample.request(), name.as_bytes(), &mut edits);
        sample
            .edited(&mut edits)
            .lines()
            .filter_map(|line| line.strip_prefix("Cookie: "))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn cookies_are_found_leniently() {
        assert_eq!(found(&["a=b; c=d"], "c"), ["d"]);
        assert_eq!(found(&["a=b;c=d"], "a"), ["b"]);
        assert_eq!(found(&[" a = b ;\tc =\td "], "c"), ["d"]);
        assert_eq!(found(&["a=\"b\""], "a"), ["b"]);
        assert_eq!(found(&["a=\"", "a=\"\""], "a"), ["\"", ""]);
        assert_eq!(found(&["x=1", "a=b=c; a=d"], "a"), ["b=c", "d"]);
        assert_eq!(found(&["a; =b; aa=c; A=d;; b"], "a"), [""; 0]);
        assert_eq!(found(&[], "a"), [""; 0]);
    }

    #[test]
    fn an_answer_gives_a_cookie_or_deletes_it() {
        use Given::{Deleted, Nothing, Value};
        for (line, given) in [
            ("JSESSIONID=1.was1; Path=/; HttpOnly", Value(b"1.was1")),
            ("JSESSIONID=1; Max-Age=60", Value(b"1")),
            (
                "JSESSIONID=1; Expires=Sat, 21 Nov 2026 00:00:00 GMT",
                Value(b"1"),
            ),
            ("JSESSIONID=", Deleted),
            ("JSESSIONID=1; max-age = 0", Deleted),
            ("JSESSIONID=1; Max-Age=-1; Path=/", Deleted),
            (
                "JSESSIONID=1; Expires=Thu, 01 Jan 1970 00:00:10 GMT",
                Deleted,
            ),
            ("jsessionid=1", Nothing),
            ("other=JSESSIONID=1", Nothing),
        ] {
            let sample = Sample::new(
                "HTTP/1.1 200 OK",
                &[("Set-Cookie", "a=b"), ("Set-Cookie", line)],
            );
            let answer = sample.answer();
            assert_eq!(super::given(&answer, b"JSESSIONID"), given, "{line}");
        }
        let lines = [("Set-Cookie", "s=1; Max-Age=0"), ("Set-Cookie", "s=2")];
        let sample = Sample::new("HTTP/1.1 200 OK", &lines);
        assert_eq!(given(&sample.answer(), b"s"), Value(b"2"));
    }

    #[test]
    fn the_others_stay_as_they_are() {
        assert_eq!(removed(&["a=b; w=x; c=d"], "w"), ["a=b; c=d"]);
        assert_eq!(removed(&["w=x; a=b"], "w"), ["a=b"]);
        assert_eq!(removed(&["a=b; w=x"], "w"), ["a=b"]);
        assert_eq!(
            removed(&["a = \"b\" ;;w=x;c", "y=z"], "w"),
            ["a = \"b\" ;;c", "y=z"]
        );
        assert_eq!(removed(&["w=x"], "w"), [""; 0]);
        assert_eq!(removed(&["w=x; ;w=y", "a=b; w=z"], "w"), ["a=b"]);
        assert_eq!(removed(&["a=b ; ww=x"], "w"), ["a=b ; ww=x"]);
    }

    #[test]
    fn attributes_follow_the_configuration() {
        let mut cookie = Cookie {
            name: "weir_was".to_owned(),
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            http_only: true,
            secure: Secure::Auto,
            max_age: None,
        };
        let written = |cookie: &Cookie, secure| {
            let mut edits = Edits::default();
            SetCookie::new(cookie).write(b"v", secure, &mut edits);
            Sample::new("HTTP/1.1 200 OK", &[]).edited(&mut edits)
        };
        let plain = "Set-Cookie: weir_was=v; Path=/; HttpOnly; SameSite=Lax";
        assert_eq!(written(&cookie, false), format!("{plain}\r\n"));
        assert_eq!(written(&cookie, true), format!("{plain}; Secure\r\n"));
        cookie.domain = Some("example.com".to_owned());
        cookie.max_age = Some(Duration::from_secs(60));
        cookie.http_only = false;
        cookie.same_site = SameSite::None;
        cookie.secure = Secure::Always;
        assert_eq!(
            written(&cookie, false),
            "Set-Cookie: weir_was=v; Path=/; Domain=example.com; Max-Age=60; SameSite=None; Secure\r\n"
        );
        cookie.secure = Secure::Never;
        assert!(!written(&cookie, true).contains("; Secure"));
    }

    proptest! {
        #[test]
        fn removal_takes_all_of_one_name_and_nothing_else(
            lines in proptest::collection::vec("[wab=; \"]{0,20}", 0..4),
        ) {
            let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
            let rest = removed(&lines, "w");
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            prop_assert_eq!(found(&rest, "w"), [""; 0]);
            for name in ["a", "b", "aa", "ab", "wa"] {
                prop_assert_eq!(found(&rest, name), found(&lines, name));
            }
        }
    }
}
