//! Cookies: finding and removing one in a request, and writing one on an answer.
//! It never changes a byte of another cookie and never interprets a value.
//! The walk goes on in `policy/persist/`, which decides what weir's own cookie says.

use memchr::memchr;
use memchr::memmem::Finder;

use super::edits::Edits;
use super::head::{AnswerHead, Field, RequestHead};
use crate::config::model::{Cookie, SameSite, Secure};

/// A cookie's name, made ready to be looked for: a request is searched for several, and its cookies may be long.
#[derive(Clone, Debug)]
pub struct Name(Finder<'static>);

impl From<&str> for Name {
    fn from(name: &str) -> Name {
        Name(Finder::new(name).into_owned())
    }
}

impl Name {
    /// The name.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.needle()
    }

    /// The first pair of this name that begins at `from` or later.
    #[inline]
    fn find<'a>(&self, line: &'a [u8], mut from: usize) -> Option<Pair<'a>> {
        loop {
            let at = from + self.0.find(line.get(from..)?)?;
            from = at + 1;
            let start = line[..at].trim_ascii_end().len();
            let is_first = start == 0 || line[start - 1] == b';';
            let rest = line[at + self.as_bytes().len()..].trim_ascii_start();
            if let (true, [b'=', rest @ ..]) = (is_first, rest) {
                let length = memchr(b';', rest).unwrap_or(rest.len());
                return Some(Pair {
                    start,
                    end: line.len() - rest.len() + length,
                    value: unquoted(rest[..length].trim_ascii()),
                });
            }
        }
    }
}

/// A pair as it stands in a line, from after the semicolon before it up to the one behind it.
struct Pair<'a> {
    start: usize,
    end: usize,
    value: &'a [u8],
}

/// The values of every cookie of this name (case-sensitive), in order, over all `Cookie` lines (RFC 6265 section 5.4).
///
/// Lenient: blanks around names and values do not count, nor do quotes around a value; a pair without `=` is passed over.
#[inline]
pub fn values<'a, 'n>(
    head: &RequestHead<'a>,
    name: &'n Name,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    let mut lines = head.field(Field::Cookie);
    let (mut line, mut from): (&[u8], usize) = (b"", 0);
    std::iter::from_fn(move || {
        loop {
            if let Some(pair) = name.find(line, from) {
                from = pair.end;
                return Some(pair.value);
            }
            (line, from) = (lines.next()?.1, 0);
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
pub fn given<'a>(head: &AnswerHead<'a>, name: &Name) -> Given<'a> {
    let lines = head.field(Field::SetCookie);
    let given = lines.filter_map(|(_, line)| {
        let mut parts = line.split(|&byte| byte == b';');
        let value = value_of(parts.next()?, name.as_bytes())?;
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

/// Takes every cookie of this name out of the request; the bytes of the others, as far as they are still there, stay as they are.
pub fn remove(head: &RequestHead<'_>, name: &Name, edits: &mut Edits) {
    for (line, own) in head.field(Field::Cookie) {
        let changed = edits.changed(line);
        let value = changed.as_deref().unwrap_or(own);
        let Some(first) = name.find(value, 0) else {
            continue;
        };
        let mut is_empty = true;
        edits.replace_with(line, |out| {
            let start = out.len();
            out.extend_from_slice(&value[..first.start.saturating_sub(1)]);
            let mut after = first.end + 1;
            // One semicolon goes with each pair that goes.
            while let Some(rest) = value.get(after..) {
                let next = name.find(value, after);
                let others = match &next {
                    Some(next) => value.get(after..next.start - 1),
                    None => Some(rest),
                };
                match others {
                    Some(others) if out.len() == start => {
                        out.extend_from_slice(others.trim_ascii_start());
                    }
                    Some(others) => {
                        out.push(b';');
                        out.extend_from_slice(others);
                    }
                    None => {}
                }
                after = next.map_or(value.len(), |next| next.end) + 1;
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
    name: Name,
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
    pub fn name(&self) -> &Name {
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

/// The value of a cookie pair when it has this name.
#[inline]
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = pair
        .trim_ascii_start()
        .strip_prefix(name)?
        .trim_ascii_start()
        .strip_prefix(b"=")?;
    Some(unquoted(value.trim_ascii()))
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', quoted @ .., b'"'] => quoted,
        _ => value,
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
        values(&request(cookies).request(), &name.into())
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
            .collect()
    }

    fn removed(cookies: &[&str], name: &str) -> Vec<String> {
        let sample = request(cookies);
        let mut edits = Edits::default();
        remove(&sample.request(), &name.into(), &mut edits);
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
            assert_eq!(super::given(&answer, &"JSESSIONID".into()), given, "{line}");
        }
        let lines = [("Set-Cookie", "s=1; Max-Age=0"), ("Set-Cookie", "s=2")];
        let sample = Sample::new("HTTP/1.1 200 OK", &lines);
        assert_eq!(given(&sample.answer(), &"s".into()), Value(b"2"));
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
    fn several_names_go_one_after_the_other() {
        let sample = request(&["a=b; w=x; v=y; c=d", "v=1; w=2", "w=3; e=f"]);
        let (head, mut edits) = (sample.request(), Edits::default());
        for name in ["w", "v"] {
            remove(&head, &name.into(), &mut edits);
        }
        let left = sample.edited(&mut edits);
        let left: Vec<_> = left
            .lines()
            .filter(|line| line.starts_with("Cookie"))
            .collect();
        assert_eq!(left, ["Cookie: a=b; c=d", "Cookie: e=f"]);
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
        /// Looking for the name finds what taking every pair apart finds.
        #[test]
        fn a_search_finds_what_splitting_finds(
            lines in proptest::collection::vec("[wab=; \"\t]{0,24}", 0..4),
            name in "[wab]{1,3}",
        ) {
            let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
            let pairs = lines.iter().flat_map(|line| line.split(';'));
            let split = pairs.filter_map(|pair| value_of(pair.as_bytes(), name.as_bytes()));
            let split: Vec<_> = split.map(|value| String::from_utf8_lossy(value).into_owned()).collect();
            prop_assert_eq!(found(&lines, &name), split);
            let rest: Vec<String> = lines
                .iter()
                .flat_map(|line| line.split(';'))
                .filter(|pair| value_of(pair.as_bytes(), name.as_bytes()).is_none())
                .map(|pair| pair.trim().to_owned())
                .filter(|pair| !pair.is_empty())
                .collect();
            let left = removed(&lines, &name);
            let left: Vec<String> = left
                .iter()
                .flat_map(|line| line.split(';'))
                .map(|pair| pair.trim().to_owned())
                .filter(|pair| !pair.is_empty())
                .collect();
            prop_assert_eq!(left, rest);
        }

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
