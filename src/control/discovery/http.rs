//! A server that hands out a list: a GET now and then, with the ETag of the last answer, so that a list that did not change stays where it is.
//! It must never read more than a list may have, nor wait longer than it may take.
//! The walk goes on in `list.rs`, which reads the answer.

use std::pin::Pin;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH, USER_AGENT};
use hyper::{Request, StatusCode};
use tokio::time::{Instant, sleep_until, timeout};

use super::list::{self, MAX_BYTES};
use super::{Provider, Sink};
use crate::config::model::{Backend, HttpList};
use crate::control::outbound;
use crate::rng::Rng;

/// Who weir says it is.
const AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"), " (discovery)");
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
        let mut request = Request::get("/")
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json");
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let place = &self.settings.place;
        let answer = outbound::ask(place, request, Bytes::new(), MAX_BYTES).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if self.etag.is_some() => return Ok(Said::Same),
            status => return Err(format!("status {}", status.as_u16())),
        }
        let etag = answer.headers.get(ETAG).cloned();
        let text = std::str::from_utf8(&answer.body).map_err(|_| "not UTF-8 text".to_owned())?;
        Ok(Said::List(list::from_json(text)?, etag))
    }
}
