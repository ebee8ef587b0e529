//! What of the traffic is held against a backend, and for how long: `[pools.NAME.passive]`.
//! It holds values only; what follows from them is for `policy/health/passive.rs` to say.
//! Here the walk ends.

use std::time::Duration;

/// How a pool learns of its backends from the requests and connections that it sends them.
#[derive(Clone, Debug, PartialEq)]
pub struct Passive {
    /// Errors in a row that eject a backend; 0: no number of them does.
    pub consecutive_errors: u32,
    /// Answers in a row that did not begin in time that do; 0: no number of them does.
    pub consecutive_timeouts: u32,
    /// Statuses of answers that count as errors, as inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
    /// The part of all tries within `window` whose failure ejects a backend; 0: none does.
    pub error_ratio: f64,
    /// What `error_ratio` looks back on.
    pub window: Duration,
    /// How long the first ejection lasts; the second twice as long, and so on.
    pub ejection: Duration,
    /// No ejection lasts longer.
    pub max_ejection: Duration,
    /// The part of the pool that may be ejected at once, which is at least one backend.
    pub max_ejected: f64,
    /// Where less than this part of the ready backends is left, ejections are not heeded.
    pub panic_threshold: f64,
}
