//! What a decision may look at, for HTTP and for bytes alike.
//! It holds borrowed facts only: whoever asks has already read the clock and the request.
//! The walk goes on in `route.rs`, `persist/` and `balance/`, which are given these facts.

use std::net::IpAddr;
use std::time::Instant;

use crate::http::head::RequestHead;

/// The facts of one decision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client's address, past trusted proxies.
    pub client: IpAddr,
    /// The ordinal of the listener in the snapshot.
    pub listener: usize,
    /// The request; absent on layer 4.
    pub request: Option<RequestFacts<'a>>,
    /// Monotonic time, for rates.
    pub now: Instant,
    /// Wall time in milliseconds since the epoch, for tokens.
    pub wall_millis: u64,
}

/// The facts of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The head as received.
    pub head: &'a RequestHead<'a>,
    /// The path in normal form; never sent anywhere.
    pub path: &'a [u8],
    /// Whether the client came by TLS, as far as weir or a trusted proxy knows.
    pub secure: bool,
}
