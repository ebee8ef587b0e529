//! A request head by its places in the buffer that it came in, so that it can be kept while the request waits.
//! It holds no slice; what it says of a buffer holds for the one that it was made of.
//! The walk goes back to `exchange.rs`, which keeps it, and `plan.rs`, which makes a request of it again.

use crate::config::model::Limits;
use crate::http::framing::Framing;
use crate::http::head::{Line, RequestHead, Span, TargetForm, Version};
use crate::http::request::{self, Request};
use crate::policy::retry;

/// A request head by its places in the buffer, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) method: Span,
    pub(super) target: Span,
    pub(super) authority: Span,
    pub(super) version: Version,
    pub(super) is_head: bool,
    pub(super) is_idempotent: bool,
    /// Whether it is a GET or HEAD without a body, and asks for no other protocol.
    pub(super) is_plain: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    /// What the client offers to switch to; empty: nothing.
    pub(super) upgrade: Span,
    pub(super) path_and_query: Span,
    path: Span,
    form: TargetForm,
    /// Bytes of the body, if they are known; the framing itself is too large to be kept twice.
    declared: Option<u64>,
    connection_options: bool,
}

impl Head {
    pub(super) fn of(received: &[u8], request: &Request<'_>) -> Head {
        let head = &request.head;
        Head {
            length: head.bytes.len(),
            method: span_in(received, head.method),
            target: span_in(received, head.target),
            authority: span_in(received, head.authority),
            version: head.version,
            is_head: head.method == b"HEAD",
            is_idempotent: retry::is_idempotent(head.method),
            is_plain: matches!(head.method, b"GET" | b"HEAD")
                && request.body.is_done()
                && request.upgrade.is_empty(),
            keep_alive: request.keep_alive,
            expects_continue: request.expects_continue,
            upgrade: span_in(received, request.upgrade),
            path_and_query: span_in(received, head.path_and_query),
            path: span_in(received, head.path),
            form: head.form,
            declared: match request.body {
                Framing::Length(length) => Some(length),
                Framing::Chunked(_) | Framing::Close => None,
            },
            connection_options: request.connection_options,
        }
    }

    /// The framing of the body before its first byte, in HTTP/1.
    pub(super) fn framing(&self, limits: &Limits) -> Framing {
        let chunked = || request::chunked(limits);
        self.declared.map_or_else(chunked, Framing::Length)
    }

    /// Whether the length of the body is not known.
    pub(super) fn is_open(&self) -> bool {
        self.declared.is_none()
    }

    /// Whether all of it stands in the buffer as it is: a few targets do not, and are read again.
    pub(super) fn is_whole(&self) -> bool {
        self.path_and_query != Span::default() && self.path != Span::default()
    }

    /// The request as it was read, if it [is whole](Head::is_whole), as long as the worker's scratch still has its lines.
    pub(super) fn request<'a>(&self, received: &'a [u8], lines: &'a [Line]) -> Request<'a> {
        let (path_and_query, path) = (self.path_and_query.of(received), self.path.of(received));
        let head = RequestHead {
            bytes: received.get(..self.length).unwrap_or_default(),
            lines,
            method: self.method.of(received),
            target: self.target.of(received),
            form: self.form,
            path_and_query,
            path,
            authority: self.authority.of(received),
            version: self.version,
        };
        Request {
            head,
            body: self.declared.map_or(Framing::Close, Framing::Length),
            keep_alive: self.keep_alive,
            connection_options: self.connection_options,
            expects_continue: self.expects_continue,
            upgrade: self.upgrade.of(received),
        }
    }
}

/// Where a slice of `buffer` lies in it.
fn span_in(buffer: &[u8], slice: &[u8]) -> Span {
    let start = (slice.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize);
    if start > buffer.len() {
        return Span::default();
    }
    Span {
        start: start as u32,
        end: (start + slice.len()) as u32,
    }
}
