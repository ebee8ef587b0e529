//! The filters of a route as a valid file says them: steps that change a request or an answer, or answer it, in the order written.
//! Templates and patterns are read and checked; nothing here holds a file's contents.
//! The walk goes on in `policy/filter/`, which carries them out.

use super::{Access, RateLimit};
use std::path::PathBuf;
use std::time::Duration;

/// A step on a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Changes the header of the request that the backend gets.
    RequestHeaders(HeaderEdits),
    /// Changes the header of the answer that the client gets.
    ResponseHeaders(HeaderEdits),
    /// Changes the path that the backend gets.
    RewritePath(Rewrite),
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers every request.
    Respond(Respond),
    /// Lets scripts of other origins read answers (Fetch Standard, section 3.2).
    Cors(Cors),
    /// Tells browsers what a page may do.
    SecurityHeaders(SecurityHeaders),
    /// What weir's own answers look like.
    ErrorPages(Vec<ErrorPage>),
    /// Asks for a name and a password (RFC 7617).
    BasicAuth(BasicAuth),
    /// Gives each request an id that the backend and the client see.
    RequestId {
        /// Field name as written.
        header: String,
    },
    /// Turns clients away by their address.
    Access(Access),
    /// Turns clients away that ask too often.
    RateLimit(RateLimit),
    /// Compresses answers for clients that take it.
    Compress(Compress),
}

impl Filter {
    /// Its `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Filter::RequestHeaders(_) => "request-headers",
            Filter::ResponseHeaders(_) => "response-headers",
            Filter::RewritePath(_) => "rewrite-path",
            Filter::Redirect(_) => "redirect",
            Filter::Respond(_) => "respond",
            Filter::Cors(_) => "cors",
            Filter::SecurityHeaders(_) => "security-headers",
            Filter::ErrorPages(_) => "error-pages",
            Filter::BasicAuth(_) => "basic-auth",
            Filter::RequestId { .. } => "request-id",
            Filter::Access(_) => "access",
            Filter::RateLimit(_) => "rate-limit",
            Filter::Compress(_) => "compress",
        }
    }

    /// Whether it does something to answers, so that it matters after the end of a request's way too.
    pub fn changes_answers(&self) -> bool {
        !matches!(
            self,
            Filter::RequestHeaders(_)
                | Filter::RewritePath(_)
                | Filter::Redirect(_)
                | Filter::Respond(_)
                | Filter::BasicAuth(_)
                | Filter::Access(_)
                | Filter::RateLimit(_)
        )
    }

    /// The files that it names.
    pub fn files(&self) -> Vec<&PathBuf> {
        match self {
            Filter::ErrorPages(pages) => pages.iter().map(|page| &page.file).collect(),
            Filter::BasicAuth(auth) => vec![&auth.users_file],
            _ => Vec::new(),
        }
    }

    /// Whether no request goes on after it, but one that a redirect would lead to where it is.
    pub fn ends_requests(&self) -> bool {
        matches!(self, Filter::Redirect(_) | Filter::Respond(_))
    }
}

/// What is done to the lines of a header, in this order. Names are as written; `_` in a name counts as `-` when lines are removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// Every line of these names goes.
    pub remove: Vec<String>,
    /// Every line of the name goes, and one with this value comes.
    pub set: Vec<(String, Template)>,
    /// A line comes beside those that are there.
    pub add: Vec<(String, Template)>,
}

/// Another path for the backend; the query stays.
#[derive(Clone, Debug, PartialEq)]
pub enum Rewrite {
    /// A prefix, on segment boundaries, gives way to another one.
    Prefix {
        /// In normal form, without a slash at its end; empty: every path has it.
        prefix: String,
        /// Begins with `/`, and does not end so.
        to: String,
    },
    /// A path that the expression matches gives way to what is made of its groups.
    Regex {
        /// Compiles, within [`MAX_REGEX`].
        regex: String,
        /// The new path.
        to: Vec<Part>,
    },
}

/// Bytes that a compiled expression may take.
pub const MAX_REGEX: usize = 1 << 20;

/// A part of a path that is made from the groups of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// What the group of this ordinal matched.
    Group(usize),
}

/// Where a client is sent; what is absent stays as it is in the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// Another scheme; without a port of its own the new place has the scheme's.
    pub scheme: Option<Scheme>,
    /// Another host.
    pub host: Option<Template>,
    /// Another port.
    pub port: Option<u16>,
    /// Another path; with a `?` in it, another query too.
    pub path: Option<Template>,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// As a URL spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port of a URL without one.
    pub fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// Its body; empty: none, or the error page of the status.
    pub body: String,
    /// What the body is.
    pub content_type: String,
}

