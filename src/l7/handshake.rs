//! TLS at both ends of a request: the handshake of a client before it is served, what its certificate is good for, and the handshake
//! with a backend, behind the PROXY header that it may be sent.
//! It never serves a client that did not complete its handshake, and tells no client more than an alert or a sentence.
//! The walk goes back to `connection.rs` (a client), `plan.rs` (a request) and `exchange.rs` (a backend).

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use super::client::Client;
use super::exchange::Exchange;
use super::reject::Failure;
use super::side::Side;
use crate::config::model::ProxyVersion;
use crate::http::edits::Edits;
use crate::http::forwarding::Source;
use crate::http::head::{RequestHead, host_of};
use crate::net::backlog::Backlog;
use crate::net::introduction::{Outgoing, ends_toward};
use crate::net::is_short;
use crate::net::proxy_protocol::{Ends, Transport};
use crate::net::stream::Stream;
use crate::net::tls::HTTP2;
use crate::net::tls::handshake::Refusal;
use crate::state::backend::Backend;
use crate::upstream::connect::connect;
use crate::upstream::handshake;
use crate::upstream::local::Local;

/// What every TLS connection begins with: a record of the handshake, and the major version of them all.
const HELLO: &[u8] = &[22, 3];

/// For whoever speaks HTTP where TLS is spoken.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 61\r\nConnection: close\r\n\r\n\
    400 Bad Request\nThis port speaks TLS: ask with https:// here\n";

impl Client {
    /// Takes the client's handshake, within the deadline that is running. False: there is no connection to serve.
    pub(super) async fn shake_hands(&mut self) -> bool {
        let shaken = poll_fn(|cx| {
            let Side::Http1(stream) = &mut self.stream else {
                return Poll::Ready(Ok(()));
            };
            match stream.poll_handshake(cx) {
                Poll::Pending if self.timer.has_fired() => Poll::Ready(Err(None)),
                Poll::Pending => Poll::Pending,
                Poll::Ready(shaken) => Poll::Ready(shaken.map_err(Some)),
            }
        });
        match shaken.await {
            Ok(()) => {
                self.note_handshake();
                true
            }
            Err(refusal) => {
                self.refuse(refusal).await;
                false
            }
        }
    }

    fn note_handshake(&mut self) {
        if let Side::Http1(stream) = &self.stream {
            self.tls = handshake::note(&self.local, stream).map(Rc::new);
        }
    }

    /// Counts a handshake that failed; without a refusal it was not complete in time.
    async fn refuse(&mut self, refusal: Option<Refusal>) {
        handshake::note_failure(&self.local, self.remote, refusal.as_ref());
        if matches!(refusal, Some(Refusal::PlainHttp)) {
            let mut backlog = Backlog::default();
            let sent = poll_fn(|cx| {
                let sent = backlog.send(&mut self.stream, cx, PLAIN_HTTP, &[]);
                Poll::Ready(sent.is_ok() && backlog.is_empty())
            });
            // What a new connection does not take at once it never will.
            if sent.await {
                self.linger().await;
            }
        }
    }
}

/// What a fault in the first bytes of a request is: they may be those of TLS.
pub(super) fn name_fault(received: &[u8], failure: Failure) -> Failure {
    match failure {
        Failure::Request(_) if received.starts_with(HELLO) => Failure::TlsHere,
        failure => failure,
    }
}

/// Whether a request may come on its connection: for a host that the client did not connect to, nor was shown a certificate of,
/// another server or another listener may be the right one (RFC 9110 section 15.5.20). A trusted proxy connects in its own name.
#[inline]
pub(super) fn check_host(
    exchange: &Exchange<'_>,
    source: &Source,
    head: &RequestHead<'_>,
) -> Result<(), Failure> {
    let Some(tls) = &exchange.client.tls else {
        return Ok(());
    };
    let host = host_of(head.authority);
    match host.is_empty() || source.trusted || tls.is_for(host) {
        true => Ok(()),
        false => Err(Failure::Misdirected),
    }
}

/// Tells the backend of the client's certificate (RFC 9440). What a trusted proxy says is of the client behind it, and stays.
#[inline]
pub(super) fn introduce(client: &Client, source: &Source, edits: &mut Edits) {
    let certificate = client
        .tls
        .as_ref()
        .and_then(|tls| tls.client_certificate.as_ref());
    if let Some(certificate) = certificate.filter(|_| !source.trusted) {
        edits.append("Client-Cert", &certificate.field);
        edits.append("X-Client-Cert-Subject", &certificate.subject);
    }
}

impl Exchange<'_> {
    /// Connects to a backend within the route's time, the handshake of TLS included.
    pub(super) async fn connect(
        &mut self,
        pool: usize,
        backend: &Backend,
    ) -> Result<Stream, Failure> {
        let generation = self.generation.clone();
        let (pool, address) = (&generation.snapshot.pools[pool], backend.live.address);
        let header = pool.proxy_protocol.map(|version| self.header(version));
        let connecting = connect(pool, address, self.client.remote.ip(), header);
        let stream = self.within_connect(connecting).await?;
        stream.map_err(|refusal| match (&refusal, &pool.tls) {
            (Refusal::System(error), _) if is_short(error) => Failure::NoSocket,
            (Refusal::System(error), None) => Failure::Connect(error.kind()),
            _ => failure_of(&refusal, &pool.name, backend, &self.client.local),
        })
    }
}

impl Exchange<'_> {
    /// The PROXY header that tells a backend for whom it is connected to: as a proxy told, or for the other end of the connection.
    fn header(&self, version: ProxyVersion) -> Vec<u8> {
        let client = &*self.client;
        let before = client.introduction.as_deref();
        let (own, alpn) = match &client.stream {
            Side::Http1(stream) => (Some(ends_toward(client.remote, stream)), stream.alpn()),
            Side::Http2(_) => (None, client.tls.as_ref().map(|_| HTTP2)),
        };
        let nowhere = Ends {
            source: client.remote,
            destination: client.remote,
        };
        let outgoing = Outgoing {
            ends: before.map(|before| before.ends).or(own).unwrap_or(nowhere),
            transport: Transport::Stream,
            before,
            tls: client.tls.as_deref(),
            server_name: None,
            alpn,
            id: self.facts.id,
        };
        outgoing.header(version)
    }
}

/// The failure that a backend's refusal is. The log tells of it, seldom.
fn failure_of(refusal: &Refusal, pool: &str, backend: &Backend, local: &Local) -> Failure {
    handshake::tell_of_backend(local, pool, &backend.name, refusal);
    match refusal {
        Refusal::System(error) => Failure::Connect(error.kind()),
        Refusal::Closed => Failure::Connect(io::ErrorKind::UnexpectedEof),
        _ => Failure::Unproven,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fault::Fault;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_HTTP).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }

    #[test]
    fn only_what_begins_like_a_handshake_is_called_one() {
        let fault = Failure::Request(Fault::StartLine);
        assert_eq!(
            name_fault(b"\x16\x03\x01\x02\x00\x01", fault),
            Failure::TlsHere
        );
        assert_eq!(name_fault(b"\x16", fault), fault);
        assert_eq!(name_fault(b"GET", fault), fault);
    }
}
