//! What a client says before its bytes are passed on: TLS that ends here, or the ClientHello of TLS that does not.
//! It keeps every byte that it looked at, for the backend, and waits no longer than for the head of a request.
//! The walk goes back to `connection.rs`.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::connection::Connection;
use super::failure::Failure;
use crate::net::client_hello::{ClientHello, Fault, MOST, Reader};
use crate::policy::facts::HelloFacts;
use crate::upstream::handshake;

/// What routes are chosen by.
#[derive(Debug, Default)]
pub(super) struct Hello {
    /// The name that the client asks for; empty: none.
    pub(super) server_name: Box<[u8]>,
    /// The protocols that it offers, each behind a byte of its length.
    protocols: Box<[u8]>,
}

impl Hello {
    fn of(said: &ClientHello<'_>) -> Self {
        Hello {
            server_name: said.server_name.unwrap_or_default().as_bytes().into(),
            protocols: said.protocol_list().into(),
        }
    }

    pub(super) fn facts(&self) -> HelloFacts<'_> {
        HelloFacts {
            server_name: &self.server_name,
            protocols: &self.protocols,
        }
    }
}

impl Connection {
    /// Takes the client's handshake where TLS ends at weir, or looks at its ClientHello where a route wants to know what it says.
    pub(super) async fn listen(&mut self) -> Result<(), Failure> {
        // The generation is let go: another one may come while this waits.
        let (peeks, wait) = {
            let snapshot = &self.view.generation().snapshot;
            let listener = &snapshot.listeners[self.view.listener()];
            (listener.peeks, snapshot.config.timeouts.header)
        };
        if self.client.tls().is_some() {
            return self.shake_hands(wait).await;
        }
        match peeks {
            true => self.peek(wait).await,
            false => Ok(()),
        }
    }

    async fn shake_hands(&mut self, wait: Duration) -> Result<(), Failure> {
        let client = &mut self.client;
        let shaken = self
            .timer
            .within(wait, poll_fn(|cx| client.poll_handshake(cx)));
        let refusal = match shaken.await {
            Some(Ok(())) => {
                let facts = handshake::note(&self.local, &self.client);
                let name = facts.and_then(|facts| facts.server_name);
                self.story.hello = Some(Box::new(Hello {
                    server_name: name.unwrap_or_default().into_boxed_bytes(),
                    protocols: Box::default(),
                }));
                return Ok(());
            }
            Some(Err(refusal)) => Some(refusal),
            None => None,
        };
        handshake::note_failure(&self.local, self.remote, refusal.as_ref());
        Err(Failure::Handshake)
    }

    async fn peek(&mut self, wait: Duration) -> Result<(), Failure> {
        if self.early.is_empty() {
            self.early = self.local.buffers.take();
        }
        let mut reader = Reader::default();
        let (client, early) = (&mut self.client, &mut self.early);
        let read = poll_fn(|cx| {
            loop {
                match reader.read(early) {
                    Ok(Some(hello)) => return Poll::Ready(Ok(Some(Hello::of(&hello)))),
                    // What speaks no TLS asks for nothing.
                    Err(Fault::NotTls) => return Poll::Ready(Ok(None)),
                    Err(fault) => return Poll::Ready(Err(Failure::Hello(fault))),
                    Ok(None) => {}
                }
                if early.len() == early.capacity() {
                    early.reserve(MOST);
                }
                match client.poll_read_into(cx, early) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(Err(Failure::ClientGone)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let hello = self.timer.within(wait, read).await;
        self.story.hello = hello.ok_or(Failure::HelloTimeout)??.map(Box::new);
        Ok(())
    }
}
