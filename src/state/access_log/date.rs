//! Wall time as text: RFC 3339 for JSON lines, the NCSA form for combined ones, both in UTC.
//! A date is worked out once a second and kept; it never asks for the time itself.
//! The walk goes back to `json.rs` and `combined.rs`.

use std::io::Write;

use crate::clock::Rfc3339;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
/// The last second of year 9999: a later one would not fit.
const LAST: u64 = 253_402_300_799;

/// The text of the second that was last asked for.
#[derive(Debug)]
pub(super) struct DateCache {
    second: u64,
    rfc3339: [u8; 19],
    ncsa: [u8; 26],
}

impl Default for DateCache {
    fn default() -> Self {
        let mut cache = DateCache {
            second: 0,
            rfc3339: [0; 19],
            ncsa: *b"00/Jan/0000:00:00:00 +0000",
        };
        cache.fill();
        cache
    }
}

impl DateCache {
    /// `2026-11-20T23:51:59`, without fraction and zone.
    #[inline]
    pub(super) fn rfc3339(&mut self, second: u64) -> &[u8] {
        self.turn_to(second);
        &self.rfc3339
    }

    /// `20/Nov/2026:23:51:59 +0000`.
    #[inline]
    pub(super) fn ncsa(&mut self, second: u64) -> &[u8] {
        self.turn_to(second);
        &self.ncsa
    }

    #[inline]
    fn turn_to(&mut self, second: u64) {
        if self.second != second {
            self.second = second;
            self.fill();
        }
    }

    fn fill(&mut self) {
        let millis = self.second.min(LAST) * 1000;
        // The text is longer than the slice: what does not fit is the fraction and the zone.
        let _ = write!(&mut self.rfc3339[..], "{}", Rfc3339(millis));
        let digit = |at: usize| usize::from(self.rfc3339[at] - b'0');
        let month = digit(5) * 10 + digit(6);
        self.ncsa[..2].copy_from_slice(&self.rfc3339[8..10]);
        self.ncsa[3..6].copy_from_slice(MONTHS[month - 1]);
        self.ncsa[7..11].copy_from_slice(&self.rfc3339[..4]);
        self.ncsa[12..20].copy_from_slice(&self.rfc3339[11..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_known_names() {
        let mut dates = DateCache::default();
        for (second, rfc3339, ncsa) in [
            (0, "1970-01-01T00:00:00", "01/Jan/1970:00:00:00 +0000"),
            (
                951_782_400,
                "2000-02-29T00:00:00",
                "29/Feb/2000:00:00:00 +0000",
            ),
            (
                1_795_219_199,
                "2026-11-20T23:59:59",
                "20/Nov/2026:23:59:59 +0000",
            ),
            (
                u64::MAX,
                "9999-12-31T23:59:59",
                "31/Dec/9999:23:59:59 +0000",
            ),
        ] {
            assert_eq!(dates.rfc3339(second), rfc3339.as_bytes());
            assert_eq!(dates.ncsa(second), ncsa.as_bytes());
        }
    }
}
