//! Text to places where backends are asked for: a name of the domain name system, its servers, the URL of a list.
//! It never resolves a name.
//! Here the walk ends.

use std::net::{IpAddr, SocketAddr};

use super::{Flaw, Read, addresses, brief, names};
use crate::config::codes::Code;
use crate::config::model::HttpPlace;

/// Where a name server listens unless the file says otherwise (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;

/// A name to look up, lower case; a dot at its end keeps search domains away.
pub fn domain_name(text: &str) -> Read<String> {
    let bad = |label: &str| {
        Flaw::new(
            Code::BadDomainName,
            "is not a name that can be looked up",
            label,
            "write a name such as \"was.internal\", without a port, or \"_http._tcp.was.internal\" for SRV records",
        )
    };
    if text.parse::<IpAddr>().is_ok() {
        return Err(bad("an address: it belongs into `backends`"));
    }
    match names::is_domain(text.strip_suffix('.').unwrap_or(text)) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(bad("this is not a host name")),
    }
}

/// A name server: `IP` or `IP:port`.
pub fn name_server(text: &str) -> Read<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, DNS_PORT)),
        Err(_) => addresses::backend(text).map_err(|_| {
            Flaw::new(
                Code::BadAddress,
                "is not the address of a name server",
                "this is not an IP address, with or without a port",
                "write an address such as \"10.0.0.53\" or \"10.0.0.53:5353\"",
            )
        }),
    }
}

/// A URL that weir asks by itself, `http://host[:port][/path]`.
pub fn http_url(text: &str) -> Read<HttpPlace> {
    let bad = |label: &str, help: &str| {
        Flaw::new(Code::BadUrl, "is not a URL that weir asks", label, help)
    };
    let example = "write a URL such as \"http://10.0.0.5:8500/backends.json\"";
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(bad(
                "weir asks without TLS",
                "ask a server on this machine or in this network, which may go on with TLS",
            ));
        }
        _ => return Err(bad("this does not begin with http://", example)),
    };
    let cut = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(cut);
    if authority.contains('@') {
        return Err(bad("a name and a password are not sent", example));
    }
    if names::authority(authority).is_err() {
        let label = format!("`{}` is not a host", brief(authority));
        return Err(bad(&label, example));
    }
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !target.bytes().all(fits) {
        return Err(bad(
            "a blank, a `#` or a character that is not ASCII",
            "escape it: a blank is %20",
        ));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(80)),
        _ => (authority, 80),
    };
    let target = match target.starts_with('/') {
        true => target.to_owned(),
        false => format!("/{target}"),
    };
    Ok(HttpPlace {
        host: host.to_owned(),
        port,
        target,
    })
}

/// A part of a command.
pub fn argument(text: &str) -> Read<String> {
    match text.contains('\0') {
        false => Ok(text.to_owned()),
        true => Err(Flaw::new(
            Code::BadFilePath,
            "is not a part of a command",
            "a NUL character",
            "leave it out",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let parts = |text| match http_url(text) {
            Ok(place) => Ok((place.host, place.port, place.target)),
            Err(flaw) => Err(flaw.label),
        };
        let is = |host: &str, port, target: &str| Ok((host.into(), port, target.into()));
        assert_eq!(parts("http://10.0.0.5"), is("10.0.0.5", 80, "/"));
        assert_eq!(parts("http://a.b:81/x?y=1"), is("a.b", 81, "/x?y=1"));
        assert_eq!(parts("http://a?y"), is("a", 80, "/?y"));
        assert_eq!(parts("http://[::1]:8500/"), is("[::1]", 8500, "/"));
        for wrong in [
            "https://a/",
            "a/b",
            "http://",
            "http://u:p@a/",
            "http://a b/",
            "http://a/b c",
            "http://a/#b",
        ] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_server_has_the_usual_port() {
        let server = |text| name_server(text).ok().map(|server| server.to_string());
        assert_eq!(server("10.0.0.53").as_deref(), Some("10.0.0.53:53"));
        assert_eq!(server("[::1]").as_deref(), Some("[::1]:53"));
        assert_eq!(server("127.0.0.1:5353").as_deref(), Some("127.0.0.1:5353"));
        assert_eq!(server("ns.internal"), None);
    }
}
