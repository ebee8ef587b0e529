//! weir in networks of the kernel's making: virtual IPs that move, routes of equal cost, backends that see the client's address, floods from
//! addresses that nobody has, hosts without ports.
//! It must touch nothing but namespaces of its own, which go with it, and call what cannot be tried here skipped.
//! Its own runner. Read `network.rs` for the stage, `takeover.rs` for a play; `roles.rs` is who else is on it.

#[path = "../fleet/claims.rs"]
mod claims;
mod flood;
mod network;
mod ports;
#[allow(dead_code)]
#[path = "../fleet/process.rs"]
mod process;
mod roles;
mod takeover;
mod transparent;

use std::process::ExitCode;

use claims::Claim;

const CLAIMS: &[Claim] = &[
    ("kernel::vrrp", takeover::missing_keepalived, takeover::vrrp),
    ("kernel::ecmp", takeover::missing_bird, takeover::ecmp),
    (
        "kernel::transparent",
        transparent::missing,
        transparent::transparent,
    ),
    ("kernel::flood", network::missing, flood::flood),
    ("kernel::ports", network::missing, ports::ports),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--role") {
        roles::play(&words[1..]);
    }
    claims::run(CLAIMS)
}
