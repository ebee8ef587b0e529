//! Persistence ("sticky" in the configuration): knowing a client again and keeping it with its backend.
//! It never chooses among healthy backends itself, and never fails a request: a client it cannot read is a new one.
//! The walk goes on in one file a mode, `token.rs` (their keys) and `policy/choose.rs` (which asks a mode first).
//!
//! What a request's stickiness came to ([`Stickiness`]), and when a mode can tell:
//!
//! | result | it means | modes |
//! |---|---|---|
//! | `kept` | the client went to its home | all |
//! | `new` | it had no home; the balancer chose one | all but `source`; with `learn` also who has a session that weir does not know |
//! | `moved` | it went to its successor, for a while or for good, and its session need not be lost by that; or, with shared sessions, elsewhere this once, since its home is busy | all |
//! | `lost` | the same, but `sessions = "local"` and its home is down or gone from the file: with `insert` once a client, else for each request until it has another session or, with `learn`, another home | all; of what is gone from the file, `insert`, `route` and `learn` |
//! | `returned` | the first request back home | `insert`: no other token says where a client was |
//! | `expired` | its token or session was too old; a new client | `insert`, `learn` with `absolute_timeout` |
//! | `forged` | it showed what weir did not make; a new client | `insert`, `cookie-hash` |

mod cookie_hash;
mod header;
mod insert;
mod learn;
mod private;
mod remembered;
mod route;
mod source;
pub mod token;
mod told;

pub use cookie_hash::CookieHash;
pub use header::Header;
pub use insert::{Insert, InsertTimes};
pub use learn::{Learn, Lesson, StoreKeys};
pub use remembered::Remembered;
pub use route::Route;
pub use source::Source;
pub use told::{Scope, Told};

use super::balance::BackendIndex;
use super::balance::Bound;
use super::facts::Facts;
use super::rendezvous::{self, Rendezvous};
use crate::config::model::{OnFailure, Rebalance, Sessions};
use crate::http::cookie::{self, Given};
use crate::http::edits::Edits;
use crate::http::head::{AnswerHead, RequestHead};

/// What became of a client's stickiness in one request: the `result` of `weir_sticky_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stickiness {
    /// It went to its home.
    Kept,
    /// It had no home; it has now.
    New,
    /// It went to its successor, and its session need not be lost by that.
    Moved,
    /// It went home again after a time with its successor.
    Returned,
    /// It went to its successor, and what its home held in memory is gone or out of reach.
    Lost,
    /// Its token was too old.
    Expired,
    /// It showed a token that weir did not make.
    Forged,
}

impl Stickiness {
    /// Whether the client had no home that counts, so that it was placed anew.
    pub fn is_new(self) -> bool {
        matches!(
            self,
            Stickiness::New | Stickiness::Expired | Stickiness::Forged
        )
    }

    /// Every result, in the order of their numbers.
    pub const ALL: [Stickiness; 7] = [
        Stickiness::Kept,
        Stickiness::New,
        Stickiness::Moved,
        Stickiness::Returned,
        Stickiness::Lost,
        Stickiness::Expired,
        Stickiness::Forged,
    ];

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Stickiness::Kept => "kept",
            Stickiness::New => "new",
            Stickiness::Moved => "moved",
            Stickiness::Returned => "returned",
            Stickiness::Lost => "lost",
            Stickiness::Expired => "expired",
            Stickiness::Forged => "forged",
        }
    }
}

/// The stickiness of a route.
#[derive(Debug)]
pub struct Sticky {
    /// What a client is known by.
    pub mode: AnyPersistence,
    /// Where the application keeps its sessions.
    pub sessions: Sessions,
    /// What happens while a home cannot serve.
    pub on_failure: OnFailure,
    /// How unevenly live sessions may lie.
    pub bound: Bound,
    /// Whether requests that may be the first ones of one client go to one backend.
    pub first_flight: bool,
    /// How idle clients get another home to even out, if they do.
    pub rebalance: Option<Rebalance>,
    /// Name of the cookie that holds the application's session id.
    pub session_cookie: cookie::Name,
}

/// What a request says about its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// Nothing.
    New,
    /// It has a home.
    Keep(Home),
    /// It had one, too long ago.
    Expired,
    /// Something that weir did not make.
    Forged,
    /// A session that a store elsewhere may know.
    Ask,
}

/// Where a client belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its backend, whatever the state that it is in; `None` when the pool has none of that name any more.
    pub backend: Option<BackendIndex>,
    /// The client's key to the pool's [`Rendezvous`], which names the successors.
    pub key: u64,
    /// Where it was last, if that was not at home.
    pub refuge: Option<BackendIndex>,
    /// Whether it was away for so long that the refuge is to be its home.
    pub settled: bool,
    /// Whether its token is to be written anew, whatever happens.
    stale: bool,
    times: Times,
}