/// Which scripts of other origins may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// At least one; [`Origins::Any`] stands alone, and without credentials.
    pub origins: Vec<Origins>,
    /// Beside those that need no asking.
    pub methods: Vec<String>,
    /// Request headers beside those that need no asking.
    pub headers: Vec<String>,
    /// Answer headers that scripts may read beside the usual ones.
    pub expose: Vec<String>,
    /// Whether cookies are sent.
    pub credentials: bool,
    /// How long a browser need not ask again.
    pub max_age: Duration,
}

/// Origins (RFC 6454 section 6.2), as browsers write them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origins {
    /// `*`.
    Any,
    /// This one.
    Exact(String),
    /// `https://*.example.com`: any labels between the two.
    Between {
        /// `https://`.
        scheme: String,
        /// `.example.com`, perhaps with a port.
        suffix: String,
    },
}

/// Headers that answers get unless they have them; absent ones are not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityHeaders {
    /// `Strict-Transport-Security`, to clients that came by TLS.
    pub hsts: Option<String>,
    /// The others, with their values.
    pub always: Vec<(&'static str, String)>,
}

/// A file that is the body of weir's own answers with some statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// First and last status.
    pub statuses: (u16, u16),
    /// Where it is.
    pub file: PathBuf,
}

/// Who may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// What the client's dialogue shows.
    pub realm: String,
    /// Lines of `name:hash`.
    pub users_file: PathBuf,
    /// Whether the backend sees name and password too.
    pub forward: bool,
}

/// Which answers are compressed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// What is offered; of two that a client likes alike the first is taken. Not empty.
    pub algorithms: Vec<Algorithm>,
    /// Bytes that a body of known length has at least.
    pub min_size: u64,
    /// Media types without parameters, the second half of each perhaps `*`.
    pub types: Vec<String>,
    /// How hard to try, 1 to 9; `None`: as [`Algorithm::usual_level`] says.
    pub level: Option<u8>,
}

/// A coding of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Zstandard.
    Zstd,
    /// Brotli.
    Brotli,
    /// DEFLATE within the gzip format.
    Gzip,
}

impl Algorithm {
    /// All of them, in the order in which they are offered when the file says nothing.
    pub const ALL: [Algorithm; 3] = [Algorithm::Zstd, Algorithm::Brotli, Algorithm::Gzip];

    /// Its name in HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Zstd => "zstd",
            Algorithm::Brotli => "br",
            Algorithm::Gzip => "gzip",
        }
    }

    /// The level that makes answers small enough for what it costs.
    pub fn usual_level(self) -> u8 {
        match self {
            Algorithm::Zstd => 3,
            Algorithm::Brotli => 1,
            Algorithm::Gzip => 2,
        }
    }
}

/// Text with variables in it. Its text has no control character.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text.
    Text(String),
    /// What is known of the request under this name.
    Variable(Variable),
}

macro_rules! variables {
    ($($name:ident $text:literal $explanation:literal)*) => {
        /// Something of a request that text can have in it, as `{client_ip}`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Variable { $(#[doc = $explanation] $name,)* }

        impl Variable {
            /// All of them.
            pub const ALL: &[Variable] = &[$(Variable::$name,)*];

            /// Its name, without braces.
            pub fn as_str(self) -> &'static str {
                match self { $(Variable::$name => $text,)* }
            }
        }
    };
}

variables! {
    ClientIp "client_ip" "The client's address, past trusted proxies."
    ClientPort "client_port" "The port that the client came from; empty behind a trusted proxy."
    RequestId "request_id" "The id of the request."
    Host "host" "The host that was asked for, without a port."
    Method "method" "The method."
    Path "path" "The path as it is at this step."
    Query "query" "The query without its `?`; empty without one."
    Scheme "scheme" "`http` or `https`, as the client sees it."
    Listener "listener" "The listener's name."
    Route "route" "The route's name."
    Pool "pool" "The pool's name; `none` on a route without one."
    Backend "backend" "The backend's name, in answers; empty when none was chosen."
    Sni "sni" "The host that the client named in its TLS handshake; empty without one."
    User "user" "Who `basic-auth` let in; empty without it."
}

impl Variable {
    /// Whether it is known only when an answer is there.
    pub fn is_of_answers(self) -> bool {
        self == Variable::Backend
    }
}
