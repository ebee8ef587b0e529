//! HTTP/2 toward clients (RFC 9113): a connection, and each of its streams as the client's side of an exchange.
//! Framing, flow control and header compression are the codec's; what a client may ask of it is bounded here.
//! Read `connection.rs`, then `stream.rs`.

pub mod connection;
pub mod stream;
