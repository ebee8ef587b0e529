//! Text to a TOML tree, in spite of lines that are not TOML.
//! A line that cannot be read is reported, blanked out byte for byte and read over, so that one slip hides nothing else and
//! every span still fits the file. It must never judge a value.
//! The walk goes on in `lower.rs`, which is given the tree.

use std::borrow::Cow;

use toml::de::DeTable;

use super::codes::{Code, Needs};
use super::diagnostic::{Diagnostic, Span};
use super::values::brief;

/// So many broken places are looked for; a file with more is no configuration.
const MENDS: usize = 20;

/// A text that TOML can read, of the length of the original.
pub(super) struct Mended<'a> {
    /// The original, or a copy with broken lines blanked.
    pub text: Cow<'a, str>,
    /// What was wrong, in the order found.
    pub problems: Vec<Diagnostic>,
    /// What was blanked.
    blanked: Vec<Span>,
    /// Whether a table header was among it.
    header_lost: bool,
    /// Whether the text can be read now; else too much is broken to judge anything.
    pub readable: bool,
}

impl Mended<'_> {
    /// Whether a problem must not be told because it may follow from what was blanked.
    pub fn withholds(&self, problem: &Diagnostic) -> bool {
        match problem.code.needs() {
            Needs::Value => false,
            Needs::Tables => problem
                .labels
                .iter()
                .any(|label| self.has_gap(label.span.start)),
            Needs::Headers => self.header_lost,
            Needs::File => !self.blanked.is_empty(),
        }
    }

    /// Whether something was blanked in the table around the byte `at`.
    fn has_gap(&self, at: usize) -> bool {
        let at = at.min(self.text.len());
        let mut start = line_start(&self.text, at);
        while start > 0 && !is_header(&self.text[start..line_end(&self.text, start)]) {
            start = line_start(&self.text, start - 1);
        }
        let end = table_end(&self.text, start);
        self.blanked
            .iter()
            .any(|gap| gap.start < end && start < gap.end)
    }
}

/// Finds and blanks what is not TOML.
pub(super) fn mend(text: &str) -> Mended<'_> {
    let mut mended = Mended {
        text: Cow::Borrowed(text),
        problems: Vec::new(),
        blanked: Vec::new(),
        header_lost: false,
        readable: true,
    };
    for _ in 0..MENDS {
        let Some(error) = DeTable::parse_recoverable(&mended.text)
            .1
            .into_iter()
            .next()
        else {
            return mended;
        };
        let (problem, broken) = match unclosed_array(&mended.text) {
            Some((open, next)) => (
                never_closed(&open, &next),
                line_start(&mended.text, open.start)..next.start,
            ),
            None => {
                let at = clamped(&mended.text, error.span());
                let broken = part_to_blank(&mended.text, at.start);
                (explained(&mended.text, error.message(), at), broken)
            }
        };
        mended.problems.push(problem);
        mended.header_lost |= mended.text[broken.clone()].lines().any(makes_table);
        mended.blanked.push(broken.clone());
        if !blank(mended.text.to_mut(), broken) {
            break;
        }
    }
    mended.readable = false;
    mended
}

/// The span of an error, within the text and at the end of what is written when the text ends too early.
fn clamped(text: &str, span: Option<Span>) -> Span {
    let end = text.trim_end().len();
    let span = span.unwrap_or(end..end);
    let start = span.start.min(end);
    start..span.end.clamp(start, text.len())
}

fn line_start(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |newline| newline + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    text.as_bytes()[at..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(text.len(), |newline| at + newline)
}

/// The line of an error; from a table header on, all that stands under it, since it would fall to the table before.
fn part_to_blank(text: &str, at: usize) -> Span {
    let start = line_start(text, at);
    let end = line_end(text, at);
    if is_header(&text[start..end]) {
        start..table_end(text, start)
    } else {
        start..end
    }
}

/// Where the table ends whose header, or whose first line, begins at `start`: before the next header.
fn table_end(text: &str, start: usize) -> usize {
    let mut end = line_end(text, start);
    while end < text.len() {
        let next = line_end(text, end + 1);
        if is_header(&text[end + 1..next]) {
            break;
        }
        end = next;
    }
    end
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// Whether others may refer to what the line makes: a table, by its header or by a dotted key.
fn makes_table(line: &str) -> bool {
    let line = line.trim_start();
    is_header(line) || line.starts_with("listeners") || line.starts_with("pools")
}

/// Overwrites all but line endings with blanks; whether anything was there.
fn blank(text: &mut String, part: Span) -> bool {
    let mut changed = false;
    let blanked: String = text[part.clone()]
        .chars()
        .flat_map(|character| {
            let keep = matches!(character, '\n' | ' ');
            changed |= !keep;
            let shown = if keep { character } else { ' ' };
            std::iter::repeat_n(shown, character.len_utf8())
        })
        .collect();
    text.replace_range(part, &blanked);
    changed
}

/// An array that is still open where the next key or table begins: its bracket, and that next line without its indent.
fn unclosed_array(text: &str) -> Option<(Span, Span)> {
    let mut open: Vec<(u8, usize)> = Vec::new();
    let mut at = 0;
    let bytes = text.as_bytes();
    let mut fresh_line = true;
    while at < bytes.len() {
        if fresh_line && let Some(&(b'[', bracket)) = open.last() {
            let end = line_end(text, at);
            let indent = text[at..end].len() - text[at..end].trim_start().len();
            if begins_something(text[at..end].trim()) {
                return Some((bracket..bracket + 1, at + indent..end));
            }
        }
        // A bracket that begins a line outside of every list begins a table.
        if fresh_line && open.is_empty() && is_header(&text[at..line_end(text, at)]) {
            at = line_end(text, at);
            continue;
        }
        fresh_line = bytes[at] == b'\n';
        match bytes[at] {
            b'#' => at = line_end(text, at),
            b'"' | b'\'' => at = string_end(text, at),
            bracket @ (b'[' | b'{') => {
                open.push((bracket, at));
                at += 1;
            }
            b']' | b'}' => {
                open.pop();
                at += 1;
            }
            _ => at += 1,
        }
    }
    None
}

/// One past the end of the string that begins at `at`; the end of its line when it is not closed.
fn string_end(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let quote = &rest[..1];
    let triple = quote.repeat(3);
    let (body, close, several_lines) = if rest.starts_with(&triple) {
        (at + 3, triple.as_str(), true)
    } else {
        (at + 1, quote, false)
    };
    let limit = if several_lines {
        text.len()
    } else {
        line_end(text, at)
    };
    let mut position = body;
    while position < limit {
        if text.as_bytes()[position] == b'\\' && quote == "\"" {
            position += 2;
        } else if text.as_bytes()[position..].starts_with(close.as_bytes()) {
            return position + close.len();
        } else {
            position += 1;
        }
    }
    limit
}

/// Whether a line looks like `key = value`, `[table]` or `[[table]]`, none of which an array can hold.
fn begins_something(line: &str) -> bool {
    let bare = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-. \"'".contains(c);
        !text.is_empty() && text.chars().all(fits)
    };
    let line = line.split('#').next().unwrap_or_default().trim_end();
    if let Some(header) = line
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let name = header
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let name = name.unwrap_or(header);
        return bare(name) && name.starts_with(|c: char| c.is_ascii_alphabetic());
    }
    line.split_once('=')
        .is_some_and(|(key, _)| bare(key.trim_end()))
}

