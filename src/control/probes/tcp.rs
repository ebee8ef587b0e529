//! The TCP probe: a connection that is accepted is health, with its handshake where TLS is spoken.
//! It never sends a byte of its own.
//! The walk goes back to `task.rs`.

use std::future::poll_fn;
use std::pin::Pin;

use super::{Failure, Outcome, Probe, Target};

/// Connects and closes.
#[derive(Debug)]
pub(super) struct Tcp;

impl Probe for Tcp {
    fn probe<'a>(
        &'a self,
        target: &'a Target,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            let mut stream = target.connect().await?;
            // The end of a handshake is still to be sent.
            let sent = poll_fn(|cx| stream.poll_flush(cx)).await;
            sent.map_err(|error| Failure::from_connect(&error))
        })
    }
}
