//! Draws diagnostics the way rustc does: message, place, source line, carets, help.
//! It must cope with any text: tabs, wide and combining characters, control characters, lines of megabytes, spans past the end.
//! Here the walk ends; `cli/check.rs` prints the result.

use std::fmt::Write as _;

use super::diagnostic::{Diagnostic, Label, Severity, Span};

/// Beyond so many problems, only their number is told.
pub(super) const DRAWN: usize = 100;
/// Columns of a source line that are shown; of a longer one, the part around the problem.
const LINE_COLUMNS: usize = 140;
/// Columns kept to the left of the problem in a line that is cut.
const CONTEXT_COLUMNS: usize = 40;
/// Stands for what is cut off.
const CUT: &str = "...";
/// A tab is shown as so many blanks.
const TAB: &str = "    ";

/// All diagnostics with an empty line between them.
pub(super) fn all(file: &str, text: &str, list: &[Diagnostic], colour: bool) -> String {
    let mut out = String::new();
    let palette = Palette { colour };
    for found in list.iter().take(DRAWN) {
        draw(&mut out, file, text, found, palette);
        out.push('\n');
    }
    if list.len() > DRAWN {
        let more = list.len() - DRAWN;
        let _ = writeln!(out, "... and {more} more\n");
    }
    out
}

/// `file:line:col: error[E0102]: message (help)`.
pub(super) fn one_line(file: &str, text: &str, found: &Diagnostic) -> String {
    let place = match found.labels.first() {
        Some(label) => {
            let line = Line::at(text, label.span.start);
            format!("{file}:{}:{}", line.number, line.column(label.span.start))
        }
        None => file.to_owned(),
    };
    let (kind, code) = (kind(found), found.code.text());
    let help = (found.help.as_ref()).map_or_else(String::new, |help| format!(" ({help})"));
    format!("{place}: {kind}[{code}]: {}{help}", found.message)
}

