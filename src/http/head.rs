//! A message head as lines over one buffer: no map, no copy, no allocation per field.
//! It never changes a byte; changes are listed in `edits.rs` and applied while the head is copied out.
//! The walk goes on in `request.rs`, which fills these types from bytes.

/// A range of the buffer that a head was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span as text of `bytes`; empty when it does not lie within.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The field name; its start is the start of the line.
    pub name: Span,
    /// The value without white space around it.
    pub value: Span,
    /// One past the line's CRLF: the start of the next line.
    pub end: u32,
    /// Which field it is, as far as weir cares.
    pub field: Field,
}

/// The fields that weir acts upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is the field of that name
pub enum Field {
    Other,
    CacheControl,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    SetCookie,
    Te,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    /// Any other `X-Forwarded-*`, `X-Real-IP`, `Client-Cert*`, `X-Client-Cert*`, and every forwarding name spelled with underscores.
    OtherForwarding,
}

impl Field {
    /// Finds the field by its name, without regard to case.
    #[inline]
    pub fn from_name(name: &[u8]) -> Field {
        match name.len() {
            2 if is(name, b"te") => Field::Te,
            3 if is(name, b"via") => Field::Via,
            4 if is(name, b"host") => Field::Host,
            6 if is(name, b"cookie") => Field::Cookie,
            6 if is(name, b"expect") => Field::Expect,
            7 if is(name, b"referer") => Field::Referer,
            7 if is(name, b"upgrade") => Field::Upgrade,
            9 if is(name, b"forwarded") => Field::Forwarded,
            10 if is(name, b"user-agent") => Field::UserAgent,
            10 if is(name, b"connection") => Field::Connection,
            10 if is(name, b"keep-alive") => Field::KeepAlive,
            10 if is(name, b"set-cookie") => Field::SetCookie,
            13 if is(name, b"cache-control") => Field::CacheControl,
            14 if is(name, b"content-length") => Field::ContentLength,
            16 if is(name, b"proxy-connection") => Field::ProxyConnection,
            17 if is(name, b"transfer-encoding") => Field::TransferEncoding,
            18 if is(name, b"proxy-authenticate") => Field::ProxyAuthenticate,
            19 if is(name, b"proxy-authorization") => Field::ProxyAuthorization,
            _ => Field::forwarding(name),
        }
    }

    /// `X-Forwarded-*`, `X-Real-IP` and `Forwarded`, with underscores read as hyphens, since servers that map names to variables do.
    fn forwarding(name: &[u8]) -> Field {
        // What weir says of a client's certificate (RFC 9440).
        if name.len() >= 11 && name[0] | 0x20 == b'c' && has_folded_prefix(name, b"client-cert") {
            return Field::OtherForwarding;
        }
        if name.len() < 9 || name[0] | 0x20 != b'x' || (name[1] != b'-' && name[1] != b'_') {
            return Field::Other;
        }
        if name.eq_ignore_ascii_case(b"x-forwarded-for") {
            return Field::XForwardedFor;
        }
        if name.eq_ignore_ascii_case(b"x-forwarded-proto") {
            return Field::XForwardedProto;
        }
        if name.eq_ignore_ascii_case(b"x-forwarded-host") {
            return Field::XForwardedHost;
        }
        if has_folded_prefix(name, b"x-forwarded")
            || has_folded_prefix(name, b"x-client-cert")
            || (name.len() == 9 && has_folded_prefix(name, b"x-real-ip"))
        {
            return Field::OtherForwarding;
        }
        Field::Other
    }

    /// Whether the field ends at this hop (RFC 9110 section 7.6.1), apart from those that `Connection` names.
    #[inline]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Field::Connection
                | Field::KeepAlive
                | Field::ProxyAuthenticate
                | Field::ProxyAuthorization
                | Field::ProxyConnection
                | Field::Te
                | Field::Upgrade
        )
    }

    /// Whether the field speaks for whom the request was forwarded.
    #[inline]
    pub fn is_forwarding(self) -> bool {
        matches!(
            self,
            Field::Forwarded
                | Field::XForwardedFor
                | Field::XForwardedHost
                | Field::XForwardedProto
                | Field::OtherForwarding
        )
    }
}

/// Whether a name is `lower`, without regard to case. Setting a bit lowers letters and leaves digits and hyphens alone, and no other
/// byte of a token becomes one of these; with a known length the compiler compares words instead of bytes.
#[inline]
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    <&[u8; N]>::try_from(name).is_ok_and(|name| name.map(|byte| byte | 0x20) == *lower)
}

/// Whether two field names are the same to a server that maps names to variables: without regard to case, and `_` counts as `-`.
pub fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    let fold = |byte: &u8| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    one.len() == other.len() && one.iter().map(fold).eq(other.iter().map(fold))
}

