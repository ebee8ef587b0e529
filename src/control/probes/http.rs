//! The HTTP probe: a GET whose status lies in an expected range is health.
//! It reads no more of the body than politeness asks for, and uses a connection once.
//! The walk goes back to `task.rs`.

use std::pin::{Pin, pin};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response, http};
use hyper_util::rt::TokioIo;

use super::{AGENT, Failure, Outcome, Probe, Target, http2};

/// A body is read up to here, so that the backend sees an orderly end instead of a reset.
const BODY: usize = 16 * 1024;
/// And no longer than this.
const BODY_WAIT: Duration = Duration::from_millis(100);
/// Bytes that the head of an answer may have.
const HEAD: usize = 64 * 1024;

/// What to ask, and which answers mean health.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) expect: Vec<(u16, u16)>,
    /// Whether the backend speaks HTTP/2.
    pub(super) http2: bool,
}

impl Probe for Http {
    fn probe<'a>(
        &'a self,
        target: &'a Target,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            let status = match self.http2 {
                true => http2::status(target, &self.path, self.host.as_deref()).await?,
                false => {
                    let request = self
                        .request(target)
                        .map_err(|error| Failure::Local(error.to_string()))?;
                    ask(target, request).await?
                }
            };
            let expected = |&(first, last): &(u16, u16)| (first..=last).contains(&status);
            match self.expect.iter().any(expected) {
                true => Ok(()),
                false => Err(Failure::Status(status)),
            }
        })
    }
}

impl Http {
    fn request(&self, target: &Target) -> http::Result<Request<Empty<Bytes>>> {
        let address = target.address.to_string();
        Request::get(self.path.as_str())
            .header(HOST, self.host.as_ref().unwrap_or(&address))
            .header(USER_AGENT, AGENT)
            .header(CONNECTION, "close")
            .body(Empty::new())
    }
}

/// The status of the answer.
async fn ask(target: &Target, request: Request<Empty<Bytes>>) -> Result<u16, Failure> {
    let stream = target.connect().await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreadable(&error))?;
    let (mut connection, mut asked) = (pin!(connection), pin!(sender.send_request(request)));
    let answer = tokio::select! {
        biased;
        answer = &mut asked => answer,
        // The connection may end in the very poll that brought the answer.
        _ = &mut connection => asked.await,
    };
    let answer = answer.map_err(|error| unreadable(&error))?;
    let status = answer.status().as_u16();
    tokio::select! {
        () = read_body(answer) => {}
        _ = connection => {}
    }
    Ok(status)
}

/// Whatever comes of the body, the status has decided.
async fn read_body(answer: Response<Incoming>) {
    let body = Limited::new(answer.into_body(), BODY);
    let _ = tokio::time::timeout(BODY_WAIT, body.collect()).await;
}

fn unreadable(error: &hyper::Error) -> Failure {
    Failure::Protocol(match error {
        error if error.is_incomplete_message() => "connection closed before an answer".into(),
        error if error.is_parse() => "the answer is not HTTP/1".into(),
        error => std::error::Error::source(error).map_or(error.to_string(), ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one connection with `answer` and returns what was asked.
    fn backend(answer: &'static [u8]) -> (Target, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut bytes = [0; 1024];
            while !asked.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut bytes).unwrap();
                asked.extend_from_slice(&bytes[..read]);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (
            Target {
                address,
                tls: None,
                proxy_protocol: None,
            },
            thread,
        )
    }

    fn probe(host: Option<&str>) -> Http {
        Http {
            path: "/healthz?deep=1".into(),
            host: host.map(Into::into),
            expect: vec![(200, 299), (304, 304)],
            http2: false,
        }
    }

    #[tokio::test]
    async fn it_asks_as_a_polite_client() {
        let (target, thread) = backend(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(probe(None).probe(&target).await, Ok(()));
        let asked = thread.join().unwrap().to_ascii_lowercase();
        assert!(
            asked.starts_with("get /healthz?deep=1 http/1.1\r\n"),
            "{asked}"
        );
        let host = format!("host: {}\r\n", target.address);
        let agent = format!("user-agent: {}\r\n", AGENT.to_ascii_lowercase());
        for line in [host.as_str(), agent.as_str(), "connection: close\r\n"] {
            assert!(asked.contains(line), "{line:?} in {asked}");
        }
    }

    #[tokio::test]
    async fn the_configured_host_is_sent() {
        let (target, thread) = backend(b"HTTP/1.1 304 Not Modified\r\n\r\n");
        assert_eq!(probe(Some("shop.example.com")).probe(&target).await, Ok(()));
        let asked = thread.join().unwrap();
        assert!(asked.contains("host: shop.example.com\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn what_an_answer_means() {
        let failure = |text: &str| Err(Failure::Protocol(text.into()));
        for (answer, outcome) in [
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"[..],
                Ok(()),
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", Ok(())),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nabc",
                Ok(()),
            ),
            (
                b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                Err(Failure::Status(503)),
            ),
            (b"", failure("connection closed before an answer")),
            (b"HTTP/1.1 2", failure("connection closed before an answer")),
            (
                b"SSH-2.0-OpenSSH_9.9\r\n",
                failure("the answer is not HTTP/1"),
            ),
        ] {
            let (target, thread) = backend(answer);
            assert_eq!(probe(None).probe(&target).await, outcome, "{answer:?}");
            thread.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let outcome = probe(None)
            .probe(&Target {
                address,
                tls: None,
                proxy_protocol: None,
            })
            .await;
        assert_eq!(outcome.unwrap_err().to_string(), "connection refused");
    }
}
