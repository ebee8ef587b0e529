//! Heads for tests, built by hand.
//! It must never be part of a build that ships, and checks nothing.
//! The walk goes on wherever a test needs a head.

use super::edits::Edits;
use super::head::{AnswerHead, Field, Line, RequestHead, Span, TargetForm, Version};

/// A message that owns its bytes.
pub struct Sample {
    bytes: Vec<u8>,
    lines: Vec<Line>,
    first: usize,
}

impl Sample {
    /// A message with this first line and these fields.
    pub fn new(first: &str, fields: &[(&str, &str)]) -> Sample {
        let mut sample = Sample {
            bytes: format!("{first}\r\n").into_bytes(),
            lines: Vec::new(),
            first: first.len(),
        };
        for (name, value) in fields {
            let name = sample.push(name);
            sample.push(": ");
            let value = sample.push(value);
            let end = sample.push("\r\n").end;
            sample.lines.push(Line {
                name,
                value,
                end,
                field: Field::from_name(name.of(&sample.bytes)),
            });
        }
        sample.push("\r\n");
        sample
    }

    /// The message as a request; its `Host` is the authority.
    pub fn request(&self) -> RequestHead<'_> {
        let mut words = self.bytes[..self.first].split(|&byte| byte == b' ');
        let method = words.next().unwrap();
        let target = words.next().unwrap();
        let path = target.split(|&byte| byte == b'?').next().unwrap();
        let authority = self
            .lines
            .iter()
            .find(|line| line.field == Field::Host)
            .map_or(&b""[..], |line| line.value.of(&self.bytes));
        RequestHead {
            bytes: &self.bytes,
            lines: &self.lines,
            method,
            target,
            form: TargetForm::Origin,
            path_and_query: target,
            path,
            authority,
            version: Version::Http11,
        }
    }

    /// The message as an answer.
    pub fn answer(&self) -> AnswerHead<'_> {
        AnswerHead {
            bytes: &self.bytes,
            lines: &self.lines,
            status: 200,
            version: Version::Http11,
        }
    }

    /// The field lines as text with the edits applied.
    pub fn edited(&self, edits: &mut Edits) -> String {
        let mut out = Vec::new();
        edits.apply(&self.bytes, &self.lines, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn push(&mut self, text: &str) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text.as_bytes());
        let end = self.bytes.len() as u32;
        Span { start, end }
    }
}
