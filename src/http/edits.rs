//! Changes to a head, listed before they are made, so that one list serves an HTTP/1 head by slices and an HTTP/2 header map.
//! It never validates what it is given: values come from weir or from a checked head.
//! The walk goes on in `l7/`, which applies the list while a head is copied toward its socket.

use super::head::{Line, Span, is_same_name};

/// A reusable list of changes to one head. Lines are named by their ordinal.
#[derive(Debug, Default)]
pub struct Edits {
    values: Vec<u8>,
    changes: Vec<(u32, Change)>,
    appended: Vec<u8>,
    /// Empty: the target stays.
    target: Vec<u8>,
    has_host: bool,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Remove,
    Replace(Span),
}

impl Edits {
    /// Forgets every change; keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.changes.clear();
        self.appended.clear();
        self.target.clear();
        self.has_host = false;
    }

    /// Puts another request target in origin form in the place of the one that came.
    pub fn set_target(&mut self, target: &[u8]) {
        self.target.clear();
        self.target.extend_from_slice(target);
    }

    /// The target that takes the place of the one that came.
    #[inline]
    pub fn target(&self) -> Option<&[u8]> {
        (!self.target.is_empty()).then_some(&self.target)
    }

    /// Says that `Host` was changed on purpose: nothing else is to change it.
    pub fn keep_host(&mut self) {
        self.has_host = true;
    }

    /// Whether `Host` was changed on purpose.
    #[inline]
    pub fn keeps_host(&self) -> bool {
        self.has_host
    }

    /// A copy of the value that the line was given, empty when it is left out; `None` when it is as it came.
    pub fn changed(&self, line: usize) -> Option<Vec<u8>> {
        let mut changes = self.changes.iter().rev();
        let (_, change) = changes.find(|&&(changed, _)| changed as usize == line)?;
        Some(match change {
            Change::Remove => Vec::new(),
            Change::Replace(span) => span.of(&self.values).to_vec(),
        })
    }

    /// Whether a line of the name was added; `_` counts as `-`.
    pub fn has_appended(&self, name: &[u8]) -> bool {
        let mut lines = self.appended.split(|&byte| byte == b'\n');
        lines.any(|line| {
            let own = line.split(|&byte| byte == b':').next().unwrap_or_default();
            is_same_name(own, name)
        })
    }

    /// Leaves out every line of the name, also those added so far; `_` counts as `-`.
    pub fn remove_named(&mut self, head: &[u8], lines: &[Line], name: &[u8]) {
        for (ordinal, line) in lines.iter().enumerate() {
            if is_same_name(line.name.of(head), name) {
                self.remove(ordinal);
            }
        }
        let mut at = 0;
        while let Some(length) = self.appended[at..].iter().position(|&byte| byte == b'\n') {
            let line = &self.appended[at..=at + length];
            let own = line.split(|&byte| byte == b':').next().unwrap_or_default();
            if is_same_name(own, name) {
                self.appended.drain(at..=at + length);
            } else {
                at += length + 1;
            }
        }
    }

    /// Leaves the line out. A later change of the same line wins.
    #[inline]
    pub fn remove(&mut self, line: usize) {
        self.changes.push((line as u32, Change::Remove));
    }

    /// Gives the line another value. A later change of the same line wins.
    pub fn replace(&mut self, line: usize, value: &[u8]) {
        let value = self.keep(value);
        self.changes.push((line as u32, Change::Replace(value)));
    }

    /// Gives the line the value that `write` adds to the end of a buffer. A later change of the same line wins.
    pub fn replace_with(&mut self, line: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.values.len() as u32;
        write(&mut self.values);
        let end = self.values.len() as u32;
        self.changes
            .push((line as u32, Change::Replace(Span { start, end })));
    }

    /// Adds a line after the others.
    #[inline]
    pub fn append(&mut self, name: &str, value: &[u8]) {
        self.append_parts(name, &[value]);
    }

    /// Adds a line whose value is the parts one after the other.
    #[inline]
    pub fn append_parts(&mut self, name: &str, parts: &[&[u8]]) {
        self.appended.extend_from_slice(name.as_bytes());
        self.appended.extend_from_slice(b": ");
        for part in parts {
            self.appended.extend_from_slice(part);
        }
        self.appended.extend_from_slice(b"\r\n");
    }

    /// Adds a line whose value is what `write` adds to the end of a buffer.
    #[inline]
    pub fn append_with(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.appended.extend_from_slice(name.as_bytes());
        self.appended.extend_from_slice(b": ");
        write(&mut self.appended);
        self.appended.extend_from_slice(b"\r\n");
    }

    /// Copies the changed field lines of a head to `out`, without the empty line that ends it. Runs of unchanged lines are one copy each.
    pub fn apply(&mut self, head: &[u8], lines: &[Line], out: &mut Vec<u8>) {
        let Some(first) = lines.first() else {
            out.extend_from_slice(&self.appended);
            return;
        };
        self.changes.sort_by_key(|&(line, _)| line);
        let end = lines[lines.len() - 1].end;
        let mut from = first.name.start;
        for (position, &(ordinal, change)) in self.changes.iter().enumerate() {
            let overridden = self
                .changes
                .get(position + 1)
                .is_some_and(|&(next, _)| next == ordinal);
            let Some(line) = lines.get(ordinal as usize).filter(|_| !overridden) else {
                continue;
            };
            out.extend_from_slice(
                Span {
                    start: from,
                    end: line.name.start,
                }
                .of(head),
            );
            from = line.end;
            if let Change::Replace(value) = change {
                out.extend_from_slice(line.name.of(head));
                out.extend_from_slice(b": ");
                out.extend_from_slice(value.of(&self.values));
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(Span { start: from, end }.of(head));
        out.extend_from_slice(&self.appended);
    }

    fn keep(&mut self, value: &[u8]) -> Span {
        let start = self.values.len() as u32;
        self.values.extend_from_slice(value);
        Span {
            start,
            end: self.values.len() as u32,
        }
    }
}
