//! The PROXY protocol: the header before everything else by which a proxy says for whom it opened a connection. Version 1 is a line of text,
//! version 2 is binary and may carry extensions (HAProxy's `proxy-protocol.txt`, section 2). It touches no socket and believes nobody: whose
//! header counts is decided elsewhere. The walk goes on in `introduction.rs`, which keeps what a header said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use memchr::memchr;

/// Bytes that a header has at most. Real ones have a few hundred; the format of version 2 would allow 64 KiB.
pub const MOST: usize = 16 * 1024;

/// What version 1 begins with.
const LINE: &[u8] = b"PROXY ";

/// Bytes of the longest line, its end included.
const LONGEST_LINE: usize = 107;

/// What version 2 begins with: nothing that another protocol takes for its own.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before the addresses.
const HEAD: usize = 16;

/// Bytes of the checksum in an extension.
const CHECKSUM: usize = 4;

/// Bytes of the longest id of a connection.
const LONGEST_ID: usize = 128;

/// Kinds of extensions.
pub mod kind {
    /// The protocol within TLS that was agreed on, as in ALPN.
    pub const ALPN: u8 = 0x01;
    /// The name that the client asked for, as in SNI.
    pub const AUTHORITY: u8 = 0x02;
    /// A checksum of the whole header.
    pub const CRC32C: u8 = 0x03;
    /// An id of the connection.
    pub const UNIQUE_ID: u8 = 0x05;
    /// What is known of TLS toward the client.
    pub const SSL: u8 = 0x20;
    /// The version of TLS, within the former.
    pub const SSL_VERSION: u8 = 0x21;
}

/// What the connection that is told of carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream: TCP.
    Stream,
    /// Datagrams: UDP.
    Datagrams,
}

/// The ends of the connection that is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Whom it connected to.
    pub destination: SocketAddr,
}

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Bytes of it; what follows is the client's.
    pub length: usize,
    /// The ends of the client's connection. `None`: the connection at hand speaks for itself (LOCAL, such as a health check), or the
    /// sender does not know (UNKNOWN, UNSPEC), or what it knows are no addresses of IP.
    pub ends: Option<Ends>,
    /// The extensions as they stand, well-formed.
    pub extensions: Extensions<'a>,
}

/// Why the first bytes of a connection are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They begin in another way: there is no header.
    Absent,
    /// They begin like one, and go on in a way that none does.
    Broken,
    /// A line of more than 107 bytes, or more than [`MOST`].
    TooLong,
    /// The checksum is another one.
    Checksum,
}

/// Reads the header at the start of `bytes`, which hold everything that came so far. `None`: it is not complete, and nothing says yet that
/// there is none.
///
/// # Errors
/// When no header will come of it, whatever follows.
pub fn read(bytes: &[u8]) -> Result<Option<Header<'_>>, Fault> {
    let begins = |with: &[u8]| {
        let known = bytes.len().min(with.len());
        bytes[..known] == with[..known]
    };
    match (begins(SIGNATURE), begins(LINE)) {
        (true, true) => Ok(None),
        (true, false) => read_binary(bytes),
        (false, true) => read_line(bytes),
        (false, false) => Err(Fault::Absent),
    }
}

/// Version 1.
fn read_line(bytes: &[u8]) -> Result<Option<Header<'_>>, Fault> {
    let most = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = memchr(b'\n', most) else {
        return match most.len() {
            LONGEST_LINE => Err(Fault::TooLong),
            _ => Ok(None),
        };
    };
    let line = most[LINE.len()..end].strip_suffix(b"\r");
    let text = line.and_then(|line| std::str::from_utf8(line).ok());
    let text = text.filter(|text| !text.contains('\r'));
    let ends = read_ends(text.ok_or(Fault::Broken)?).ok_or(Fault::Broken)?;
    Ok(Some(Header {
        length: end + 1,
        ends,
        extensions: Extensions(&[]),
    }))
}

