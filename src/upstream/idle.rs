//! Upstream connections without a request, per worker and backend, last in first out.
//! It never opens one and never reads from one: a connection on which anything arrived while it was idle is of no more use.
//! The walk goes on in `l7/exchange.rs`, which takes them out and puts them back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::http2::Connections;
use crate::net::stream::Stream;
use crate::state::backend::Slot;

/// The idle connections of one worker toward one backend.
#[derive(Debug)]
pub struct IdleStack {
    connections: RefCell<Vec<Idle>>,
    limit: Cell<usize>,
    shared: Rc<Connections>,
    expects_large: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    slot: Option<Slot>,
    expires: Instant,
}

impl IdleStack {
    /// An empty stack for at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        IdleStack {
            connections: RefCell::default(),
            limit: Cell::new(limit),
            shared: Rc::default(),
            expects_large: Cell::new(false),
        }
    }

    /// Those that requests share, toward a backend that speaks HTTP/2.
    pub fn shared(&self) -> &Rc<Connections> {
        &self.shared
    }

    /// Sets the limit. With 0 the backend is gone or unwanted: nothing is kept from now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
        self.connections.borrow_mut().truncate(limit);
        if limit == 0 {
            self.shared.clear();
        }
    }

    /// The connection used last, if one is alive. It costs no system call to know.
    #[inline]
    pub fn take(&self, now: Instant) -> Option<(Stream, Option<Slot>)> {
        let mut connections = self.connections.borrow_mut();
        while let Some(mut idle) = connections.pop() {
            if now < idle.expires && idle.stream.is_quiet() {
                return Some((idle.stream, idle.slot));
            }
        }
        None
    }

    /// Keeps a connection, and its place among those that the backend may have, until `expires`; the limit may say that it is closed instead.
    #[inline]
    pub fn put(&self, stream: Stream, slot: Option<Slot>, expires: Instant) {
        let mut connections = self.connections.borrow_mut();
        if connections.len() < self.limit.get() {
            connections.push(Idle {
                stream,
                slot,
                expires,
            });
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Closes the one that was idle for the longest.
    pub fn drop_one(&self) {
        let mut connections = self.connections.borrow_mut();
        if !connections.is_empty() {
            connections.remove(0);
        }
    }

    /// Whether the next answer is likely to be large, since the last one was.
    #[inline]
    pub fn expects_large(&self) -> bool {
        self.expects_large.get()
    }

    /// Notes what the last answer was.
    #[inline]
    pub fn expect_large(&self, is_large: bool) {
        self.expects_large.set(is_large);
    }

    /// Closes all of them.
    pub fn clear(&self) {
        self.connections.borrow_mut().clear();
        self.shared.clear();
    }

    /// Closes what expired, or was shared and not used for `idle`, or what the backend closed, so that no descriptor waits for a request that does not come.
    pub fn sweep(&self, now: Instant, idle: Duration) {
        self.shared.sweep(now, idle);
        self.connections
            .borrow_mut()
            .retain_mut(|idle| now < idle.expires && idle.stream.is_quiet());
    }
}
