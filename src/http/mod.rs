//! HTTP without input or output: heads as slices, framing, edits and the normal form of a path.
//! It never names a runtime, reads a clock or decides about traffic.
//! Read `head.rs` (what a head is), then `request.rs` and `answer.rs` (how one is read), then `framing.rs` (where a body ends).

pub mod answer;
pub mod chunk;
pub mod coding;
pub mod cookie;
pub mod edits;
pub mod fault;
pub mod fields;
pub mod forwarding;
pub mod framing;
pub mod head;
pub mod meter;
pub mod path;
pub mod request;
pub mod rewrite;
#[cfg(test)]
mod sample;
pub mod text;
pub mod upgrade;
#[cfg(test)]
pub(crate) use sample::Sample;
