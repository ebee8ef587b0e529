//! A client connection over its life: wait, hand a request over, wait again, close in the way that the client can see.
//! While it waits it holds no request and no buffer.
//! The walk goes on in `proxy.rs`.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use super::client::{Client, Next};
use super::proxy::proxy;
use crate::http::meter::PREFACE;
use crate::http::request;
use crate::net::duplex::Duplex;

/// How long, and for how many bytes, a closing connection reads on, so that the client sees the last answer instead of a reset
/// (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

impl Client {
    /// Serves the connection to its end, or until it turns out to speak HTTP/2: what was read of that is returned. By reference, because a
    /// future that takes a value by `self` holds it twice.
    pub async fn serve(&mut self) -> Option<Vec<u8>> {
        poll_fn(|cx| self.begin_wait(cx)).await;
        if self.stream.speaks_tls() && !Box::pin(self.shake_hands()).await {
            return None;
        }
        while let Some(received) = poll_fn(|cx| self.poll_arrival(cx)).await {
            if received.starts_with(PREFACE) && self.speaks_http2() {
                return Some(received);
            }
            // A request's state is boxed so that a waiting connection is small.
            match Box::pin(proxy(self, received)).await {
                Next::Request => self.requests += 1,
                Next::Close => return None,
                Next::Linger => {
                    Box::pin(self.linger()).await;
                    return None;
                }
                Next::Abort => {
                    self.stream.reset_on_close();
                    return None;
                }
            }
            poll_fn(|cx| self.begin_wait(cx)).await;
        }
        None
    }

    /// Begins the wait for a request: the head of the first has a deadline from the accept on.
    fn begin_wait(&self, cx: &mut Context<'_>) -> Poll<()> {
        let generation = self.view.generation();
        let timeouts = &generation.snapshot.config.timeouts;
        let wait = if self.requests == 0 {
            timeouts.header
        } else {
            timeouts.keep_alive
        };
        self.timer.set(cx, wait);
        Poll::Ready(())
    }

    /// The first bytes of a request; `None` when none will come. Empty lines alone are none: the wait goes on.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut received = self.local.buffers.take();
        if !self.early.is_empty() {
            received.append(&mut self.early);
            self.early = Vec::new();
            request::skip_empty_lines(&mut received);
        }
        while received.is_empty() || self.may_be_preface(&received) {
            match self.stream.poll_read_into(cx, &mut received) {
                Poll::Ready(Ok(1..)) => request::skip_empty_lines(&mut received),
                nothing if received.is_empty() => {
                    self.local.buffers.put(received);
                    return self.no_arrival(nothing.is_ready());
                }
                // What has come is the beginning of some head, and an end like that of any.
                nothing if nothing.is_ready() || self.timer.has_fired() => break,
                _ => {
                    self.early = received;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(received))
    }

    /// Whether a connection has sent the beginning of what HTTP/2 begins with, and no more yet.
    fn may_be_preface(&self, received: &[u8]) -> bool {
        received.len() < PREFACE.len() && PREFACE.starts_with(received) && self.speaks_http2()
    }

    /// Whether the next bytes may be HTTP/2: only the first ones, and only where the listener speaks it.
    fn speaks_http2(&self) -> bool {
        self.requests == 0 && self.view.generation().snapshot.listeners[self.view.listener()].http2
    }

    /// Whether to wait on for a request.
    fn no_arrival(&self, is_over: bool) -> Poll<Option<Vec<u8>>> {
        // A connection whose listener closes may still bring the request that it was opened for.
        let is_unwanted = self.view.is_closed() && self.requests > 0;
        if is_over || self.timer.has_fired() || is_unwanted {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// Whether nothing of the client's is unread. Closing over it would be a reset, which may take the last answer away from the client.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.early.is_empty() && self.stream.is_quiet()
    }

    /// Says that no more is coming and reads what the client still sends.
    pub(super) async fn linger(&mut self) {
        self.stream.shutdown_write();
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            self.timer.set(cx, LINGER);
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| {
            let local = self.local.clone();
            let body = &mut *local.body.borrow_mut();
            loop {
                match self.stream.poll_read(cx, body) {
                    Poll::Ready(Ok(count)) if count > 0 && count <= left => left -= count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if self.timer.has_fired() => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a waiting connection costs beside its socket; the request's state must not leak into it.
    #[test]
    fn a_waiting_connection_is_small() {
        fn size_of_future<'a, F: Future + 'a>(_: impl FnOnce(&'a mut Client) -> F) -> usize {
            size_of::<F>()
        }
        // The task of a connection holds the client and the future that waits.
        let size = size_of::<Client>() + size_of_future(Client::serve);
        assert!(size <= 384, "{size} bytes");
    }

    /// One allocation a request, of a size that the allocator keeps at hand: it has one for each quarter from 1 KiB to 2 KiB.
    #[test]
    fn a_request_in_flight_is_small() {
        fn size_of_future<'a, F: Future + 'a>(
            _: impl FnOnce(&'a mut Client, Vec<u8>) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(proxy);
        assert!(size <= 1280, "{size} bytes");
    }
}
