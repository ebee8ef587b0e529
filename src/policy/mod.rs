//! Decisions, pure: routing, balancing, persistence, health and retries over facts given as arguments.
//! It never names a runtime or a socket, reads a clock or makes a generator.
//! Read `facts.rs` first, then the decision you are after.

pub mod facts;
