//! The HTTP probe: a GET whose status lies in an expected range is health.
//! It reads no more of the body than politeness asks for, and uses a connection once.
//! The walk goes back to `task.rs`.

use std::pin::{Pin, pin};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderMap, USER_AGENT};
use hyper::{Request, Response, http};
use hyper_util::rt::TokioIo;

use super::{AGENT, Failure, Outcome, Probe, Target, http2};

/// A body is read up to here: what it must have in it stands there, and the backend sees an orderly end instead of a reset.
pub(super) const BODY: usize = 16 * 1024;
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
    /// Statuses by which a backend asks to be drained.
    pub(super) drain_on: Vec<(u16, u16)>,
    /// What the body must have in it.
    pub(super) body: Option<String>,
    /// The header that says how busy the backend is.
    pub(super) load_header: Option<String>,
    /// Whether the backend speaks HTTP/2.
    pub(super) http2: bool,
}

impl Probe for Http {
    fn probe<'a>(
        &'a self,
        target: &'a Target,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            let answer = self.answer(target).await;
            let outcome = match &answer {
                Ok(answer) => self.judge(answer.status, &answer.body),
                Err(failure) => Err(failure.clone()),
            };
            if self.load_header.is_some()
                && let Some(live) = &target.live
            {
                let healthy = answer.ok().filter(|_| outcome.is_ok());
                live.set_reported(healthy.and_then(|answer| answer.load));
            }
            outcome
        })
    }
}

/// What an answer came to, as far as it is wanted.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The body, or as much of it as there is.
    pub(super) body: Vec<u8>,
    /// What the backend says of its load.
    pub(super) load: Option<f32>,
}

/// What is wanted of an answer beside its status.
pub(super) struct Wants<'a> {
    /// Its body.
    pub(super) body: bool,
    /// The header that says how busy the backend is.
    pub(super) load: Option<&'a str>,
}

impl Wants<'_> {
    /// What a head says of the load. What is no number, or none that can be one, is nothing.
    pub(super) fn load_in(&self, head: &HeaderMap) -> Option<f32> {
        let value = head.get(self.load?)?.to_str().ok()?;
        let load: f32 = value.trim().parse().ok()?;
        (load.is_finite() && load >= 0.0).then_some(load)
    }
}

impl Http {
    async fn answer(&self, target: &Target) -> Result<Answer, Failure> {
        let wants = Wants {
            body: self.body.is_some(),
            load: self.load_header.as_deref(),
        };
        if self.http2 {
            return http2::get(target, &self.path, self.host.as_deref(), wants).await;
        }
        let request = self.request(target);
        let request = request.map_err(|error| Failure::Local(error.to_string()))?;
        ask(target, request, wants).await
    }

    fn judge(&self, status: u16, body: &[u8]) -> Outcome {
        let holds = |&(first, last): &(u16, u16)| (first..=last).contains(&status);
        if self.drain_on.iter().any(holds) {
            return Err(Failure::Drain(status));
        }
        if !self.expect.iter().any(holds) {
            return Err(Failure::Status(status));
        }
        let is_in = |text: &String| memchr::memmem::find(body, text.as_bytes()).is_some();
        match self.body.as_ref().filter(|text| !is_in(text)) {
            Some(text) => Err(Failure::Body(text.clone())),
            None => Ok(()),
        }
    }

    fn request(&self, target: &Target) -> http::Result<Request<Empty<Bytes>>> {
        let address = target.address.to_string();
        Request::get(self.path.as_str())
            .header(HOST, self.host.as_ref().unwrap_or(&address))
            .header(USER_AGENT, AGENT)
            .header(CONNECTION, "close")
            .body(Empty::new())
    }
}

async fn ask(
    target: &Target,
    request: Request<Empty<Bytes>>,
    wants: Wants<'_>,
) -> Result<Answer, Failure> {
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
    let (status, load) = (answer.status().as_u16(), wants.load_in(answer.headers()));
    let mut body = Vec::new();
    {
        let mut reading = pin!(read_body(answer, wants.body, &mut body));
        tokio::select! {
            biased;
            () = &mut reading => {}
            // What came with its end is there to be read.
            _ = &mut connection => reading.await,
        }
    }
    Ok(Answer { status, body, load })
}

