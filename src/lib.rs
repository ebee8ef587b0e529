//! weir: a load-balancing reverse proxy that knows where the session lives.
//! This crate is the whole product; `main.rs` is a thin door to [`cli`]. It promises no stable API to other crates.
//! Read `src/README.md` first: it has the words, the layers and the two walks.

#![warn(missing_docs)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod http;
pub mod l4;
pub mod l7;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod rng;
pub mod state;
pub mod upstream;
pub mod worker;
