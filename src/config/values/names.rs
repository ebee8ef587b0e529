//! Text to names and matches: of listeners, pools and backends, hosts, paths, methods, headers and files.
//! A match that no request can have is refused here, since it would be dead weight that looks alive.
//! Here the walk ends.

use std::path::PathBuf;

use super::{Flaw, Read, brief};
use crate::config::codes::Code;
use crate::config::model::AccessTarget;

/// Characters that a name may have. Cookies carry names.
const MAX_NAME: usize = 128;

/// Name of a listener, route or pool: `[a-z0-9_-]+`, at most 128 of them.
pub fn name(text: &str) -> Read<String> {
    let flaw = |label: String| {
        Flaw::new(
            Code::BadName,
            "is not a valid name",
            label,
            "a name has only a-z, 0-9, `_` and `-`",
        )
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    match text.chars().find(|character| !fits(*character)) {
        Some(character) => Err(flaw(format!("`{}` does not fit", shown(character)))),
        None if text.is_empty() => Err(flaw("this is empty".to_owned())),
        None if text.len() > MAX_NAME => Err(flaw(format!("longer than {MAX_NAME} characters"))),
        None => Ok(text.to_owned()),
    }
}

/// Name of a backend, or of its route: at most 128 printable ASCII characters without `/` and blanks.
pub fn backend_name(text: &str) -> Read<String> {
    let flaw = |label: String| {
        Flaw::new(
            Code::BadName,
            "is not a valid name",
            label,
            "a backend's name is printable ASCII without `/` and blanks, such as \"was1\"",
        )
    };
    match text.chars().find(|c| !c.is_ascii_graphic() || *c == '/') {
        Some(character) => Err(flaw(format!("`{}` does not fit", shown(character)))),
        None if text.is_empty() => Err(flaw("this is empty".to_owned())),
        None if text.len() > MAX_NAME => Err(flaw(format!("longer than {MAX_NAME} characters"))),
        None => Ok(text.to_owned()),
    }
}

fn shown(character: char) -> String {
    character.escape_debug().to_string()
}

/// A host pattern in lower case: a name, an address, or `*.` and a name.
pub fn host(text: &str) -> Read<String> {
    let bad = |label: &str, help: String| {
        Err(Flaw::new(
            Code::BadHost,
            "is a pattern that no host matches",
            label,
            help,
        ))
    };
    let lower = text.to_ascii_lowercase();
    let example = || "write a name such as \"shop.example.com\" or \"*.example.com\"".to_owned();
    if lower.is_empty() {
        return bad("this is empty", example());
    }
    if lower == "*" {
        return bad("`*` alone", "leave `hosts` out to match any host".into());
    }
    if let Some((_, rest)) = lower.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return bad("a URL", format!("write only the host: \"{}\"", brief(host)));
    }
    if !lower.is_ascii() {
        return bad(
            "hosts are compared as they are sent, in ASCII",
            "write the name in its `xn--` form".into(),
        );
    }
    if let Some(address) = lower.strip_prefix('[') {
        return match address.strip_suffix(']') {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => Ok(lower),
            _ => bad("not an IPv6 address in brackets", example()),
        };
    }
    let domain = lower.strip_prefix("*.").unwrap_or(&lower);
    if domain.contains('*') {
        return bad(
            "`*` stands for whole labels, and only at the start",
            "write `*.` and a suffix, such as \"*.example.com\"".into(),
        );
    }
    if let Some((host, _)) = lower.split_once(':') {
        return bad(
            "ports are not compared",
            format!("write only the host: \"{}\"", brief(host)),
        );
    }
    if let Some(name) = lower.strip_suffix('.') {
        return bad(
            "the final dot of a host is not compared",
            format!("write \"{}\"", brief(name)),
        );
    }
    if let Some((host, _)) = lower.split_once('/') {
        return bad(
            "a path does not belong here",
            format!("write \"{}\", and the path as `path`", brief(host)),
        );
    }
    if !is_domain(domain) {
        return bad("this is not a host name", example());
    }
    Ok(lower)
}

/// Labels of letters, digits, `-` and `_`, none longer than 63, 253 in all.
pub fn is_domain(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() <= 253
        && text
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && label.bytes().all(fits))
}

