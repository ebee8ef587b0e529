//! How fast a client sends its body, over the time that it was waited for: neither weir's time nor the backend's counts against it.
//! It reads no clock: a worker's wheel turns anyway, and its grain is fine enough.
//! The walk goes back to `body.rs`, which tells it of every piece.

use std::cell::Cell;
use std::time::Duration;

use super::exchange::Exchange;
use crate::net::timer::TICK;

/// So long a client may take over anything: slow starts and lost segments even out.
const GRACE: Duration = Duration::from_secs(10);

/// The time that a client was waited for, in turns of its worker's wheel. One word, since a request in flight is small: while the client
/// is waited for, [`WAITS`] and the turn at which it would have been if nobody had waited for anybody else; else how long it was.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace(Cell<u32>);

/// Set while the client is waited for; what is left counts more than a year of turns.
const WAITS: u32 = 1 << 31;

impl Pace {
    /// From `now` on the client is waited for, or is not.
    pub(super) fn turn(&self, waits: bool, now: u64) {
        let (word, now) = (self.0.get(), now as u32 & !WAITS);
        let since = |turn: u32| now.wrapping_sub(turn) & !WAITS;
        let waited = if word & WAITS != 0 { since(word) } else { word };
        self.0
            .set(if waits { since(waited) | WAITS } else { waited });
    }

    fn waited(&self) -> Duration {
        TICK * (self.0.get() & !WAITS)
    }

    /// Whether so many bytes are less than `rate` a second, once there was time to tell. A rate of 0 is none.
    fn is_under(&self, rate: u64, bytes: u64) -> bool {
        let waited = self.waited();
        let due = u128::from(rate) * waited.as_millis() / 1000;
        waited > GRACE && u128::from(bytes) < due
    }
}

impl Exchange<'_> {
    /// Begins the wait for the client's next piece, or ends it.
    #[inline]
    pub(super) fn time_client(&self, waits: bool) {
        self.pace.turn(waits, self.client.local.wheel.turns());
    }

    /// Whether the client's body comes too slowly to be waited for. A body that is answered already may take the time that the answer takes,
    /// and a gRPC call that of its messages; to call itself one is not enough where no backend could take it.
    pub(super) fn is_too_slow(&self) -> bool {
        if self.upload.is_done() || self.answer.status != 0 || self.is_call_of_http2() {
            return false;
        }
        let head = self.head.map_or(0, |head| head.length as u64);
        let rate = self.generation.snapshot.config.min_body_rate;
        self.time_client(false);
        self.pace.is_under(rate, self.facts.bytes_in - head)
    }

    /// Whether the request is a gRPC call, and goes where there may be gRPC.
    pub(super) fn is_call_of_http2(&self) -> bool {
        let upstream = self.backend.as_ref();
        self.call.is_some() && upstream.is_some_and(|upstream| upstream.stream.is_http2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000 / TICK.as_millis() as u64;

    #[test]
    fn the_average_counts_and_only_while_the_client_is_waited_for() {
        let pace = Pace::default();
        assert!(!pace.is_under(100, 0));
        pace.turn(true, 0);
        pace.turn(true, 9 * SECOND);
        pace.turn(false, 10 * SECOND);
        assert!(!pace.is_under(100, 0), "within the grace");
        pace.turn(true, 10 * SECOND);
        pace.turn(false, 11 * SECOND);
        assert!(pace.is_under(100, 1099) && !pace.is_under(100, 1100));
        assert!(!pace.is_under(0, 0), "switched off");
        pace.turn(false, 50 * SECOND);
        pace.turn(true, 100 * SECOND);
        pace.turn(false, 100 * SECOND);
        assert!(!pace.is_under(100, 1100), "somebody else was slow");
        pace.turn(true, 100 * SECOND);
        pace.turn(false, 101 * SECOND);
        assert!(pace.is_under(100, 1199) && !pace.is_under(100, 1200));
    }

    #[test]
    fn turns_may_run_over() {
        let pace = Pace::default();
        let late = u64::from(u32::MAX / 2) - SECOND;
        pace.turn(true, late);
        pace.turn(true, late + 20 * SECOND);
        pace.turn(false, late + 40 * SECOND);
        assert!(pace.is_under(10, 399) && !pace.is_under(10, 400));
    }
}
