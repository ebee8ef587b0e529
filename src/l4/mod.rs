//! Layer 4: connections and datagrams that pass as they are.
//! It knows bytes and addresses, never a request.
//! Read `udp.rs`, which drives `flow.rs`.

pub mod flow;
