//! Binds listening sockets: one per worker with SO_REUSEPORT, so that the kernel spreads connections and no worker wakes another.
//! It never accepts; a socket exists before any worker knows of it, so that a bind that fails changes nothing.
//! The walk goes on in `worker.rs`, which accepts.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel may hold before they are accepted; capped by `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// A bound socket of one worker.
#[derive(Debug)]
pub enum Bound {
    /// Connections are accepted from it.
    Stream(TcpListener),
    /// Datagrams are read from it.
    Datagram(UdpSocket),
}

impl Bound {
    /// Another descriptor of the same socket: what is queued there is accepted through either.
    ///
    /// # Errors
    /// The system's error when it has no more descriptors.
    pub fn try_clone(&self) -> io::Result<Bound> {
        match self {
            Bound::Stream(socket) => socket.try_clone().map(Bound::Stream),
            Bound::Datagram(socket) => socket.try_clone().map(Bound::Datagram),
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Bound::Stream(socket) => socket.as_fd(),
            Bound::Datagram(socket) => socket.as_fd(),
        }
    }
}

/// Binds `address` once per worker.
///
/// # Errors
/// The system's error; `AddrInUse` also when another process listens there with SO_REUSEPORT set, which
/// a bind that sets it too would not notice.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    drop(socket(address, false)?);
    bind_beside_own(address, workers)
}

/// Like [`bind`], next to a socket of this process that takes connections of the same address: `0.0.0.0:80` is bound
/// while `192.0.2.10:80` still serves. Only another process without SO_REUSEPORT is noticed.
///
/// # Errors
/// The system's error.
pub fn bind_beside_own(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    (0..workers)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// Whether the machine has the address now, so that something can arrive there. A virtual IP may be elsewhere.
pub fn is_here(ip: IpAddr) -> bool {
    // A socket that must not be bound to what is not here tells; of datagrams, which take no port from anybody who listens.
    !matches!(UdpSocket::bind((ip, 0)), Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // A virtual IP may arrive later than weir; accepted sockets inherit TCP_NODELAY from here.
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_freebind_v6(true)?;
            socket.set_only_v6(true)?;
        }
    }
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
