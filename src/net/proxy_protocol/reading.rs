//! Reading headers, strictly: what no sender writes is refused.
//! It never looks behind a header, and never says of a part of one what it would not say of the whole.
//! The walk goes on in `introduction.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use memchr::memchr;

use super::{Ends, Extensions, Fault, HEAD, Header, MOST, SIGNATURE, kind};

/// What version 1 begins with.
pub(super) const LINE: &[u8] = b"PROXY ";

/// Bytes of the longest line, its end included.
pub(super) const LONGEST_LINE: usize = 107;

/// Bytes of the checksum in an extension.
const CHECKSUM: usize = 4;

/// Bytes of the longest id of a connection.
pub(super) const LONGEST_ID: usize = 128;

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

/// Reads the header at the start of a datagram, which holds it whole and speaks for nobody but itself. Lines are for connections: one has
/// no word for datagrams.
///
/// # Errors
/// When there is none, or not all of it.
pub fn read_datagram(bytes: &[u8]) -> Result<Header<'_>, Fault> {
    if !bytes.starts_with(SIGNATURE) {
        return Err(Fault::Absent);
    }
    read_binary(bytes)?.ok_or(Fault::Broken)
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
pub(super) fn crc32c(parts: [&[u8]; 3]) -> u32 {
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
