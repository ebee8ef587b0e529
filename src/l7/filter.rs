//! Runs the filters of a route: on a request before its backend is chosen, on the answer before its head is written.
//! It decides nothing: steps are in `policy/filter/`. A route without filters costs one branch in each direction.
//! The walk goes back to `plan.rs` and `answer.rs`; answers of weir's own go through `respond.rs`.

use super::authenticate::{Awaited, Verdict, judge};
use super::exchange::Exchange;
use super::head::Head;
use super::protect;
use super::reject::Failure;
use crate::http::answer;
use crate::http::edits::Edits;
use crate::http::fault::Fault;
use crate::http::forwarding::Source;
use crate::http::head::{AnswerHead, RequestHead, Span};
use crate::http::text::push_id;
use crate::policy::facts::Facts;
use crate::policy::filter::{Answer, Body, Filters, Flow, Memory, Reason, Refusal, Request, View};
use crate::state::snapshot::Route;
use crate::upstream::coders::LentCoder;

/// What the filters of a route found out about a request, and the answer that they gave.
#[derive(Debug)]
pub(super) struct Filtered {
    pub(super) memory: Memory,
    /// Codes the body, if the client gets it in another form.
    pub(super) coder: Option<LentCoder>,
    trusted: bool,
    answer: Option<Answer>,
}

/// What an answer of a filter is in logs and metrics.
fn failure_of(reason: Reason) -> Failure {
    match reason {
        Reason::Meant => Failure::Answered,
        Reason::Unauthorized => Failure::Unauthorized,
    }
}

/// What the filters of a route found out for the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// The id that backend and client were shown; empty: none.
    pub(super) id: Vec<u8>,
    /// Who it is; empty: nobody was asked.
    pub(super) user: String,
}

impl Exchange<'_> {
    /// Takes the request through the filters of its route; what they change is added to `edits`.
    ///
    /// # Errors
    /// A filter answered, or what it made of the request cannot be sent.
    ///
    /// What comes back is waited for, and then the request goes through them again.
    #[cold]
    pub(super) fn filter_request(
        &self,
        filters: &Filters,
        (head, source, facts): (&RequestHead<'_>, &Source, &Facts<'_>),
        filtered: &mut Option<Box<Filtered>>,
        edits: &mut Edits,
    ) -> Result<Option<Awaited>, Failure> {
        let filtered = filtered.get_or_insert_with(|| {
            Box::new(Filtered {
                memory: Memory::new(self.client.local.rng.borrow_mut().next_u64()),
                trusted: source.trusted,
                coder: None,
                answer: None,
            })
        });
        let (snapshot, Some(route)) = (&*self.generation.snapshot, self.facts.route) else {
            return Ok(None);
        };
        let route = &snapshot.routes[route];
        let view = View {
            client: source.client,
            secure: source.secure,
            method: head.method,
            authority: head.authority,
            target: head.path_and_query,
            ..self.view(route, source.trusted)
        };
        let request = Request {
            view: &view,
            facts,
            head,
            checks: snapshot.listeners[self.listener].path_checks,
            again: false,
        };
        let limits = protect::Tokens(route);
        let mut flow = filters.request(request, &limits, &mut filtered.memory, edits);
        while let Flow::Ask(claim) = flow {
            match judge(route, claim)? {
                Verdict::Awaited(awaited) => return Ok(Some(awaited)),
                Verdict::Known(verdict) => filtered.memory.judge(verdict),
            }
            flow = filters.resume(request, &limits, &mut filtered.memory, edits);
        }
        match flow {
            Flow::Continue if snapshot.pools[route.pool].backends.is_empty() => {
                Err(Failure::NoRoute)
            }
            Flow::Continue | Flow::Ask(_) => Ok(None),
            Flow::Refuse(Refusal::Denied) => Err(protect::deny_on(route, source.client, facts.now)),
            Flow::Refuse(Refusal::Limited { place, wait }) => {
                let who = (source.client, facts.now);
                Err(protect::limit_on(route, place, wait, who))
            }
            Flow::Refuse(Refusal::Path(fault)) => Err(Failure::Path(fault)),
            Flow::Refuse(Refusal::Host) => Err(Failure::Request(Fault::HostInvalid)),
            Flow::Answer(answer) => {
                let failure = failure_of(answer.reason);
                filtered.answer = Some(answer);
                Err(failure)
            }
        }
    }

    /// What is known without a look at the request.
    fn view<'a>(&'a self, route: &'a Route, trusted: bool) -> View<'a> {
        let (snapshot, remote) = (&*self.generation.snapshot, self.client.remote);
        View {
            client: remote.ip(),
            port: (!trusted).then(|| remote.port()),
            trusted,
            secure: false,
            id: self.facts.id,
            method: b"",
            authority: b"",
            target: b"",
            sni: self
                .client
                .tls
                .as_ref()
                .map_or("", |tls| tls.server_name.as_deref().unwrap_or_default()),
            listener: &snapshot.listeners[self.listener].name,
            route: &route.name,
            pool: &snapshot.pools[route.pool].name,
            backend: "",
        }
    }

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
        let backend = self.facts.choice.filter(|_| self.facts.tries > 0);
        let backend = backend
            .map(|choice| &*snapshot.pools[route.pool].backends[choice.backend.index()].name);
        let part = |place: fn(&Head) -> Span| {
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
            ..self.view(route, filtered.trusted)
        };
        filters.answer(&view, &filtered.memory, head, edits);
    }

    /// Tells the filter that asked whether the claim is true.
    pub(super) fn note_verdict(&mut self, verdict: bool) {
        if let Some(filtered) = &mut self.filtered {
            filtered.memory.judge(verdict);
        }
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

    /// What an answer of weir's own looks like on the request's route, where a filter says so.
    pub(super) fn page(&self, status: u16) -> Option<Body> {
        let route = &self.generation.snapshot.routes[self.facts.route?];
        let memory = self.filtered.as_ref().map(|filtered| &filtered.memory);
        let push_id = |out: &mut Vec<u8>| match memory {
            Some(memory) => memory.push_id(self.facts.id, out),
            None => push_id(self.facts.id, out),
        };
        route.filters.as_ref()?.page(status, push_id)
    }

    /// What the filters have to say in the log.
    #[inline]
    pub(super) fn shown(&self) -> Shown {
        match &self.filtered {
            None => Shown::default(),
            Some(filtered) => Shown {
                id: filtered.memory.shown_id(self.facts.id).unwrap_or_default(),
                user: filtered.memory.user().to_owned(),
            },
        }
    }
}
