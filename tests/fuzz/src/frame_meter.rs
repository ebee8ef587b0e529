//! The meter of HTTP/2 frames: it counts what a plain reader counts, however the bytes come.

use std::time::Instant;

use weir::config::model::Http2;
use weir::http::meter::{Flood, Meter, PREFACE};

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
    assert_eq!(meter.flood(), whole.err());
    let mut meter = Meter::new(&LIMITS, now);
    let result = pieces(&wire).try_for_each(|piece| meter.count(piece, now));
    assert_eq!(result, whole);
}

fn plainly(mut bytes: &[u8]) -> Option<Flood> {
    let (mut resets, mut pings, mut settings, mut empty, mut continuations) = (3, 2, 4, 5, 6);
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (left, flood) = match kind {
            0 | 1 if length > 0 || flags & 1 == 1 => (&mut 1, Flood::Empty),
            8 => (&mut 1, Flood::Empty),
            3 => (&mut resets, Flood::Resets),
            4 => (&mut settings, Flood::Settings),
            6 => (&mut pings, Flood::Pings),
            9 => (&mut continuations, Flood::Continuations),
            _ => (&mut empty, Flood::Empty),
        };
        *left -= 1;
        if *left < 0 {
            return Some(flood);
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    None
}
