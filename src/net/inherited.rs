//! Listening sockets that another process opened: a service manager before this one was started (sd_listen_fds(3)), or the weir
//! that this one takes the place of.
//! It looks at each and believes no name; it never binds and never closes what it could not place.
//! The walk goes on in control's `sockets.rs`, which matches them by address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use socket2::{SockRef, Type};

use super::listener::Bound;

/// The first descriptor that a service manager passes.
const FIRST: i32 = 3;

/// What an inherited socket is.
#[derive(Debug)]
pub enum Inherited {
    /// It is bound to an address, as a listener is.
    Bound(SocketAddr, Bound),
    /// It is a Unix socket that listens, at a path.
    Unix(PathBuf, OwnedFd),
}

/// What the service manager passed to this very process, with the names that it gave; nothing without socket activation. It may be called once,
/// before anything else is opened: the numbers are whoever's later.
pub fn from_service_manager() -> Vec<(OwnedFd, String)> {
    let variable = |name| std::env::var(name).ok();
    let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| i32::try_from(count).ok());
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let numbers = FIRST..FIRST.saturating_add(count.unwrap_or(0));
    let passed = numbers.map_while(|number| {
        // SAFETY: fcntl(2) fails for a number that is no open descriptor, and changes nothing but a flag of one that is.
        let is_open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
        // SAFETY: the descriptor is open, and the service manager opened it for this process and nobody else in it.
        is_open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
    });
    passed
        .map(|descriptor| (descriptor, names.next().unwrap_or_default()))
        .collect()
}

impl Inherited {
    /// Looks what a descriptor is, and makes it such as weir's own sockets are.
    ///
    /// # Errors
    /// When it is no socket that weir could listen on.
    pub fn of(descriptor: OwnedFd) -> io::Result<Inherited> {
        let socket = SockRef::from(&descriptor);
        socket.set_nonblocking(true)?;
        let (address, kind) = (socket.local_addr()?, socket.r#type()?);
        let unfit = |what| io::Error::new(io::ErrorKind::Unsupported, what);
        match (address.as_socket(), kind) {
            (Some(address), Type::STREAM) => {
                if !listens(descriptor.as_fd())? {
                    return Err(unfit("it does not listen"));
                }
                socket.set_tcp_nodelay(true)?;
                Ok(Inherited::Bound(address, Bound::Stream(descriptor.into())))
            }
            (Some(address), Type::DGRAM) => {
                super::udp::prepare(&socket, address)?;
                Ok(Inherited::Bound(
                    address,
                    Bound::Datagram(descriptor.into()),
                ))
            }
            (None, Type::STREAM) => match address.as_pathname() {
                Some(path) if listens(descriptor.as_fd())? => {
                    Ok(Inherited::Unix(path.to_owned(), descriptor))
                }
                _ => Err(unfit("it has no path, or does not listen")),
            },
            _ => Err(unfit("it is neither TCP, UDP nor a Unix stream")),
        }
    }
}

/// Whether connections can be accepted from a stream socket.
fn listens(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let (mut value, mut size) = (0_i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the descriptor is open, and both pointers are to live integers of the size that is given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut value).cast(),
            &raw mut size,
        )
    };
    match result {
        0 => Ok(value != 0),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_known_by_what_it_is() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let known = Inherited::of(listener.into()).unwrap();
        assert!(matches!(known, Inherited::Bound(of, Bound::Stream(_)) if of == address));
        assert!(Inherited::of(client.into()).is_err(), "it does not listen");

        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let known = Inherited::of(socket.into()).unwrap();
        assert!(matches!(known, Inherited::Bound(of, Bound::Datagram(_)) if of == address));

        let path = std::env::temp_dir().join(format!("weir-{}-given.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixListener::bind(&path).unwrap();
        let known = Inherited::of(socket.into()).unwrap();
        assert!(matches!(known, Inherited::Unix(of, _) if of == path));
        std::fs::remove_file(&path).unwrap();

        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Inherited::of(file.into()).is_err());
    }

    #[test]
    fn nobody_passed_anything_to_the_tests() {
        assert!(from_service_manager().is_empty());
    }
}
