//! Text to network addresses: networks, socket addresses of listeners and backends, the admin address.
//! It never resolves a name: a host name is refused with the form that is wanted.
//! Here the walk ends.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Flaw, Read, brief};
use crate::config::codes::Code;
use crate::config::model::{AdminBind, Cidr};

/// A network `10.0.0.0/8`, or a bare address, which is the network of itself alone.
pub fn network(text: &str) -> Read<Cidr> {
    let bad =
        |label: String, help: String| Flaw::new(Code::BadNetwork, "is not a network", label, help);
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(network) = address.parse::<IpAddr>() else {
        return Err(bad(
            format!("`{}` is not an IP address", brief(address)),
            "write a network such as \"10.0.0.0/8\", or an address such as \"2001:db8::1\"".into(),
        ));
    };
    let bits = if network.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix.map(|prefix| (prefix, prefix.parse::<u8>())) {
        None => bits,
        Some((text, Ok(prefix))) if prefix <= bits && !text.starts_with('+') => prefix,
        Some((text, _)) => {
            return Err(bad(
                format!("`{}` is not a prefix length", brief(text)),
                format!("the length of its prefix is a number from 0 to {bits}"),
            ));
        }
    };
    if let IpAddr::V6(mapped) = network
        && mapped.to_ipv4_mapped().is_some()
    {
        return Err(bad(
            "IPv4 in the form of IPv6".into(),
            "write the IPv4 network: weir reads such addresses as IPv4".into(),
        ));
    }
    let first = first_address(network, prefix);
    if first != network {
        return Err(bad(
            format!("bits are set beyond the prefix of {prefix}"),
            format!("the network is \"{first}/{prefix}\"; the address alone is \"{network}\""),
        ));
    }
    Ok(Cidr { network, prefix })
}

/// The first address of the network that an address lies in.
pub fn first_address(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// Where a listener is bound: `IP:port`. Port 0 lets the system choose.
pub fn bind(text: &str) -> Read<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return unmapped(address);
    }
    let (label, help) = misread(text);
    let says = "is not an address with a port";
    Err(Flaw::new(Code::BadAddress, says, label, help))
}

/// What a text that is no `IP:port` lacks, and the one that was probably meant.
fn misread(text: &str) -> (&'static str, String) {
    let write = |meant: SocketAddr| format!("write \"{meant}\"");
    if let Some((scheme, rest)) = text.split_once("://")
        && let Ok(meant) = rest.trim_end_matches('/').parse::<SocketAddr>()
    {
        let also = match scheme {
            "https" => "; that TLS is spoken there says the key `tls`",
            _ => "",
        };
        return ("a URL", write(meant) + also);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if let Ok(whole) = text.parse::<Ipv6Addr>() {
        let meant = match (host.parse::<Ipv6Addr>(), port.parse::<u16>()) {
            (Ok(address), Ok(port)) => SocketAddr::new(address.into(), port),
            _ => SocketAddr::new(whole.into(), 80),
        };
        return (
            "IPv6 is written in brackets, with a port after them",
            write(meant),
        );
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return ("the port is missing", write(SocketAddr::new(address, 80)));
    }
    if matches!(host, "" | "*") && is_port(port) || is_port(text) {
        let port = if is_port(text) { text } else { port };
        let all = format!(
            "for every address of the machine write \"0.0.0.0:{port}\" and \"[::]:{port}\""
        );
        return ("the address is missing", all);
    }
    if host == "localhost" && is_port(port) {
        return ("a host name", format!("write \"127.0.0.1:{port}\""));
    }
    let label = if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        "the port is not a number from 0 to 65535"
    } else {
        "this is not an IP address and a port"
    };
    (
        label,
        "write an address such as \"192.0.2.10:80\" or \"[2001:db8::10]:80\"".to_owned(),
    )
}

fn is_port(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<u16>().is_ok()
}

/// IPv4 in the form of IPv6 would be a second spelling of one address.
fn unmapped(address: SocketAddr) -> Read<SocketAddr> {
    let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
    if plain.ip() != address.ip() {
        return Err(Flaw::new(
            Code::BadAddress,
            "is IPv4 in the form of IPv6",
            "a second spelling of an IPv4 address",
            format!("write \"{plain}\""),
        ));
    }
    Ok(address)
}

