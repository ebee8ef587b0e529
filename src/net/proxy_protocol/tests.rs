//! What is read and what is refused, whole and in pieces, and that what is written is read.
//! Nothing here trusts one direction to test the other but where it says so.
//! Nothing follows from here.

use proptest::prelude::*;

use super::reading::{LINE, LONGEST_ID, LONGEST_LINE, crc32c};
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

    /// A datagram says at once what a connection says at its end, but that lines are none of its headers.
    #[test]
    fn any_datagram_is_read(bytes: Vec<u8>, end in 0..200_usize) {
        let whole = [&binary(0x21, 0x12, &[&V4[..], &bytes].concat())[..], b"data"].concat();
        for bytes in [&whole[..end.min(whole.len())], &whole, &bytes] {
            let wanted = match read(bytes) {
                _ if !bytes.starts_with(SIGNATURE) => Err(Fault::Absent),
                Ok(header) => header.ok_or(Fault::Broken),
                Err(fault) => Err(fault),
            };
            prop_assert_eq!(read_datagram(bytes), wanted);
        }
        prop_assert_eq!(read_datagram(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"), Err(Fault::Absent));
    }

    #[test]
    fn any_line_is_read(words in "(TCP4|TCP6|UNKNOWN)( [0-9a-f.:]{0,12}){0,5}\r?\n?.{0,9}") {
        check_pieces(format!("PROXY {words}").as_bytes());
    }
}
