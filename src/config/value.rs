//! One value of the file and what is wrong with it, in words.
//! It looks at a single value at a time and knows no key by name.
//! Here the walk ends.

use toml::Spanned;
use toml::de::DeValue;

use super::codes::Code;
use super::diagnostic::{Diagnostic, Span};
use super::schema::{Choice, Default, Key, Kind};
use super::suggest;
use super::values::{self, Flaw, Read};

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
            (
                Kind::Count { .. } | Kind::Fraction { .. } | Kind::Flag | Kind::FlagOrTable,
                DeValue::String(_),
            ) => {
                format!("write it without quotes: {} = {example}", self.name)
            }
            (Kind::List(_) | Kind::TextOrTables(_), DeValue::String(text)) => {
                format!("write {} = [\"{}\"]", self.name, values::brief(text))
            }
            (Kind::Tables, _) if example.is_empty() => {
                let path = self.key.path.replace("[]", "");
                format!("write each as a table of its own, under [[{path}]]")
            }
            (Kind::Named, _) => format!("write a table [{}.NAME]", self.name),
            _ if example.is_empty() => format!("write a table [{}]", self.name),
            _ => format!("write {} = {example}", self.name),
        }
    }

    /// The list has no entry.
    pub fn empty_list(&self) -> Diagnostic {
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

impl Flaw {
    /// The flaw as a problem of `what` at a place.
    pub(super) fn of(self, what: &str, span: Span) -> Diagnostic {
        Diagnostic::at(self.code, span, format!("{what} {}", self.says), self.label).help(self.help)
    }
}

/// The word of a choice that the text is.
pub(super) fn chosen(choice: &Choice, text: &str) -> Read<&'static str> {
    if let Some(word) = choice.words.iter().find(|word| **word == text) {
        return Ok(word);
    }
    let words = suggest::quoted_list(choice.words);
    let close = || suggest::closest(text, choice.words.iter().copied());
    let help = suggest::other_word(choice.words, text).unwrap_or_else(|| match close() {
        Some(word) => format!("did you mean \"{word}\"? It can be {words}"),
        None => format!("it can be {words}"),
    });
    let label = format!("there is no `{}`", values::brief(text));
    Err(Flaw::new(
        Code::UnknownChoice,
        "has an unknown value",
        label,
        help,
    ))
}

/// What a value is, in words.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
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
        Kind::FlagOrTable => "true, false or a table".to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Fraction { max } => format!("a number from 0 to {max}"),
        Kind::Duration { .. } => "a duration such as \"5s\"".to_owned(),
        Kind::Size { .. } => "a size such as \"64KiB\"".to_owned(),
        Kind::Text(form) => form.what.to_owned(),
        Kind::Choice(choice) => suggest::quoted_list(choice.words),
        Kind::Headers => "a table of header names and values".to_owned(),
        Kind::Texts(form) => format!("a table with text for {}", form.what),
    }
}

/// What an entry of a key's list or table must be.
fn wanted_of_part(kind: Kind) -> String {
    match kind {
        Kind::List(form) => form.what.to_owned(),
        Kind::TextOrTables(form) => format!("{}, or a table", form.what),
        Kind::Headers => "text, or true for any value".to_owned(),
        Kind::Texts(_) => "text".to_owned(),
        _ => "a table".to_owned(),
    }
}
