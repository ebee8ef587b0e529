//! A server that hands out a list: a GET now and then, with the ETag of the last answer, so that a list that did not change stays where it is.
//! It must never read more than a list may have, nor wait longer than it may take.
//! The walk goes on in `list.rs`, which reads the answer.

use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, ETAG, HOST, HeaderValue, IF_NONE_MATCH, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::list::{self, MAX_BYTES};
use super::{Provider, Sink};
use crate::config::model::{Backend, HttpList};
use crate::rng::Rng;

/// Who weir says it is.
const AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"), " (discovery)");
/// Bytes that the head of an answer may have.
const HEAD: usize = 64 * 1024;
/// Addresses of the server that are tried.
const ADDRESSES: usize = 4;

/// One list.
pub(super) struct List {
    settings: HttpList,
    /// What the last good answer was called.
    etag: Option<HeaderValue>,
    rng: Rng,
}

/// What an answer says.
enum Said {
    /// A list, and what it is called.
    List(Vec<Backend>, Option<HeaderValue>),
    /// The list of the last answer.
    Same,
}

impl Provider for List {
    fn run(self: Box<Self>, sink: Sink) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.ask(sink))
    }
}

impl List {
    pub(super) fn new(settings: HttpList) -> Self {
        List {
            settings,
            etag: None,
            rng: Rng::from_system(),
        }
    }

    async fn ask(mut self, sink: Sink) {
        let mut start = Instant::now();
        loop {
            sleep_until(start).await;
            let asked = timeout(self.settings.timeout, self.fetch()).await;
            let asked = asked
                .unwrap_or_else(|_| Err(format!("no answer within {:?}", self.settings.timeout)));
            match asked {
                Ok(Said::Same) => sink.confirm(),
                Ok(Said::List(backends, etag)) => {
                    // A list that was not taken must be sent again.
                    self.etag = etag.filter(|_| !backends.is_empty());
                    sink.publish(backends);
                }
                Err(problem) => sink.fail(problem),
            }
            start = Instant::now().max(start + self.interval());
        }
    }

    /// Give or take a tenth.
    fn interval(&mut self) -> Duration {
        let part = f64::from(self.rng.below(1 << 20)) / f64::from(1 << 20);
        self.settings.interval.mul_f64(0.9 + 0.2 * part)
    }

    async fn fetch(&self) -> Result<Said, String> {
        let stream = self
            .connect()
            .await
            .map_err(|error| format!("no connection: {error}"))?;
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(unreadable)?;
        let request = self.request().map_err(|error| error.to_string())?;
        let (mut connection, asked) = (pin!(connection), pin!(sender.send_request(request)));
        let mut said = pin!(async {
            let answer = asked.await.map_err(unreadable)?;
            self.read(answer).await
        });
        tokio::select! {
            biased;
            said = &mut said => said,
            // What it read by then is still to be had.
            _ = &mut connection => said.await,
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let HttpList { host, port, .. } = &self.settings;
        let mut failure = io::Error::other("the host has no address");
        for address in tokio::net::lookup_host(format!("{host}:{port}"))
            .await?
            .take(ADDRESSES)
        {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn request(&self) -> hyper::http::Result<Request<Empty<Bytes>>> {
        let HttpList {
            host, port, target, ..
        } = &self.settings;
        let host = match port {
            80 => host.clone(),
            port => format!("{host}:{port}"),
        };
        let mut request = Request::get(target.as_str())
            .header(HOST, host)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close");
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        request.body(Empty::new())
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Said, String> {
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if self.etag.is_some() => return Ok(Said::Same),
            status => return Err(format!("status {}", status.as_u16())),
        }
        let etag = answer.headers().get(ETAG).cloned();
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let bytes = body
            .map_err(|error| format!("the answer cannot be read: {error}"))?
            .to_bytes();
        let text = std::str::from_utf8(&bytes).map_err(|_| "not UTF-8 text".to_owned())?;
        Ok(Said::List(list::from_json(text)?, etag))
    }
}

fn unreadable(error: hyper::Error) -> String {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    format!("no answer: {}", cause.unwrap_or_else(|| error.to_string()))
}
