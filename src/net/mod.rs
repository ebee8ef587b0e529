//! Sockets: binding, accepting, reading and writing. The only place of unsafe code beside the kernel's data path.
//! It knows bytes and addresses, never a request, a route or a backend's state.
//! Read `listener.rs`, then `stream.rs` and `timer.rs`.

pub mod backlog;
pub mod client_hello;
pub mod descriptors;
pub mod duplex;
pub mod framed;
pub mod handover;
pub mod inherited;
pub mod introduction;
pub mod listener;
pub mod proxy_protocol;
pub mod relay;
pub mod room;
pub mod splice;
pub mod stream;
pub mod timer;
pub mod tls;
pub mod transparent;
pub mod turn;
pub mod udp;
