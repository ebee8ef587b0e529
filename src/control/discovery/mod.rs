//! Discovery: backends that the file does not name, from a source that is asked, or that tells by itself, while weir runs.
//! A source gives endpoints and nothing else, never a route or a setting; what it said last stays until it says something better.
//! Read `sources.rs` (which sources run), `board.rs` (what each said), then `dns.rs`, `file.rs` and `http.rs` (one source).

mod board;
mod dns;
mod file;
mod http;
mod kept;
mod list;
mod sources;

use std::pin::Pin;
use std::sync::Arc;

use crate::config::model::{Backend, Discovery};

pub use self::board::{Board, Standing};
pub use self::sources::{Sources, answered};

use self::board::Source;

/// Endpoints that one source may give. An answer with more is refused as a whole: to serve a part of it would be a guess.
pub const MOST: usize = 4096;

/// A source of endpoints. It polls, or waits for events, as it likes; it is ended by being dropped.
///
/// It lives as long as a pool of the served file names it, and must not return. It takes no notice of other sources, of the pool's
/// settings and of what becomes of its answers.
pub trait Provider: Send {
    /// Tells the sink what the source says, whenever that may have changed, and of every failure to find out.
    fn run(self: Box<Self>, sink: Sink) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Where a source tells what it found.
#[derive(Debug)]
pub struct Sink(Arc<Source>);

/// What a source says at one time.
#[derive(Debug, Default)]
pub struct Answer {
    /// Every endpoint, in any order, each address once.
    pub backends: Vec<Backend>,
    /// What could not be found out, if something: the rest is good.
    pub problem: Option<String>,
    /// Whether what could not be found out may have endpoints that are not in the list: then none is taken away.
    pub is_partial: bool,
}

impl Sink {
    /// The source named these endpoints and no others.
    pub fn publish(&self, backends: Vec<Backend>) {
        self.report(Answer {
            backends,
            ..Answer::default()
        });
    }

    /// The source said this. Endpoints as they were are no news; a list of none leaves the last ones in place.
    pub fn report(&self, answer: Answer) {
        self.0.hear(answer);
    }

    /// The source said the same as the last time.
    pub fn confirm(&self) {
        self.0.confirm();
    }

    /// The source could not be asked, or its answer not be used.
    pub fn fail(&self, problem: String) {
        self.0.fail(problem);
    }
}

/// The provider that the settings ask for.
fn provider_for(settings: &Discovery) -> Box<dyn Provider> {
    match settings {
        Discovery::Dns(dns) => Box::new(dns::Dns::new(dns.clone())),
        Discovery::File { path } => Box::new(file::Files::new(path.clone())),
        Discovery::Http(list) => Box::new(http::List::new(list.clone())),
    }
}