/// Reads the first of a body. Where nobody wants it, that is for the backend's sake, and does not last.
async fn read_body(answer: Response<Incoming>, wants: bool, read: &mut Vec<u8>) {
    let mut body = answer.into_body();
    let reading = async {
        while read.len() < BODY
            && let Some(Ok(frame)) = body.frame().await
        {
            let data = frame.data_ref().map_or(&[][..], |data| data);
            read.extend_from_slice(&data[..data.len().min(BODY - read.len())]);
        }
    };
    match wants {
        true => reading.await,
        false => tokio::time::timeout(BODY_WAIT, reading)
            .await
            .unwrap_or_default(),
    }
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
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::policy::health::Health;
    use crate::state::backend::Live;

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
                live: None,
            },
            thread,
        )
    }

    fn probe(host: Option<&str>) -> Http {
        Http {
            path: "/healthz?deep=1".into(),
            host: host.map(Into::into),
            expect: vec![(200, 299), (304, 304)],
            drain_on: vec![(404, 404)],
            body: None,
            load_header: None,
            http2: false,
        }
    }

    #[tokio::test]
    async fn a_backend_says_how_busy_it_is_while_it_is_well() {
        let live = Live::new(
            "127.0.0.1:1".parse().unwrap(),
            Health::Up,
            Arc::default(),
            1,
            clock::now(),
        );
        let live = Arc::new(live);
        for (answer, load) in [
            (&b"HTTP/1.1 200 OK\r\nX-Load: 71.5\r\n\r\n"[..], Some(71.5)),
            (b"HTTP/1.1 200 OK\r\nx-load:  0 \r\n\r\n", Some(0.0)),
            (b"HTTP/1.1 200 OK\r\n\r\n", None),
            (b"HTTP/1.1 200 OK\r\nX-Load: 3\r\n\r\n", Some(3.0)),
            (b"HTTP/1.1 503 No\r\nX-Load: 4\r\n\r\n", None),
            (b"HTTP/1.1 200 OK\r\nX-Load: -1\r\n\r\n", None),
            (b"HTTP/1.1 200 OK\r\nX-Load: NaN\r\n\r\n", None),
            (b"HTTP/1.1 200 OK\r\nX-Load: much\r\n\r\n", None),
        ] {
            let (mut target, thread) = backend(answer);
            target.live = Some(live.clone());
            let probe = Http {
                load_header: Some("x-load".into()),
                ..probe(None)
            };
            let _ = probe.probe(&target).await;
            assert_eq!(live.reported(), load, "{answer:?}");
            thread.join().unwrap();
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
    async fn a_body_must_have_what_is_wanted_and_a_status_may_ask_for_a_drain() {
        let no = || Err(Failure::Body("ready: yes".into()));
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}ready: yes", "x".repeat(BODY)).leak();
        for (answer, outcome) in [
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\na\nready: yes\nb"[..],
                Ok(()),
            ),
            (b"HTTP/1.1 200 OK\r\n\r\nready: yes", Ok(())),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nready: no",
                no(),
            ),
            (b"HTTP/1.1 204 No Content\r\n\r\n", no()),
            (long.as_bytes(), no()),
            (
                b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n",
                Err(Failure::Drain(404)),
            ),
            (
                b"HTTP/1.1 500 Oh\r\nContent-Length: 10\r\n\r\nready: yes",
                Err(Failure::Status(500)),
            ),
        ] {
            let (target, thread) = backend(answer);
            let probe = Http {
                body: Some("ready: yes".into()),
                ..probe(None)
            };
            assert_eq!(probe.probe(&target).await, outcome);
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
                live: None,
            })
            .await;
        assert_eq!(outcome.unwrap_err().to_string(), "connection refused");
    }
}
