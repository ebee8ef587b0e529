//! Layer 4: connections whose bytes weir passes on as they are, from the accept to the last byte, and flows of datagrams.
//! It never binds or accepts, reads nothing but a ClientHello, and knows nothing of requests or of control.
//! Read `connection.rs`, THE function of layer 4, and `udp.rs` for datagrams.

mod aim;
mod choice;
pub mod connection;
mod failure;
pub mod flow;
mod hello;
mod introduction;
mod link;
mod passage;
mod queue;
mod record;
pub mod udp;
mod way;
