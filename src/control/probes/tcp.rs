//! The TCP probe: a connection that is accepted is health.
//! It never sends a byte.
//! The walk goes back to `task.rs`.

use std::pin::Pin;

use tokio::net::TcpStream;

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
            let connected = TcpStream::connect(target.address).await;
            connected
                .map(drop)
                .map_err(|error| Failure::from_connect(&error))
        })
    }
}