impl Home {
    /// A home that follows from the client's key, or from what the application says.
    fn of_key(key: u64, backend: Option<BackendIndex>) -> Home {
        Home {
            backend,
            key,
            refuge: None,
            settled: false,
            stale: false,
            times: Times::default(),
        }
    }
}

impl Home {
    /// When the client's token was issued, when it was written last, and when the client left its home, in seconds since the
    /// epoch; absent where the mode does not know it.
    pub fn times(&self) -> [Option<u32>; 3] {
        let Times { issued, seen, left } = self.times;
        [issued, seen, left].map(|time| (time > 0).then_some(time))
    }
}

/// Points of time of a token, in seconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    issued: u32,
    seen: u32,
    /// When the client left its home; 0 while it is there.
    left: u32,
}

/// What an `insert` token will say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// As bytes, since this is kept while a request is in flight and must be small.
    key: [u8; 8],
    home: BackendIndex,
    /// Where the client is sent now.
    last: BackendIndex,
    times: Times,
}

/// What a client is to show from now on; it is sealed when the answer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// The id of a `cookie-hash` token.
    Id([u8; 16]),
    /// What an `insert` token says.
    Ticket(Ticket),
}

/// What was chosen for a client, as far as its answer must tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// How it came about.
    pub stickiness: Stickiness,
    /// What the client is to show from now on.
    pub tell: Option<Tell>,
    /// Whether it is told only if the answer opens a session of the application, which then lives where the client is now.
    pub only_with_session: bool,
    /// Whether the backend is its home from now on, and another one was before.
    pub for_good: bool,
    /// Whether it left a home of `local` sessions for this request alone, because that was just now out of reach: its session is
    /// *lost* if the answer opens another.
    pub in_passing: bool,
    /// The backend that was its home when it came.
    pub home: Option<BackendIndex>,
    /// What a client with a home is known by, as [`Home::key`].
    pub key: Option<[u8; 8]>,
    /// Whether it need not stay if its session turns out to be over: its home drains, and others take new clients.
    pub may_leave: bool,
}

impl Chosen {
    /// The home of a client that was sent to `backend` and shows from now on what it was told; `None` when it was told nothing.
    pub fn told_home(&self, backend: BackendIndex) -> Option<Home> {
        match self.tell? {
            Tell::Id(id) => Some(Home::of_key(rendezvous::key(&id), Some(backend))),
            Tell::Ticket(ticket) => Some(Home {
                times: ticket.times,
                ..Home::of_key(u64::from_be_bytes(ticket.key), Some(ticket.home))
            }),
        }
    }
}

impl Chosen {
    /// What it came to, now that the answer is there; `session` is what that does to the application's session id.
    pub fn result(&self, session: Given<'_>) -> Stickiness {
        match session {
            Given::Value(_) if self.in_passing => Stickiness::Lost,
            _ => self.stickiness,
        }
    }
}

/// What a mode may use to make a token.
pub struct Means<'a> {
    /// The pool's backends, ranked for every client.
    pub ring: &'a Rendezvous,
    /// The facts of the decision.
    pub facts: &'a Facts<'a>,
    /// Fills bytes from the system's CSPRNG.
    pub fill_secure: &'a mut dyn FnMut(&mut [u8]),
}

/// The final answer as a mode sees it.
pub struct Answered<'a> {
    /// Its head.
    pub head: &'a AnswerHead<'a>,
    /// Whether it opens a session of the application.
    pub opens_session: bool,
    /// Whether the client came by TLS.
    pub secure: bool,
}

/// One sticky mode. What a mode without a cookie of weir's has no part in does nothing.
pub trait Persistence {
    /// What the request says about its client. `remembered` is the connection's.
    fn recall(
        &self,
        facts: &Facts<'_>,
        ring: &Rendezvous,
        remembered: &mut Option<Remembered>,
    ) -> Recall;

    /// What to tell a new client that the balancer gave to `backend`; `None` when there is nothing to tell, and the client stays new.
    fn admit(&self, _backend: BackendIndex, _means: &mut Means<'_>) -> Option<Tell> {
        None
    }

    /// What to tell a client with a home that goes `to` a backend, which is to be its home from now on if `for_good`.
    fn place(
        &self,
        _home: &Home,
        _to: BackendIndex,
        _for_good: bool,
        _means: &mut Means<'_>,
    ) -> Placed {
        Placed::default()
    }

