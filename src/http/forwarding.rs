//! For whom a request is forwarded: whom to believe, and what to tell the backend.
//! It must never pass on what an untrusted client says about itself.
//! The walk goes on in `l7/plan.rs`.

use std::net::{IpAddr, SocketAddr};

use super::edits::Edits;
use super::head::{Field, RequestHead, Version, list_members};
use super::text::push_address;
use crate::config::model::{Cidr, Forwarding};

/// Who is at the other end, and whether its word counts.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The connection's other end.
    pub remote: IpAddr,
    /// Whether it is a trusted proxy.
    pub trusted: bool,
    /// The client: the rightmost `X-Forwarded-For` entry outside the trusted networks, else the connection's other end.
    pub client: IpAddr,
    /// Whether the client came by TLS.
    pub secure: bool,
}

impl Source {
    /// Finds the client behind trusted proxies. `is_tls`: the connection from `remote` is one of TLS.
    #[inline]
    pub fn of(
        head: &RequestHead<'_>,
        remote: SocketAddr,
        is_tls: bool,
        trusted: &[Cidr],
    ) -> Source {
        let remote = remote.ip().to_canonical();
        if trusted.is_empty() || !is_trusted(remote, trusted) {
            return Source {
                remote,
                trusted: false,
                client: remote,
                secure: is_tls,
            };
        }
        let secure = head
            .field(Field::XForwardedProto)
            .last()
            .map_or(is_tls, |(_, value)| value.eq_ignore_ascii_case(b"https"));
        Source {
            remote,
            trusted: true,
            client: client_behind(head, remote, trusted),
            secure,
        }
    }

