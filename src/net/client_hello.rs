//! Reads the ClientHello at the start of a connection (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2): the name that the client asks for
//! and the protocols that it offers. It neither consumes nor changes a byte: whoever holds the bytes passes them on as they came.
//! The walk goes on in `l4/hello.rs`, which chooses a route by what is found.

use std::net::IpAddr;
use std::str::FromStr;

/// Bytes of a connection within which its ClientHello must end. Real ones have two thousand at most, post-quantum key shares included.
pub const MOST: usize = 16 * 1024;

/// Bytes before the payload of a record: its type, a version, the payload's length (RFC 8446 section 5.1).
const RECORD_HEAD: usize = 5;

/// Most bytes of a record's payload.
const RECORD: usize = 1 << 14;

/// The type of records that carry the handshake.
const HANDSHAKE: u8 = 22;

/// The major version that every record names, of TLS 1.3 too.
const MAJOR: u8 = 3;

/// Bytes before the body of a handshake message: its type and the body's length.
const MESSAGE_HEAD: usize = 4;

/// The type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// Extensions that are read (RFC 6066 section 3, RFC 7301 section 3.1).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// The kind of server name that there is.
const HOST_NAME: u8 = 0;

/// Why no ClientHello will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first bytes are not those of TLS.
    NotTls,
    /// It does not end within [`MOST`] bytes.
    TooLong,
    /// What it says is not well-formed, or is said twice.
    Broken,
}

impl Fault {
    /// Label of metrics and word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::NotTls => "not_tls",
            Fault::TooLong => "long_hello",
            Fault::Broken => "bad_hello",
        }
    }
}

/// What a client says before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// The name that it asks for (SNI), a well-formed host name without a dot at its end, in the client's spelling: compare it without
    /// case. `None`: none, or an IP address, which RFC 6066 does not allow for a name and some clients send.
    pub server_name: Option<&'a str>,
    /// Its list of protocols as it stands in the message; well-formed.
    alpn: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// The protocols that it offers (ALPN), in its order, such as `h2`; none without the extension.
    pub fn protocols(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut left = Bytes(self.alpn);
        std::iter::from_fn(move || left.vector8().ok())
    }

    /// The same as it stands in the message: each behind a byte of its length.
    pub fn protocol_list(&self) -> &'a [u8] {
        self.alpn
    }

    fn parse(body: &'a [u8]) -> Result<Self, Fault> {
        let mut hello = ClientHello {
            server_name: None,
            alpn: &[],
        };
        let mut body = Bytes(body);
        // A version and 32 random bytes.
        body.take(2 + 32)?;
        let session = body.vector8()?;
        let suites = body.vector16()?;
        let compression = body.vector8()?;
        if session.len() > 32
            || suites.is_empty()
            || suites.len() % 2 != 0
            || compression.is_empty()
        {
            return Err(Fault::Broken);
        }
        if !body.is_empty() {
            hello.read_extensions(Bytes(body.vector16()?))?;
        }
        body.end()?;
        Ok(hello)
    }

    fn read_extensions(&mut self, mut extensions: Bytes<'a>) -> Result<(), Fault> {
        let (mut named, mut offered) = (false, false);
        while !extensions.is_empty() {
            let kind = extensions.number16()?;
            let data = extensions.vector16()?;
            // Two of a kind are an error for every server, and could be read differently here and there.
            let is_second = match kind {
                SERVER_NAME => std::mem::replace(&mut named, true),
                ALPN => std::mem::replace(&mut offered, true),
                _ => continue,
            };
            match kind {
                _ if is_second => return Err(Fault::Broken),
                SERVER_NAME => self.server_name = server_name(data)?,
                _ => self.alpn = protocols(data)?,
            }
        }
        Ok(())
    }
}

/// Looks for the ClientHello in the first bytes of a connection as they arrive. It looks at each byte once, and owns memory only when
/// the message lies in several records.
#[derive(Debug, Default)]
pub struct Reader {
    /// Bytes of the connection that were looked at.
    seen: usize,
    /// Bytes of the current record's payload that were not.
    left: usize,
    /// Records that began.
    records: usize,
    /// What the payloads amount to, when there are several.
    joined: Vec<u8>,
}

