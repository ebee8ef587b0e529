//! Free loopback ports, outside the range from which the kernel takes ports for outgoing connections.
//! It never hands out a port twice in one run.
//! Read `process.rs` for the programs that get them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's default `ip_local_port_range`.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback address that nothing listens on.
pub fn free() -> SocketAddr {
    let span = RANGE.end - RANGE.start;
    // Tests that run side by side begin at different places.
    let phase = (std::process::id() % u32::from(span)) as u16;
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = RANGE.start + (phase + step % span) % span;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port in {RANGE:?}");
}