    /// `http` or `https`, as the client sees it.
    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

fn is_trusted(address: IpAddr, trusted: &[Cidr]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Walks `X-Forwarded-For` from the right, as long as who wrote an entry is trusted. An entry that is no address ends the walk.
fn client_behind(head: &RequestHead<'_>, remote: IpAddr, trusted: &[Cidr]) -> IpAddr {
    let mut client = remote;
    let lines = head
        .lines
        .iter()
        .rev()
        .filter(|line| line.field == Field::XForwardedFor);
    for entry in lines.flat_map(|line| line.value.of(head.bytes).rsplit(|&byte| byte == b',')) {
        let entry = entry.trim_ascii();
        if entry.is_empty() {
            continue;
        }
        let Some(address) = parse_entry(entry) else {
            break;
        };
        client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// An address, with a port or brackets around it as some proxies write it.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address| address.to_canonical())
}

/// Lists the edits that tell the backend. `X-Forwarded-For`, `-Proto` and `-Host` are always written; what a trusted proxy said about
/// the client is kept, what anyone else said is removed.
pub fn edit(head: &RequestHead<'_>, source: &Source, options: Forwarding, edits: &mut Edits) {
    let (mut has_for, mut has_proto, mut has_host) = (false, false, false);
    for (ordinal, line) in head
        .lines
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, line)| line.field.is_forwarding())
    {
        match line.field {
            Field::XForwardedFor if source.trusted && !has_for => {
                has_for = true;
                let chain = line.value.of(head.bytes);
                edits.replace_with(ordinal, |value| {
                    value.extend_from_slice(chain);
                    value.extend_from_slice(if chain.is_empty() { b"" } else { b", " });
                    push_address(source.remote, value);
                });
            }
            Field::XForwardedProto if source.trusted => has_proto = true,
            Field::XForwardedHost if source.trusted => has_host = true,
            _ if source.trusted => {}
            _ => edits.remove(ordinal),
        }
    }
    if !has_for {
        edits.append_with("X-Forwarded-For", |value| {
            push_address(source.remote, value)
        });
    }
    if !has_proto {
        edits.append("X-Forwarded-Proto", source.scheme().as_bytes());
    }
    if !has_host && !head.authority.is_empty() {
        edits.append("X-Forwarded-Host", head.authority);
    }
    if options.forwarded {
        append_forwarded(head, source, edits);
    }
    if options.via {
        append_via(head.version, edits);
    }
}

/// RFC 7239: an IPv6 address is quoted and in brackets.
fn append_forwarded(head: &RequestHead<'_>, source: &Source, edits: &mut Edits) {
    edits.append_with("Forwarded", |value| {
        let is_v6 = source.remote.is_ipv6();
        value.extend_from_slice(if is_v6 { b"for=\"[" } else { b"for=" });
        push_address(source.remote, value);
        value.extend_from_slice(if is_v6 { b"]\"" } else { b"" });
        if !head.authority.is_empty() {
            value.extend_from_slice(b";host=\"");
            value.extend_from_slice(head.authority);
            value.push(b'"');
        }
        value.extend_from_slice(b";proto=");
        value.extend_from_slice(source.scheme().as_bytes());
    });
}

/// RFC 9110 section 7.6.3; weir goes by its name there, not by its address.
pub fn append_via(received: Version, edits: &mut Edits) {
    let version: &[u8] = match received {
        Version::Http10 => b"1.0",
        Version::Http11 => b"1.1",
        Version::Http2 => b"2.0",
    };
    edits.append_parts("Via", &[version, b" weir"]);
}

/// Whether a field line belongs to this hop alone: hop-by-hop by name, or named by `Connection`. What frames, routes or vouches for a message
/// cannot be named away.
pub fn ends_here(
    field: Field,
    name: &[u8],
    options: impl Iterator<Item = impl AsRef<[u8]>>,
) -> bool {
    if field.is_hop_by_hop() {
        return true;
    }
    let is_protected = field.is_forwarding()
        || matches!(
            field,
            Field::Host
                | Field::Expect
                | Field::ContentLength
                | Field::TransferEncoding
                | Field::Via
                | Field::SetCookie
        );
    !is_protected && { options }.any(|option| option.as_ref().eq_ignore_ascii_case(name))
}

/// Lists the removal of the fields that end at this hop (RFC 9110 section 7.6.1).
pub fn remove_hop_by_hop(
    bytes: &[u8],
    lines: &[super::head::Line],
    connection_options: bool,
    edits: &mut Edits,
) {
    for (ordinal, line) in lines.iter().enumerate() {
        let ends = line.field.is_hop_by_hop()
            || connection_options && {
                let options = lines
                    .iter()
                    .filter(|other| other.field == Field::Connection)
                    .flat_map(|other| list_members(other.value.of(bytes)));
                ends_here(line.field, line.name.of(bytes), options)
            };
        if ends {
            edits.remove(ordinal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Limits;
    use crate::http::request;

    const TRUSTED: Cidr = Cidr {
        network: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 0)),
        prefix: 8,
    };

    fn forwarded(remote: &str, fields: &str, options: Forwarding) -> (IpAddr, String) {
        let wire = format!("GET / HTTP/1.1\r\nHost: shop\r\n{fields}\r\n");
        let (mut lines, mut edits, mut out) = (Vec::new(), Edits::default(), Vec::new());
        let limits = Limits {
            head: 4096,
            header_lines: 64,
        };
        let head = request::parse(wire.as_bytes(), &mut lines, &limits)
            .unwrap()
            .unwrap()
            .head;
        let source = Source::of(&head, remote.parse().unwrap(), false, &[TRUSTED]);
        edit(&head, &source, options, &mut edits);
        edits.apply(head.bytes, head.lines, &mut out);
        (source.client, String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_a_stranger_says_is_removed() {
        let lies = "X-Forwarded-For: 1.1.1.1\r\nx_forwarded_for: 1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX_Real_IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n";
        let (client, head) = forwarded("192.0.2.1:5", lies, Forwarding::default());
        assert_eq!(client.to_string(), "192.0.2.1");
        assert_eq!(
            head,
            "Host: shop\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: shop\r\n"
        );
    }

    #[test]
    fn the_client_is_the_rightmost_entry_outside_the_trusted_networks() {
        let chain = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.9:4711, 10.0.0.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outside\r\n";
        let (client, head) = forwarded("10.0.0.1:5", chain, Forwarding::default());
        assert_eq!(client.to_string(), "192.0.2.9");
        assert_eq!(
            head,
            "Host: shop\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.9:4711, 10.0.0.2, 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outside\r\n"
        );
        let (client, _) = forwarded(
            "10.0.0.1:5",
            "X-Forwarded-For: 9.9.9.9, unknown, 10.0.0.2\r\n",
            Forwarding::default(),
        );
        assert_eq!(client.to_string(), "10.0.0.2");
        let (client, _) = forwarded(
            "[::ffff:10.0.0.1]:5",
            "X-Forwarded-For: [2001:db8::1]:80\r\n",
            Forwarding::default(),
        );
        assert_eq!(client.to_string(), "2001:db8::1");
    }

    #[test]
    fn forwarded_and_via_are_written_on_demand() {
        let (_, head) = forwarded(
            "[2001:db8::5]:5",
            "",
            Forwarding {
                forwarded: true,
                via: true,
            },
        );
        assert!(
            head.ends_with(
                "Forwarded: for=\"[2001:db8::5]\";host=\"shop\";proto=http\r\nVia: 1.1 weir\r\n"
            ),
            "{head}"
        );
    }
}
