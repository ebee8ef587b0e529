//! Why an address cannot be bound, in words that lead to the fix.
//! It only words; whoever binds decides what a failure means.
//! Nothing follows from here.

use std::io;
use std::net::SocketAddr;

/// A line about `who`, such as `listener web`, which cannot bind `address`.
pub fn explain(who: &str, address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process listens there; stop it (`ss -ltunp 'sport = :{port}'` shows it) \
             or give {who} another address"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} needs the capability CAP_NET_BIND_SERVICE, root, \
             or a lower net.ipv4.ip_unprivileged_port_start"
        ),
        _ => format!("see the `bind` of {who}"),
    };
    format!("{who} cannot bind {address}: {error}: {fix}")
}
