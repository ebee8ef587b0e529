//! A real DNS server, Debian's dnsmasq, on a loopback port, that knows what it is told and asks nobody.
//! It must read nothing of this machine's configuration.
//! Read `dns.rs` for one behind weir, `discovery.rs` for one that weir asks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::process::Process;

/// Why there can be none here, if so.
pub fn missing() -> Option<String> {
    program().is_none().then(|| "no dnsmasq here".to_owned())
}

/// Where it is.
fn program() -> Option<PathBuf> {
    let places = ["/usr/sbin/dnsmasq", "/usr/bin/dnsmasq", "/sbin/dnsmasq"];
    places
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
}

/// Starts one that is told so much more; it answers a moment later.
pub fn start(address: SocketAddr, more: &[String], log: &Path) -> Process {
    let mut arguments = vec![
        "--keep-in-foreground".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--no-resolv".to_owned(),
        "--no-hosts".to_owned(),
        "--bind-interfaces".to_owned(),
        "--pid-file=".to_owned(),
        "--user=root".to_owned(),
        format!("--listen-address={}", address.ip()),
        format!("--port={}", address.port()),
    ];
    arguments.extend_from_slice(more);
    let program = program().expect("it was looked for");
    Process::start(&program.to_string_lossy(), &arguments, log)
}
