//! Text to the parts of a cookie (RFC 6265 section 4.1.1): its name, path and domain.
//! What cannot be written to a Set-Cookie line is refused here, so that the data path never checks it.
//! Here the walk ends.

use super::{Flaw, Read, names};
use crate::config::codes::Code;

/// A cookie's name.
pub fn name(text: &str) -> Read<String> {
    if names::is_token(text) {
        return Ok(text.to_owned());
    }
    let label = match text
        .chars()
        .find(|c| !names::is_token(c.encode_utf8(&mut [0; 4])))
    {
        Some(character) => format!("`{}` does not fit", character.escape_debug()),
        None => "this is empty".to_owned(),
    };
    Err(Flaw::new(
        Code::BadCookieName,
        "is not a cookie name",
        label,
        "write letters, digits, `_` and `-`, such as \"weir_was\"",
    ))
}

/// A cookie's `Path` attribute.
pub fn path(text: &str) -> Read<String> {
    let fits = |c: char| (c.is_ascii_graphic() || c == ' ') && c != ';';
    let label = match text.chars().find(|character| !fits(*character)) {
        _ if !text.starts_with('/') => {
            "browsers ignore a path that does not begin with `/`".to_owned()
        }
        Some(character) => format!("`{}` does not fit", character.escape_debug()),
        None => return Ok(text.to_owned()),
    };
    let help = "write a path such as \"/\" or \"/shop\"";
    Err(Flaw::new(
        Code::BadCookieAttribute,
        "cannot be the path of a cookie",
        label,
        help,
    ))
}

/// A cookie's `Domain` attribute, in lower case.
pub fn domain(text: &str) -> Read<String> {
    let bad = |label: &str, help: String| {
        let says = "cannot be the domain of a cookie";
        Err(Flaw::new(Code::BadCookieAttribute, says, label, help))
    };
    if let Some(rest) = text.strip_prefix('.').filter(|rest| names::is_domain(rest)) {
        return bad(
            "browsers ignore the leading dot",
            format!("write \"{rest}\""),
        );
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return bad("browsers want a name here", "leave `domain` out".into());
    }
    if !names::is_domain(text) {
        return bad(
            "this is not a domain name",
            "write a name such as \"example.com\"".into(),
        );
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        assert!(name("weir_was").is_ok());
        for text in ["", "a b", "a=b", "a;b", "é"] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(path("/shop").is_ok());
        for text in ["", "shop", "/a;b", "/a\r\nb", "/é"] {
            assert!(path(text).is_err(), "{text}");
        }
        assert_eq!(domain("Example.com"), Ok("example.com".to_owned()));
        for text in ["", ".example.com", "a b", "10.0.0.1"] {
            assert!(domain(text).is_err(), "{text}");
        }
    }
}
