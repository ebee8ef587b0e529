//! Counts the frames of an HTTP/2 connection by kind, as their bytes pass, and says when a client sends, or provokes, too many of one within a
//! second. It reads the head of each frame and skips the rest; whether a frame is right is the codec's business.
//! The walk goes on in `l7/http2/connection.rs`, which closes the connection.

use std::time::{Duration, Instant};

use crate::config::model::Http2;

/// The kinds of frames that cost their receiver more than their sender (RFC 9113 section 10.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// RST_STREAM, as in the attack called rapid reset (CVE-2023-44487), and those that a fault of the client's makes weir send (CVE-2025-8671).
    Resets,
    /// PING.
    Pings,
    /// SETTINGS.
    Settings,
    /// DATA or HEADERS without a byte that do not end a stream, PRIORITY and unknown frames.
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

/// Bytes of a frame's head (RFC 9113 section 4.1).
const HEAD: usize = 9;

/// Bytes of a RST_STREAM, and of a GOAWAY as far as it is looked at: the last stream, the code, and a word of why.
const RESET: usize = HEAD + 4;
const GOAWAY: usize = HEAD + 8 + 32;

/// Codes of resets that are no fault of the client's: it was answered early, weir or the backend failed, or nobody wants the rest.
const BLAMELESS: [u8; 3] = [0, 2, 8];

/// Over how long is counted.
const WINDOW: Duration = Duration::from_secs(1);

/// What a connection is given up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Too many frames of a kind.
    Flood(Flood),
    /// A frame of a size that its kind never has (RFC 9113 section 4.2).
    FrameSize,
    /// Whatever else the codec found.
    Other,
}

/// The frames of one connection.
#[derive(Debug)]
pub struct Meter {
    limits: [u32; FLOODS.len()],
    counts: [u32; FLOODS.len()],
    since: Instant,
    received: Frames,
    sent: Frames,
    offence: Option<Offence>,
    told: Option<Offence>,
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
            received: Frames::after(PREFACE.len()),
            sent: Frames::after(0),
            offence: None,
            told: None,
        }
    }

    /// What the connection must be given up for.
    pub fn offence(&self) -> Option<Offence> {
        self.offence
    }

    /// What it must be, or was, given up for: the codec finds offences of its own, and tells the client.
    pub fn verdict(&self) -> Option<Offence> {
        self.offence.or(self.told)
    }

    /// Counts the frames that begin in `bytes`, which the client sent.
    ///
    /// # Errors
    /// More of a kind within a second than the limit says, or a frame of a wrong size. It stays an error from then on.
    pub fn count(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Offence> {
        while self.offence.is_none()
            && let Some(frame) = self.received.next(&mut bytes)
        {
            let (kind, is_sound) = (frame.flood(), frame.has_sound_size());
            self.add(kind, now);
            if !is_sound {
                self.offence.get_or_insert(Offence::FrameSize);
            }
        }
        self.offence.map_or(Ok(()), Err)
    }

    /// Counts the resets in `bytes`, which the client is sent, that it brought about itself; and reads what it is told at the end.
    pub fn count_sent(&mut self, mut bytes: &[u8], now: Instant) {
        while let Some(frame) = self.sent.next(&mut bytes) {
            let (is_provoked, verdict) = (frame.is_provoked(), frame.verdict());
            self.add(is_provoked.then_some(Flood::Resets), now);
            self.told = self.told.or(verdict);
        }
    }

    fn add(&mut self, kind: Option<Flood>, now: Instant) {
        let Some(kind) = kind else { return };
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            self.counts = [0; FLOODS.len()];
        }
        let count = &mut self.counts[kind as usize];
        *count += 1;
        if *count > self.limits[kind as usize] {
            self.offence.get_or_insert(Offence::Flood(kind));
        }
    }
}

/// Finds the heads of frames in bytes that come in pieces.
#[derive(Debug)]
struct Frames {
    /// Bytes to pass over before the next frame.
    skip: usize,
    head: [u8; GOAWAY],
    known: usize,
}

/// The beginning of a frame.
struct Frame<'a>(&'a [u8]);

impl Frames {
    fn after(skip: usize) -> Self {
        Frames {
            skip,
            head: [0; GOAWAY],
            known: 0,
        }
    }

    /// The next frame of which enough has come; takes what it reads off the front of `bytes`.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame<'_>> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            let taken = (self.wanted() - self.known).min(bytes.len());
            self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            *bytes = &bytes[taken..];
            let wanted = self.wanted();
            if self.known == wanted {
                self.known = 0;
                let frame = Frame(&self.head[..wanted]);
                self.skip = HEAD + frame.length() - wanted;
                return Some(frame);
            }
        }
        None
    }

    /// Bytes of the frame to look at, as far as is known yet.
    fn wanted(&self) -> usize {
        if self.known < HEAD {
            return HEAD;
        }
        let whole = HEAD + Frame(&self.head).length();
        match self.head[3] {
            3 => whole.min(RESET),
            7 => whole.min(GOAWAY),
            _ => HEAD,
        }
    }
}

