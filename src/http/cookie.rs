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
    head.field(Field::Cookie)
        .flat_map(|(_, value)| value.split(|&byte| byte == b';'))
        .filter_map(move |pair| value_of(pair, name))
}

/// Whether the answer gives a cookie of this name a value, other than to delete it.
pub fn is_set(head: &AnswerHead<'_>, name: &[u8]) -> bool {
    head.field(Field::SetCookie).any(|(_, line)| {
        let mut parts = line.split(|&byte| byte == b';');
        let has_value = parts
            .next()
            .and_then(|pair| value_of(pair, name))
            .is_some_and(|value| !value.is_empty());
        has_value
            && !parts.any(|attribute| {
                let is_age = |(name, age): (&[u8], &[u8])| {
                    name.trim_ascii().eq_ignore_ascii_case(b"max-age")
                        && matches!(age.trim_ascii(), [b'-', ..] | b"0")
                };
                let at = attribute.iter().position(|&byte| byte == b'=');
                at.is_some_and(|at| is_age((&attribute[..at], &attribute[at + 1..])))
            })
    })
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
        for pair in value.split(|&byte| byte == b';') {
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

/// The value of a cookie pair when it has this name.
#[inline]
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = pair
        .trim_ascii_start()
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
    fn a_session_is_opened_by_a_cookie_with_a_value() {
        for (line, opens) in [
            ("JSESSIONID=1.was1; Path=/; HttpOnly", true),
            ("JSESSIONID=1; Max-Age=60", true),
            ("JSESSIONID=", false),
            ("JSESSIONID=1; max-age = 0", false),
            ("JSESSIONID=1; Max-Age=-1; Path=/", false),
            ("jsessionid=1", false),
            ("other=JSESSIONID=1", false),
        ] {
            let sample = Sample::new(
                "HTTP/1.1 200 OK",
                &[("Set-Cookie", "a=b"), ("Set-Cookie", line)],
            );
            assert_eq!(is_set(&sample.answer(), b"JSESSIONID"), opens, "{line}");
        }
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
