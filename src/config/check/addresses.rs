//! Whether the addresses of all listeners and of the admin server can be bound side by side.
//! It opens no socket: it knows the kernel's rule, and that an IPv6 listener of weir takes no IPv4 traffic.
//! Here the walk ends.

use std::net::SocketAddr;

use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::lower::Draft;
use crate::config::model::{AdminBind, Protocol};
use crate::config::section::Report;
use crate::config::values::brief;

/// Who wants an address.
struct Claim<'d> {
    /// A listener's name; `None` is the admin server.
    listener: Option<&'d str>,
    address: SocketAddr,
    datagrams: bool,
    place: Span,
}

pub(super) fn check(report: &mut Report, draft: &Draft) {
    let mut claims = claims(draft);
    // Only claims of one port can collide, and a port has few.
    claims.sort_by_key(|claim| (claim.address.port(), claim.place.start));
    for of_one_port in claims.chunk_by(|a, b| a.address.port() == b.address.port()) {
        for (position, claim) in of_one_port.iter().enumerate() {
            let first = of_one_port[..position]
                .iter()
                .find(|first| collide(first, claim));
            report.extend(first.map(|first| collision(first, claim)));
        }
    }
}

fn claims(draft: &Draft) -> Vec<Claim<'_>> {
    let listeners = draft.config.listeners.iter().zip(&draft.listeners);
    let mut claims: Vec<_> = listeners
        .flat_map(|(listener, places)| {
            let addresses = listener.bind.iter().zip(&places.bind);
            addresses.map(|(address, place)| Claim {
                listener: Some(&listener.name),
                address: *address,
                datagrams: listener.protocol == Protocol::Udp,
                place: place.clone(),
            })
        })
        .collect();
    // The default admin address has no place to point at: who takes it is pointed at instead.
    if let AdminBind::Tcp(address) = draft.config.admin.bind {
        claims.push(Claim {
            listener: None,
            address,
            datagrams: false,
            place: draft.admin.clone().unwrap_or(0..0),
        });
    }
    claims
}

/// Whether the kernel would refuse the second: the same address, or every address of the family and one of them. Port 0 is another each time.
fn collide(a: &Claim<'_>, b: &Claim<'_>) -> bool {
    let (one, two) = (a.address, b.address);
    a.datagrams == b.datagrams
        && one.port() != 0
        && one.port() == two.port()
        && one.is_ipv4() == two.is_ipv4()
        && (one == two || one.ip().is_unspecified() || two.ip().is_unspecified())
}

fn collision(first: &Claim<'_>, second: &Claim<'_>) -> Diagnostic {
    let default_admin = |claim: &Claim<'_>| claim.listener.is_none() && claim.place.is_empty();
    let (first, second) = if default_admin(second) {
        (second, first)
    } else {
        (first, second)
    };
    let same = first.address == second.address;
    let message = if same {
        format!("the address {} is bound twice", second.address)
    } else {
        format!(
            "{} and {} cannot both be bound",
            first.address, second.address
        )
    };
    let label = |claim: &Claim<'_>| match claim.listener {
        Some(name) => format!("by the listener `{}`", brief(name)),
        None => "by the admin server".to_owned(),
    };
    let found = Diagnostic::at(
        Code::AddressTwice,
        second.place.clone(),
        message,
        label(second),
    );
    if default_admin(first) {
        return found.help(format!(
            "the admin server is there by default: choose another port, or move it with bind = \"...\" under [admin]; it is at {}",
            first.address
        ));
    }
    let wildcard = if first.address.ip().is_unspecified() {
        first
    } else {
        second
    };
    found
        .and(first.place.clone(), format!("first, {}", label(first)))
        .help(if same {
            "choose another port, or leave one of them out".to_owned()
        } else {
            format!(
                "{} stands for every address of its family; leave the other one out",
                wildcard.address
            )
        })
}
