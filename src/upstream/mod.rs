//! The side toward backends, and what one worker owns for both layers: idle connections, scratch memory, its view of a generation.
//! It never chooses a backend and never reads a request.
//! Read `local.rs` (what a worker owns), `generation.rs` (its view of a snapshot), `connect.rs` and `idle.rs`.

pub mod admission;
pub mod coders;
pub mod connect;
pub mod generation;
pub mod handshake;
pub mod http2;
pub mod idle;
pub mod local;
pub mod queue;
pub mod side;
pub mod strangers;
pub mod verdict;
