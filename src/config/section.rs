//! One table of the file, read key by key against the table of keys.
//! It reports what is unknown, missing or of the wrong type, and goes on with the key's default; it knows no key by name.
//! The walk goes on in `lower.rs`, which knows them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::diagnostic::{Diagnostic, Span};
use super::schema::{self, Default, Key, Kind};
use super::suggest;
use super::value::{Value, chosen, type_name};
use super::values::{self, Read};

/// The problems found so far.
pub(super) type Report = Vec<Diagnostic>;

/// Unknown keys are not looked at beyond so many problems: a file with more is no configuration, and each costs a search for
/// what was meant.
const MOST_PROBLEMS: usize = 1000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Span,
}

/// One table.
pub(super) struct Section<'t> {
    /// Its place in the table of keys.
    path: &'static str,
    table: &'t DeTable<'t>,
    /// What names it in the file.
    span: Span,
    /// The file has something else in its place, which was reported: nothing is missing.
    broken: bool,
}

impl<'t> Section<'t> {
    /// Opens a table and reports the keys that weir does not know.
    pub fn open(
        report: &mut Report,
        path: &'static str,
        table: &'t DeTable<'t>,
        span: Span,
    ) -> Section<'t> {
        Section::open_among(report, path, table, span, |_| true)
    }

    /// The same where only keys that are `among` the table's help.
    pub fn open_among(
        report: &mut Report,
        path: &'static str,
        table: &'t DeTable<'t>,
        span: Span,
        among: impl Fn(&str) -> bool,
    ) -> Section<'t> {
        for key in table.keys() {
            let name = key.get_ref();
            let known = schema::children(path).any(|(known, _)| known == name);
            if !known && report.len() < MOST_PROBLEMS {
                report.push(suggest::unknown_key(path, name, key.span(), &among));
            }
        }
        Section {
            path,
            table,
            span,
            broken: false,
        }
    }

    /// What names the table in the file.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// A key's value, if the file has it.
    pub fn value(&self, name: &'static str) -> Option<Value<'t>> {
        let value = self.table.get(name)?;
        let key = schema::key(&self.path_of(name))?;
        let (value, span) = (value.get_ref(), value.span());
        Some(Value {
            name,
            key,
            value,
            span,
            part: false,
        })
    }

    /// Where a key's value stands; the table itself when the file does not have it.
    pub fn place(&self, name: &'static str) -> Span {
        self.table.get(name).map_or(self.span(), Spanned::span)
    }

    /// Where a key stands; the table itself when the file does not have it.
    pub fn key_place(&self, name: &'static str) -> Span {
        let entry = self.table.get_key_value(name);
        entry.map_or(self.span(), |(key, _)| key.span())
    }

    /// Those of these keys that are there, with their places.
    pub fn present(&self, names: &[&'static str]) -> Vec<(&'static str, Span)> {
        let there = names.iter().filter(|name| self.value(name).is_some());
        there.map(|name| (*name, self.key_place(name))).collect()
    }

    fn path_of(&self, name: &str) -> String {
        match self.path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// Reads a key with `parse`. A refused value is reported, and its default stands in; so does it for an absent key.
    /// `None` when there is no default.
    pub fn read<T>(
        &self,
        report: &mut Report,
        name: &'static str,
        parse: impl Fn(&Value<'_>) -> Result<T, Diagnostic>,
    ) -> Option<T> {
        let key = schema::key(&self.path_of(name))?;
        match self.value(name).map(|value| parse(&value)) {
            Some(Ok(value)) => return Some(value),
            Some(Err(problem)) => report.push(problem),
            None if key.default == Default::Required && !self.broken => {
                report.push(missing(key, name, self.span()));
            }
            None => {}
        }
        let Default::Is(text) = key.default else {
            return None;
        };
        let default = DeValue::parse(text).ok()?;
        let (value, span) = (default.get_ref(), default.span());
        parse(&Value {
            name,
            key,
            value,
            span,
            part: false,
        })
        .ok()
    }

    /// A length of time.
    pub fn duration(&self, report: &mut Report, name: &'static str) -> Option<Duration> {
        self.read(report, name, |value| match value.key.kind {
            Kind::Duration { min } => {
                value.text(|text| values::duration(text, Duration::from_millis(min)))
            }
            _ => Err(value.wrong_type()),
        })
    }

    /// A number of bytes.
    pub fn size(&self, report: &mut Report, name: &'static str) -> Option<u64> {
        self.read(report, name, |value| match value.key.kind {
            Kind::Size { min, max } => value.text(|text| values::size(text, min, max)),
            _ => Err(value.wrong_type()),
        })
    }

    /// A whole number.
    pub fn count(&self, report: &mut Report, name: &'static str) -> Option<u64> {
        self.read(report, name, |value| match (value.key.kind, value.value) {
            (Kind::Count { min, max }, DeValue::Integer(number)) => {
                values::count(number.as_str(), number.radix(), min, max)
                    .map_err(|flaw| value.flawed(flaw))
            }
            _ => Err(value.wrong_type()),
        })
    }

    /// A number that may have a fraction.
    pub fn fraction(&self, report: &mut Report, name: &'static str) -> Option<f64> {
        self.read(report, name, |value| {
            let number = match value.value {
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                    .map(|number| number as f64)
                    .map_err(|_| value.wrong_type()),
                DeValue::Float(number) => number.as_str().parse().map_err(|_| value.wrong_type()),
                _ => Err(value.wrong_type()),
            }?;
            let Kind::Fraction { max } = value.key.kind else {
                return Err(value.wrong_type());
            };
            values::fraction(number, max).map_err(|flaw| value.flawed(flaw))
        })
    }

    /// `true` or `false`.
    pub fn flag(&self, report: &mut Report, name: &'static str) -> bool {
        let read = self.read(report, name, |value| {
            value.value.as_bool().ok_or_else(|| value.wrong_type())
        });
        read.unwrap_or_default()
    }

    /// Text that `parse` reads.
    pub fn text<T>(
        &self,
        report: &mut Report,
        name: &'static str,
        parse: impl Fn(&str) -> Read<T>,
    ) -> Option<T> {
        self.read(report, name, |value| value.text(&parse))
    }

    /// One of a few words. The first pair stands in for a word that is refused.
    pub fn choice<T: Copy, const N: usize>(
        &self,
        report: &mut Report,
        name: &'static str,
        meanings: [(&'static str, T); N],
    ) -> T {
        let read = self.read(report, name, |value| {
            let Kind::Choice(choice) = value.key.kind else {
                return Err(value.wrong_type());
            };
            let word = value.text(|text| chosen(choice, text))?;
            let meaning = meanings.iter().find(|(known, _)| *known == word);
            meaning
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| value.wrong_type())
        });
        read.unwrap_or(meanings[0].1)
    }

    /// A list of text, each entry read by `parse` with its place; refused entries are reported and left out.
    pub fn entries<T>(
        &self,
        report: &mut Report,
        name: &'static str,
        parse: impl Fn(&str) -> Read<T>,
    ) -> Vec<At<T>> {
        let Some(value) = self.value(name) else {
            self.read(report, name, |_| Ok(()));
            return Vec::new();
        };
        let DeValue::Array(entries) = value.value else {
            report.push(value.wrong_type());
            return Vec::new();
        };
        if entries.is_empty() && value.key.default != Default::Is("[]") {
            report.push(value.empty_list());
        }
        let mut list: Vec<At<T>> = Vec::new();
        for entry in entries.iter() {
            let entry = value.entry(entry);
            match entry.text(&parse) {
                Err(problem) => report.push(problem),
                Ok(read) => list.push(At {
                    value: read,
                    span: entry.span,
                }),
            }
        }
        list
    }

    /// The same; an entry that is there already is reported and left out.
    pub fn list<T: Clone + Eq + Hash>(
        &self,
        report: &mut Report,
        name: &'static str,
        parse: impl Fn(&str) -> Read<T>,
    ) -> Vec<At<T>> {
        let mut first = HashMap::new();
        let mut list = self.entries(report, name, parse);
        list.retain(|entry| match first.entry(entry.value.clone()) {
            Entry::Occupied(first) => {
                report.push(listed_twice(name, entry.span.clone(), first.get()));
                false
            }
            Entry::Vacant(free) => {
                free.insert(entry.span.clone());
                true
            }
        });
        list
    }

    /// A table of text under names that the file chooses, in file order; a refused name or text is reported and left out.
    pub fn texts<N, T>(
        &self,
        report: &mut Report,
        name: &'static str,
        parse_name: impl Fn(&str) -> Read<N>,
        parse: impl Fn(&N, &str) -> Read<T>,
    ) -> Vec<(At<N>, T)> {
        let Some(whole) = self.value(name) else {
            return Vec::new();
        };
        let DeValue::Table(table) = whole.value else {
            report.push(whole.wrong_type());
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, value) in in_file_order(table) {
            let span = key.span();
            let read = parse_name(key.get_ref())
                .map_err(|flaw| flaw.of(&format!("a name in `{name}`"), span.clone()))
                .and_then(|name| {
                    let text = whole.entry(value).text(|text| parse(&name, text))?;
                    Ok((At { value: name, span }, text))
                });
            match read {
                Ok(read) => found.push(read),
                Err(problem) => report.push(problem),
            }
        }
        found
    }

    /// The table of a key, or an empty one in its place.
    pub fn section<'s>(
        &'s self,
        report: &mut Report,
        name: &'static str,
        path: &'static str,
        empty: &'s DeTable<'s>,
    ) -> Section<'s> {
        match self.value(name) {
            Some(Value {
                value: DeValue::Table(table),
                span,
                ..
            }) => Section::open(report, path, table, named(span, self.key_place(name))),
            Some(other) => {
                report.push(other.wrong_type());
                Section {
                    broken: true,
                    ..Section::empty(path, empty, other.span)
                }
            }
            None => Section::empty(path, empty, self.span()),
        }
    }

    /// A table that the file does not have, so that every key has its default.
    pub fn empty(path: &'static str, empty: &'t DeTable<'t>, span: Span) -> Section<'t> {
        Section {
            path,
            table: empty,
            span,
            broken: false,
        }
    }

    /// The tables under names that the file chooses, in file order, with those names.
    pub fn named_tables(
        &self,
        report: &mut Report,
        name: &'static str,
        path: &'static str,
    ) -> Vec<(At<String>, Section<'t>)> {
        let tables = match self.value(name) {
            None => return Vec::new(),
            Some(Value {
                value: DeValue::Table(tables),
                ..
            }) => tables,
            Some(other) => {
                report.push(other.wrong_type());
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for (key, value) in in_file_order(tables) {
            let chosen = key.get_ref();
            let span = key.span();
            if let Err(flaw) = values::names::name(chosen) {
                let noun = name.trim_end_matches('s');
                report.push(flaw.of(
                    &format!("the {noun} name `{}`", values::brief(chosen)),
                    span.clone(),
                ));
            }
            match value.get_ref() {
                DeValue::Table(table) => {
                    let place = named(value.span(), span.clone());
                    let section = Section::open(report, path, table, place);
                    let value = chosen.to_string();
                    found.push((At { value, span }, section));
                }
                other => report.push(not_a_table(name, chosen, other, value.span())),
            }
        }
        found
    }
}

/// The entries of a table as the file has them; the library sorts them by name.
pub(super) fn in_file_order<'t>(
    table: &'t DeTable<'t>,
) -> Vec<(
    &'t Spanned<toml::de::DeString<'t>>,
    &'t Spanned<DeValue<'t>>,
)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// What names a table: its header, or its key when a header of a deeper table implies it.
fn named(table: Span, key: Span) -> Span {
    if table.is_empty() { key } else { table }
}

fn missing(key: &Key, name: &str, span: Span) -> Diagnostic {
    Diagnostic::at(
        Code::MissingKey,
        span,
        format!("`{name}` is missing"),
        format!("`{name}` belongs here"),
    )
    .help(format!("add {name} = {}", key.example))
}

fn not_a_table(what: &str, name: &str, value: &DeValue<'_>, span: Span) -> Diagnostic {
    let name = values::brief(name);
    Diagnostic::at(
        Code::WrongType,
        span,
        format!("`{what}.{name}` must be a table"),
        format!("this is {}", type_name(value)),
    )
    .help(format!("write a table [{what}.{name}]"))
}

fn listed_twice(name: &str, again: Span, first: &Span) -> Diagnostic {
    let message = format!("`{name}` says the same thing twice");
    Diagnostic::at(Code::ListedTwice, again, message, "again here")
        .and(first.clone(), "first said here")
        .help("leave one of them out")
}
