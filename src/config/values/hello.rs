//! Text to what a TLS client says before anything is encrypted: the name of the server that it wants, and the protocols it offers.
//! It takes no name that no client asks for.
//! Here the walk ends.

use super::{Flaw, Read, names};
use crate::config::codes::Code;

/// The longest protocol that a ClientHello has room for (RFC 7301 section 3.1).
const MAX_PROTOCOL: usize = 255;

/// An exact name or a `*.` suffix, in lower case. Clients ask for no address (RFC 6066 section 3).
pub fn sni(text: &str) -> Read<String> {
    let name = names::host(text)?;
    if name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(Flaw::new(
            Code::BadHost,
            "is a pattern that no host matches",
            "clients ask for names, never for an address",
            "leave it out: a route without `sni` takes clients that ask for no name",
        ));
    }
    Ok(name)
}

/// A protocol as it is registered, such as `h2`.
pub fn alpn(text: &str) -> Read<String> {
    let is_good = text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_good && (1..=MAX_PROTOCOL).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(Flaw::new(
            Code::BadAlpn,
            "is not a protocol",
            "1 to 255 visible characters",
            "write one as it is registered, such as \"h2\" or \"http/1.1\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_no_addresses() {
        assert_eq!(sni("*.DB.example.com"), Ok("*.db.example.com".to_owned()));
        for text in ["192.0.2.1", "[2001:db8::1]", "*", "a.com:80", ""] {
            assert!(sni(text).is_err(), "{text}");
        }
    }

    #[test]
    fn protocols() {
        assert_eq!(alpn("http/1.1"), Ok("http/1.1".to_owned()));
        for text in ["", "h 2", "h\u{e9}2", &"a".repeat(256)] {
            assert!(alpn(text).is_err(), "{text}");
        }
    }
}
