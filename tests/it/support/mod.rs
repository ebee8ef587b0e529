//! The machinery of the black-box tests: a weir process, scripted origins, a raw client and waiting with deadlines.
//! Nothing here knows weir's code; nothing sleeps to synchronise, it waits for a condition.
//! Read `weir.rs` (the process), then `origin.rs` (the servers), then `client.rs` (the client).

#![allow(dead_code)] // each subject uses its part

pub mod backend;
pub mod client;
pub mod clock;
pub mod datagrams;
pub mod http2;
pub mod load;
#[path = "../../fleet/many.rs"]
pub mod many;
pub mod message;
pub mod origin;
pub mod process;
pub mod random;
pub mod redis;
pub mod tls;
pub mod weir;

use std::time::{Duration, Instant};

pub use backend::Backend;
pub use client::Client;
pub use http2::{Multiplexer, Wire};
pub use message::Message;
pub use origin::Origin;
pub use redis::Redis;
pub use weir::Weir;

/// Everything that is waited for happens within this time.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until `condition` gives something.
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    match within(DEADLINE, condition) {
        Some(found) => found,
        None => panic!("waited in vain for: {what}"),
    }
}

/// Waits at most `time` until `condition` gives something.
pub fn within<T>(time: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + time;
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes as readable text for a failure's message.
pub fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(400)];
    let more = if cut.len() < bytes.len() { " ..." } else { "" };
    format!("{}{more}", cut.escape_ascii())
}
