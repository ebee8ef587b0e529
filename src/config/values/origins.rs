//! Text to origins, as browsers write them.
//! It takes none that a browser would not send, since that would look like protection and be none.
//! Here the walk ends.

use super::names::is_domain;
use super::{Flaw, Read, brief};
use crate::config::codes::Code;
use crate::config::model::Origins;

/// `*`, an origin, or one whose host begins with `*.`.
pub fn origin(text: &str) -> Read<Origins> {
    let bad = |label: &str, help: String| {
        Err(Flaw::new(Code::BadOrigin, "is not an origin", label, help))
    };
    let example =
        || "write one such as \"https://shop.example.com\" or \"https://*.example.com\"".to_owned();
    if text == "*" {
        return Ok(Origins::Any);
    }
    if text == "null" {
        return bad(
            "any page can be `null`, in a frame of its own making",
            example(),
        );
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return bad(
            "the scheme is missing",
            format!("write \"https://{}\"", brief(text)),
        );
    };
    if let Some((host, _)) = rest.split_once(['/', '?', '#']) {
        return bad(
            "browsers send no path here, not even a `/`",
            format!("write \"{scheme}://{}\"", brief(host)),
        );
    }
    let lower = text.to_ascii_lowercase();
    if lower != text {
        return bad(
            "browsers send lower case",
            format!("write \"{}\"", brief(&lower)),
        );
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let default = match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    };
    if port.is_some() && port == default {
        return bad(
            "browsers leave out the port of the scheme",
            format!("write \"{scheme}://{}\"", brief(host)),
        );
    }
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let is_address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_address = is_address.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok());
    let below = host.strip_prefix("*.");
    if !is_port || scheme.is_empty() || !(is_address || is_domain(below.unwrap_or(host))) {
        return bad("the host is none", example());
    }
    Ok(match below {
        Some(_) => Origins::Between {
            scheme: format!("{scheme}://"),
            suffix: rest["*".len()..].to_owned(),
        },
        None => Origins::Exact(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(origin("*"), Ok(Origins::Any));
        for text in [
            "https://a.example",
            "http://localhost:3000",
            "https://[::1]:8443",
            "capacitor://localhost",
        ] {
            assert_eq!(origin(text), Ok(Origins::Exact(text.to_owned())));
        }
        let between = Origins::Between {
            scheme: "https://".into(),
            suffix: ".a.example:8443".into(),
        };
        assert_eq!(origin("https://*.a.example:8443"), Ok(between));
        for text in [
            "",
            "null",
            "a.example",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "https://*",
            "https://a.*.example",
            "https://a b",
            "://a",
            "https://a:x",
            "https://*.",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
