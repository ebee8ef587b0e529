//! Text to the address of a store, `redis://[user:password@]host:port[/database]`.
//! It never repeats a password in what it says.
//! Here the walk ends.

use super::{Flaw, Read};
use crate::config::codes::Code;
use crate::config::model::Store;

/// Where Redis listens unless the address says otherwise.
const PORT: u16 = 6379;

/// The address of a store.
pub fn store(text: &str) -> Read<Store> {
    let Some(rest) = text.strip_prefix("redis://") else {
        return Err(of_other_kind(text));
    };
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(bad(format!("`{}` does not fit", odd.escape_debug())));
    }
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let (user, password) = match login {
        Some(login) => {
            let (user, password) = login
                .split_once(':')
                .ok_or_else(|| bad("a password comes after `:`"))?;
            let user = decoded(user)?;
            ((!user.is_empty()).then_some(user), Some(decoded(password)?))
        }
        None => (None, None),
    };
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let database = match database {
        "" => 0,
        number => number
            .parse()
            .map_err(|_| bad("a database is a number, such as `/0`"))?,
    };
    let (host, port) = host_and_port(authority)?;
    Ok(Store {
        host,
        port,
        database,
        user,
        password,
    })
}

fn host_and_port(authority: &str) -> Read<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| bad("`]` is missing"))?;
            let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
            if !is_address {
                return Err(bad("this is no IPv6 address"));
            }
            (
                host,
                rest.strip_prefix(':')
                    .or((!rest.is_empty()).then_some(rest)),
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0),
        None => Some(PORT),
    };
    let port = port.ok_or_else(|| bad("this is no port"))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(fits) {
        return Err(bad("this is no host"));
    }
    Ok((host.to_owned(), port))
}

/// With %XX decoded (RFC 3986 section 2.1), since a password may have `@` or `/`.
fn decoded(text: &str) -> Read<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let value = value.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.ok_or_else(|| bad("`%` is written `%25`"))?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| bad("user and password are not UTF-8"))
}

fn bad(label: impl Into<String>) -> Flaw {
    Flaw::new(
        Code::BadStore,
        "is not the address of a store",
        label,
        "write \"redis://HOST:6379\", or \"redis://USER:PASSWORD@HOST:6379/0\"",
    )
}

fn of_other_kind(text: &str) -> Flaw {
    match text.starts_with("rediss://") {
        true => Flaw::new(
            Code::NotYet,
            "asks for TLS, which this version does not speak to a store",
            "not in this version",
            "write \"redis://\", within a network that you trust or through a tunnel",
        ),
        false => bad("this does not begin with `redis://`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_stores_are_read() {
        let read = |text: &str| {
            let store = store(text).unwrap();
            let (user, password) = (store.user.clone(), store.password.clone());
            (store.label(), user, password)
        };
        let some = |text: &str| Some(text.to_owned());
        for (text, label, user, password) in [
            ("redis://10.0.0.5", "redis://10.0.0.5:6379/0", None, None),
            (
                "redis://store.lan:7000/",
                "redis://store.lan:7000/0",
                None,
                None,
            ),
            ("redis://[::1]:7000/3", "redis://[::1]:7000/3", None, None),
            ("redis://:pw@h:1", "redis://h:1/0", None, some("pw")),
            (
                "redis://weir:a%40:b@h",
                "redis://h:6379/0",
                some("weir"),
                some("a@:b"),
            ),
        ] {
            assert_eq!(read(text), (label.to_owned(), user, password), "{text}");
        }
        let shown = format!("{:?}", store("redis://weir:secret@h").unwrap());
        assert!(
            !shown.contains("secret") && !shown.contains("weir"),
            "{shown}"
        );
    }

    #[test]
    fn what_is_none_is_refused_without_its_password() {
        for text in [
            "",
            "10.0.0.5:6379",
            "memcached://h",
            "redis://",
            "redis://h:0",
            "redis://h:66000",
            "redis://h/x",
            "redis://[h]",
            "redis://[::1",
            "redis://[::1]x",
            "redis://secret@h",
            "redis://:secret%@h",
            "redis://:secret%ff@h",
            "redis://:secret@h h",
            "redis://:secret@h/?a=b",
            "rediss://:secret@h",
        ] {
            let flaw = store(text).unwrap_err();
            let said = format!("{} {} {}", flaw.says, flaw.label, flaw.help);
            assert!(!said.contains("secret"), "{text}: {said}");
        }
    }
}
