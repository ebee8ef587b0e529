//! Datagram sockets: binding one per worker, connecting one per flow, and what is asked of each.
//! A listening socket says which address a datagram was sent to, where it takes those of several, so that the answer comes from there.
//! The walk goes on in `batch.rs` (receiving), `parcels.rs` (sending) and `poller.rs` (waiting for many).

pub mod batch;
mod message;
pub mod parcels;
pub mod poller;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::transparent;

/// Bytes of datagrams that the system may hold for a listener in each direction, as far as `net.core.rmem_max` and `wmem_max` let it.
const BUFFER: usize = 4 << 20;

/// Binds `address` once per worker; the kernel gives all datagrams of one client to one of them.
///
/// # Errors
/// The system's error; `AddrInUse` also when another process listens there with SO_REUSEPORT set, which
/// a bind that sets it too would not notice.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    drop(listener(address, false)?);
    bind_beside_own(address, workers)
}

/// Like [`bind`], next to a socket of this process that takes datagrams for the same address. Only another process without
/// SO_REUSEPORT is noticed.
///
/// # Errors
/// The system's error.
pub fn bind_beside_own(address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    (0..workers)
        .map(|_| listener(address, true).map(UdpSocket::from))
        .collect()
}

/// A socket toward a backend, from a port of its own.
///
/// # Errors
/// The system's error; `AddrNotAvailable` or `WouldBlock` when it has no more ports.
pub fn connect(backend: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(backend)?;
    socket.connect(&backend.into())?;
    Ok(socket.into())
}

/// The same from the address of a client; see [`transparent`].
///
/// # Errors
/// Those of [`connect`] and [`transparent::bear`].
pub fn connect_as(client: IpAddr, backend: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(backend)?;
    transparent::bear(&socket, client, backend)?;
    socket.connect(&backend.into())?;
    Ok(socket.into())
}

fn listener(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.set_reuse_port(reuse_port)?;
    // A virtual IP may arrive later than weir.
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_freebind_v6(true)?;
            socket.set_only_v6(true)?;
        }
    }
    prepare(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Makes a socket of an address such as the driver of a listener needs it.
///
/// # Errors
/// The system's error.
pub fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // What the system does not grant is not worth a failure.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    let _ = set_flag(socket, libc::SOL_UDP, libc::UDP_GRO);
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => set_flag(socket, libc::IPPROTO_IP, libc::IP_PKTINFO),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            set_flag(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
        }
        _ => Ok(()),
    }
}

fn socket(toward: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(toward),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    // Several datagrams at once where the kernel can (5.0); it gives one at a time where it cannot.
    let _ = set_flag(&socket, libc::SOL_UDP, libc::UDP_GRO);
    Ok(socket)
}

fn set_flag(socket: &Socket, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (fd, size): (RawFd, usize) = (socket.as_raw_fd(), size_of_val(&on));
    // SAFETY: the descriptor is borrowed and so open; the pointer is to a live integer of the size that is given.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const on).cast(),
            size as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
