//! The UDP probe: a datagram that is answered is health.
//! Each check has a socket of its own, so that no late answer to an earlier one counts.
//! The walk goes back to `task.rs`.

use std::io;
use std::pin::Pin;

use tokio::net::UdpSocket;

use super::{Failure, Outcome, Probe, Target, another_answer};
use crate::net::introduction::own_header;
use crate::net::proxy_protocol::Ends;
use crate::net::udp;

/// Bytes of an answer that are looked at; more than may be expected.
const LOOKED_AT: usize = 2048;

/// Asks, and compares the beginning of the answer.
#[derive(Debug)]
pub(super) struct Udp {
    pub(super) send: Vec<u8>,
    pub(super) expect: Vec<u8>,
}

impl Probe for Udp {
    fn probe<'a>(
        &'a self,
        target: &'a Target,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            let asked = self.ask(target).await;
            let answer = asked.map_err(|error| Failure::from_connect(&error))?;
            match answer.starts_with(&self.expect) {
                true => Ok(()),
                false => Err(another_answer(&answer)),
            }
        })
    }
}

impl Udp {
    async fn ask(&self, target: &Target) -> io::Result<Vec<u8>> {
        let socket = UdpSocket::from_std(udp::connect(target.address)?)?;
        let ends = Ends {
            source: socket.local_addr()?,
            destination: target.address,
        };
        let header = (target.proxy_protocol).map(|version| own_header(version, &ends));
        let asked = [header.unwrap_or_default(), self.send.clone()].concat();
        socket.send(&asked).await?;
        let mut answer = vec![0; LOOKED_AT];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(expect: &str, answer: &'static [u8]) -> Outcome {
        let server = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let target = Target {
            address: server.local_addr().unwrap(),
            tls: None,
            proxy_protocol: None,
            live: None,
        };
        let answering = tokio::spawn(async move {
            let mut asked = [0; 10];
            let (length, from) = server.recv_from(&mut asked).await.unwrap();
            assert_eq!(&asked[..length], b"ping");
            server.send_to(answer, from).await.unwrap();
        });
        let probe = Udp {
            send: b"ping".to_vec(),
            expect: expect.as_bytes().to_vec(),
        };
        let outcome = probe.probe(&target).await;
        answering.await.unwrap();
        outcome
    }

    #[tokio::test]
    async fn an_answer_is_health_when_it_begins_as_expected() {
        assert_eq!(check("", b"whatever").await, Ok(()));
        assert_eq!(check("pong", b"pong 17").await, Ok(()));
        let wrong = check("pong", b"error").await;
        assert!(matches!(wrong, Err(Failure::Protocol(_))), "{wrong:?}");
    }

    #[tokio::test]
    async fn a_port_without_a_server_refuses() {
        // No other test has a socket at that address, which might be given the port.
        let gone = UdpSocket::bind(("127.0.0.9", 0)).await.unwrap();
        let target = Target {
            address: gone.local_addr().unwrap(),
            tls: None,
            proxy_protocol: None,
            live: None,
        };
        drop(gone);
        let probe = Udp {
            send: b"ping".to_vec(),
            expect: Vec::new(),
        };
        let refused = probe.probe(&target).await;
        assert_eq!(
            refused,
            Err(Failure::Connect("connection refused".to_owned()))
        );
    }
}