fn never_closed(open: &Span, next: &Span) -> Diagnostic {
    Diagnostic::at(
        Code::Syntax,
        open.clone(),
        "a list is never closed",
        "opened here",
    )
    .and(next.clone(), "and still open where this begins")
    .help("close it with `]`")
}

/// The library's words made into ours.
fn explained(text: &str, message: &str, at: Span) -> Diagnostic {
    if message.starts_with("duplicate key") {
        return written_twice(text, at);
    }
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let rest = &text[at.start..line_end(text, at.start)];
    if rest.trim().is_empty() && text[..at.start].trim_end().ends_with('=') {
        return Diagnostic::at(
            Code::Syntax,
            at,
            "the value is missing",
            "a value belongs here",
        )
        .help("a value is \"text\", a number, true, false, a [list] or a { table }");
    }
    if what == "string values must be quoted" || UNQUOTED.contains(&what) {
        return Diagnostic::at(
            Code::Syntax,
            at,
            "text stands between quotes",
            "not between quotes",
        )
        .help("write key = \"value\"");
    }
    let label = match expected {
        Some("nothing") | None => "not TOML".to_owned(),
        Some(expected) => format!("expected {expected}"),
    };
    let found = Diagnostic::at(Code::Syntax, at, what, label);
    match advice(what) {
        Some(help) => found.help(help),
        None => found,
    }
}

/// What the library says of text without quotes that begins like a number.
const UNQUOTED: &[&str] = &[
    "invalid float",
    "invalid integer",
    "invalid datetime",
    "invalid value",
    "unexpected leading zero",
];

fn advice(what: &str) -> Option<&'static str> {
    Some(match what {
        "key with no value" | "missing assignment between key-value pairs" => {
            "a line is `key = value`, `[table]` or `[[table]]`"
        }
        "missing value" | "missing value for key" => "write a value after the `=`",
        "invalid basic string" => {
            "close the text with `\"`; a `\"` or `\\` within is written `\\\"` or `\\\\`"
        }
        "invalid literal string" => "close the text with `'`",
        "missing comma between array elements" => "write a `,` between two entries",
        "missing comma between key-value pairs" => "write a `,` between two pairs",
        "unclosed table" | "unclosed array" => "close it with `]`",
        "unclosed array table" => "close it with `]]`",
        "unclosed inline table" => "close it with `}`",
        "unexpected key or value" | "unexpected content" => "write one `key = value` on a line",
        _ => return None,
    })
}

/// A key or table that is there already; the library says where the second one is, and the first is looked for.
fn written_twice(text: &str, at: Span) -> Diagnostic {
    let start = line_start(text, at.start);
    let line = &text[start..line_end(text, at.start)];
    let what = if is_header(line) { "table" } else { "key" };
    let name = &text[at.clone()];
    let shown = if is_header(line) {
        line.split('#').next().unwrap_or_default().trim()
    } else {
        name
    };
    let found = Diagnostic::at(
        Code::DuplicateKey,
        at.clone(),
        format!("the {what} `{}` is written twice", brief(shown)),
        "written again here",
    );
    let found = match first_written(text, line, name, start) {
        Some(first) => found.and(first, "first written here"),
        None => found,
    };
    found.help(if is_header(line) {
        "keep one of them, with the keys of both; several routes are written `[[routes]]`"
    } else {
        "keep one of them"
    })
}

fn first_written(text: &str, line: &str, name: &str, before: usize) -> Option<Span> {
    let mut end = before;
    let mut first = None;
    while end > 0 {
        let start = line_start(text, end - 1);
        let earlier = &text[start..end - 1];
        let trimmed = earlier.trim_start();
        let indent = earlier.len() - trimmed.len();
        let place = start + indent;
        if is_header(line) {
            if trimmed.trim_end() == line.trim() {
                first = Some(place..place + trimmed.trim_end().len());
            }
        } else if trimmed
            .strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
        {
            first = Some(place..place + name.len());
        } else if is_header(earlier) {
            break;
        }
        end = start;
    }
    first
}
