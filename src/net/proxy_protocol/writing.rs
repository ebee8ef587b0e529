//! Writing headers of either version.
//! What is written is read by `reading.rs` as it was meant; an extension that does not fit is left out.
//! The walk goes on in `introduction.rs`.

use std::net::{IpAddr, SocketAddr};

use super::{Ends, HEAD, MOST, SIGNATURE, Transport};

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
