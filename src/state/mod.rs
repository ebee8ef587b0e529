//! What is true now: the compiled configuration of a generation and the words that outlive it.
//! It never opens a socket and never waits.
//! Read `snapshot.rs`, then `backend.rs` (the shared words), `sessions.rs` (the live sessions), `compile.rs` and `diff.rs` (how one
//! generation follows another).

pub mod access_log;
pub mod backend;
pub mod compile;
pub mod diff;
pub mod door;
pub mod flights;
pub mod gate;
pub mod live_sessions;
pub mod losses;
pub mod rate_limit;
pub mod rates;
pub mod refusals;
pub mod report;
pub mod retries;
pub mod route_limits;
pub mod sessions;
pub mod snapshot;
pub mod sources;
pub mod standing;
pub mod store;
pub mod summary;
pub mod table;
pub mod tls;
pub mod waiting;
pub mod warmth;
pub mod ways;

#[cfg(test)]
pub(crate) mod sample;
