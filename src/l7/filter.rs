//! Runs the filters of a route: on a request before its backend is chosen, on the answer before its head is written.
//! It decides nothing: steps are in `policy/filter/`. A route without filters costs one branch in each direction.
//! The walk goes back to `plan.rs` and `answer.rs`; answers of weir's own go through `respond.rs`.

use super::exchange::Exchange;
use super::protect;
use super::reject::Failure;
use crate::http::answer;
use crate::http::edits::Edits;
use crate::http::fault::Fault;
use crate::http::forwarding::Source;
use crate::http::head::{AnswerHead, RequestHead};
use crate::policy::facts::Facts;
use crate::policy::filter::{Answer, Filters, Flow, Memory, Reason, Refusal, Request, View};
use crate::state::snapshot::{Route, Snapshot};
use crate::upstream::coders::LentCoder;
use crate::upstream::local::Local;

/// What the filters of a route found out about a request, and the answer that they gave.
#[derive(Debug)]
pub(super) struct Filtered {
    pub(super) memory: Memory,
    /// Codes the body, if the client gets it in another form.
    pub(super) coder: Option<LentCoder>,
    trusted: bool,
    answer: Option<Answer>,
}

/// What the filters of a route found out for the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// The id that backend and client were shown; empty: none.
    pub(super) id: Vec<u8>,
    /// Who it is; empty: nobody was asked.
    pub(super) user: String,
}

/// Where a request came in and what it is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) listener: usize,
    pub(super) route: &'a Route,
    pub(super) remote: std::net::SocketAddr,
    pub(super) id: u64,
}

/// Takes a request through the filters of its route; what they change is added to `edits`.
///
/// # Errors
/// A filter answered, or what it made of the request cannot be sent.
#[cold]
pub(super) fn filter_request(
    filters: &Filters,
    entry: Entry<'_>,
    (head, source, facts): (&RequestHead<'_>, &Source, &Facts<'_>),
    filtered: &mut Option<Box<Filtered>>,
    local: &Local,
    edits: &mut Edits,
) -> Result<(), Failure> {
    let filtered = filtered.get_or_insert_with(|| {
        Box::new(Filtered {
            memory: Memory::new(local.rng.borrow_mut().next_u64()),
            trusted: source.trusted,
            coder: None,
            answer: None,
        })
    });
    let view = View {
        client: source.client,
        secure: source.secure,
        method: head.method,
        authority: head.authority,
        target: head.path_and_query,
        ..entry.view(source.trusted)
    };
    let request = Request {
        view: &view,
        facts,
        head,
        checks: entry.snapshot.listeners[entry.listener].path_checks,
        again: false,
    };
    let limits = protect::Tokens(entry.route);
    match filters.request(request, &limits, &mut filtered.memory, edits) {
        Flow::Continue if entry.leads_nowhere() => Err(Failure::NoRoute),
        Flow::Continue => Ok(()),
        Flow::Refuse(Refusal::Denied) => {
            Err(protect::deny_on(entry.route, source.client, facts.now))
        }
        Flow::Refuse(Refusal::Limited { place, wait }) => {
            let who = (source.client, facts.now);
            Err(protect::limit_on(entry.route, place, wait, who))
        }
        Flow::Refuse(Refusal::Path(fault)) => Err(Failure::Path(fault)),
        Flow::Refuse(Refusal::Host) => Err(Failure::Request(Fault::HostInvalid)),
        Flow::Answer(answer) => {
            let failure = match answer.reason {
                Reason::Meant => Failure::Answered,
            };
            filtered.answer = Some(answer);
            Err(failure)
        }
    }
}

impl<'a> Entry<'a> {
    /// What is known without a look at the request.
    fn view(&self, trusted: bool) -> View<'a> {
        let snapshot = self.snapshot;
        View {
            client: self.remote.ip(),
            port: (!trusted).then(|| self.remote.port()),
            trusted,
            secure: false,
            id: self.id,
            method: b"",
            authority: b"",
            target: b"",
            sni: "",
            listener: &snapshot.listeners[self.listener].name,
            route: &self.route.name,
            pool: &snapshot.pools[self.route.pool].name,
            backend: "",
        }
    }

    /// Whether the route has no pool.
    fn leads_nowhere(&self) -> bool {
        self.snapshot.pools[self.route.pool].backends.is_empty()
    }
}

impl Exchange<'_> {
    /// Takes an answer's head through the filters of the route, if the request went through them.
    #[inline]
    pub(super) fn filter_answer(&self, head: &AnswerHead<'_>, edits: &mut Edits) {
        if let Some(filtered) = &self.filtered {
            self.run_filters(filtered, head, edits);
        }
    }

    #[cold]
    fn run_filters(&self, filtered: &Filtered, head: &AnswerHead<'_>, edits: &mut Edits) {
        let snapshot = &*self.generation.snapshot;
        let route = self.facts.route.map(|route| &snapshot.routes[route]);
        let Some((route, filters)) = route.and_then(|route| Some((route, route.filters.as_ref()?)))
        else {
            return;
        };
        let entry = Entry {
            snapshot,
            listener: self.listener,
            route,
            remote: self.client.remote,
            id: self.facts.id,
        };
        let backend = self.facts.choice.filter(|_| self.facts.tries > 0);
        let backend = backend
            .map(|choice| &*snapshot.pools[route.pool].backends[choice.backend.index()].name);
        let part = |place: fn(&super::exchange::Head) -> crate::http::head::Span| {
            self.head
                .as_ref()
                .map_or(&b""[..], |head| place(head).of(&self.received))
        };
        let view = View {
            client: self.facts.client,
            secure: self.facts.secure,
            method: part(|head| head.method),
            authority: part(|head| head.authority),
            target: part(|head| head.path_and_query),
            backend: backend.unwrap_or_default(),
            ..entry.view(filtered.trusted)
        };
        filters.answer(&view, &filtered.memory, head, edits);
    }

    /// The answer that a filter gave, once.
    pub(super) fn take_own_answer(&mut self) -> Option<Answer> {
        self.filtered.as_mut()?.answer.take()
    }

    /// A head of weir's own after the filters of the route.
    pub(super) fn filter_own(&self, head: Vec<u8>) -> Vec<u8> {
        if self.filtered.is_none() {
            return head;
        }
        let (mut lines, mut edits) = (Vec::new(), Edits::default());
        let limits = &self.generation.snapshot.config.limits;
        let Ok(Some(parsed)) = answer::parse(&head, &mut lines, limits, true) else {
            return head;
        };
        self.filter_answer(&parsed.head, &mut edits);
        let mut out = Vec::with_capacity(head.len() + 256);
        super::answer::write_head(&parsed.head, &mut edits, &mut out);
        out
    }

    /// What the filters have to say in the log.
    #[inline]
    pub(super) fn shown(&self) -> Shown {
        match &self.filtered {
            None => Shown::default(),
            Some(filtered) => Shown {
                id: filtered.memory.shown_id(self.facts.id).unwrap_or_default(),
                user: String::new(),
            },
        }
    }
}
