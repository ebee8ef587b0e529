//! Layer 7: a client connection, the requests on it, and each one's way to a backend and back.
//! It never binds or accepts, and knows nothing of control.
//! Read `connection.rs`, then `proxy.rs`: THE request function.

mod answer;
mod arrival;
mod ask;
mod authenticate;
mod body;
mod bulk;
pub mod client;
mod compress;
pub mod connection;
mod exchange;
mod filter;
mod grpc;
mod handshake;
mod head;
mod hold;
pub mod http2;
mod judge;
mod latency;
mod pace;
mod plan;
pub mod protect;
pub mod proxy;
mod record;
pub mod reject;
mod respond;
mod retry;
mod session;
pub mod side;
mod trailers;
mod upgrade;
