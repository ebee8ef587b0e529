//! What a decision may look at, for HTTP and for bytes alike.
//! It holds borrowed facts only: whoever asks has already read the clock and the request.
//! The walk goes on in `route.rs`, `persist/` and `balance/`, which are given these facts.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::balance::BackendIndex;
use crate::http::head::RequestHead;

/// The facts of one decision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client's address, past trusted proxies.
    pub client: IpAddr,
    /// The ordinal of the listener in the snapshot.
    pub listener: usize,
    /// The request; absent on layer 4.
    pub request: Option<RequestFacts<'a>>,
    /// What the client asked for before TLS began; absent where nobody looked, or no TLS was spoken.
    pub hello: Option<HelloFacts<'a>>,
    /// The application's session that it shows, on a sticky route.
    pub session: Option<SessionFacts>,
    /// Monotonic time, for rates.
    pub now: Instant,
    /// Wall time in milliseconds since the epoch, for tokens.
    pub wall_millis: u64,
}

/// What a TLS client says in the clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HelloFacts<'a> {
    /// The name of the server that it asks for; empty: none.
    pub server_name: &'a [u8],
    /// The protocols that it offers, each behind a byte of its length (RFC 7301 section 3.1).
    pub protocols: &'a [u8],
}

impl HelloFacts<'_> {
    /// Whether it offers this protocol.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        let mut left = self.protocols;
        while let Some((&length, rest)) = left.split_first() {
            let Some((offered, rest)) = rest.split_at_checked(usize::from(length)) else {
                return false;
            };
            if offered == protocol {
                return true;
            }
            left = rest;
        }
        false
    }
}

/// The facts of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The head as received.
    pub head: &'a RequestHead<'a>,
    /// The path in normal form; never sent anywhere.
    pub path: &'a [u8],
    /// Whether the client came by TLS, as far as weir or a trusted proxy knows.
    pub secure: bool,
}

impl Facts<'_> {
    /// The name that routes are chosen by: of the host in a request, of the server in a ClientHello.
    #[inline]
    pub fn host(&self) -> Option<&[u8]> {
        match (&self.request, &self.hello) {
            (Some(request), _) => Some(request.head.host()),
            (None, hello) => hello.map(|hello| hello.server_name),
        }
    }
}

impl RequestFacts<'_> {
    /// Whether a browser asks for a part of a page that it has already: an image, a style sheet, a script, the site's icon.
    ///
    /// Browsers say so (Fetch Metadata, `Sec-Fetch-Dest`); those that do not ask for the icon at its agreed place (HTML, section 4.6.7.8).
    /// Who opens an image by itself asks for a document.
    pub fn is_part_of_page(&self) -> bool {
        const PARTS: [&[u8]; 8] = [
            b"audio",
            b"font",
            b"image",
            b"manifest",
            b"script",
            b"style",
            b"track",
            b"video",
        ];
        match self.head.values("sec-fetch-dest").next() {
            Some(destination) => PARTS.contains(&destination),
            None => self.path == b"/favicon.ico",
        }
    }
}

/// The application's session that a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// A keyed hash of its id, good within one pool.
    pub key: u64,
    /// What weir remembers of it.
    pub known: Option<KnownSession>,
}

/// A session that a backend accepted within the idle timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownSession {
    /// Who did last; `None`: one that the pool does not have any more.
    pub backend: Option<BackendIndex>,
    /// How long it was idle, in whole seconds.
    pub idle: Duration,
    /// How long ago it was opened, in whole seconds.
    pub age: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Sample;

    #[test]
    fn protocols_are_whole() {
        let hello = HelloFacts {
            server_name: b"",
            protocols: b"\x02h2\x08http/1.1\x09cut",
        };
        assert!(hello.offers(b"h2") && hello.offers(b"http/1.1"));
        assert!(!hello.offers(b"h") && !hello.offers(b"cut") && !hello.offers(b""));
    }

    #[test]
    fn pages_are_told_from_their_parts() {
        let is_part = |path: &str, fields: &[(&str, &str)]| {
            let sample = Sample::new("GET / HTTP/1.1", fields);
            let request = RequestFacts {
                head: &sample.request(),
                path: path.as_bytes(),
                secure: false,
            };
            request.is_part_of_page()
        };
        for destination in ["image", "style", "script", "font", "manifest"] {
            assert!(is_part("/", &[("Sec-Fetch-Dest", destination)]));
        }
        for destination in ["document", "empty", "iframe", "worker", "?", ""] {
            assert!(!is_part("/favicon.ico", &[("sec-fetch-dest", destination)]));
        }
        assert!(is_part("/favicon.ico", &[]));
        for path in ["/", "/shop/favicon.ico", "/favicon.ico/", "/logo.png"] {
            assert!(!is_part(path, &[("Accept", "image/png")]), "{path}");
        }
    }
}
