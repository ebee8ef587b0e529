//! Text to the bytes that a check sends or expects: as it is written, or in hexadecimal digits.
//! It takes nothing that would not fit into one datagram on any network.
//! Here the walk ends.

use super::{Flaw, Read};
use crate::config::codes::Code;

/// What stands before hexadecimal digits.
const HEX: &str = "hex:";

/// Bytes that pass every network in one piece (RFC 8200 section 5, less the headers of IPv6 and UDP).
const MOST: usize = 1232;

/// Bytes: the text itself, or `hex:` and two digits for each, with blanks between them where one likes.
pub fn payload(text: &str) -> Read<Vec<u8>> {
    let bytes = match text.strip_prefix(HEX) {
        None => text.as_bytes().to_vec(),
        Some(digits) => {
            from_digits(digits).ok_or_else(|| flaw("two digits of 0-9 and a-f for each byte"))?
        }
    };
    match bytes.len() {
        1..=MOST => Ok(bytes),
        0 => Err(flaw("there is none")),
        _ => Err(flaw(
            "more than 1232 bytes, which is what fits into one datagram everywhere",
        )),
    }
}

fn from_digits(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().filter(|character| *character != ' ');
    let digits: Vec<u8> = digits
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    pairs.collect()
}

fn flaw(label: &str) -> Flaw {
    Flaw::new(
        Code::BadBytes,
        "is neither text nor bytes",
        label,
        "write text, or bytes such as \"hex:1234 0100\"",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_digits() {
        assert_eq!(payload("ping"), Ok(b"ping".to_vec()));
        assert_eq!(payload("hex:12 34 fF00"), Ok(vec![0x12, 0x34, 0xff, 0]));
        for text in [
            "",
            "hex:",
            "hex:1",
            "hex:1 2 3",
            "hex:zz",
            &"a".repeat(1233),
        ] {
            assert!(payload(text).is_err(), "{text}");
        }
    }
}
