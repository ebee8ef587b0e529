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
pub mod ports;
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

use std::io;

/// Whether a socket could not be made or connected because this process or its host has run out of descriptors, ports or memory, which says
/// nothing about the other end. Of ports a connect says AddrNotAvailable, one of datagrams WouldBlock, and a bind AddrInUse.
pub fn is_short(error: &io::Error) -> bool {
    const OURS: [i32; 7] = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EADDRNOTAVAIL,
        libc::EADDRINUSE,
        libc::EAGAIN,
    ];
    (error.raw_os_error()).is_some_and(|code| OURS.contains(&code))
}
