//! Text with variables in braces, and paths with the groups of a regular expression: read once, checked when the file is.
//! What it gives has no character that would end a header line.
//! Here the walk ends.

use regex::bytes::{Regex, RegexBuilder};

use super::{Flaw, Read, brief};
use crate::config::codes::Code;
use crate::config::model::{MAX_REGEX, Part, Piece, Template, Variable};
use crate::config::suggest;

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A step before the backend: it cannot know which one that will be.
    Request,
    /// A step on an answer.
    Answer,
}

/// Text with variables, as `"{client_ip}"`; a brace by itself is written twice.
pub fn template(text: &str, direction: Direction) -> Read<Template> {
    if text.trim_matches([' ', '\t']) != text {
        return Err(flaw(
            Code::BadHeader,
            "blanks around a value are not sent",
            format!("write \"{}\"", brief(text.trim_matches([' ', '\t']))),
        ));
    }
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(flaw(
            Code::BadHeader,
            "a control character is never sent",
            "write the value without line ends and other control characters",
        ));
    }
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let (brace, after) = (&rest[at..=at], &rest[at + 1..]);
        if let Some(after) = after.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}').filter(|_| brace == "{") else {
            return Err(flaw(
                Code::UnknownVariable,
                format!("this `{brace}` has no other half"),
                format!(
                    "write a variable such as {{client_ip}}, or `{brace}{brace}` for the character"
                ),
            ));
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Variable(variable(name, direction)?));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(Template(pieces))
}

fn variable(name: &str, direction: Direction) -> Read<Variable> {
    let known = Variable::ALL.iter().copied();
    let here: Vec<Variable> = known
        .filter(|variable| direction == Direction::Answer || !variable.is_of_answers())
        .collect();
    if let Some(variable) = here.iter().find(|variable| variable.as_str() == name) {
        return Ok(*variable);
    }
    if Variable::ALL
        .iter()
        .any(|variable| variable.as_str() == name)
    {
        return Err(flaw(
            Code::UnknownVariable,
            format!("`{{{name}}}` is not known before the answer"),
            "use it in a filter of type \"response-headers\"",
        ));
    }
    let names: Vec<&str> = here.iter().map(|variable| variable.as_str()).collect();
    let list: Vec<String> = names.iter().map(|name| format!("{{{name}}}")).collect();
    let meant = suggest::closest(name, names.iter().copied());
    let meant = meant.map_or(String::new(), |meant| format!("did you mean {{{meant}}}? "));
    Err(flaw(
        Code::UnknownVariable,
        format!("there is no variable `{}`", brief(name)),
        format!("{meant}There are {}", list.join(", ")),
    ))
}

/// The value of a header, without variables.
pub fn plain_value(text: &str) -> Read<String> {
    super::names::header_value(text).map_err(|flaw| Flaw {
        help: "write the value as it is sent, without blanks around it".to_owned(),
        ..flaw
    })
}

/// The value of a header, with variables.
pub fn request_value(text: &str) -> Read<Template> {
    template(text, Direction::Request)
}

/// The same on answers.
pub fn answer_value(text: &str) -> Read<Template> {
    template(text, Direction::Answer)
}

/// A regular expression over paths.
pub fn regex(text: &str) -> Read<String> {
    compiled(text).map(|_| text.to_owned())
}

fn compiled(text: &str) -> Read<Regex> {
    let compiled = RegexBuilder::new(text).size_limit(MAX_REGEX).build();
    compiled.map_err(|error| {
        let (label, help) = match error {
            regex::Error::CompiledTooBig(_) => (
                "it takes more than 1 MiB when compiled".to_owned(),
                "write a simpler one: large repetitions such as {1000} multiply".to_owned(),
            ),
            other => {
                let text = other.to_string();
                let last = text.lines().next_back().unwrap_or_default();
                (
                    last.trim_start_matches("error: ").to_owned(),
                    "write an expression such as \"^/old/(.*)$\"; look-around and back-references do not exist here".to_owned(),
                )
            }
        };
        Flaw::new(Code::BadRegex, "is not a regular expression", label, help)
    })
}

