//! When and how often the requests of a route are tried again, beyond what always is: `routes[].retry`.
//! It holds values only; what follows from them is for `policy/retry.rs` to say.
//! Here the walk ends.

use std::time::Duration;

/// What a route adds to the retries that are always made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Tries of a request, the first one too; 1 to 6.
    pub attempts: u8,
    /// After what.
    pub on: RetryOn,
    /// The part of a pool's requests in flight that may be on such a retry at once; three always may.
    pub budget: f64,
    /// Whether a request with an `Idempotency-Key` may be done twice, whatever its method.
    pub idempotency_key: bool,
    /// From the request sent to the first byte of the answer, while another try may follow; absent: the route's `response`.
    pub try_timeout: Option<Duration>,
    /// From the complete head to the first byte of the answer, over all tries; absent: no bound of its own.
    pub total_timeout: Option<Duration>,
}

/// What leads to a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// Connections that did not come about, as often as `attempts` says.
    pub connect: bool,
    /// Connections that were closed before the first byte of an answer.
    pub reset: bool,
    /// Answers of class 5xx.
    pub error_status: bool,
    /// Answers that did not begin in time.
    pub timeout: bool,
}