/// What stands between `PROXY` and the end of the line; `None` when it may not stand there.
fn read_ends(text: &str) -> Option<Option<Ends>> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let mut next = || words.next();
    let [source, destination, source_port, destination_port] = match family {
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Some(None),
        "TCP4" | "TCP6" => [next()?, next()?, next()?, next()?],
        _ => return None,
    };
    let address = |text| match family {
        "TCP4" => Ipv4Addr::from_str(text).ok().map(IpAddr::from),
        _ => Ipv6Addr::from_str(text).ok().map(IpAddr::from),
    };
    let ends = Ends {
        source: (address(source)?, port(source_port)?).into(),
        destination: (address(destination)?, port(destination_port)?).into(),
    };
    next().is_none().then_some(Some(ends))
}

/// A decimal number without zeros before it.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    (is_plain && !is_padded).then(|| text.parse().ok())?
}

/// Version 2.
fn read_binary(bytes: &[u8]) -> Result<Option<Header<'_>>, Fault> {
    let Some(&[.., command, family, high, low]) = bytes.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = HEAD + usize::from(u16::from_be_bytes([high, low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Broken),
    };
    if length > MOST {
        return Err(Fault::TooLong);
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(None);
    };
    let (ends, extensions) = match is_local {
        // Whatever else it says is to be ignored.
        true => (None, &[][..]),
        false => read_block(family, &header[HEAD..])?,
    };
    check(header, extensions)?;
    Ok(Some(Header {
        length,
        ends,
        extensions: Extensions(extensions),
    }))
}

/// The addresses of a binary header, and what follows them.
fn read_block(family: u8, block: &[u8]) -> Result<(Option<Ends>, &[u8]), Fault> {
    let (family, transport) = (family >> 4, family & 15);
    let size = match family {
        0 => 0,
        1 => 2 * (4 + 2),
        2 => 2 * (16 + 2),
        3 => 2 * 108,
        _ => return Err(Fault::Broken),
    };
    let (addresses, rest) = block.split_at_checked(size).ok_or(Fault::Broken)?;
    let ends = match (family, transport) {
        (_, 3..) => return Err(Fault::Broken),
        (1, 1 | 2) => ends::<4>(addresses),
        (2, 1 | 2) => ends::<16>(addresses),
        _ => None,
    };
    Ok((ends, rest))
}

/// Two addresses of `N` bytes, then their ports.
fn ends<const N: usize>(block: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let &[a, b, c, d] = rest.first_chunk::<4>()?;
    Some(Ends {
        source: (IpAddr::from(*source), u16::from_be_bytes([a, b])).into(),
        destination: (IpAddr::from(*destination), u16::from_be_bytes([c, d])).into(),
    })
}

/// Whether the extensions at the end of a header are well-formed, and its checksum, if it has one, is right.
fn check(header: &[u8], extensions: &[u8]) -> Result<(), Fault> {
    let mut left = Extensions(extensions);
    let mut checksum = None;
    while !left.0.is_empty() {
        let (kind, value) = left.next().ok_or(Fault::Broken)?;
        let is_fine = match kind {
            kind::CRC32C => value.len() == CHECKSUM && checksum.is_none(),
            kind::UNIQUE_ID => value.len() <= LONGEST_ID,
            _ => true,
        };
        if !is_fine {
            return Err(Fault::Broken);
        }
        if kind == kind::CRC32C {
            checksum = Some((header.len() - left.0.len() - CHECKSUM, value));
        }
    }
    let Some((at, told)) = checksum else {
        return Ok(());
    };
    let parts = [&header[..at], &[0; CHECKSUM], &header[at + CHECKSUM..]];
    match crc32c(parts).to_be_bytes() == told {
        true => Ok(()),
        false => Err(Fault::Checksum),
    }
}

/// The checksum of RFC 9260, Appendix A, of bytes in several parts.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut value, mut bit) = (byte as u32, 0);
            while bit < 8 {
                value = (value >> 1) ^ (0x82f6_3b78 & (value & 1).wrapping_neg());
                bit += 1;
            }
            table[byte] = value;
            byte += 1;
        }
        table
    };
    !parts.into_iter().flatten().fold(u32::MAX, |sum, &byte| {
        (sum >> 8) ^ TABLE[usize::from(sum as u8 ^ byte)]
    })
}

/// The extensions of a header, each with its kind and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions<'a>(&'a [u8]);

impl<'a> Extensions<'a> {
    /// Those that stand in `bytes`, as far as they are well-formed.
    pub fn new(bytes: &'a [u8]) -> Self {
        Extensions(bytes)
    }