fn kind(found: &Diagnostic) -> &'static str {
    match found.code.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn draw(out: &mut String, file: &str, text: &str, found: &Diagnostic, palette: Palette) {
    let accent = match found.code.severity() {
        Severity::Error => Ink::Red,
        Severity::Warning => Ink::Yellow,
    };
    let title = format!("{}[{}]", kind(found), found.code.text());
    let title = palette.paint(accent, &title);
    let message = palette.paint(Ink::Bold, &format!(": {}", found.message));
    let _ = writeln!(out, "{title}{message}");
    let lines: Vec<(Line<'_>, &Label)> = found
        .labels
        .iter()
        .map(|label| (Line::at(text, label.span.start), label))
        .collect();
    let widest = lines.iter().map(|(line, _)| line.number).max().unwrap_or(0);
    let gutter = " ".repeat(if widest == 0 { 1 } else { digits(widest) });
    let arrow = palette.paint(Ink::Blue, &format!("{gutter}-->"));
    match lines.first() {
        Some((line, label)) => {
            let column = line.column(label.span.start);
            let _ = writeln!(out, "{arrow} {file}:{}:{column}", line.number);
            draw_lines(out, &lines, &gutter, accent, palette);
        }
        None => {
            let _ = writeln!(out, "{arrow} {file}");
        }
    }
    if let Some(help) = &found.help {
        if !lines.is_empty() {
            let _ = writeln!(out, "{}", palette.paint(Ink::Blue, &format!("{gutter} |")));
        }
        let mark = palette.paint(Ink::Blue, &format!("{gutter} ="));
        let word = palette.paint(Ink::Bold, "help:");
        let _ = writeln!(out, "{mark} {word} {help}");
    }
}

/// The source lines in file order, each once, with the marks of its labels underneath.
fn draw_lines(
    out: &mut String,
    lines: &[(Line<'_>, &Label)],
    gutter: &str,
    accent: Ink,
    palette: Palette,
) {
    let primary: *const Label = lines[0].1;
    let mut sorted: Vec<&(Line<'_>, &Label)> = lines.iter().collect();
    sorted.sort_by_key(|(line, label)| (line.number, label.span.start));
    let bar = palette.paint(Ink::Blue, &format!("{gutter} |"));
    let _ = writeln!(out, "{bar}");
    let mut shown = 0;
    for (line, label) in sorted {
        let view = View::new(line, label.span.start);
        if line.number != shown {
            if shown != 0 && line.number > shown + 1 {
                let _ = writeln!(out, "{}", palette.paint(Ink::Blue, "..."));
            }
            let number = format!("{:>width$} |", line.number, width = gutter.len());
            let number = palette.paint(Ink::Blue, &number);
            let _ = writeln!(out, "{}", format!("{number} {}", view.text).trim_end());
            shown = line.number;
        }
        let (mark, ink) = if std::ptr::eq(*label, primary) {
            ("^", accent)
        } else {
            ("-", Ink::Blue)
        };
        let (indent, width) = view.mark(line, &label.span);
        let marks = format!("{} {}", mark.repeat(width), label.text);
        let marks = palette.paint(ink, marks.trim_end());
        let _ = writeln!(out, "{bar} {}{marks}", " ".repeat(indent));
    }
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// One line of the file.
struct Line<'a> {
    /// Counted from 1.
    number: usize,
    /// Byte of the file that it begins at.
    start: usize,
    /// Without its line ending.
    text: &'a str,
}

impl<'a> Line<'a> {
    /// The line that holds the byte `at`; the last line when that is past the end.
    fn at(text: &'a str, at: usize) -> Line<'a> {
        let mut at = at.min(text.len());
        // The end of a file that ends in a newline belongs to its last line of text, not to the empty one after it.
        if at == text.len() {
            at = text.trim_end().len();
        }
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |next| at + next);
        // A byte order mark is no column.
        let start = match text[start..end].starts_with('\u{feff}') && start == 0 {
            true => '\u{feff}'.len_utf8(),
            false => start,
        };
        let line = &text[start..end];
        Line {
            number: text[..start].matches('\n').count() + 1,
            start,
            text: line.strip_suffix('\r').unwrap_or(line),
        }
    }

    /// The part of the line before the byte `at` of the file.
    fn before(&self, at: usize) -> &'a str {
        let mut end = at.saturating_sub(self.start).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        &self.text[..end]
    }

    /// Column in characters, from 1.
    fn column(&self, at: usize) -> usize {
        self.before(at).chars().count() + 1
    }
}

/// What is shown of a line.
struct View {
    text: String,
    /// Columns cut off on the left, less those of the dots that stand for them.
    cut: usize,
}

impl View {
    /// Chooses what is shown so that the byte `at` is in it.
    fn new(line: &Line<'_>, at: usize) -> View {
        let column = columns(line.before(at));
        let from = if columns(line.text) <= LINE_COLUMNS || column <= CONTEXT_COLUMNS + CUT.len() {
            0
        } else {
            column - CONTEXT_COLUMNS
        };
        let mut text = String::new();
        let mut position = 0;
        let mut cut = 0;
        for character in line.text.chars() {
            let width = width(character);
            if position < from {
                position += width;
                cut = position;
                continue;
            }
            if position + width > from + LINE_COLUMNS {
                text.push_str(CUT);
                break;
            }
            position += width;
            push_shown(&mut text, character);
        }
        if cut > 0 {
            text.insert_str(0, CUT);
            cut -= CUT.len();
        }
        View { text, cut }
    }

    /// Where the marks of a span begin and how many they are; a span over several lines is marked to the end of its first.
    fn mark(&self, line: &Line<'_>, span: &Span) -> (usize, usize) {
        let from = columns(line.before(span.start));
        let to = columns(line.before(span.end.max(span.start)));
        let indent = from.saturating_sub(self.cut);
        let room = columns(&self.text).saturating_sub(indent);
        (indent, to.saturating_sub(from).min(room).max(1))
    }
}

fn push_shown(text: &mut String, character: char) {
    match character {
        '\t' => text.push_str(TAB),
        // A file may come from anywhere: it must not steer the terminal.
        other if other.is_control() => text.push(char::REPLACEMENT_CHARACTER),
        other if is_direction_mark(other) => text.push(char::REPLACEMENT_CHARACTER),
        other => text.push(other),
    }
}

fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// Columns that a terminal gives a character, near enough for carets: the wide blocks of Unicode's East Asian widths
/// and emoji count two, combining marks none.
fn width(character: char) -> usize {
    match character {
        '\t' => TAB.len(),
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200d}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// The invisible characters that reorder text around them.
fn is_direction_mark(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Red,
    Yellow,
    Blue,
}

#[derive(Clone, Copy)]
struct Palette {
    colour: bool,
}

impl Palette {
    fn paint(self, ink: Ink, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => "1",
            Ink::Red => "1;31",
            Ink::Yellow => "1;33",
            Ink::Blue => "1;34",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::Code;

    fn drawn(text: &str, part: &str) -> String {
        let start = text.find(part).expect("the part is in the text");
        let span = start..start + part.len();
        let found = Diagnostic::at(Code::BadName, span, "message", "label").help("mend it");
        all("f.toml", text, &[found], false)
    }

    #[test]
    fn carets_stand_under_the_text_after_tabs_and_wide_characters() {
        assert_eq!(
            drawn("a\n\tb = \"日本é\" # x\n", "# x"),
            "error[E0104]: message\n --> f.toml:2:12\n  |\n2 |     b = \"日本é\" # x\n  |                 ^^^ label\n  |\n  = help: mend it\n\n"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("x = \"{}NEEDLE{}\"", "a".repeat(5000), "b".repeat(5000));
        let out = drawn(&text, "NEEDLE");
        let lines: Vec<_> = out.lines().collect();
        assert!(lines[3].chars().count() < 160, "{out}");
        let at = lines[3].find("NEEDLE").expect("shown");
        assert_eq!(lines[4].find("^^^^^^ label"), Some(at), "{out}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert!(!drawn("a = \"\u{1b}[2J\u{202e}\" # x", "# x").contains(['\u{1b}', '\u{202e}']));
    }

    #[test]
    fn any_span_is_drawn() {
        let long: String = ("aé\t日".repeat(60) + "\n").repeat(2);
        for text in [
            "",
            "\n",
            "é",
            "a\r\nb\r\n",
            "日本",
            "\u{feff}",
            "\u{feff}x\n",
            &long,
        ] {
            for start in (0..8).chain(40..60) {
                for end in [0, 1, 2, 5, 50, 5000] {
                    let found = Diagnostic::at(Code::BadName, start..end, "m", "l")
                        .and(end..start, "other");
                    all("f", text, &[found], true);
                }
            }
        }
    }
}