impl Frame<'_> {
    fn length(&self) -> usize {
        usize::from(self.0[0]) << 16 | usize::from(self.0[1]) << 8 | usize::from(self.0[2])
    }

    fn kind(&self) -> u8 {
        self.0[3]
    }

    fn has_flag(&self, flag: u8) -> bool {
        self.0[4] & flag != 0
    }

    /// The kind that it adds to when a client sends it.
    fn flood(&self) -> Option<Flood> {
        match self.kind() {
            0 | 1 if self.length() > 0 || self.has_flag(1) => None,
            3 => Some(Flood::Resets),
            4 => Some(Flood::Settings),
            6 => Some(Flood::Pings),
            9 => Some(Flood::Continuations),
            // Who gets large answers says so for every few frames of them: that is no more than what it was sent.
            8 => None,
            _ => Some(Flood::Empty),
        }
    }

    /// Whether frames of its kind may be that long. The codec looks, too, but has another code for it.
    fn has_sound_size(&self) -> bool {
        let length = self.length();
        match self.kind() {
            2 => length == 5,
            3 | 8 => length == 4,
            4 if self.has_flag(1) => length == 0,
            4 => length.is_multiple_of(6),
            6 => length == 8,
            _ => true,
        }
    }

    /// Whether it is a reset that the other side has itself to blame for.
    fn is_provoked(&self) -> bool {
        let code = self.0.get(HEAD..RESET);
        self.kind() == 3
            && code.is_some_and(|code| BLAMELESS.iter().all(|&it| code != [0, 0, 0, it]))
    }

    /// What it gives a connection up for. The codec says what it found too many of in words.
    fn verdict(&self) -> Option<Offence> {
        let code = self
            .0
            .get(HEAD + 4..HEAD + 8)
            .filter(|_| self.kind() == 7)?;
        let words = self.0.get(HEAD + 8..).unwrap_or_default();
        let says = |word: &[u8]| memchr::memmem::find(words, word).is_some();
        match code {
            [0, 0, 0, 0] => None,
            _ if says(b"_resets") => Some(Offence::Flood(Flood::Resets)),
            _ if says(b"_data_frames") => Some(Offence::Flood(Flood::Empty)),
            _ if says(b"_continuations") => Some(Offence::Flood(Flood::Continuations)),
            _ => Some(Offence::Other),
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
            let offence = Offence::Flood(flood);
            assert_eq!(meter.count(&one, later), Err(offence));
            assert_eq!(meter.count(b"", later + WINDOW), Err(offence));
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

    /// Refused, closed, malformed: the client brought it about. Answered early, failed, cancelled: it did not.
    #[test]
    fn resets_that_are_provoked_count() {
        let now = Instant::now();
        for (code, counts) in [
            (0u32, false),
            (2, false),
            (8, false),
            (1, true),
            (5, true),
            (7, true),
            (256, true),
        ] {
            let mut meter = meter(now);
            let reset = frame(3, 0, &code.to_be_bytes());
            for piece in [
                &frame(0, 0, &[3; 100])[..],
                &reset[..11],
                &reset[11..],
                &reset,
                &reset,
                &reset,
            ] {
                meter.count_sent(piece, now);
            }
            assert_eq!(
                meter.offence(),
                counts.then_some(Offence::Flood(Flood::Resets)),
                "{code}"
            );
        }
    }

    #[test]
    fn kinds_of_one_size_have_no_other() {
        let now = Instant::now();
        for (kind, flags, sound, other) in [
            (2u8, 0, 5, 4),
            (3, 0, 4, 5),
            (4, 0, 12, 7),
            (4, 1, 0, 6),
            (6, 0, 8, 0),
            (8, 0, 4, 3),
        ] {
            let mut meter = meter(now);
            let fine = frame(kind, flags, &vec![1; sound]);
            assert_eq!(meter.count(&fine, now), Ok(()), "{kind}");
            let wrong = frame(kind, flags, &vec![1; other]);
            assert_eq!(meter.count(&wrong, now), Err(Offence::FrameSize), "{kind}");
        }
    }

    #[test]
    fn what_the_client_is_told_is_known() {
        let now = Instant::now();
        for (code, words, verdict) in [
            (0u8, "", None),
            (1, "", Some(Offence::Other)),
            (11, "too_many_resets", Some(Offence::Flood(Flood::Resets))),
            (
                11,
                "too_many_continuations",
                Some(Offence::Flood(Flood::Continuations)),
            ),
            (11, "header_list_way_too_large", Some(Offence::Other)),
        ] {
            let goaway = [&[0, 0, 0, 1, 0, 0, 0, code], words.as_bytes()].concat();
            let wire = [frame(1, 4, b"x"), frame(7, 0, &goaway)].concat();
            for cut in [1, 7, 100] {
                let mut meter = meter(now);
                wire.chunks(cut)
                    .for_each(|piece| meter.count_sent(piece, now));
                assert_eq!(meter.verdict(), verdict, "{code} {words}");
            }
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
