//! Layer 4: connections whose bytes weir passes on as they are, from the accept to the last byte.
//! It never binds or accepts, reads nothing but a ClientHello, and knows nothing of requests or of control.
//! Read `connection.rs`: THE function of layer 4.

mod choice;
pub mod connection;
mod failure;
mod hello;
mod link;
mod record;
