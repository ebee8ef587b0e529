//! `/api/v1/explain` of what weir passes on unread: where a connection or a datagram of a client would go, and why.
//! It goes the way of the real one: lists, route, way, backend; what a client says in the clear is all that is looked at.
//! The walk goes on in `explain.rs` (routes and pools) and `outcome.rs`.

use serde::Serialize;

use super::asked::{Asked, Passed};
use super::explain::{Explanation, route_and_pool};
use super::outcome::Outcome;
use crate::clock;
use crate::config::model::{Protocol, ProxyProtocol};
use crate::policy::facts::{Facts, HelloFacts};
use crate::state::snapshot::Snapshot;
use crate::upstream::admission::is_trusted;

/// The connection or the datagrams that were asked about.
#[derive(Debug, Serialize)]
pub(super) struct Connection {
    /// `tcp` or `udp`.
    protocol: &'static str,
    listener: String,
    /// The client's address, past trusted proxies.
    client: String,
    /// The name that it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
    /// The protocols that it offers within TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    protocols: Vec<String>,
}

/// What becomes of it at the listener of this ordinal.
pub(super) fn explain(
    snapshot: &Snapshot,
    ordinal: usize,
    asked: &Asked,
    passed: &Passed,
) -> Explanation {
    let listener = &snapshot.listeners[ordinal];
    let mut explanation = Explanation::of(snapshot);
    explanation.connection = Some(Connection {
        protocol: listener.protocol.as_str(),
        listener: listener.name.to_string(),
        client: asked.client.to_string(),
        server_name: passed.server_name.clone(),
        protocols: passed.protocols.clone(),
    });
    // What becomes of whom there is no way for.
    let refused = match listener.protocol {
        Protocol::Udp => "dropped",
        _ => "closed",
    };
    // A trusted proxy comes in for others; of datagrams it is told by their headers.
    let speaks_for_others = || {
        is_trusted(asked.client, &snapshot.config.trusted_proxies)
            && (listener.protocol == Protocol::Tcp || listener.proxy_protocol != ProxyProtocol::Off)
    };
    if !listener.gate.permits(asked.client) && !speaks_for_others() {
        let why = "the lists of the listener do not let the client in";
        explanation.outcome = Outcome::of_bytes(refused, why);
        return explanation;
    }
    let protocols = passed.protocol_list();
    let server_name = passed.server_name.as_deref().unwrap_or_default().as_bytes();
    let speaks_tls = !server_name.is_empty() || !protocols.is_empty();
    let facts = Facts {
        client: asked.client.to_canonical(),
        listener: ordinal,
        request: None,
        hello: speaks_tls.then_some(HelloFacts {
            server_name,
            // Where TLS ends, nobody asks what it carries.
            protocols: match listener.tls {
                Some(_) => &[],
                None => &protocols,
            },
        }),
        session: None,
        now: clock::now(),
        wall_millis: clock::wall_millis(),
    };
    match route_and_pool(snapshot, facts, &mut explanation) {
        Some(()) => explanation.outcome.pass_on(refused),
        None => explanation.outcome = Outcome::of_bytes(refused, "no route matches"),
    }
    explanation
}
