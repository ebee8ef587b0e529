//! Sockets that bear the address of a client, so that a backend sees whom it serves (IP_TRANSPARENT).
//! They do not bring the answers back: the backends' routes and those of this machine must.
//! The walk goes back to `stream.rs` and `udp/`, which connect them.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::Socket;

use super::stream;

/// Whether the process may have such sockets at all.
///
/// # Errors
/// The system's error: without CAP_NET_ADMIN or CAP_NET_RAW it is not permitted.
pub fn probe() -> io::Result<()> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    claim(&stream::socket(any)?, any.ip())
}

/// Whether a client can be shown to a backend: both are of one version of IP.
pub fn can_show(client: IpAddr, backend: SocketAddr) -> bool {
    client.to_canonical().is_ipv4() == backend.is_ipv4()
}

/// Gives a socket the address of a client; its port comes when it is connected to the backend.
///
/// # Errors
/// The system's error; that an address is not available (EADDRNOTAVAIL) when one of them is of IPv4 and the other is not.
pub fn bear(socket: &Socket, client: IpAddr, backend: SocketAddr) -> io::Result<()> {
    if !can_show(client, backend) {
        return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
    }
    let client = client.to_canonical();
    claim(socket, client)?;
    choose_port_late(socket)?;
    socket.bind(&SocketAddr::new(client, 0).into())
}

fn claim(socket: &Socket, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Lets the kernel choose the port when it knows both ends, so that a client may have as many connections to each backend as there
/// are ports, and not to all together. It is an option of IP in either version.
fn choose_port_late(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the pointer is to a live integer of the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_shown_to_backends_of_its_own_kind_only() {
        for (client, backend) in [("192.0.2.1", "[::1]:80"), ("2001:db8::1", "127.0.0.1:80")] {
            let backend = backend.parse().unwrap();
            let shown = bear(
                &stream::socket(backend).unwrap(),
                client.parse().unwrap(),
                backend,
            );
            assert_eq!(shown.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        }
    }

    #[test]
    fn the_address_is_the_clients_and_the_port_comes_late() {
        if probe().is_err() {
            return;
        }
        for (client, backend) in [
            ("192.0.2.1", "127.0.0.1:80"),
            ("::ffff:192.0.2.1", "127.0.0.1:80"),
            ("2001:db8::1", "[::1]:80"),
        ] {
            let client: IpAddr = client.parse().unwrap();
            let backend = backend.parse().unwrap();
            let socket = stream::socket(backend).unwrap();
            bear(&socket, client, backend).unwrap();
            let own = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(own, SocketAddr::new(client.to_canonical(), 0));
        }
    }
}
