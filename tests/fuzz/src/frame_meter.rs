//! The meter of HTTP/2 frames: it counts what a plain reader counts, however the bytes come.

use std::time::Instant;

use weir::config::model::Http2;
use weir::http::meter::{Flood, Meter, Offence, PREFACE};

use super::support::pieces;

const LIMITS: Http2 = Http2 {
    streams: 100,
    window: 1 << 20,
    resets: 3,
    pings: 2,
    settings: 4,
    empty_frames: 5,
    continuations: 6,
};

pub fn run(bytes: &[u8]) {
    let now = Instant::now();
    let wire = [PREFACE, bytes].concat();
    let mut meter = Meter::new(&LIMITS, now);
    let whole = meter.count(&wire, now);
    assert_eq!(whole.err(), plainly(bytes));
    assert_eq!(meter.offence(), whole.err());
    let mut meter = Meter::new(&LIMITS, now);
    let result = pieces(&wire).try_for_each(|piece| meter.count(piece, now));
    assert_eq!(result, whole);
    // What weir sends is read in pieces, too.
    let mut meter = Meter::new(&LIMITS, now);
    meter.count_sent(bytes, now);
    let verdict = meter.verdict();
    let mut meter = Meter::new(&LIMITS, now);
    pieces(bytes).for_each(|piece| meter.count_sent(piece, now));
    assert_eq!(meter.verdict(), verdict);
}

fn plainly(mut bytes: &[u8]) -> Option<Offence> {
    let (mut resets, mut pings, mut settings, mut empty, mut continuations) = (3, 2, 4, 5, 6);
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        // Of these more than the head is read before they count.
        let read = match kind {
            3 => length.min(4),
            7 => length.min(40),
            _ => 0,
        };
        if rest.len() < read {
            return None;
        }
        let is_end = flags & 1 == 1;
        let (left, flood) = match kind {
            0 | 1 if length > 0 || is_end => (&mut 1, Flood::Empty),
            8 => (&mut 1, Flood::Empty),
            3 => (&mut resets, Flood::Resets),
            4 => (&mut settings, Flood::Settings),
            6 => (&mut pings, Flood::Pings),
            9 => (&mut continuations, Flood::Continuations),
            _ => (&mut empty, Flood::Empty),
        };
        *left -= 1;
        if *left < 0 {
            return Some(Offence::Flood(flood));
        }
        let is_sound = match kind {
            2 => length == 5,
            3 | 8 => length == 4,
            4 if is_end => length == 0,
            4 => length.is_multiple_of(6),
            6 => length == 8,
            _ => true,
        };
        if !is_sound {
            return Some(Offence::FrameSize);
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    None
}
