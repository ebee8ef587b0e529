//! The PROXY protocol: the header before everything else by which a proxy says for whom it opened a connection or sends a datagram. Version 1
//! is a line of text, version 2 is binary and may carry extensions (HAProxy's `proxy-protocol.txt`, section 2). It touches no socket and
//! believes nobody: whose header counts is decided elsewhere. The walk goes on in `introduction.rs`, which keeps what a header said.

mod reading;
#[cfg(test)]
mod tests;
mod writing;

use std::net::SocketAddr;

pub use reading::{read, read_datagram};
pub use writing::{Writer, push, write_line};

/// Bytes that a header has at most. Real ones have a few hundred; the format of version 2 would allow 64 KiB.
pub const MOST: usize = 16 * 1024;

/// What version 2 begins with: nothing that another protocol takes for its own.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before the addresses.
const HEAD: usize = 16;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
