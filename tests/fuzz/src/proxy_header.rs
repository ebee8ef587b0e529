//! PROXY headers: what a reader makes of them does not depend on the pieces they come in, nothing behind one counts, what is read is what
//! stands there, and what is read is written so that it is read again.

use std::net::SocketAddr;

use weir::net::proxy_protocol::{
    Ends, Fault, Header, MOST, Transport, Writer, kind, read, read_datagram, write_line,
};

use super::support::pieces;

pub fn run(bytes: &[u8]) {
    let whole = read(bytes);
    let mut end = 0;
    for piece in pieces(bytes) {
        end += piece.len();
        match read(&bytes[..end]) {
            Ok(None) => {}
            verdict => {
                assert_eq!(verdict, whole, "after {end} bytes of {}", bytes.len());
                break;
            }
        }
    }
    check_datagram(bytes, whole);
    match whole {
        Ok(Some(header)) => {
            assert!(header.length <= bytes.len() && header.length <= MOST);
            assert_eq!(
                read(&bytes[..header.length]),
                Ok(Some(header)),
                "it needs nothing behind it"
            );
            check_line(&bytes[..header.length], &header);
            write_again(&header);
        }
        // It may still begin one: then it is as short as an unfinished one is.
        Ok(None) => assert!(bytes.len() < MOST),
        Err(Fault::Absent) => assert!(!bytes.starts_with(b"PROXY ")),
        Err(_) => {}
    }
}

/// A datagram has the header of version 2 that a connection with the same bytes would have, or none.
fn check_datagram(bytes: &[u8], of_connection: Result<Option<Header<'_>>, Fault>) {
    let wanted = match of_connection {
        _ if !bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") => Err(Fault::Absent),
        Ok(Some(header)) => Ok(header),
        Ok(None) => Err(Fault::Broken),
        Err(fault) => Err(fault),
    };
    assert_eq!(read_datagram(bytes), wanted);
}

/// A line, read without weir's help.
fn check_line(bytes: &[u8], header: &Header<'_>) {
    let Some(line) = bytes.strip_prefix(b"PROXY ") else {
        return;
    };
    assert!(bytes.len() <= 107);
    let text = std::str::from_utf8(line).expect("text");
    let words: Vec<&str> = text
        .strip_suffix("\r\n")
        .expect("a line")
        .split(' ')
        .collect();
    let expected = match words[..] {
        ["UNKNOWN", ..] => None,
        [_, source, destination, from, to] => {
            let end =
                |ip: &str, port: &str| SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap());
            Some(Ends {
                source: end(source, from),
                destination: end(destination, to),
            })
        }
        _ => panic!("{text}"),
    };
    assert_eq!(header.ends, expected);
}

fn write_again(header: &Header<'_>) {
    let Some(ends) = header.ends else { return };
    let mut out = Vec::new();
    let mut writer = Writer::proxy(&ends, Transport::Stream, &mut out);
    for (kind, value) in header.extensions {
        // The sum is that of the other header.
        if kind != kind::CRC32C {
            writer.extension(kind, value);
        }
    }
    drop(writer);
    let again = read(&out).expect("no fault").expect("a whole header");
    assert_eq!(again.length, out.len());
    let mut kept = header.extensions.filter(|(kind, _)| *kind != kind::CRC32C);
    assert!(again.extensions.eq(kept.by_ref()));
    let mut line = Vec::new();
    write_line(&ends, &mut line);
    let of_line = read(&line).expect("no fault").expect("a whole header");
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    for (of, expected) in [(again.ends, ends), (of_line.ends, ends)] {
        let of = of.expect("its ends");
        assert_eq!(canonical(of.source), canonical(expected.source));
        assert_eq!(canonical(of.destination), canonical(expected.destination));
    }
}