/// A path made of text and of `$1` or `${name}`, the groups of `regex`; `$$` is a dollar sign.
pub fn path_of_groups(text: &str, regex: &str) -> Read<Vec<Part>> {
    let regex = compiled(regex)?;
    let names: Vec<Option<&str>> = regex.capture_names().collect();
    let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            plain.push('$');
            rest = after;
            continue;
        }
        let (name, after) = group_name(after)?;
        let ordinal = match name.parse::<usize>() {
            Ok(number) => Some(number).filter(|number| *number < names.len()),
            Err(_) => names.iter().position(|known| *known == Some(name)),
        };
        let Some(ordinal) = ordinal else {
            return Err(unknown_group(name, &names));
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Group(ordinal));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    match parts.first() {
        Some(Part::Text(first)) if !first.starts_with('/') => {
            Err(bad_path("this does not begin with `/`"))
        }
        None => Err(bad_path("this is empty")),
        _ => parts.iter().try_for_each(sound_part).map(|()| parts),
    }
}

/// The name after a `$`, and what follows: digits, or anything in braces.
fn group_name(after: &str) -> Read<(&str, &str)> {
    if let Some((name, after)) = after
        .strip_prefix('{')
        .and_then(|rest| rest.split_once('}'))
    {
        return Ok((name, after));
    }
    let end = after
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(after.len());
    match after.split_at(end) {
        ("", _) => Err(Flaw::new(
            Code::BadRegex,
            "names no group",
            "a `$` without a number after it",
            "write $1 or ${name} for a group, $$ for a dollar sign",
        )),
        found => Ok(found),
    }
}

fn unknown_group(name: &str, names: &[Option<&str>]) -> Flaw {
    let named = names.iter().flatten().map(|name| format!("${{{name}}}"));
    let numbered = (0..names.len()).map(|number| format!("${number}"));
    let all: Vec<String> = numbered.chain(named).collect();
    Flaw::new(
        Code::BadRegex,
        "names a group that `regex` does not have",
        format!("there is no group `{}`", brief(name)),
        format!("it has {}; $0 is the whole match", all.join(", ")),
    )
}

fn sound_part(part: &Part) -> Read<()> {
    match part {
        Part::Text(text) => sound_text(text),
        Part::Group(_) => Ok(()),
    }
}

