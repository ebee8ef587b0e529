//! The filters of a route, compiled: steps on a request before its backend is chosen, and on the answer before the client gets it.
//! They decide over facts and list edits; they send nothing, and what must wait or be counted elsewhere is asked for by a [`Flow`].
//! Read this file, then the step you are after; the walk goes on in `l7/filter.rs`, which runs them.

mod basic_auth;
pub mod compress;
mod cors;
mod headers;
mod memory;
mod pages;
mod path;
mod protect;
mod redirect;
mod request_id;
mod respond;
mod security;
mod template;
mod users;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::facts::Facts;
use crate::config::model::{Filter, PathChecks};
use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, RequestHead};
use crate::http::path::PathFault;

use basic_auth::BasicAuth;
pub use basic_auth::Claim;
use compress::{Compress, Wish};
use cors::Cors;
use headers::Headers;
pub use memory::Memory;
use pages::ErrorPages;
use path::RewritePath;
pub use protect::Limits;
use redirect::Redirect;
use request_id::RequestId;
use respond::Respond;
use security::SecurityHeaders;
pub use users::Users;

/// The filters of a route in the order written.
#[derive(Debug)]
pub struct Filters(Vec<AnyFilter>);

/// A step.
#[derive(Debug)]
enum AnyFilter {
    RequestHeaders(Headers),
    ResponseHeaders(Headers),
    RewritePath(RewritePath),
    Redirect(Redirect),
    Respond(Respond),
    RequestId(RequestId),
    Cors(Cors),
    SecurityHeaders(SecurityHeaders),
    ErrorPages(ErrorPages),
    BasicAuth(BasicAuth),
    Access(protect::Access),
    RateLimit(protect::RateLimit),
    Compress(Compress),
}

/// What is in the files that filters name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Of `error-pages`.
    pub pages: HashMap<PathBuf, Arc<[u8]>>,
    /// Of `basic-auth`.
    pub users: HashMap<PathBuf, Arc<Users>>,
}

/// What is known of a request on its way out and back.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The client's address, past trusted proxies.
    pub client: IpAddr,
    /// The port that it came from; `None` behind a trusted proxy.
    pub port: Option<u16>,
    /// Whether who sent the request is a trusted proxy.
    pub trusted: bool,
    /// Whether the client came by TLS.
    pub secure: bool,
    /// The id of the request in the log.
    pub id: u64,
    /// The method.
    pub method: &'a [u8],
    /// The authority that was asked for; empty when an HTTP/1.0 client sent none.
    pub authority: &'a [u8],
    /// Path and query as they came.
    pub target: &'a [u8],
    /// The host that the client named in its TLS handshake; empty without one.
    pub sni: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The pool's name.
    pub pool: &'a str,
    /// The backend's name; empty on requests, and where none was reached.
    pub backend: &'a str,
}

/// A request as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is known of it.
    pub view: &'a View<'a>,
    /// What every decision may look at.
    pub facts: &'a Facts<'a>,
    /// Its head as it came.
    pub head: &'a RequestHead<'a>,
    /// How strict its listener is with paths.
    pub checks: PathChecks,
    /// Whether this filter let the request pass before: it is tried again, or waited for something. Who counts must not count twice.
    pub again: bool,
}

/// What a filter makes of a request.
#[derive(Debug)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// It is answered.
    Answer(Answer),
    /// It is not sent.
    Refuse(Refusal),
    /// It goes on if the claim is true: [`Memory::judge`], then [`Filters::resume`], or all over again.
    Ask(Claim),
}

/// Why a request is not sent: what a change made of it, or whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its path.
    Path(PathFault),
    /// Its host.
    Host,
    /// Its client may not come in.
    Denied,
    /// Its client asks more often than it may.
    Limited {
        /// The place of the filter among those of the route.
        place: usize,
        /// After what time the next may pass.
        wait: Duration,
    },
}