impl Reader {
    /// The ClientHello at the start of `received`, which holds everything that came so far: what earlier calls saw, and more. `None`: it
    /// is not complete. What is found does not depend on the pieces in which the bytes came.
    ///
    /// # Errors
    /// When no ClientHello will come, whatever follows.
    pub fn read<'a>(&'a mut self, received: &'a [u8]) -> Result<Option<ClientHello<'a>>, Fault> {
        let bytes = &received[..received.len().min(MOST)];
        let end = loop {
            match message_end(self.message(bytes))? {
                Some(end) if end <= self.message(bytes).len() => break end,
                _ if self.advance(bytes)? => {}
                _ if bytes.len() == MOST => return Err(Fault::TooLong),
                _ => return Ok(None),
            }
        };
        ClientHello::parse(&self.message(bytes)[MESSAGE_HEAD..end]).map(Some)
    }

    /// What came of the message.
    fn message<'a>(&'a self, bytes: &'a [u8]) -> &'a [u8] {
        match self.records {
            0 => &[],
            1 => &bytes[RECORD_HEAD..self.seen],
            _ => &self.joined,
        }
    }

    /// Takes the head of a record, or what is there of its payload. False: there is nothing to take.
    fn advance(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        let new = &bytes[self.seen..];
        if self.left > 0 {
            let piece = &new[..new.len().min(self.left)];
            if self.records > 1 {
                self.joined.extend_from_slice(piece);
            }
            self.seen += piece.len();
            self.left -= piece.len();
            return Ok(!piece.is_empty());
        }
        let Some(payload) = payload_length(new)? else {
            return Ok(false);
        };
        if self.records == 1 {
            self.joined
                .extend_from_slice(&bytes[RECORD_HEAD..self.seen]);
        }
        self.seen += RECORD_HEAD;
        self.left = payload;
        self.records += 1;
        Ok(true)
    }
}

/// The length of the payload that follows the head of a record, once that is complete.
fn payload_length(head: &[u8]) -> Result<Option<usize>, Fault> {
    if head.first().is_some_and(|&kind| kind != HANDSHAKE)
        || head.get(1).is_some_and(|&major| major != MAJOR)
    {
        return Err(Fault::NotTls);
    }
    let Some(&[_, _, _, high, low]) = head.first_chunk::<RECORD_HEAD>() else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([high, low])) {
        // Empty ones carry nothing, and could come without an end (RFC 8446 section 5.1).
        length @ 1..=RECORD => Ok(Some(length)),
        _ => Err(Fault::Broken),
    }
}

/// Where the ClientHello that a message begins with ends, once its head is complete.
fn message_end(message: &[u8]) -> Result<Option<usize>, Fault> {
    if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Err(Fault::Broken);
    }
    let Some(&[_, high, middle, low]) = message.first_chunk::<MESSAGE_HEAD>() else {
        return Ok(None);
    };
    let end = MESSAGE_HEAD + u32::from_be_bytes([0, high, middle, low]) as usize;
    if RECORD_HEAD + end > MOST {
        return Err(Fault::TooLong);
    }
    Ok(Some(end))
}

/// The host name in the data of the extension. One name is all that anybody sends; readers do not agree on what several would mean, or one
/// of another kind.
fn server_name(data: &[u8]) -> Result<Option<&str>, Fault> {
    let mut data = Bytes(data);
    let mut names = Bytes(data.vector16()?);
    data.end()?;
    let (kind, name) = (names.number8()?, names.vector16()?);
    names.end()?;
    match kind {
        HOST_NAME => host_name(name),
        _ => Err(Fault::Broken),
    }
}