    /// Takes what is between the client and weir out of a request.
    fn conceal(&self, _head: &RequestHead<'_>, _edits: &mut Edits) {}

    /// Tells the client on its final answer what to show from now on; whether it did.
    fn remember(
        &self,
        _chosen: &Chosen,
        _answer: &Answered<'_>,
        _fill_secure: &mut dyn FnMut(&mut [u8]),
        _edits: &mut Edits,
    ) -> bool {
        false
    }
}

/// What [`Persistence::place`] wants told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// See [`Chosen::tell`].
    pub tell: Option<Tell>,
    /// See [`Chosen::only_with_session`].
    pub only_with_session: bool,
}

impl Sticky {
    /// Takes what is between the client and weir out of a request.
    pub fn conceal(&self, head: &RequestHead<'_>, edits: &mut Edits) {
        self.mode.conceal(head, edits);
    }

    /// The application's session id that a request shows. A path parameter counts where the mode reads it.
    #[inline]
    pub fn session<'a>(&self, head: &RequestHead<'a>) -> Option<&'a [u8]> {
        let name = &self.session_cookie;
        cookie::values(head, name)
            .find(|id| !id.is_empty())
            .or_else(|| match &self.mode {
                AnyPersistence::Route(_) => route::parameters(head.path, name.as_bytes()).next(),
                _ => None,
            })
    }

    /// What an answer does to the application's session id.
    pub fn given<'a>(&self, head: &AnswerHead<'a>) -> Given<'a> {
        cookie::given(head, &self.session_cookie)
    }

    /// Tells the client on its final answer what to show from now on; whether it did. `session` is what the answer does to the
    /// application's session id, `secure` says whether the client came by TLS.
    pub fn remember(
        &self,
        chosen: &Chosen,
        head: &AnswerHead<'_>,
        session: Given<'_>,
        secure: bool,
        fill_secure: &mut dyn FnMut(&mut [u8]),
        edits: &mut Edits,
    ) -> bool {
        let opens_session = matches!(session, Given::Value(_));
        if chosen.tell.is_none() || chosen.only_with_session && !opens_session {
            return false;
        }
        let answer = Answered {
            head,
            opens_session,
            secure,
        };
        self.mode.remember(chosen, &answer, fill_secure, edits)
    }
}

/// Every sticky mode.
#[derive(Debug)]
pub enum AnyPersistence {
    /// See [`Insert`].
    Insert(Insert),
    /// See [`CookieHash`].
    CookieHash(CookieHash),
    /// See [`Route`].
    Route(Route),
    /// See [`Learn`].
    Learn(Learn),
    /// See [`Source`].
    Source(Source),
    /// See [`Header`].
    Header(Header),
}

impl AnyPersistence {
    /// Whether a client's home follows from its key alone, so that nothing tells whether it has been there, and no other can be told.
    pub fn is_by_key(&self) -> bool {
        matches!(self, AnyPersistence::Source(_) | AnyPersistence::Header(_))
    }

    /// A number that tells the cookies of this mode apart from all others; 0 in a mode without one.
    pub fn scope(&self) -> u64 {
        match self {
            AnyPersistence::Insert(mode) => mode.scope(),
            AnyPersistence::CookieHash(mode) => mode.scope(),
            AnyPersistence::Route(_)
            | AnyPersistence::Learn(_)
            | AnyPersistence::Source(_)
            | AnyPersistence::Header(_) => 0,
        }
    }
}

macro_rules! of_mode {
    ($any:expr, $mode:ident => $call:expr) => {
        match $any {
            AnyPersistence::Insert($mode) => $call,
            AnyPersistence::CookieHash($mode) => $call,
            AnyPersistence::Route($mode) => $call,
            AnyPersistence::Learn($mode) => $call,
            AnyPersistence::Source($mode) => $call,
            AnyPersistence::Header($mode) => $call,
        }
    };
}

impl Persistence for AnyPersistence {
    #[inline]
    fn recall(
        &self,
        facts: &Facts<'_>,
        ring: &Rendezvous,
        remembered: &mut Option<Remembered>,
    ) -> Recall {
        of_mode!(self, mode => mode.recall(facts, ring, remembered))
    }

    fn admit(&self, backend: BackendIndex, means: &mut Means<'_>) -> Option<Tell> {
        of_mode!(self, mode => mode.admit(backend, means))
    }

    fn place(
        &self,
        home: &Home,
        to: BackendIndex,
        for_good: bool,
        means: &mut Means<'_>,
    ) -> Placed {
        of_mode!(self, mode => mode.place(home, to, for_good, means))
    }

    fn conceal(&self, head: &RequestHead<'_>, edits: &mut Edits) {
        of_mode!(self, mode => mode.conceal(head, edits));
    }

    fn remember(
        &self,
        chosen: &Chosen,
        answer: &Answered<'_>,
        fill_secure: &mut dyn FnMut(&mut [u8]),
        edits: &mut Edits,
    ) -> bool {
        of_mode!(self, mode => mode.remember(chosen, answer, fill_secure, edits))
    }
}
