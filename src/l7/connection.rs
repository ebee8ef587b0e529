//! A client connection over its life: wait, hand a request over, wait again, close in the way that the client can see.
//! While it waits it holds no request and no buffer.
//! The walk goes on in `proxy.rs`.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::proxy::proxy;
use crate::net::stream::Stream;
use crate::net::timer::Timer;
use crate::policy::persist::Remembered;
use crate::upstream::local::{ListenerView, Local};

/// How long, and for how many bytes, a closing connection reads on, so that the client sees the last answer instead of a reset
/// (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// A client connection.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub stream: Stream,
    /// Its one deadline.
    pub timer: Timer,
    /// What its worker owns.
    pub local: Rc<Local>,
    /// The listener that accepted it.
    pub view: Rc<ListenerView>,
    /// Its other end.
    pub remote: SocketAddr,
    /// Bytes that arrived before their turn.
    pub early: Vec<u8>,
    /// Requests so far.
    pub requests: u32,
    /// The sticky token that was checked last.
    pub remembered: Option<Remembered>,
}

/// What comes after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another request.
    Request,
    /// The end: everything was said, or nobody is there any more.
    Close,
    /// The end, while the client may still be sending.
    Linger,
    /// The end, in the middle of an answer that the client must not take for complete.
    Abort,
}

impl Client {
    /// A connection that was just accepted.
    pub fn new(
        stream: Stream,
        remote: SocketAddr,
        local: Rc<Local>,
        view: Rc<ListenerView>,
    ) -> Self {
        let timer = local.wheel.timer();
        Client {
            stream,
            timer,
            local,
            view,
            remote,
            early: Vec::new(),
            requests: 0,
            remembered: None,
        }
    }

    /// Serves the connection to its end. By reference, because a future that takes a value by `self` holds it twice.
    pub async fn serve(&mut self) {
        poll_fn(|cx| self.begin_wait(cx)).await;
        while let Some(received) = poll_fn(|cx| self.poll_arrival(cx)).await {
            // A request's state is boxed so that a waiting connection is small.
            match Box::pin(proxy(self, received)).await {
                Next::Request => self.requests += 1,
                Next::Close => return,
                Next::Linger => return Box::pin(self.linger()).await,
                Next::Abort => return self.stream.reset_on_close(),
            }
            if self.early.is_empty() {
                poll_fn(|cx| self.begin_wait(cx)).await;
            }
        }
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

    /// The first bytes of a request; `None` when none will come.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut received = self.local.buffers.take();
        if !self.early.is_empty() {
            received.append(&mut self.early);
            self.early = Vec::new();
            return Poll::Ready(Some(received));
        }
        let read = self.stream.poll_read_into(cx, &mut received);
        if let Poll::Ready(Ok(1..)) = read {
            return Poll::Ready(Some(received));
        }
        self.local.buffers.put(received);
        // A connection whose listener closes may still bring the request that it was opened for.
        let is_unwanted = self.view.is_closing() && self.requests > 0;
        if read.is_ready() || self.timer.has_fired() || is_unwanted {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// Says that no more is coming and reads what the client still sends.
    async fn linger(&mut self) {
        self.stream.shutdown_write();
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            self.timer.set(cx, LINGER);
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| {
            let local = self.local.clone();
            let scratch = &mut *local.scratch.borrow_mut();
            loop {
                match self.stream.poll_read(cx, &mut scratch.body) {
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

    /// One allocation a request, of a size for which the allocator has its fastest way.
    #[test]
    fn a_request_in_flight_is_small() {
        fn size_of_future<'a, F: Future + 'a>(
            _: impl FnOnce(&'a mut Client, Vec<u8>) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(proxy);
        assert!(size <= 1024, "{size} bytes");
    }
}