/// The path of a route, which must be in the normal form that requests are brought into before they are compared:
/// no parameters, every escape decoded, no dot segments, single slashes.
pub fn path(text: &str) -> Read<String> {
    let bad = |label: String, help: String| {
        let says = "is not a path in normal form";
        Err(Flaw::new(Code::BadPath, says, label, help))
    };
    if !text.starts_with('/') {
        return bad(
            "a path begins with `/`".into(),
            format!("write \"/{}\"", brief(text.trim_start_matches('*'))),
        );
    }
    if let Some(at) = text.find(['?', '#', ';']) {
        let what = match text.as_bytes()[at] {
            b'?' => "a query is not compared",
            b'#' => "a fragment is never sent",
            _ => "parameters are cut off before paths are compared",
        };
        return bad(what.into(), format!("write \"{}\"", brief(&text[..at])));
    }
    if let Some(wild) = text.find('*') {
        let plain = text[..wild].trim_end_matches('/');
        let plain = if plain.is_empty() { "/" } else { plain };
        return bad(
            "`*` is no wildcard here".into(),
            format!("a path is a prefix already: write \"{}\"", brief(plain)),
        );
    }
    if let Some((escape, help)) = text.match_indices('%').find_map(|(at, _)| escape(text, at)) {
        return bad(escape, help);
    }
    if text.contains("//") {
        return bad(
            "an empty segment".into(),
            "write single slashes, as requests are compared".into(),
        );
    }
    if let Some(segment) = text
        .split('/')
        .find(|segment| matches!(*segment, "." | ".."))
    {
        return bad(
            format!("`{segment}` is a dot segment, and requests with one are refused"),
            "write the path that is meant, without dot segments".into(),
        );
    }
    let odd = |character: char| character == '\\' || character.is_control();
    if let Some(character) = text.chars().find(|character| odd(*character)) {
        return bad(
            format!("requests with `{}` are refused", shown(character)),
            "write the path without it".into(),
        );
    }
    if text.ends_with(char::is_whitespace) {
        return bad(
            "a blank at the end".into(),
            format!("write \"{}\"", brief(text.trim_end())),
        );
    }
    Ok(text.to_owned())
}

/// What is wrong with the escape that begins at `at`, and how to mend it; `None` for a `%` that begins none.
fn escape(text: &str, at: usize) -> Option<(String, String)> {
    let code = text.get(at + 1..at + 3)?;
    let digits = code.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = u8::from_str_radix(code, 16).ok().filter(|_| digits)?;
    if matches!(byte, b'/' | b'\\' | 0) {
        let what = shown(byte.into());
        return Some((
            format!("requests with an encoded `{what}` are refused"),
            "write the path without it".into(),
        ));
    }
    Some((
        format!("`%{code}` is decoded before paths are compared"),
        format!("write \"{}\"", brief(&decoded(text))),
    ))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let byte = code
            .filter(|code| first == b'%' && code.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A request method, which is compared case by case.
pub fn method(text: &str) -> Read<String> {
    let bad = |label: &str, help: String| {
        Err(Flaw::new(
            Code::BadMethod,
            "is a method that reaches no route",
            label,
            help,
        ))
    };
    if !is_token(text) {
        return bad(
            "this is not a method",
            "write a method such as \"GET\"".into(),
        );
    }
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return bad(
            "methods are upper case",
            format!("write \"{}\"", brief(&upper)),
        );
    }
    if text == "CONNECT" {
        return bad(
            "weir answers CONNECT itself, with 405",
            "leave it out".into(),
        );
    }
    Ok(upper)
}

/// A token (RFC 9110 section 5.6.2).
pub fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// The name of a header, in lower case.
pub fn header_name(text: &str) -> Read<String> {
    if is_token(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Flaw::new(
        Code::BadHeader,
        "is not a header name",
        "this has characters that none has",
        "a header name has letters, digits and `-`, such as \"x-beta\"",
    ))
}

/// Headers that frame a message, end at this hop, or tell a backend for whom weir speaks: weir keeps them right by itself.
const KEPT_BY_WEIR: [&str; 20] = [
    "client-cert",
    "client-cert-chain",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-client-cert-subject",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Whether a filter may change the header, or set it, if it is `may_set`.
pub fn free_of_weir(name: &str, may_set: &str) -> Read<()> {
    let folded = name.to_ascii_lowercase().replace('_', "-");
    if !KEPT_BY_WEIR.contains(&&*folded) || name.eq_ignore_ascii_case(may_set) {
        return Ok(());
    }
    let help = match &*folded {
        "host" => {
            "it can be `set` on requests; it cannot be removed, since every request needs one"
        }
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => {
            "weir writes it itself, past `trusted_proxies`; for another spelling of the client's address set a header of your own to {client_ip}"
        }
        _ => "leave it out: weir writes what belongs to each of its two connections",
    };
    Err(Flaw::new(
        Code::ProtectedHeader,
        "names a header that no filter changes",
        "weir keeps this one right",
        help,
    ))
}

/// A media type, perhaps with parameters, as a header has it.
pub fn media_type(text: &str) -> Read<String> {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let sound = essence
        .split_once('/')
        .is_some_and(|(kind, rest)| is_token(kind) && is_token(rest));
    if sound && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(text.to_owned());
    }
    Err(Flaw::new(
        Code::BadHeader,
        "is not a media type",
        "this does not read `type/subtype`",
        "write a media type such as \"text/html; charset=utf-8\"",
    ))
}

/// A media type without parameters, or all of a kind as `text/*`; in lower case.
pub fn media_range(text: &str) -> Read<String> {
    let sound = text.split_once('/').is_some_and(|(kind, rest)| {
        let is_name = |part: &str| is_token(part) && !part.contains('*');
        is_name(kind) && (rest == "*" || is_name(rest))
    });
    if sound {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Flaw::new(
        Code::BadHeader,
        "is not a media type",
        "this does not read `type/subtype`",
        "write a media type without parameters such as \"text/html\", or \"text/*\"",
    ))
}

/// The whole value of a header, as it would be sent.
pub fn header_value(text: &str) -> Read<String> {
    let label = if text.trim_matches([' ', '\t']) != text {
        "blanks around a value are not compared"
    } else if text
        .chars()
        .any(|character| character.is_control() && character != '\t')
    {
        "a control character is never sent"
    } else {
        return Ok(text.to_owned());
    };
    Err(Flaw::new(
        Code::BadHeader,
        "is never sent",
        label,
        "write the value as it is sent, without blanks around it; or `true` for any value",
    ))
}

/// The request target of a check: a path, perhaps with a query.
pub fn target(text: &str) -> Read<String> {
    let label = if !text.starts_with('/') {
        "this does not begin with `/`".to_owned()
    } else {
        match text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
            Some(character) => format!("`{}` cannot be sent", shown(character)),
            None => return Ok(text.to_owned()),
        }
    };
    Err(Flaw::new(
        Code::BadPath,
        "is not a request target",
        label,
        "write a path, perhaps with a query, such as \"/healthz\" or \"/healthz?deep=1\"",
    ))
}