    /// All of them as they stand.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The value of the first one of a kind.
    pub fn find(mut self, kind: u8) -> Option<&'a [u8]> {
        self.find_map(|(known, value)| (known == kind).then_some(value))
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, high, low], rest) = self.0.split_first_chunk::<3>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((kind, value))
    }
}

/// Writes a header of version 1 behind `out`.
pub fn write_line(ends: &Ends, out: &mut Vec<u8>) {
    let Ends {
        source,
        destination,
    } = ends.of_one_family();
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let (from_port, to_port) = (source.port(), destination.port());
    let line = format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n");
    out.extend_from_slice(line.as_bytes());
}

impl Ends {
    /// Both as IPv4 if both are, in whatever spelling; else both as IPv6.
    fn of_one_family(&self) -> Ends {
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (source, destination) = (plain(self.source), plain(self.destination));
        let wide = |end: SocketAddr| match end.ip() {
            IpAddr::V4(address) => SocketAddr::new(address.to_ipv6_mapped().into(), end.port()),
            IpAddr::V6(_) => end,
        };
        match source.is_ipv4() == destination.is_ipv4() {
            true => Ends {
                source,
                destination,
            },
            false => Ends {
                source: wide(source),
                destination: wide(destination),
            },
        }
    }
}

/// Writes a header of version 2, which is complete when this is dropped.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    /// Begins a header behind `out` that tells of a client's connection.
    pub fn proxy(ends: &Ends, transport: Transport, out: &'a mut Vec<u8>) -> Self {
        let Ends {
            source,
            destination,
        } = ends.of_one_family();
        let family = if source.is_ipv4() { 0x10 } else { 0x20 };
        let transport = match transport {
            Transport::Stream => 1,
            Transport::Datagrams => 2,
        };
        let writer = Writer::begin(0x21, family | transport, out);
        for address in [source.ip(), destination.ip()] {
            match address {
                IpAddr::V4(address) => writer.out.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => writer.out.extend_from_slice(&address.octets()),
            }
        }
        for port in [source.port(), destination.port()] {
            writer.out.extend_from_slice(&port.to_be_bytes());
        }
        writer
    }

    /// Begins a header behind `out` that says that the connection is the sender's own.
    pub fn local(out: &'a mut Vec<u8>) -> Self {
        Writer::begin(0x20, 0, out)
    }

    fn begin(command: u8, family: u8, out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&[command, family, 0, 0]);
        Writer { out, start }
    }

    /// Adds an extension. One that would make the header longer than [`MOST`] is left out.
    pub fn extension(&mut self, kind: u8, value: &[u8]) {
        if self.out.len() - self.start + 3 + value.len() <= MOST {
            push(kind, value, self.out);
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        let length = (self.out.len() - self.start - HEAD) as u16;
        self.out[self.start + HEAD - 2..][..2].copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes an extension, or one within another, behind `out`. The value has less than 64 KiB.
pub fn push(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    let length = (value.len() as u16).to_be_bytes();
    out.extend_from_slice(&[kind, length[0], length[1]]);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        }
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = (block.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    fn ends_of(bytes: &[u8]) -> Result<Option<Ends>, Fault> {
        let header = read(bytes)?.expect("a whole header");
        assert_eq!(header.length, bytes.len());
        Ok(header.ends)
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 187];

    fn v4() -> Ends {
        ends("192.0.2.1:56324", "198.51.100.2:443")
    }

    #[test]
    fn lines_are_read() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
        assert_eq!(ends_of(line), Ok(Some(v4())));
        let line = b"PROXY TCP6 2001:DB8::1 ::ffff:198.51.100.2 0 65535\r\n";
        let expected = ends("[2001:db8::1]:0", "[::ffff:198.51.100.2]:65535");
        assert_eq!(ends_of(line), Ok(Some(expected)));
        assert_eq!(ends_of(b"PROXY UNKNOWN\r\n"), Ok(None));
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
        assert_eq!(
            (long.len(), ends_of(long.as_bytes())),
            (LONGEST_LINE, Ok(None))
        );
        let followed = b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(
            read(followed).map(|header| header.map(|header| header.length)),
            Ok(Some(15))
        );
    }

    #[test]
    fn lines_that_nobody_sends_are_refused() {
        let bad = [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UNKNOWN\n",
            "PROXY UNKNOWN \r \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP6 2001:db8::1%1 2001:db8::2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2  2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 ä\r\n",
        ];
        for line in bad {
            assert_eq!(read(line.as_bytes()), Err(Fault::Broken), "{line:?}");
        }
        assert_eq!(read(b"PROXY TCP4 \xff\r\n"), Err(Fault::Broken));
        let endless = format!("PROXY UNKNOWN {}", "f".repeat(93));
        assert_eq!(read(&endless.as_bytes()[..LONGEST_LINE - 1]), Ok(None));
        assert_eq!(read(endless.as_bytes()), Err(Fault::TooLong));
        assert_eq!(
            read(format!("{endless}\r\n").as_bytes()),
            Err(Fault::TooLong)
        );
    }

    #[test]
    fn binary_headers_are_read() {
        for family in [0x11, 0x12] {
            assert_eq!(ends_of(&binary(0x21, family, &V4)), Ok(Some(v4())));
        }
        let block = [&[0x20; 16][..], &[0x30; 16], &[0, 1, 0, 2]].concat();
        let expected = ends(
            "[2020:2020:2020:2020:2020:2020:2020:2020]:1",
            "[3030:3030:3030:3030:3030:3030:3030:3030]:2",
        );
        assert_eq!(ends_of(&binary(0x21, 0x21, &block)), Ok(Some(expected)));
        let nameless = [
            (0x20, 0),
            (0x20, 0x11),
            (0x20, 0xff),
            (0x21, 0x31),
            (0x21, 0x10),
        ];
        for (command, family) in nameless {
            assert_eq!(
                ends_of(&binary(command, family, &[0; 216])),
                Ok(None),
                "{family}"
            );
        }
        assert_eq!(ends_of(&binary(0x20, 0, &[])), Ok(None));
        assert_eq!(ends_of(&binary(0x21, 0, &[])), Ok(None));
        // Whatever a LOCAL header brings is passed over.
        assert_eq!(ends_of(&binary(0x20, 0x11, &[9; 5])), Ok(None));
    }

    #[test]
    fn binary_headers_that_nobody_sends_are_refused() {
        let bad = [
            (0x11, 0x11),
            (0x31, 0x11),
            (0x22, 0x11),
            (0x21, 0x41),
            (0x21, 0x13),
            (0x21, 0x03),
        ];
        for (command, family) in bad {
            assert_eq!(
                read(&binary(command, family, &V4)),
                Err(Fault::Broken),
                "{command} {family}"
            );
        }
        for (family, size) in [(0x11, 11), (0x21, 35), (0x31, 215)] {
            assert_eq!(
                read(&binary(0x21, family, &vec![0; size])),
                Err(Fault::Broken)
            );
        }
        for extension in [
            &[1][..],
            &[1, 0],
            &[1, 0, 1],
            &[1, 0xff, 0xff, 7],
            &[5, 0, 0, 9],
        ] {
            let block = [&V4[..], extension].concat();
            assert_eq!(
                read(&binary(0x21, 0x11, &block)),
                Err(Fault::Broken),
                "{extension:?}"
            );
        }
        let mut long_id = V4.to_vec();
        push(kind::UNIQUE_ID, &[7; LONGEST_ID + 1], &mut long_id);
        assert_eq!(read(&binary(0x21, 0x11, &long_id)), Err(Fault::Broken));
        let long = (MOST - HEAD + 1) as u16;
        let head = [SIGNATURE, &[0x20, 0], &long.to_be_bytes()].concat();
        assert_eq!(read(&head), Err(Fault::TooLong));
        let whole = binary(0x20, 0, &[0; MOST - HEAD]);
        assert_eq!(read(&whole[..MOST - 1]), Ok(None));
        assert_eq!(ends_of(&whole), Ok(None));
    }

    #[test]
    fn what_begins_otherwise_is_no_header() {
        let others = [
            "X",
            "PRI * HTTP/2.0\r\n",
            "PROXY\r\n",
            "POST / HTTP/1.1\r\n",
            "\r\nGET",
            "\r\n\r\n\0\r\nQUIT\r",
        ];
        for other in others {
            assert_eq!(read(other.as_bytes()), Err(Fault::Absent), "{other:?}");
        }
        for begun in ["", "P", "PROXY", "PROXY ", "\r\n", "\r\n\r\n\0\r\nQUIT\n!"] {
            assert_eq!(read(begun.as_bytes()), Ok(None), "{begun:?}");
        }
    }

    /// The first sum is the check value that catalogues of checksums give for this one.
    #[test]
    fn a_checksum_must_be_right() {
        assert_eq!(crc32c([b"1234", b"", b"56789"]), 0xe306_9283);
        let mut block = V4.to_vec();
        push(kind::ALPN, b"h2", &mut block);
        push(kind::CRC32C, &[0; 4], &mut block);
        push(kind::AUTHORITY, b"shop.test", &mut block);
        let mut header = binary(0x21, 0x11, &block);
        assert_eq!(read(&header), Err(Fault::Checksum));
        let sum = crc32c([&header, b"", b""]);
        let at = HEAD + V4.len() + 5 + 3;
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(ends_of(&header), Ok(Some(v4())));
        let read_back = read(&header).expect("fine").expect("whole");
        assert_eq!(
            read_back.extensions.find(kind::AUTHORITY),
            Some(&b"shop.test"[..])
        );
        assert_eq!(read_back.extensions.find(kind::UNIQUE_ID), None);
        *header.last_mut().expect("a byte") ^= 1;
        assert_eq!(read(&header), Err(Fault::Checksum));
        let mut twice = V4.to_vec();
        push(kind::CRC32C, &[0; 4], &mut twice);
        push(kind::CRC32C, &[0; 4], &mut twice);
        assert_eq!(read(&binary(0x21, 0x11, &twice)), Err(Fault::Broken));
    }

    #[test]
    fn what_is_written_is_read() {
        let wide = ends("[2001:db8::1]:1", "[2001:db8::2]:2");
        let mapped = ends("[::ffff:192.0.2.1]:56324", "198.51.100.2:443");
        let mixed = ends("192.0.2.1:1", "[2001:db8::2]:2");
        let widened = ends("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2");
        for (given, expected) in [(v4(), v4()), (wide, wide), (mapped, v4()), (mixed, widened)] {
            let mut line = Vec::new();
            write_line(&given, &mut line);
            assert!(line.len() <= LONGEST_LINE);
            assert_eq!(ends_of(&line), Ok(Some(expected)));
            for transport in [Transport::Stream, Transport::Datagrams] {
                let mut out = b"before".to_vec();
                let mut writer = Writer::proxy(&given, transport, &mut out);
                writer.extension(kind::ALPN, b"h2");
                drop(writer);
                assert_eq!(ends_of(&out[6..]), Ok(Some(expected)));
            }
        }
        let mut out = Vec::new();
        drop(Writer::local(&mut out));
        assert_eq!(out, binary(0x20, 0, &[]));
        let mut writer = Writer::proxy(&v4(), Transport::Stream, &mut out);
        (0..10).for_each(|_| writer.extension(kind::AUTHORITY, &[b'a'; 4096]));
        drop(writer);
        assert!(out.len() > 12_000 && ends_of(&out[16..]).is_ok());
    }

    /// What a piece of a header comes to never contradicts the whole.
    fn check_pieces(bytes: &[u8]) {
        let whole = read(bytes);
        for end in 0..bytes.len().min(300) {
            match read(&bytes[..end]) {
                Ok(None) => {}
                verdict => assert_eq!(verdict, whole, "after {end} bytes"),
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, family: u8) {
            check_pieces(&bytes);
            check_pieces(&[LINE, &bytes].concat());
            check_pieces(&[SIGNATURE, &bytes].concat());
            check_pieces(&binary(0x21, family, &bytes));
            check_pieces(&binary(0x21, 0x11, &[&V4[..], &bytes].concat()));
        }

        #[test]
        fn any_line_is_read(words in "(TCP4|TCP6|UNKNOWN)( [0-9a-f.:]{0,12}){0,5}\r?\n?.{0,9}") {
            check_pieces(format!("PROXY {words}").as_bytes());
        }
    }
}
