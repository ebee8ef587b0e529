//! Connections that a trusted proxy may, or must, introduce: waits for its PROXY header, and lets the client in that it names.
//! It reads nothing of whoever is not trusted, and passes on every byte that came behind a header.
//! The walk goes back to `worker.rs`, which serves the connection as the client's.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use super::Accepted;
use crate::config::model::ProxyProtocol;
use crate::metrics::worker::ProxyFailure;
use crate::net::introduction::{Introduction, Refusal, poll_header};
use crate::upstream::admission;
use crate::upstream::local::{ListenerView, Local};
use crate::upstream::strangers;

/// Whether connections of a listener may begin with a header.
pub(super) fn is_expected(view: &ListenerView) -> bool {
    proxy_protocol(view) != ProxyProtocol::Off
}

fn proxy_protocol(view: &ListenerView) -> ProxyProtocol {
    view.generation().snapshot.listeners[view.listener()].proxy_protocol
}

/// The connection as that of the client for whom it was opened. `None`: it is not served.
pub(super) async fn meet(
    mut accepted: Accepted,
    view: &ListenerView,
    local: &Local,
) -> Option<Accepted> {
    let remote = accepted.remote;
    let is_required = proxy_protocol(view) == ProxyProtocol::Require;
    // The generation is let go: another one may come while this waits.
    let (is_trusted, wait) = {
        let config = &view.generation().snapshot.config;
        let is_trusted = admission::is_trusted(remote.ip(), &config.trusted_proxies);
        (is_trusted, config.timeouts.header)
    };
    let failure = match is_trusted {
        false if is_required => ProxyFailure::Untrusted,
        false => return Some(accepted),
        true => match read(&mut accepted, wait, local).await {
            Ok(introduction) => return admit(accepted, introduction, view),
            // What came is the client's, and the proxy speaks for itself.
            Err(ProxyFailure::Missing) if !is_required => return Some(accepted),
            Err(ProxyFailure::Timeout) if !is_required && accepted.early.is_empty() => {
                return Some(accepted);
            }
            // A look whether the port is open, as many checks are.
            Err(ProxyFailure::Closed) if accepted.early.is_empty() => return None,
            Err(failure) => failure,
        },
    };
    strangers::refuse(failure, remote.ip(), view, local);
    None
}

/// Reads the header; what came behind it is in `early`.
async fn read(
    accepted: &mut Accepted,
    wait: Duration,
    local: &Local,
) -> Result<Option<Introduction>, ProxyFailure> {
    let Accepted { stream, early, .. } = accepted;
    let header = poll_fn(|cx| poll_header(stream, cx, early));
    match local.wheel.timer().within(wait, header).await {
        Some(read) => read.map_err(|refusal| failure_of(&refusal)),
        None => Err(ProxyFailure::Timeout),
    }
}

/// Lets the client in, as if it had connected itself.
fn admit(
    mut accepted: Accepted,
    introduction: Option<Introduction>,
    view: &ListenerView,
) -> Option<Accepted> {
    let Some(introduction) = introduction else {
        return Some(accepted);
    };
    accepted.remote = introduction.ends.source;
    accepted.open.seat = admission::admit(view, accepted.remote.ip())?;
    accepted.introduction = Some(Rc::new(introduction));
    Some(accepted)
}

fn failure_of(refusal: &Refusal) -> ProxyFailure {
    match refusal {
        Refusal::Closed => ProxyFailure::Closed,
        Refusal::Fault(fault) => strangers::failure_of(*fault),
    }
}