/// Whether `name` begins with the lower-case `prefix`, `_` counting as `-`.
fn has_folded_prefix(name: &[u8], prefix: &[u8]) -> bool {
    let fold = |byte: u8| {
        if byte == b'_' {
            b'-'
        } else {
            byte.to_ascii_lowercase()
        }
    };
    name.len() >= prefix.len()
        && name
            .iter()
            .zip(prefix)
            .all(|(&byte, &wanted)| fold(byte) == wanted)
}

/// HTTP version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2, whose heads are read as those of HTTP/1.1.
    Http2,
}

/// The form of a request target (RFC 9112 section 3.2); authority-form belongs to CONNECT, which weir refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`; its authority overrides `Host`.
    Absolute,
    /// `*`, of OPTIONS.
    Asterisk,
}

/// A request head, read and checked.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The whole head, from the request line to the empty line.
    pub bytes: &'a [u8],
    /// Its field lines in order.
    pub lines: &'a [Line],
    /// The method, case-sensitive.
    pub method: &'a [u8],
    /// The request target as received.
    pub target: &'a [u8],
    /// Its form.
    pub form: TargetForm,
    /// Path and query in origin form; `*` for the asterisk form.
    pub path_and_query: &'a [u8],
    /// The path alone, as received.
    pub path: &'a [u8],
    /// The authority: from an absolute target, else from `Host`; empty when an HTTP/1.0 client sent none.
    pub authority: &'a [u8],
    /// The protocol version.
    pub version: Version,
}

impl<'a> RequestHead<'a> {
    /// The authority without its port and without a trailing dot, as received.
    pub fn host(&self) -> &'a [u8] {
        host_of(self.authority)
    }

    /// Values of every line of a known field, with the ordinals of their lines.
    pub fn field(&self, field: Field) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.lines
            .iter()
            .enumerate()
            .filter(move |(_, line)| line.field == field)
            .map(move |(ordinal, line)| (ordinal, line.value.of(bytes)))
    }

    /// Values of every line whose name is `name` without regard to case.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let bytes = self.bytes;
        self.lines
            .iter()
            .filter(move |line| line.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))
            .map(move |line| line.value.of(bytes))
    }
}

/// The host of an authority: no port, no trailing dot; brackets of an IPv6 literal stay.
pub fn host_of(authority: &[u8]) -> &[u8] {
    let host = match authority.first() {
        Some(b'[') => authority
            .split_inclusive(|&byte| byte == b']')
            .next()
            .unwrap_or_default(),
        _ => authority
            .split(|&byte| byte == b':')
            .next()
            .unwrap_or_default(),
    };
    host.strip_suffix(b".").unwrap_or(host)
}

/// An answer head, read and checked.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHead<'a> {
    /// The whole head, from the status line to the empty line.
    pub bytes: &'a [u8],
    /// Its field lines in order.
    pub lines: &'a [Line],
    /// The status code, 100 to 999.
    pub status: u16,
    /// The protocol version.
    pub version: Version,
}

impl<'a> AnswerHead<'a> {
    /// Values of every line of a known field, with the ordinals of their lines.
    pub fn field(&self, field: Field) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.lines
            .iter()
            .enumerate()
            .filter(move |(_, line)| line.field == field)
            .map(move |(ordinal, line)| (ordinal, line.value.of(bytes)))
    }
}

/// The members of a comma-separated list value, trimmed, empty ones left out (RFC 9110 section 5.6.1).
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against plain comparison, for every name that matters with every byte changed to every other that a token may have.
    #[test]
    fn names_are_told_apart_in_any_case() {
        let names = [
            "te",
            "via",
            "host",
            "cookie",
            "expect",
            "referer",
            "upgrade",
            "forwarded",
            "user-agent",
            "connection",
            "keep-alive",
            "set-cookie",
            "cache-control",
            "content-length",
            "proxy-connection",
            "transfer-encoding",
            "proxy-authenticate",
            "proxy-authorization",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
        ];
        for name in names {
            let field = Field::from_name(name.as_bytes());
            assert_ne!(field, Field::Other, "{name}");
            assert_eq!(
                Field::from_name(name.to_ascii_uppercase().as_bytes()),
                field
            );
            for at in 0..name.len() {
                for byte in (0..=127).filter(|&byte| crate::http::framing::is_token(byte)) {
                    let mut changed = name.as_bytes().to_vec();
                    changed[at] = byte;
                    let same = changed.eq_ignore_ascii_case(name.as_bytes());
                    assert_eq!(
                        Field::from_name(&changed) == field,
                        same,
                        "{}",
                        changed.escape_ascii()
                    );
                }
            }
        }
        for name in [
            "X-Forwarded",
            "x_forwarded_for",
            "X-Forwarded-Port",
            "x-real-ip",
            "X_REAL_IP",
            "X-FORWARDED_HOST",
        ] {
            assert_eq!(
                Field::from_name(name.as_bytes()),
                Field::OtherForwarding,
                "{name}"
            );
        }
        for name in ["", "x", "X-Real-IPs", "X-Forward", "etag", "x-forwar"] {
            assert_eq!(Field::from_name(name.as_bytes()), Field::Other, "{name}");
        }
    }
}