/// An answer of weir's own.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Why it is given.
    pub reason: Reason,
    /// Its status, 200 to 599.
    pub status: u16,
    /// Its field lines, each with its CRLF; without framing and the type of the body.
    pub fields: Vec<u8>,
    /// Its body.
    pub body: Body,
}

/// The body of an answer of weir's own.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// What it is.
    pub content_type: Arc<str>,
    /// What it says; empty: nothing, nor what it would be.
    pub bytes: Arc<[u8]>,
}

/// Why a filter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Because it was told to: nothing is wrong.
    Meant,
    /// Nobody said who it is, or somebody said it wrongly.
    Unauthorized,
}

impl Filters {
    /// Compiles them; `None` when there are none.
    pub fn new(filters: &[Filter]) -> Option<Box<Filters>> {
        let mut doors = 0..;
        let filters = filters.iter().enumerate();
        let list = filters.filter_map(|(place, filter)| match filter {
            Filter::BasicAuth(auth) => {
                let auth = BasicAuth::new(auth, doors.next()?);
                Some(AnyFilter::BasicAuth(auth))
            }
            filter => AnyFilter::new(filter, place),
        });
        let list: Vec<AnyFilter> = list.collect();
        (!list.is_empty()).then(|| Box::new(Filters(list)))
    }

    /// Takes what is in the files that its filters name.
    pub fn attach(&mut self, files: &Files) {
        for filter in &mut self.0 {
            if let AnyFilter::ErrorPages(pages) = filter {
                pages.attach(files);
            }
        }
    }

    /// The files of users, one for each door that its filters ask at, in order.
    pub fn users_files(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|filter| match filter {
            AnyFilter::BasicAuth(auth) => Some(auth.users_file()),
            _ => None,
        })
    }

    /// What an answer of weir's own with this status looks like, where a filter says so.
    pub fn page(&self, status: u16, push_id: impl Fn(&mut Vec<u8>)) -> Option<Body> {
        self.0.iter().find_map(|filter| match filter {
            AnyFilter::ErrorPages(pages) => pages.page(status, &push_id),
            _ => None,
        })
    }

    /// Takes a request through the steps, from the first one each time; what they found out is in `memory`. `edits` are those of the
    /// request's head, `limits` those of the route.
    pub fn request(
        &self,
        request: Request<'_>,
        limits: &dyn Limits,
        memory: &mut Memory,
        edits: &mut Edits,
    ) -> Flow {
        memory.target.clear();
        self.run(0, request, limits, memory, edits)
    }

    /// Goes on where a filter asked, with what is known now.
    pub fn resume(
        &self,
        request: Request<'_>,
        limits: &dyn Limits,
        memory: &mut Memory,
        edits: &mut Edits,
    ) -> Flow {
        self.run(memory.passed, request, limits, memory, edits)
    }

    fn run(
        &self,
        from: usize,
        request: Request<'_>,
        limits: &dyn Limits,
        memory: &mut Memory,
        edits: &mut Edits,
    ) -> Flow {
        for (ordinal, filter) in self.0.iter().enumerate().skip(from) {
            let again = ordinal < memory.passed;
            let request = Request { again, ..request };
            match filter.request(&request, limits, memory, edits) {
                Flow::Continue => memory.passed = memory.passed.max(ordinal + 1),
                end => return end,
            }
        }
        edits.set_target(&memory.target);
        Flow::Continue
    }

    /// Takes an answer's head through the steps, be it the backend's or weir's own.
    pub fn answer(
        &self,
        view: &View<'_>,
        memory: &Memory,
        head: &AnswerHead<'_>,
        edits: &mut Edits,
    ) {
        for filter in &self.0 {
            filter.answer(view, memory, head, edits);
        }
    }

    /// How an answer of a backend with a body of `length`, if that is known, is to be coded; the first filter that has to do with it
    /// says so. What caches must know of it is added to `edits`.
    pub fn coding(
        &self,
        memory: &Memory,
        head: &AnswerHead<'_>,
        length: Option<u64>,
        edits: &mut Edits,
    ) -> Option<Wish> {
        let mut filters = self.0.iter();
        filters.find_map(|filter| match filter {
            AnyFilter::Compress(filter) => filter.judge(memory, head, length, edits),
            _ => None,
        })?
    }
}

