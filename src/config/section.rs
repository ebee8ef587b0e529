//! One table of the file, read key by key against the table of keys.
//! It reports what is unknown, missing or of the wrong type, and goes on with the key's default; it knows no key by name.
//! The walk goes on in `lower.rs`, which knows them.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::diagnostic::{Diagnostic, Span};
use super::schema::{self, Choice, Default, Key, Kind};
use super::suggest;
use super::values::{self, Flaw, Read};

/// The problems found so far.
pub(super) type Report = Vec<Diagnostic>;

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

/// A key's value in the file, or its default.
pub(super) struct Value<'t> {
    /// The key's name, for messages.
    pub name: &'static str,
    /// Its row.
    pub key: &'static Key,
    /// The value.
    pub value: &'t DeValue<'t>,
    /// Where it stands.
    pub span: Span,
    /// Whether it is a part of the key's value: an entry of its list, or a header of its table.
    pub part: bool,
}

impl<'t> Section<'t> {
    /// Opens a table and reports the keys that weir does not know.
    pub fn open(
        report: &mut Report,
        path: &'static str,
        table: &'t DeTable<'t>,
        span: Span,
    ) -> Section<'t> {
        for key in table.keys() {
            let name = key.get_ref();
            if !schema::children(path).any(|(known, _)| known == name) {
                report.push(suggest::unknown_key(path, name, key.span()));
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
    pub fn list<T: PartialEq>(
        &self,
        report: &mut Report,
        name: &'static str,
        parse: impl Fn(&str) -> Read<T>,
    ) -> Vec<At<T>> {
        let mut list: Vec<At<T>> = Vec::new();
        for entry in self.entries(report, name, parse) {
            match list.iter().find(|earlier| earlier.value == entry.value) {
                Some(first) => report.push(listed_twice(name, entry.span, &first.span)),
                None => list.push(entry),
            }
        }
        list
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

impl<'t> Value<'t> {
    /// An entry of its list.
    pub fn entry(&self, entry: &'t Spanned<DeValue<'t>>) -> Value<'t> {
        Value {
            value: entry.get_ref(),
            span: entry.span(),
            part: true,
            ..*self
        }
    }

    /// Reads it as text.
    pub fn text<T>(&self, parse: impl Fn(&str) -> Read<T>) -> Result<T, Diagnostic> {
        match self.value {
            DeValue::String(text) => parse(text).map_err(|flaw| self.flawed(flaw)),
            _ => Err(self.wrong_type()),
        }
    }

    /// The flaw at this place.
    pub fn flawed(&self, flaw: Flaw) -> Diagnostic {
        flaw.of(&self.called(), self.span.clone())
    }

    fn called(&self) -> String {
        if self.part {
            format!("an entry of `{}`", self.name)
        } else {
            format!("`{}`", self.name)
        }
    }

    /// The value is of a type that the key, or this part of it, cannot have.
    pub fn wrong_type(&self) -> Diagnostic {
        let wanted = if self.part {
            wanted_of_part(self.key.kind)
        } else {
            wanted(self.key.kind)
        };
        Diagnostic::at(
            Code::WrongType,
            self.span.clone(),
            format!("{} must be {wanted}", self.called()),
            format!("this is {}", type_name(self.value)),
        )
        .help(self.right_type())
    }

    /// How to write what was probably meant.
    fn right_type(&self) -> String {
        let Key { kind, example, .. } = self.key;
        match (kind, self.value) {
            (Kind::Duration { .. }, DeValue::Integer(number)) => {
                format!("write it with its unit, such as \"{number}s\"")
            }
            (Kind::Size { .. }, DeValue::Integer(number)) => {
                format!("write it with its unit, such as \"{number}B\"")
            }
            (Kind::Count { .. } | Kind::Flag, DeValue::String(_)) => {
                format!("write it without quotes: {} = {example}", self.name)
            }
            (Kind::List(_) | Kind::TextOrTables(_), DeValue::String(text)) => {
                format!("write {} = [\"{}\"]", self.name, values::brief(text))
            }
            (Kind::Tables, _) => {
                format!("write each as a table of its own, under [[{}]]", self.name)
            }
            (Kind::Named, _) => format!("write a table [{}.NAME]", self.name),
            _ if example.is_empty() => format!("write a table [{}]", self.name),
            _ => format!("write {} = {example}", self.name),
        }
    }

    fn empty_list(&self) -> Diagnostic {
        let help = match self.key.default {
            Default::Means(meaning) => format!("leave `{}` out for {meaning}", self.name),
            _ => format!("write {} = {}", self.name, self.key.example),
        };
        Diagnostic::at(
            Code::EmptyList,
            self.span.clone(),
            format!("`{}` is an empty list", self.name),
            "at least one entry belongs here",
        )
        .help(help)
    }
}

fn listed_twice(name: &str, again: Span, first: &Span) -> Diagnostic {
    let message = format!("`{name}` says the same thing twice");
    Diagnostic::at(Code::ListedTwice, again, message, "again here")
        .and(first.clone(), "first said here")
        .help("leave one of them out")
}

impl Flaw {
    /// The flaw as a problem of `what` at a place.
    pub(super) fn of(self, what: &str, span: Span) -> Diagnostic {
        Diagnostic::at(self.code, span, format!("{what} {}", self.says), self.label).help(self.help)
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

fn chosen(choice: &Choice, text: &str) -> Read<&'static str> {
    if let Some(word) = choice.words.iter().find(|word| **word == text) {
        return Ok(word);
    }
    let words = suggest::quoted_list(choice.words);
    let later = choice.later.iter().any(|word| {
        *word == text || word.ends_with(':') && text.starts_with(word) && text.len() > word.len()
    });
    if later {
        return Err(Flaw::new(
            Code::NotYet,
            "has a value of a later version",
            "not in this version",
            format!("this version has {words}"),
        ));
    }
    let help = match suggest::closest(text, choice.words.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"? It can be {words}"),
        None => format!("it can be {words}"),
    };
    let label = format!("there is no `{}`", values::brief(text));
    Err(Flaw::new(
        Code::UnknownChoice,
        "has an unknown value",
        label,
        help,
    ))
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

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What a key wants, in words.
fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Table => "a table".to_owned(),
        Kind::Named => "a table of tables".to_owned(),
        Kind::Tables => "an array of tables".to_owned(),
        Kind::TextOrTables(_) | Kind::List(_) => "a list".to_owned(),
        Kind::TextOrTable(form) => format!("{} or a table", form.what),
        Kind::Flag => "true or false".to_owned(),
        Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Duration { .. } => "a duration such as \"5s\"".to_owned(),
        Kind::Size { .. } => "a size such as \"64KiB\"".to_owned(),
        Kind::Text(form) => form.what.to_owned(),
        Kind::Choice(choice) => suggest::quoted_list(choice.words),
        Kind::Headers => "a table of header names and values".to_owned(),
    }
}

/// What an entry of a key's list or table must be.
fn wanted_of_part(kind: Kind) -> String {
    match kind {
        Kind::List(form) => form.what.to_owned(),
        Kind::TextOrTables(form) => format!("{}, or a table", form.what),
        Kind::Headers => "text, or true for any value".to_owned(),
        _ => "a table".to_owned(),
    }
}
