//! Counts the frames of an HTTP/2 connection by kind, as their bytes pass, and says when a client sends too many of one within a second.
//! It reads nine bytes of each frame and skips the rest; whether a frame is right is the codec's business.
//! The walk goes on in `l7/http2/connection.rs`, which closes the connection.

use std::time::{Duration, Instant};

use crate::config::model::Http2;

/// The kinds of frames that cost their receiver more than their sender (RFC 9113 section 10.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// RST_STREAM, as in the attack called rapid reset (CVE-2023-44487).
    Resets,
    /// PING.
    Pings,
    /// SETTINGS.
    Settings,
    /// DATA or HEADERS without a byte that do not end a stream, WINDOW_UPDATE, PRIORITY and unknown frames.
    Empty,
    /// CONTINUATION (CVE-2024-27316).
    Continuations,
}

/// All kinds, in the order of their counters.
pub const FLOODS: [Flood; 5] = [
    Flood::Resets,
    Flood::Pings,
    Flood::Settings,
    Flood::Empty,
    Flood::Continuations,
];

impl Flood {
    /// Label of `weir_http2_floods_total` and word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Flood::Resets => "resets",
            Flood::Pings => "pings",
            Flood::Settings => "settings",
            Flood::Empty => "empty_frames",
            Flood::Continuations => "continuations",
        }
    }
}

/// Bytes before the first frame of a client (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's header.
const HEADER: usize = 9;

/// Over how long is counted.
const WINDOW: Duration = Duration::from_secs(1);

/// The frames of one connection.
#[derive(Debug)]
pub struct Meter {
    limits: [u32; FLOODS.len()],
    counts: [u32; FLOODS.len()],
    since: Instant,
    /// Bytes to pass over before the next frame.
    skip: usize,
    header: [u8; HEADER],
    known: usize,
    flood: Option<Flood>,
}

impl Meter {
    /// A meter for a connection that begins with a client's preface.
    pub fn new(limits: &Http2, now: Instant) -> Self {
        Meter {
            limits: [
                limits.resets,
                limits.pings,
                limits.settings,
                limits.empty_frames,
                limits.continuations,
            ],
            counts: [0; FLOODS.len()],
            since: now,
            skip: PREFACE.len(),
            header: [0; HEADER],
            known: 0,
            flood: None,
        }
    }

    /// The kind of which there were too many.
    pub fn flood(&self) -> Option<Flood> {
        self.flood
    }

    /// Counts the frames that begin in `bytes`.
    ///
    /// # Errors
    /// The kind of which there were more within a second than the limit says. It stays an error from then on.
    pub fn count(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            self.counts = [0; FLOODS.len()];
        }
        while self.flood.is_none() && !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.known).min(bytes.len());
            self.header[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == HEADER {
                self.known = 0;
                self.count_frame();
            }
        }
        self.flood.map_or(Ok(()), Err)
    }

    /// Counts the frame whose header was read.
    fn count_frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skip = length;
        let is_end = flags & 1 != 0;
        let flood = match kind {
            0 | 1 if length > 0 || is_end => return,
            3 => Flood::Resets,
            4 => Flood::Settings,
            6 => Flood::Pings,
            9 => Flood::Continuations,
            // Who gets large answers says so for every few frames of them: that is no more than what it was sent.
            8 => return,
            _ => Flood::Empty,
        };
        let count = &mut self.counts[flood as usize];
        *count += 1;
        if *count > self.limits[flood as usize] {
            self.flood = Some(flood);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Http2 = Http2 {
        streams: 100,
        window: 1 << 20,
        resets: 3,
        pings: 2,
        settings: 2,
        empty_frames: 4,
        continuations: 5,
    };

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(payload);
        frame
    }

    fn meter(now: Instant) -> Meter {
        let mut meter = Meter::new(&LIMITS, now);
        meter.count(PREFACE, now).unwrap();
        meter
    }

    #[test]
    fn each_kind_has_its_own_limit_within_a_second() {
        let now = Instant::now();
        for (kind, payload, limit, flood) in [
            (3u8, &[0, 0, 0, 8][..], 3, Flood::Resets),
            (6, &[0; 8], 2, Flood::Pings),
            (4, &[], 2, Flood::Settings),
            (0, &[], 4, Flood::Empty),
            (1, &[], 4, Flood::Empty),
            (2, &[0; 5], 4, Flood::Empty),
            (99, b"grease", 4, Flood::Empty),
            (9, &[7; 40], 5, Flood::Continuations),
        ] {
            let mut meter = meter(now);
            let one = frame(kind, 0, payload);
            for _ in 0..limit {
                assert_eq!(meter.count(&one, now), Ok(()), "{flood:?}");
            }
            let later = now + WINDOW;
            for _ in 0..limit {
                assert_eq!(meter.count(&one, later), Ok(()), "{flood:?}");
            }
            assert_eq!(meter.count(&one, later), Err(flood));
            assert_eq!(meter.count(b"", later + WINDOW), Err(flood));
        }
    }

    #[test]
    fn work_is_no_flood() {
        let now = Instant::now();
        let mut meter = meter(now);
        for _ in 0..1000 {
            let request = [
                frame(1, 4, b"\x82\x86"),
                frame(0, 0, &[3; 1000]),
                frame(0, 1, b""),
                frame(8, 0, &[0, 0, 1, 0]),
            ];
            assert_eq!(meter.count(&request.concat(), now), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            frames in prop::collection::vec((0u8..12, 0u8..2, 0usize..40), 0..40),
            cut in 1usize..60,
        ) {
            let now = Instant::now();
            let wire: Vec<u8> = frames.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, &vec![9; length])).collect();
            let (mut whole, mut pieces) = (meter(now), meter(now));
            let wanted = whole.count(&wire, now);
            let result = wire.chunks(cut).try_for_each(|piece| pieces.count(piece, now));
            prop_assert_eq!(wanted, result);
        }
    }
}
