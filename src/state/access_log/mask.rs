//! Masking: a session id in a path, a query or a referer is as good as the session, so a log line must not show it.
//! It works on what was received, whole or cut, and never changes how the rest of the value reads.
//! The walk goes back to `json.rs` and `combined.rs`.

/// What stands in a line for a hidden value.
pub(super) const MASK: &[u8] = b"***";

/// Parameters whose value is hidden, after `;` in a path and after `?`, `&` or `;` in a query, without regard to case and
/// also with percent-encoded letters.
const HIDDEN: [&str; 11] = [
    "jsessionid",
    "phpsessid",
    "aspsessionid",
    "sid",
    "session",
    "sessionid",
    "session_id",
    "token",
    "access_token",
    "id_token",
    "refresh_token",
];

/// The value in pieces, every hidden parameter's value being one piece that reads [`MASK`].
pub(super) fn masked(value: &[u8]) -> Masked<'_> {
    Masked {
        rest: value,
        in_query: false,
        hide: false,
    }
}

/// Pieces of a value that a line may show.
pub(super) struct Masked<'a> {
    rest: &'a [u8],
    in_query: bool,
    hide: bool,
}

impl<'a> Iterator for Masked<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() && !self.hide {
            return None;
        }
        if std::mem::take(&mut self.hide) {
            self.rest = &self.rest[self.end_of_value()..];
            return Some(MASK);
        }
        let mut from = 0;
        while let Some(name) = self.next_name(from) {
            let ends = |byte: &u8| matches!(byte, b'=' | b'&' | b';' | b'?' | b'/');
            from = match self.rest[name..].iter().position(ends) {
                Some(length) => name + length,
                None => break,
            };
            if self.rest[from] == b'=' && is_hidden(&self.rest[name..from]) {
                let (shown, rest) = self.rest.split_at(from + 1);
                self.rest = rest;
                self.hide = true;
                return Some(shown);
            }
        }
        Some(std::mem::take(&mut self.rest))
    }
}

impl Masked<'_> {
    /// Where the name of the next parameter at or after `from` begins.
    fn next_name(&mut self, from: usize) -> Option<usize> {
        let mut bytes = self.rest[from..].iter();
        let found = match self.in_query {
            true => bytes.position(|byte| matches!(byte, b'&' | b';')),
            false => bytes.position(|byte| matches!(byte, b'?' | b';')),
        };
        let at = from + found?;
        self.in_query |= self.rest[at] == b'?';
        Some(at + 1)
    }

    /// Where the value ends that `rest` begins with: a slash ends one in a path, in a query it is data.
    fn end_of_value(&self) -> usize {
        let ends = |byte: &u8| match byte {
            b';' => true,
            b'/' | b'?' => !self.in_query,
            b'&' => self.in_query,
            _ => false,
        };
        self.rest.iter().position(ends).unwrap_or(self.rest.len())
    }
}

/// Whether the name is one of [`HIDDEN`], once its escapes are decoded.
fn is_hidden(name: &[u8]) -> bool {
    if !name.contains(&b'%') {
        return HIDDEN
            .iter()
            .any(|hidden| name.eq_ignore_ascii_case(hidden.as_bytes()));
    }
    let decoded = || Decoded(name).map(|byte| byte.to_ascii_lowercase());
    HIDDEN.iter().any(|hidden| decoded().eq(hidden.bytes()))
}

/// Bytes with `%XX` decoded; a bad escape stays as it is.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        let digit = |at: usize| Some(char::from(*rest.get(at)?).to_digit(16)? as u8);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                self.0 = &rest[2..];
                Some(high << 4 | low)
            }
            _ => {
                self.0 = rest;
                Some(first)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> String {
        let bytes: Vec<u8> = masked(value.as_bytes()).flatten().copied().collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn session_ids_are_hidden_wherever_they_stand() {
        for (value, wanted) in [
            ("/cart;jsessionid=A1.was1", "/cart;jsessionid=***"),
            (
                "/cart;JSESSIONID=A1/pay;v=2?x=1",
                "/cart;JSESSIONID=***/pay;v=2?x=1",
            ),
            (
                "/a;v=1;jsessionid=A1?sid=B2&q=c",
                "/a;v=1;jsessionid=***?sid=***&q=c",
            ),
            (
                "/a?token=ab/c=;x=1&Session_ID=z",
                "/a?token=***;x=1&Session_ID=***",
            ),
            ("/a?%74oken=abc", "/a?%74oken=***"),
            ("/a?token=&q=1", "/a?token=***&q=1"),
            ("/a?x=1?token=2", "/a?x=1?token=2"),
            ("/a;jsessionid=A?", "/a;jsessionid=***?"),
            ("/a?access_token=A", "/a?access_token=***"),
            (
                "https://shop.example.com/a;jsessionid=A1?phpsessid=9",
                "https://shop.example.com/a;jsessionid=***?phpsessid=***",
            ),
        ] {
            assert_eq!(shown(value), wanted);
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for value in [
            "",
            "/",
            "/a?q=token",
            "/sid=1",
            "/a?token",
            "/a?tokens=1",
            "/a;;&&??",
            "/%",
            "/a?%zz=%2",
        ] {
            assert_eq!(shown(value), value);
        }
    }
}