/// A name that a client may ask for, without a dot at its end; `None` for an address, which some ask for.
///
/// # Errors
/// It is no name of a host.
pub fn host_name(name: &[u8]) -> Result<Option<&str>, Fault> {
    let name = std::str::from_utf8(name).map_err(|_| Fault::Broken)?;
    if IpAddr::from_str(name).is_ok() {
        return Ok(None);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_fine)
    };
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(Some(name)),
        false => Err(Fault::Broken),
    }
}

/// The list of protocols in the data of the extension: at least one, none of them empty.
fn protocols(data: &[u8]) -> Result<&[u8], Fault> {
    let mut data = Bytes(data);
    let list = data.vector16()?;
    data.end()?;
    let mut left = Bytes(list);
    loop {
        if left.vector8()?.is_empty() {
            return Err(Fault::Broken);
        }
        if left.is_empty() {
            return Ok(list);
        }
    }
}

/// What is left to read of a message.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn end(&self) -> Result<(), Fault> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Fault::Broken)
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, left) = self.0.split_at_checked(count).ok_or(Fault::Broken)?;
        self.0 = left;
        Ok(taken)
    }

    fn number8(&mut self) -> Result<u8, Fault> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number16(&mut self) -> Result<u16, Fault> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Bytes behind their length of one byte.
    fn vector8(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.number8()?;
        self.take(length.into())
    }

    /// Bytes behind their length of two bytes.
    fn vector16(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.number16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::ClientConnection;

    use super::super::tls::sample;
    use super::*;

    /// What rustls says first to a server of this name, post-quantum key share included.
    fn hello(name: &'static str, protocols: &[&str]) -> Vec<u8> {
        let (_, client) = sample::configs(&rustls::version::TLS13, false);
        let mut config = Arc::unwrap_or_clone(client);
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        let mut client =
            ClientConnection::new(config.into(), sample::name(name)).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory");
        bytes
    }

    /// The same message in records of at most `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let records = hello[RECORD_HEAD..].chunks(size).map(|payload| {
            let length = (payload.len() as u16).to_be_bytes();
            [&[HANDSHAKE, MAJOR, 1], &length[..], payload].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    /// What is found, owned.
    type Found = Result<Option<(Option<String>, Vec<Vec<u8>>)>, Fault>;

    fn own(found: Result<Option<ClientHello<'_>>, Fault>) -> Found {
        found.map(|hello| {
            hello.map(|hello| {
                let protocols = hello.protocols().map(<[u8]>::to_vec).collect();
                (hello.server_name.map(str::to_owned), protocols)
            })
        })
    }

    fn at_once(bytes: &[u8]) -> Found {
        own(Reader::default().read(bytes))
    }

    /// Reads what comes in pieces of these lengths, the last one as often as it takes, up to the first verdict.
    fn in_pieces(bytes: &[u8], pieces: &[usize]) -> Found {
        let mut reader = Reader::default();
        let mut pieces = pieces.iter();
        let (mut end, mut piece) = (0, 1);
        while end < bytes.len() {
            piece = pieces.next().copied().unwrap_or(piece);
            end = (end + piece).min(bytes.len());
            match own(reader.read(&bytes[..end])) {
                Ok(None) => {}
                verdict => return verdict,
            }
        }
        Ok(None)
    }

    fn found(name: Option<&str>, protocols: &[&str]) -> Found {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        Ok(Some((name.map(str::to_owned), protocols.collect())))
    }

    /// A ClientHello with these extensions and nothing else of interest.
    fn made(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let vector = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let extensions: Vec<u8> = (extensions.iter())
            .flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), vector(data)].concat())
            .collect();
        let head = [&[3; 34][..], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
        let body = [head, vector(&extensions)].concat();
        let length = (body.len() as u32).to_be_bytes();
        let message = [&[CLIENT_HELLO], &length[1..], &body].concat();
        [&[HANDSHAKE, MAJOR, 1], &vector(&message)[..]].concat()
    }

    fn name_data(kind: u8, name: &[u8]) -> Vec<u8> {
        let length = name.len() as u16;
        let entry = [&[kind], &length.to_be_bytes()[..], name].concat();
        [&(length + 3).to_be_bytes()[..], &entry].concat()
    }

    fn with_name(name: &[u8]) -> Found {
        at_once(&made(&[(SERVER_NAME, &name_data(HOST_NAME, name))]))
    }

    #[test]
    fn what_rustls_says_is_read() {
        let bytes = hello("shop.test", &["h2", "http/1.1"]);
        assert!(
            bytes.len() > 1460,
            "no post-quantum key share in {}",
            bytes.len()
        );
        assert_eq!(
            at_once(&bytes),
            found(Some("shop.test"), &["h2", "http/1.1"])
        );
        assert_eq!(
            at_once(&hello("shop.test", &[])),
            found(Some("shop.test"), &[])
        );
        assert_eq!(at_once(&hello("127.0.0.1", &[])), found(None, &[]));
    }

    #[test]
    fn pieces_and_records_change_nothing() {
        let bytes = hello("shop.test", &["h2"]);
        let expected = found(Some("shop.test"), &["h2"]);
        for size in [1, 2, 3, 4, 5, 100, 1000, 10_000] {
            let bytes = in_records(&bytes, size);
            assert_eq!(at_once(&bytes), expected, "records of {size}");
            assert_eq!(in_pieces(&bytes, &[1]), expected, "records of {size}");
        }
        for end in 0..bytes.len() {
            assert_eq!(at_once(&bytes[..end]), Ok(None));
        }
        let followed = [&bytes[..], &[0xff; 20_000]].concat();
        assert_eq!(at_once(&followed), expected);
    }

    /// A reader that has its verdict gives it again.
    #[test]
    fn a_verdict_stays() {
        let bytes = in_records(&hello("shop.test", &[]), 50);
        let mut reader = Reader::default();
        let first = own(reader.read(&bytes));
        assert_eq!(first, found(Some("shop.test"), &[]));
        assert_eq!(own(reader.read(&[bytes, vec![1; 99]].concat())), first);
    }

    #[test]
    fn names_are_names_of_hosts() {
        assert_eq!(with_name(b"Shop.Test"), found(Some("Shop.Test"), &[]));
        assert_eq!(with_name(b"shop.test."), found(Some("shop.test"), &[]));
        assert_eq!(with_name(b"_x.a-b.test"), found(Some("_x.a-b.test"), &[]));
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(with_name(address.as_bytes()), found(None, &[]));
        }
        let long = ["a".repeat(64), "a.".repeat(128), "b".repeat(300)];
        let bad = [
            "", ".", "a..b", ".a", "a b", "a/b", "a:1", "a\0b", "\r\n", "ä.test", "*.test",
        ];
        for name in bad.into_iter().chain(long.iter().map(String::as_str)) {
            assert_eq!(with_name(name.as_bytes()), Err(Fault::Broken), "{name:?}");
        }
        assert_eq!(with_name(b"\xff\xfe"), Err(Fault::Broken));
    }

    #[test]
    fn unknown_things_are_passed_over() {
        let name = name_data(HOST_NAME, b"shop.test");
        let grease = made(&[
            (0x0a0a, b""),
            (SERVER_NAME, &name),
            (0xfafa, &[1]),
            (0xfafa, &[2]),
        ]);
        assert_eq!(at_once(&grease), found(Some("shop.test"), &[]));
        let old = &made(&[])[RECORD_HEAD + MESSAGE_HEAD..];
        assert!(ClientHello::parse(&old[..old.len() - 2]).is_ok());
    }

    #[test]
    fn what_could_be_read_twice_is_refused() {
        let name = name_data(HOST_NAME, b"shop.test");
        let twice = made(&[(SERVER_NAME, &name), (SERVER_NAME, &name)]);
        assert_eq!(at_once(&twice), Err(Fault::Broken));
        let entry = &name[2..];
        let two_names = [&(entry.len() as u16 * 2).to_be_bytes()[..], entry, entry].concat();
        assert_eq!(
            at_once(&made(&[(SERVER_NAME, &two_names)])),
            Err(Fault::Broken)
        );
        let other_kind = made(&[(SERVER_NAME, &name_data(7, b"shop.test"))]);
        assert_eq!(at_once(&other_kind), Err(Fault::Broken));
        let alpn: &[u8] = &[0, 3, 2, b'h', b'2'];
        assert_eq!(at_once(&made(&[(ALPN, alpn)])), found(None, &["h2"]));
        assert_eq!(
            at_once(&made(&[(ALPN, alpn), (ALPN, alpn)])),
            Err(Fault::Broken)
        );
    }

    #[test]
    fn broken_ones_are_refused() {
        let bad: [(u16, &[u8]); 8] = [
            (ALPN, &[0, 0]),
            (ALPN, &[]),
            (ALPN, &[0, 1, 0]),
            (ALPN, &[0, 3, 3, b'h', b'2']),
            (ALPN, &[0, 3, 2, b'h', b'2', 0]),
            (SERVER_NAME, &[]),
            (SERVER_NAME, &[0, 0]),
            (SERVER_NAME, &[0, 4, 0, 0, 9, b'a']),
        ];
        for (kind, data) in bad {
            assert_eq!(
                at_once(&made(&[(kind, data)])),
                Err(Fault::Broken),
                "{kind} {data:?}"
            );
        }
        let mut trailing = made(&[]);
        trailing.push(0);
        let payload = (trailing.len() - RECORD_HEAD) as u16;
        trailing[3..5].copy_from_slice(&payload.to_be_bytes());
        trailing[8] += 1;
        assert_eq!(at_once(&trailing), Err(Fault::Broken));
    }

    #[test]
    fn what_cannot_become_one_is_refused_at_once() {
        let verdicts: [(&[u8], Found); 9] = [
            (b"", Ok(None)),
            (b"G", Err(Fault::NotTls)),
            (b"\x16", Ok(None)),
            (b"\x16\x02", Err(Fault::NotTls)),
            (b"\x16\x03\x01\x40\x00", Ok(None)),
            (b"\x16\x03\x01\x40\x01", Err(Fault::Broken)),
            (b"\x16\x03\x01\0\0", Err(Fault::Broken)),
            (b"\x16\x03\x01\0\x09\x02", Err(Fault::Broken)),
            (b"\x16\x03\x01\0\x09\x01\0\x40\0", Err(Fault::TooLong)),
        ];
        for (bytes, verdict) in verdicts {
            assert_eq!(at_once(bytes), verdict, "{bytes:?}");
        }
        let begun = &b"\x16\x03\x01\0\x04\x01\0\x3f\x00"[..];
        let slow = [begun, &b"\x16\x03\x01\0\x01a".repeat(3000)].concat();
        assert_eq!(at_once(&slow[..MOST - 1]), Ok(None));
        assert_eq!(at_once(&slow[..MOST]), Err(Fault::TooLong));
        assert_eq!(in_pieces(&slow, &[1]), Err(Fault::TooLong));
    }

    proptest! {
        #[test]
        fn any_split_is_equal(
            size in 1..600usize,
            pieces in prop::collection::vec(1..700usize, 1..20),
            flip in prop::option::of((0..2000usize, 1u8..)),
        ) {
            let mut bytes = in_records(&hello("shop.test", &["h2", "http/1.1"]), size);
            if let Some((at, bits)) = flip && at < bytes.len() {
                bytes[at] ^= bits;
            }
            prop_assert_eq!(in_pieces(&bytes, &pieces), at_once(&bytes));
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, pieces in prop::collection::vec(1..9usize, 1..9)) {
            let dressed = [&[HANDSHAKE, MAJOR, 1, 0, 200, CLIENT_HELLO, 0, 0, 190], &bytes[..]].concat();
            for bytes in [bytes, dressed] {
                prop_assert_eq!(in_pieces(&bytes, &pieces), at_once(&bytes));
            }
        }

        #[test]
        fn any_extensions_are_read(kind in prop::sample::select(vec![SERVER_NAME, ALPN]), data: Vec<u8>) {
            let _ = at_once(&made(&[(kind, &data)]));
        }
    }
}
