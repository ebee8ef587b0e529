//! What Redis and weir say to each other: commands out, replies in (RESP2, redis.io/docs/latest/develop/reference/protocol-spec).
//! It does no input or output, and believes no length that a reply states before it knows it to be small.
//! The walk goes back to `mod.rs`.

use std::fmt;

/// Bytes that a line of a reply may have.
const LINE: usize = 1024;
/// Bytes that a value may have.
const VALUE: usize = 4096;
/// Entries that a list may have; no command of weir's asks for more.
const ENTRIES: usize = 64;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A word such as `OK`.
    Word(String),
    /// Why a command was refused.
    Error(String),
    /// A number.
    Number(i64),
    /// A value, or that there is none.
    Value(Option<Vec<u8>>),
    /// Several values, or that there is no list.
    List(Vec<Option<Vec<u8>>>),
}

/// Bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage;

impl fmt::Display for Garbage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("its reply makes no sense")
    }
}

/// Appends a command.
pub fn command(words: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

/// The reply that `bytes` begin with and how many bytes it has; `None` while it is incomplete.
///
/// # Errors
/// The bytes are no reply, or one to no command of weir's.
pub fn reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Garbage> {
    let mut rest = Rest { bytes, taken: 0 };
    Ok(rest.reply()?.map(|reply| (reply, rest.taken)))
}

/// What is left to read.
struct Rest<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Rest<'a> {
    fn reply(&mut self) -> Result<Option<Reply>, Garbage> {
        let Some((kind, line)) = self.line()? else {
            return Ok(None);
        };
        let text = || String::from_utf8_lossy(line).into_owned();
        Ok(Some(match kind {
            b'+' => Reply::Word(text()),
            b'-' => Reply::Error(text()),
            b':' => Reply::Number(number(line)?),
            b'$' => match self.value(line)? {
                Some(value) => Reply::Value(value),
                None => return Ok(None),
            },
            b'*' => match self.list(line)? {
                Some(list) => Reply::List(list),
                None => return Ok(None),
            },
            _ => return Err(Garbage),
        }))
    }

    /// The first byte of a line, and what follows up to its end.
    fn line(&mut self) -> Result<Option<(u8, &'a [u8])>, Garbage> {
        let rest = &self.bytes[self.taken..];
        let window = &rest[..rest.len().min(LINE)];
        let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
            return if rest.len() < LINE {
                Ok(None)
            } else {
                Err(Garbage)
            };
        };
        let line = rest[..end].strip_suffix(b"\r").ok_or(Garbage)?;
        let (kind, line) = line.split_first().ok_or(Garbage)?;
        self.taken += end + 1;
        Ok(Some((*kind, line)))
    }

    /// The value whose length is stated; -1 is none.
    fn value(&mut self, length: &[u8]) -> Result<Option<Option<Vec<u8>>>, Garbage> {
        let length = match number(length)? {
            -1 => return Ok(Some(None)),
            length => usize::try_from(length).map_err(|_| Garbage)?,
        };
        if length > VALUE {
            return Err(Garbage);
        }
        let Some(value) = self.bytes.get(self.taken..self.taken + length + 2) else {
            return Ok(None);
        };
        let value = value.strip_suffix(b"\r\n").ok_or(Garbage)?;
        self.taken += length + 2;
        Ok(Some(Some(value.to_vec())))
    }

    fn list(&mut self, length: &[u8]) -> Result<Option<Vec<Option<Vec<u8>>>>, Garbage> {
        let length = usize::try_from(number(length)?).map_err(|_| Garbage)?;
        if length > ENTRIES {
            return Err(Garbage);
        }
        let mut list = Vec::with_capacity(length);
        for _ in 0..length {
            let value = match self.line()? {
                Some((b'$', length)) => self.value(length)?,
                Some(_) => return Err(Garbage),
                None => None,
            };
            match value {
                Some(value) => list.push(value),
                None => return Ok(None),
            }
        }
        Ok(Some(list))
    }
}

fn number(text: &[u8]) -> Result<i64, Garbage> {
    let text = std::str::from_utf8(text).map_err(|_| Garbage)?;
    text.parse().map_err(|_| Garbage)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_lists_of_values() {
        let mut out = Vec::new();
        command(&["SET", "ä", ""], &mut out);
        let expected = "*3\r\n$3\r\nSET\r\n$2\r\nä\r\n$0\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn replies_are_read_when_they_are_complete() {
        let value = |text: &str| Some(text.as_bytes().to_vec());
        for (text, expected) in [
            ("+OK\r\n", Reply::Word("OK".into())),
            ("-ERR no\r\n", Reply::Error("ERR no".into())),
            (":12\r\n", Reply::Number(12)),
            ("$-1\r\n", Reply::Value(None)),
            ("$0\r\n\r\n", Reply::Value(value(""))),
            ("$3\r\na\nb\r\n", Reply::Value(value("a\nb"))),
            (
                "*2\r\n$1\r\na\r\n$-1\r\n",
                Reply::List(vec![value("a"), None]),
            ),
            ("*0\r\n", Reply::List(Vec::new())),
        ] {
            let length = text.len();
            assert_eq!(
                reply(text.as_bytes()),
                Ok(Some((expected, length))),
                "{text:?}"
            );
            for end in 0..length {
                assert_eq!(
                    reply(&text.as_bytes()[..end]),
                    Ok(None),
                    "{text:?} to {end}"
                );
            }
            let more = format!("{text}+X");
            assert_eq!(reply(more.as_bytes()).unwrap().unwrap().1, length);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "\r\n",
            "\n",
            "OK\r\n",
            "+OK\n",
            ":x\r\n",
            "$x\r\n",
            "$-2\r\n",
            "$5000\r\n",
            "$99999999999999999999\r\n",
            "$1\r\nabc",
            "*-1\r\n",
            "*65\r\n",
            "*1\r\n:1\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
        ] {
            assert_eq!(reply(text.as_bytes()), Err(Garbage), "{text:?}");
        }
        assert_eq!(reply(&[b'+'; LINE]), Err(Garbage));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = reply(&bytes);
        }

        #[test]
        fn what_looks_like_a_reply_is_survived(text in "[+\\-:$*][-0-9]{0,20}(\r\n|\n)[$a0-9\r\n-]{0,40}") {
            if let Ok(Some((_, length))) = reply(text.as_bytes()) {
                prop_assert!(length <= text.len());
            }
        }
    }
}
