//! The TCP probe: a connection that is accepted is health, with its handshake where TLS is spoken, and with the answer where one is expected.
//! It reads no more than tells whether the answer begins as it should.
//! The walk goes back to `task.rs`.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Failure, Outcome, Probe, Target, another_answer};
use crate::net::stream::Stream;

/// Bytes that are read at once.
const PIECE: usize = 1024;
/// What the backend says after it said enough is read up to here, so that it sees an orderly end instead of a reset.
const LAST_WORDS: usize = 4 * PIECE;
/// And no longer than this.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(250);

/// Connects, says something if there is anything to say, and closes when the answer has begun as it should.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) send: Vec<u8>,
    pub(super) expect: Vec<u8>,
}

impl Probe for Tcp {
    fn probe<'a>(
        &'a self,
        target: &'a Target,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            let mut stream = target.connect().await?;
            // The end of a handshake is still to be sent.
            let sent = poll_fn(|cx| stream.poll_flush(cx)).await;
            sent.map_err(|error| Failure::from_connect(&error))?;
            if self.send.is_empty() && self.expect.is_empty() {
                return Ok(());
            }
            let outcome = self.talk(&mut stream).await;
            // The time that this takes is not the check's.
            tokio::spawn(part(stream));
            outcome
        })
    }
}

impl Tcp {
    async fn talk(&self, stream: &mut Stream) -> Outcome {
        let said = async {
            stream.write_all(&self.send).await?;
            stream.flush().await
        };
        said.await.map_err(|error| broken(&error))?;
        let (mut answer, mut piece) = (Vec::new(), [0; PIECE]);
        // One wrong byte is enough to know, so that no answer is too long.
        while answer.len() < self.expect.len() {
            let read = stream.read(&mut piece).await;
            match read.map_err(|error| broken(&error))? {
                0 => return Err(ended(&answer)),
                length => answer.extend_from_slice(&piece[..length]),
            }
            let compared = answer.len().min(self.expect.len());
            if answer[..compared] != self.expect[..compared] {
                return Err(another_answer(&answer));
            }
        }
        Ok(())
    }
}

fn ended(answer: &[u8]) -> Failure {
    match answer {
        [] => Failure::Protocol("connection closed before an answer".to_owned()),
        answer => another_answer(answer),
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::Protocol(error.to_string())
}

/// Ends a connection in order.
async fn part(mut stream: Stream) {
    let leave = async {
        stream.shutdown().await?;
        let (mut read, mut piece) = (0, [0; PIECE]);
        while read < LAST_WORDS {
            match stream.read(&mut piece).await? {
                0 => break,
                length => read += length,
            }
        }
        io::Result::Ok(())
    };
    // Whoever has gone needs no farewell.
    let _ = tokio::time::timeout(LAST_WORDS_WAIT, leave).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What a check comes to at a server of this kind.
    async fn check<F: Future<Output = ()> + Send + 'static>(
        (send, expect): (&str, &str),
        serve: impl FnOnce(TcpStream) -> F,
    ) -> Outcome {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let target = Target {
            address: listener.local_addr().unwrap(),
            tls: None,
            proxy_protocol: None,
            live: None,
        };
        let probe = Tcp {
            send: send.into(),
            expect: expect.into(),
        };
        let serving = async { serve(listener.accept().await.unwrap().0).await };
        let both = async { tokio::join!(probe.probe(&target), serving).0 };
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, both).await.expect("an end")
    }

    /// Waits for `asked`, answers piece by piece, and expects an end without a reset.
    async fn answer(mut stream: TcpStream, asked: &str, pieces: &[&str]) {
        let mut heard = vec![0; asked.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, asked.as_bytes());
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "an end");
    }

    #[tokio::test]
    async fn an_answer_is_health_when_it_begins_as_expected() {
        let pong = ("PING\r\n", "+PONG");
        let is = |outcome, wanted| assert_eq!(outcome, wanted);
        is(
            check(pong, |to| answer(to, "PING\r\n", &["+PO", "NG\r\n"])).await,
            Ok(()),
        );
        is(
            check(("", "220"), |to| {
                answer(to, "", &["220 mail", " ready\r\n"])
            })
            .await,
            Ok(()),
        );
        is(
            check(("hello", ""), |to| answer(to, "hello", &[])).await,
            Ok(()),
        );
        let wrong = check(pong, |to| {
            answer(to, "PING\r\n", &["-LOADING \x1b data\r\n"])
        })
        .await;
        let why = "another answer than expected: \"-LOADING \\x1b data\\r\\n\"";
        is(wrong, Err(Failure::Protocol(why.to_owned())));
    }

    #[tokio::test]
    async fn who_closes_says_nothing_and_who_never_stops_is_not_heard_out() {
        let pong = ("PING\r\n", "+PONG");
        let closed = check(pong, |mut stream| async move {
            let _ = stream.read(&mut [0; 64]).await;
        });
        let closed = closed.await.unwrap_err().to_string();
        assert_eq!(closed, "connection closed before an answer");
        let endless = check(pong, |mut stream| async move {
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let endless = endless.await.unwrap_err().to_string();
        assert!(
            endless.starts_with("another answer than expected: \"xxx"),
            "{endless}"
        );
        assert!(endless.len() < 200, "{endless}");
    }
}
