//! A problem of a configuration file: what is wrong, where, and what to do about it.
//! It never decides whether something is a problem and never prints; the one who finds it says so in words.
//! The walk goes on in `render.rs`, which draws it the way rustc does.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use super::codes::{Code, Severity};
use super::render;

/// A range of bytes of the file.
pub type Span = Range<usize>;

/// A place and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Bytes of the file.
    pub span: Span,
    /// A few words, shown beside the carets.
    pub text: String,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// What is wrong, in one line.
    pub message: String,
    /// Where: the first is the place itself, others explain it. Empty when the file has no text to show.
    pub labels: Vec<Label>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem at a place.
    pub fn at(
        code: Code,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::of_file(code, message).and(span, label)
    }

    /// A problem of the file as a whole.
    pub fn of_file(code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            message: message.into(),
            labels: Vec::new(),
            help: None,
        }
    }

    /// Adds another place.
    pub fn and(mut self, span: Span, label: impl Into<String>) -> Diagnostic {
        self.labels.push(Label {
            span,
            text: label.into(),
        });
        self
    }

    /// Adds how to mend it.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Whether the file is refused because of it.
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }

    /// Where it stands in the file, for sorting.
    pub(super) fn position(&self) -> usize {
        self.labels.first().map_or(0, |label| label.span.start)
    }
}

/// The problems of one file in the order of their places, with the text they speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file: String,
    text: Arc<str>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Sorts `list` by place; two problems at one place stay in order.
    pub(super) fn new(file: &str, text: &str, mut list: Vec<Diagnostic>) -> Diagnostics {
        list.sort_by_key(Diagnostic::position);
        Diagnostics {
            file: file.to_owned(),
            text: masked(text).into(),
            list,
        }
    }

    /// These and others of the same file.
    pub fn with(&self, others: impl IntoIterator<Item = Diagnostic>) -> Diagnostics {
        let mut all = self.clone();
        all.list.extend(others);
        all.list.sort_by_key(Diagnostic::position);
        all
    }

    /// The file's name as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The problems in file order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many refuse the file.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|found| found.is_error()).count()
    }

    /// How many do not.
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// The counts as text, such as `2 errors, 1 warning`.
    pub fn counts(&self) -> String {
        match (self.errors(), self.warnings()) {
            (0, warnings) => counted(warnings, "warning"),
            (errors, 0) => counted(errors, "error"),
            (errors, warnings) => {
                format!(
                    "{}, {}",
                    counted(errors, "error"),
                    counted(warnings, "warning")
                )
            }
        }
    }

    /// Those that `keeps` wants.
    pub fn only(&self, keeps: impl Fn(&Diagnostic) -> bool) -> Diagnostics {
        Diagnostics {
            file: self.file.clone(),
            text: self.text.clone(),
            list: self.iter().filter(|it| keeps(it)).cloned().collect(),
        }
    }

    /// Those that are no advice.
    pub fn without_advice(&self) -> Diagnostics {
        self.only(|found| !found.code.is_advice())
    }

    /// Whether the same is said here, wherever it stands in the file.
    pub fn says(&self, other: &Diagnostic) -> bool {
        self.iter()
            .any(|found| (found.code, &found.message) == (other.code, &other.message))
    }

    /// One line a problem, `file:line:col: error[E0102]: message (help)`, for logs and the API; at most 100.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list
            .iter()
            .take(render::DRAWN)
            .map(|found| render::one_line(&self.file, &self.text, found))
    }

    /// The whole of it as text with source lines, in colour or not. At most 100 problems are drawn, then counted.
    pub fn render(&self, colour: bool) -> String {
        render::all(&self.file, &self.text, &self.list, colour)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// The text with a `*` for each byte of a password in a URL: source lines are shown in logs and by the API.
fn masked(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    for (scheme, _) in text.match_indices("://") {
        let start = scheme + "://".len();
        let rest = &text[start..];
        let end = rest.find(|c: char| c == '"' || c == '\'' || c.is_control());
        let url = &rest[..end.unwrap_or(rest.len())];
        let Some(login) = url.rfind('@').map(|at| &url[..at]) else {
            continue;
        };
        let from = login.find(':').map_or(0, |colon| colon + 1);
        out[start + from..start + login.len()].fill(b'*');
    }
    String::from_utf8(out).unwrap_or_else(|_| "*".repeat(text.len()))
}

/// A number with its noun, in the plural where it must be: `1 route`, `2 routes`.
pub fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
