//! Configuration: text to a typed, valid model, with every problem of the file reported at once.
//! It never touches a socket and never decides about traffic.
//! The walk goes on in `schema.rs` (the keys) and `lower.rs` (text to model).

pub mod model;