impl AnyFilter {
    /// Patterns were compiled before, when the file was read.
    fn new(filter: &Filter, place: usize) -> Option<AnyFilter> {
        Some(match filter {
            Filter::RequestHeaders(edits) => AnyFilter::RequestHeaders(Headers::new(edits)),
            Filter::ResponseHeaders(edits) => AnyFilter::ResponseHeaders(Headers::new(edits)),
            Filter::RewritePath(rewrite) => AnyFilter::RewritePath(RewritePath::new(rewrite)?),
            Filter::Redirect(redirect) => AnyFilter::Redirect(Redirect::new(redirect)),
            Filter::Respond(respond) => AnyFilter::Respond(Respond::new(respond)),
            Filter::RequestId { header } => AnyFilter::RequestId(RequestId::new(header)),
            Filter::Cors(cors) => AnyFilter::Cors(Cors::new(cors)),
            Filter::SecurityHeaders(headers) => {
                AnyFilter::SecurityHeaders(SecurityHeaders::new(headers))
            }
            Filter::ErrorPages(pages) => AnyFilter::ErrorPages(ErrorPages::new(pages)),
            // It has a door, which is numbered above.
            Filter::BasicAuth(_) => return None,
            Filter::Access(rule) => AnyFilter::Access(protect::Access::new(rule)?),
            Filter::RateLimit(_) => AnyFilter::RateLimit(protect::RateLimit::new(place)),
            Filter::Compress(settings) => AnyFilter::Compress(Compress::new(settings)),
        })
    }

    fn request(
        &self,
        request: &Request<'_>,
        limits: &dyn Limits,
        memory: &mut Memory,
        edits: &mut Edits,
    ) -> Flow {
        match self {
            AnyFilter::RequestHeaders(filter) => filter.request(request, memory, edits),
            AnyFilter::RewritePath(filter) => filter.request(request, memory),
            AnyFilter::Redirect(filter) => filter.request(request, memory),
            AnyFilter::Respond(filter) => filter.request(),
            AnyFilter::RequestId(filter) => filter.request(request, memory, edits),
            AnyFilter::Cors(filter) => filter.request(request, memory),
            AnyFilter::BasicAuth(filter) => filter.request(request, memory, edits),
            AnyFilter::ResponseHeaders(_)
            | AnyFilter::SecurityHeaders(_)
            | AnyFilter::ErrorPages(_) => Flow::Continue,
            AnyFilter::Access(filter) => filter.request(request),
            AnyFilter::RateLimit(filter) => filter.request(request, limits),
            AnyFilter::Compress(filter) => filter.request(request, memory),
        }
    }

    fn answer(&self, view: &View<'_>, memory: &Memory, head: &AnswerHead<'_>, edits: &mut Edits) {
        match self {
            AnyFilter::ResponseHeaders(filter) => filter.answer(view, memory, head, edits),
            AnyFilter::RequestId(filter) => filter.answer(view, memory, head, edits),
            AnyFilter::Cors(filter) => filter.answer(memory, head, edits),
            AnyFilter::SecurityHeaders(filter) => filter.answer(view, head, edits),
            AnyFilter::RequestHeaders(_)
            | AnyFilter::ErrorPages(_)
            | AnyFilter::BasicAuth(_)
            | AnyFilter::RewritePath(_)
            | AnyFilter::Redirect(_)
            | AnyFilter::Respond(_)
            | AnyFilter::Access(_)
            | AnyFilter::RateLimit(_)
            | AnyFilter::Compress(_) => {}
        }
    }
}

impl<'a> View<'a> {
    /// `http` or `https`.
    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

impl Answer {
    /// An answer that was meant, without a body.
    fn meant(status: u16, fields: Vec<u8>) -> Answer {
        Answer {
            reason: Reason::Meant,
            status,
            fields,
            body: Body::default(),
        }
    }
}

#[cfg(test)]
mod tests;
