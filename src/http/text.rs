//! Numbers and addresses as text, appended to a buffer without an allocation of their own.
//! It never escapes anything; its callers own the form of a line.
//! The walk goes back to `json.rs` and `combined.rs`.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

const DIGIT_PAIRS: &[u8; 200] = b"\
    0001020304050607080910111213141516171819\
    2021222324252627282930313233343536373839\
    4041424344454647484950515253545556575859\
    6061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// A number in decimal.
pub fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    while number >= 100 {
        let pair = (number % 100) as usize * 2;
        number /= 100;
        start -= 2;
        digits[start..start + 2].copy_from_slice(&DIGIT_PAIRS[pair..pair + 2]);
    }
    if number >= 10 {
        let pair = number as usize * 2;
        start -= 2;
        digits[start..start + 2].copy_from_slice(&DIGIT_PAIRS[pair..pair + 2]);
    } else {
        start -= 1;
        digits[start] = b'0' + number as u8;
    }
    out.extend_from_slice(&digits[start..]);
}

/// The last `width` decimal digits of a number, at most eight, with leading zeros.
pub fn push_digits(mut number: u64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 8];
    for digit in digits[..width].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[..width]);
}

/// Sixteen hexadecimal digits.
pub fn push_id(id: u64, out: &mut Vec<u8>) {
    let digits: [u8; 16] =
        std::array::from_fn(|digit| HEX[(id >> (60 - 4 * digit)) as usize & 0xf]);
    out.extend_from_slice(&digits);
}

/// Seconds with microseconds: `0.001234`.
pub fn push_seconds(duration: Duration, out: &mut Vec<u8>) {
    push_number(duration.as_secs(), out);
    out.push(b'.');
    push_digits(u64::from(duration.subsec_micros()), 6, out);
}

/// An address; an IPv4-mapped IPv6 one as IPv4.
pub fn push_address(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(address) => push_octets(address.octets(), out),
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Four numbers with points between them, in one piece: every request that is forwarded has some.
fn push_octets(octets: [u8; 4], out: &mut Vec<u8>) {
    let mut text = *b"255.255.255.255";
    let mut length = 0;
    for octet in octets {
        let (tens, pair) = (octet / 10, octet % 100);
        let pair = &DIGIT_PAIRS[usize::from(pair) * 2..][..2];
        if octet >= 100 {
            text[length] = b'0' + octet / 100;
            length += 1;
        }
        if tens > 0 {
            text[length] = pair[0];
            length += 1;
        }
        text[length] = pair[1];
        length += 1;
        if let Some(point) = text.get_mut(length) {
            *point = b'.';
        }
        length += 1;
    }
    out.extend_from_slice(&text[..length - 1]);
}

/// Two hexadecimal digits.
pub fn push_hex(byte: u8, out: &mut Vec<u8>) {
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 0xf)]);
}

/// Whether no byte needs an escape in a quoted string of either format. It looks at all of them, which is faster than
/// stopping early: nearly every value is plain.
#[inline]
pub fn is_plain(value: &[u8]) -> bool {
    value.iter().fold(true, |plain, &byte| {
        plain & (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        let mut numbers = vec![0, 9, 10, 99, 100, 101, 999, 1000, u64::MAX];
        numbers.extend((0..64).map(|shift| 1u64 << shift));
        for number in numbers {
            assert_eq!(text(|out| push_number(number, out)), number.to_string());
            assert_eq!(text(|out| push_id(number, out)), format!("{number:016x}"));
        }
    }

    #[test]
    fn durations_have_six_digits_after_the_point() {
        let written = |duration| text(|out| push_seconds(duration, out));
        assert_eq!(written(Duration::from_nanos(1_234_999)), "0.001234");
        assert_eq!(written(Duration::new(61, 5_000)), "61.000005");
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them() {
        for address in ["192.0.2.10", "0.0.0.0", "255.1.20.3", "2001:db8::10", "::"] {
            let parsed = address.parse().unwrap();
            assert_eq!(text(|out| push_address(parsed, out)), address);
        }
        for octet in 0..=u8::MAX {
            let address = IpAddr::from([octet, 0, octet, octet]);
            assert_eq!(text(|out| push_address(address, out)), address.to_string());
        }
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(text(|out| push_address(mapped, out)), "192.0.2.1");
    }
}