/// Where a backend listens: `IP:port`, port and address both definite.
pub fn backend(text: &str) -> Read<SocketAddr> {
    let address = match bind(text) {
        Err(_) if is_host_name(text) => {
            return Err(Flaw::new(
                Code::HostNameBackend,
                "is a host name, and a backend is given by its IP address",
                "a host name",
                "write \"IP:port\", such as \"10.0.0.11:8080\"; the addresses of a host name are looked up with discovery = { type = \"dns\", name = \"was.internal\", port = 8080 }",
            ));
        }
        other => other?,
    };
    let bad = |label: &str, help: &str| {
        Flaw::new(Code::BadAddress, "cannot be connected to", label, help)
    };
    if address.ip().is_unspecified() {
        return Err(bad(
            "this stands for every address, and is that of no server",
            "write the server's own address, such as \"127.0.0.1:8080\"",
        ));
    }
    if address.port() == 0 {
        return Err(bad(
            "port 0 is that of no server",
            "write the port that the server listens on",
        ));
    }
    Ok(address)
}

/// Whether the text reads as a host name, perhaps with a scheme before and a port or path after it.
fn is_host_name(text: &str) -> bool {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = text.split(['/', ':']).next().unwrap_or_default();
    host.bytes().any(|byte| byte.is_ascii_alphabetic())
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Where the admin server listens: `IP:port` or `unix:PATH`.
pub fn admin(text: &str) -> Read<AdminBind> {
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') && !path.contains('\0') => {
            Ok(AdminBind::Unix(path.into()))
        }
        Some(_) => Err(Flaw::new(
            Code::BadAddress,
            "is not an address",
            "a socket's path begins with `/`",
            "write a path such as \"unix:/run/weir/admin.sock\"",
        )),
        None => bind(text).map(AdminBind::Tcp).map_err(|flaw| Flaw {
            help: format!("{}, or \"unix:/run/weir/admin.sock\"", flaw.help),
            ..flaw
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let cidr = network("10.0.0.0/8").expect("valid");
        assert!(cidr.contains("10.255.0.1".parse().expect("address")));
        assert_eq!(network("192.0.2.1").map(|cidr| cidr.prefix), Ok(32));
        assert_eq!(network("2001:db8::/32").map(|cidr| cidr.prefix), Ok(32));
        assert_eq!(network("0.0.0.0/0").map(|cidr| cidr.prefix), Ok(0));
        assert_eq!(network("::/0").map(|cidr| cidr.prefix), Ok(0));
        for text in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10/8",
            "::/129",
            "x",
            "::ffff:0:0/96",
            "1.2.3.4/+8",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn binds() {
        assert!(bind("0.0.0.0:0").is_ok());
        assert!(bind("[fe80::1%2]:80").is_ok());
        let help = |text| bind(text).expect_err("refused").help;
        assert!(help(":80").contains("0.0.0.0:80"));
        assert!(help("*:80").contains("[::]:80"));
        assert!(help("8080").contains("0.0.0.0:8080"));
        assert!(help("2001:db8::1").contains("[2001:db8::1]:80"));
        assert!(help("10.0.0.1").contains("10.0.0.1:80"));
        assert!(help("::1:8080").contains("[::1]:8080"));
        assert!(help("http://10.0.0.1:80/").contains("\"10.0.0.1:80\""));
        assert!(help("[::ffff:10.0.0.1]:80").contains("\"10.0.0.1:80\""));
    }

    #[test]
    fn backends() {
        assert!(backend("10.0.0.11:8080").is_ok());
        let code = |text| backend(text).map_err(|flaw| flaw.code);
        assert_eq!(code("was1:8080"), Err(Code::HostNameBackend));
        assert_eq!(
            code("http://was1.example.com:8080/"),
            Err(Code::HostNameBackend)
        );
        assert_eq!(code("10.0.0.11"), Err(Code::BadAddress));
        assert_eq!(code("10.0.0.11:0"), Err(Code::BadAddress));
        assert_eq!(code("[::]:80"), Err(Code::BadAddress));
    }
}
