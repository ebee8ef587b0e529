//! The only source of time. Everything else takes an instant or a wall time as an argument, so that it can be tested.
//! It never sleeps and never schedules; waiting belongs to the workers and to control.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time, for rates and deadlines.
#[inline]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall time in milliseconds since the epoch, for tokens and logs; 0 on a clock set before 1970.
pub fn wall_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