/// The full name of a gRPC service; empty stands for the whole server.
pub fn service(text: &str) -> Read<String> {
    let is_in_name = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    match text.chars().find(|c| !is_in_name(c)) {
        None => Ok(text.to_owned()),
        Some(character) => Err(Flaw::new(
            Code::BadName,
            "is not the name of a gRPC service",
            format!("`{}` stands in no such name", shown(character)),
            "write the package and the service as the .proto file has them, such as \"shop.v1.Cart\"",
        )),
    }
}

/// The value of a `Host` header: a host, perhaps with a port.
pub fn authority(text: &str) -> Read<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host_fits = address.map_or_else(
        || is_domain(host),
        |address| address.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    if host_fits && port_fits {
        return Ok(text.to_owned());
    }
    Err(Flaw::new(
        Code::BadHost,
        "is not the value of a Host header",
        "this is not a host with or without a port",
        "write a host such as \"shop.example.com\" or \"shop.example.com:8080\"",
    ))
}

/// What a TLS server may be called: a host name, lower case, or an IP address.
pub fn server_name(text: &str) -> Read<String> {
    let name = text.to_ascii_lowercase();
    if name.parse::<std::net::IpAddr>().is_ok() || is_domain(&name) {
        return Ok(name);
    }
    Err(Flaw::new(
        Code::BadServerName,
        "is not the name of a server",
        "neither a host name nor an IP address",
        "write a name such as \"was.internal\", without a port",
    ))
}

/// A path in the file system.
pub fn file_path(text: &str) -> Read<PathBuf> {
    let label = if text.is_empty() {
        "this is empty"
    } else if text.contains('\0') {
        "a path cannot have a NUL character"
    } else {
        return Ok(text.into());
    };
    Err(Flaw::new(
        Code::BadFilePath,
        "is not a file path",
        label,
        "write a path such as \"/etc/weir/secrets\"",
    ))
}

/// Where access-log lines go.
pub fn access(text: &str) -> Read<AccessTarget> {
    match text {
        "off" => Ok(AccessTarget::Off),
        "stdout" => Ok(AccessTarget::Stdout),
        path if path.contains('/') => file_path(path).map(AccessTarget::File),
        _ => Err(Flaw::new(
            Code::UnknownChoice,
            "is not a place for the access log",
            "neither \"off\" nor \"stdout\" nor a path with a `/`",
            "write \"stdout\", \"off\" or a path such as \"/var/log/weir/access.log\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(host("Shop.Example.com"), Ok("shop.example.com".to_owned()));
        assert_eq!(host("*.example.com"), Ok("*.example.com".to_owned()));
        assert!(host("[2001:db8::1]").is_ok());
        assert!(host("10.0.0.1").is_ok());
        for text in [
            "",
            "*",
            "a.*.com",
            "*a.com",
            "*.*.com",
            "a.com:80",
            "a.com.",
            "http://a.com",
            "a..b",
            "bücher.de",
            "a/b",
            "*.",
            "[::1",
            "::1",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        for text in [
            "/",
            "/cart",
            "/a/b.c~d",
            "/café",
            "/a b",
            "/...",
            "/100%",
            "/%é",
            "/a:b@c,d=e!$&'()+",
        ] {
            assert_eq!(path(text), Ok(text.to_owned()));
        }
        for text in [
            "",
            "cart",
            "/a;b",
            "/a?b",
            "/a#b",
            "/a//b",
            "/.",
            "/a/..",
            "/%2e%2E/b",
            "/a%2Fb",
            "/%5c",
            "/%00",
            "/%41",
            "/caf%C3%A9",
            "/a\\b",
            "/a\nb",
            "/a ",
            "/a/*",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn authorities() {
        for text in ["a", "a.example.com:80", "[::1]", "[::1]:80", "10.0.0.1:1"] {
            assert!(authority(text).is_ok(), "{text}");
        }
        for text in ["", ":80", "a b", "::1", "a:99999", "a:x", "é"] {
            assert!(authority(text).is_err(), "{text}");
        }
    }
}