/// A path that a prefix gives way to, without the slash at its end.
pub fn path(text: &str) -> Read<String> {
    if !text.starts_with('/') {
        return Err(bad_path("this does not begin with `/`"));
    }
    sound_text(text)?;
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(bad_path("a dot segment"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Whether text may stand in a path as it is.
fn sound_text(text: &str) -> Read<()> {
    let odd = |c: char| !c.is_ascii_graphic() || "?#\"<>\\^`{|}".contains(c);
    match text.chars().find(|character| odd(*character)) {
        Some('?') => Err(bad_path("the query stays as it is")),
        Some(other) => Err(bad_path(format!(
            "`{}` cannot be sent in a path",
            other.escape_debug()
        ))),
        None if text.contains("//") => Err(bad_path("an empty segment")),
        None => match text.split('%').skip(1).find(|rest| !is_escape(rest)) {
            None => Ok(()),
            Some(rest) => {
                let shown: String = rest.chars().take(2).collect();
                Err(bad_path(format!("`%{shown}` is refused in a path")))
            }
        },
    }
}

/// Whether two digits follow a `%` that every server reads alike: none of a slash, a backslash, a dot or NUL.
fn is_escape(rest: &str) -> bool {
    let digits = rest
        .get(..2)
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_some_and(|byte| !matches!(byte, b'/' | b'\\' | b'.' | 0))
}

fn bad_path(label: impl Into<String>) -> Flaw {
    Flaw::new(
        Code::BadRewrite,
        "is not a path that can be sent",
        label,
        "write a path such as \"/shop\", with other characters as %XX",
    )
}

/// The path of a redirect: with variables, and perhaps a query.
pub fn redirect_path(text: &str) -> Read<Template> {
    let template = template(text, Direction::Request)?;
    let begins = match template.0.first() {
        Some(Piece::Text(text)) => text.starts_with('/'),
        Some(Piece::Variable(variable)) => *variable == Variable::Path,
        None => false,
    };
    if !begins {
        return Err(bad_path("this does not begin with `/` or {path}"));
    }
    for piece in &template.0 {
        if let Piece::Text(text) = piece {
            text.split('?').try_for_each(sound_text)?;
        }
    }
    Ok(template)
}

/// The host of a redirect, with variables.
pub fn redirect_host(text: &str) -> Read<Template> {
    let template = template(text, Direction::Request)?;
    let sound = match template.0.as_slice() {
        [] => false,
        [Piece::Text(host)] => super::names::authority(host).is_ok() && !has_port(host),
        pieces => pieces.iter().all(|piece| match piece {
            Piece::Text(text) => text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
            Piece::Variable(_) => true,
        }),
    };
    if sound {
        return Ok(template);
    }
    Err(Flaw::new(
        Code::BadRewrite,
        "is not a host",
        "this is not a host without scheme, port and path",
        "write a host such as \"www.example.com\" or \"www.{host}\", and a port as `port`",
    ))
}

fn has_port(host: &str) -> bool {
    !host.ends_with(']') && host.contains(':')
}

fn flaw(code: Code, label: impl Into<String>, help: impl Into<String>) -> Flaw {
    let says = match code {
        Code::UnknownVariable => "has a variable that is not there",
        _ => "is not the value of a header",
    };
    Flaw::new(code, says, label, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let read = |text| template(text, Direction::Request);
        let pieces = |text| {
            read(text)
                .map(|template| template.0)
                .map_err(|flaw| flaw.label)
        };
        assert_eq!(
            pieces("a{client_ip}b{path}"),
            Ok(vec![
                Piece::Text("a".into()),
                Piece::Variable(Variable::ClientIp),
                Piece::Text("b".into()),
                Piece::Variable(Variable::Path),
            ])
        );
        assert_eq!(pieces("{{x}}"), Ok(vec![Piece::Text("{x}".into())]));
        assert_eq!(pieces(""), Ok(vec![]));
        for text in [
            "{",
            "}",
            "{client_ip",
            "{nobody}",
            "{backend}",
            "a\r\nb",
            "a\0",
            " a",
            "\u{7f}",
        ] {
            assert!(pieces(text).is_err(), "{text:?}");
        }
        assert!(template("{backend}", Direction::Answer).is_ok());
        for variable in Variable::ALL {
            let text = format!("{{{}}}", variable.as_str());
            assert_eq!(
                template(&text, Direction::Answer),
                Ok(Template(vec![Piece::Variable(*variable)]))
            );
        }
    }

    #[test]
    fn paths_of_groups() {
        let read = |text| path_of_groups(text, "^/(a+)/(?P<rest>.*)$").map_err(|flaw| flaw.label);
        assert_eq!(
            read("/$1/${rest}$$"),
            Ok(vec![
                Part::Text("/".into()),
                Part::Group(1),
                Part::Text("/".into()),
                Part::Group(2),
                Part::Text("$".into()),
            ])
        );
        assert_eq!(read("$0"), Ok(vec![Part::Group(0)]));
        for text in [
            "", "a", "/$3", "/${b}", "/$", "/$x", "/a?b", "/\u{e9}", "/a b", "/a//$1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(regex("(").is_err());
        assert!(regex("(?:a{1000}){1000}").is_err());
    }

    #[test]
    fn places_of_redirects() {
        for text in ["/", "/new{path}", "{path}", "/a?b=c", "/a?"] {
            assert!(redirect_path(text).is_ok(), "{text}");
        }
        for text in ["", "a", "{query}", "//a", "/a b", "/a#b", "https://a/"] {
            assert!(redirect_path(text).is_err(), "{text}");
        }
        for text in ["a.example", "www.{host}", "{host}", "[::1]"] {
            assert!(redirect_host(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a:80",
            "https://a",
            "a/b",
            "{host}/x",
            "[::1]:80",
            "a@b",
        ] {
            assert!(redirect_host(text).is_err(), "{text}");
        }
    }
}
