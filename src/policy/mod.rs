//! Decisions, pure: routing, balancing, persistence, health and retries over facts given as arguments.
//! It never names a runtime or a socket, reads a clock or makes a generator.
//! Read `facts.rs` first, then `choose.rs`, which strings persistence and balancing together, then the decision you are after.

pub mod balance;
pub mod choose;
pub mod cidr;
pub mod facts;
pub mod filter;
pub mod health;
pub mod judge;
pub mod latency;
pub mod limit;
pub mod persist;
pub mod placement;
pub mod rebalance;
pub mod rendezvous;
pub mod retry;
pub mod route;
pub mod scale;
