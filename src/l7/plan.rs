//! The plan of an attempt: route, client address, persistence, balancer, and the head as the backend gets it.
//! It runs within one poll, decides nothing that `policy/` does not decide, and sends nothing.
//! The walk goes on in `exchange.rs`, which carries the plan out.

use std::time::Instant;

use super::arrival::FirstFlight;
use super::ask::{Question, ask};
use super::authenticate::Awaited;
use super::client::Client;
use super::exchange::{Exchange, Plan};
use super::handshake::{check_host, introduce};
use super::head::Head;
use super::judge::judge_failure;
use super::protect;
use super::queue::Queued;
use super::reject::Failure;
use super::retry::Retrying;
use super::session::{Shown, look_up};
use crate::clock;
use crate::config::model::{Limits, OnFailure, PoolProtocol};
use crate::http::edits::Edits;
use crate::http::forwarding::{self, Source};
use crate::http::head::{AnswerHead, Field, Line, RequestHead, TargetForm, Version};
use crate::http::path;
use crate::http::request::{self, Request};
use crate::http::upgrade;
use crate::policy::balance::BackendIndex;
use crate::policy::choose::{Choice, Nowhere, PoolView, StickyView, choose};
use crate::policy::facts::{Facts, RequestFacts};
use crate::policy::persist::{Chosen, Scope, Stickiness, Sticky, Told};
use crate::policy::retry::{self, MAX_ATTEMPTS, Retry, Try};
use crate::rng;
use crate::state::backend::Backend;
use crate::state::flights::Flight;
use crate::state::snapshot::{Pool, Route, Snapshot};
use crate::upstream::generation::{Generation, PoolLoads};
use crate::upstream::queue::Want;

/// The attempts that failed so far.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    tried: [BackendIndex; MAX_ATTEMPTS as usize],
    count: u8,
    retries: u8,
    led_by: Option<Retry>,
    /// Whether the choice before stands.
    repeats: bool,
    /// Whether its client begins anew.
    anew: bool,
    failure: Option<Failure>,
    /// What the request waits for before its next plan.
    pub(super) held: Option<Held>,
    /// Whether it is not to be held any more.
    pub(super) is_impatient: bool,
    /// Whether there was a plan before.
    is_planned: bool,
    /// Whether a store was asked for its session.
    has_asked: bool,
    /// Which of the ways of its route it takes; absent: that is not decided.
    pub(super) way: Option<u32>,
    /// There when every backend for it has had all that it may have.
    pub(super) queued: Option<Box<Queued>>,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Held {
    /// For a change of the pool's state, in which its home could not serve: this is the epoch of that.
    Change(u64),
    /// For a pause, since its home refused a connection.
    Pause,
    /// For what a store says of its session.
    Answer(Question),
    /// For whether its client is who it says.
    Verdict(Awaited),
    /// For room at a backend.
    Room(Want),
}

impl Attempts {
    /// Whether the next attempt must not use a pooled connection.
    pub(super) fn wants_fresh(&self) -> bool {
        self.led_by == Some(Retry::SameBackendFresh)
    }

    /// Whether the request may still be held for its home.
    fn is_patient(&self, route: &Route, started: Instant) -> bool {
        let until = patience(route, started).filter(|_| !self.is_impatient);
        // A first plan knows what time it is.
        until.is_some_and(|until| !self.is_planned || clock::now() < until)
    }

    /// Whether it was at no backend yet.
    pub(super) fn is_untried(&self) -> bool {
        self.count == 0 && self.failure.is_none()
    }

    /// Whether others wait already, who were here first.
    #[inline]
    fn must_queue(&self, generation: &Generation, pool: usize) -> bool {
        generation.snapshot.pools[pool].is_limited
            && (self.queued.as_ref()).is_none_or(|queued| queued.place.is_none())
            && !generation.pool(pool).queue.is_empty()
    }

    /// Backends that are of no more use to this request.
    fn tried(&self) -> &[BackendIndex] {
        &self.tried[..usize::from(self.count)]
    }

    /// Whether, and where, another attempt may follow; the failure itself when none may.
    pub(super) fn after(
        &mut self,
        exchange: &mut Exchange<'_>,
        plan: &Plan,
        failure: Failure,
    ) -> Result<(), Failure> {
        judge_failure(exchange, plan, failure);
        let kind = kind_of(failure, exchange);
        let chosen = exchange.facts.choice.and_then(|choice| choice.sticky);
        let is_kept = chosen.is_some_and(|chosen| chosen.stickiness == Stickiness::Kept);
        let snapshot = &*exchange.generation.snapshot;
        let route = exchange.facts.route.map(|route| &snapshot.routes[route]);
        let patient = |route| self.is_patient(route, exchange.facts.started);
        if failure == Failure::Crowded {
            self.crowd(exchange);
            return Ok(());
        }
        let retry = retry::after(Try {
            led_by: self.led_by,
            patient: is_kept && route.is_some_and(patient),
            ..exchange.failed(kind, self.retries)
        });
        match retry {
            Retry::Never => return Err(failure),
            Retry::Later => {
                self.repeats = false;
                exchange.begin_retry();
                self.failure = Some(failure);
                self.held = Some(Held::Pause);
                return Ok(());
            }
            Retry::SameBackendFresh => self.repeats = true,
            Retry::IfAffordable if !exchange.afford() => return Err(failure),
            Retry::Elsewhere | Retry::IfAffordable | Retry::Anew => {
                self.repeats = false;
                self.anew |= retry == Retry::Anew;
                self.tried[usize::from(self.count)] = plan.backend;
                self.count += 1;
            }
        }
        self.retries += 1;
        self.failure = Some(failure);
        self.led_by = Some(retry);
        exchange.begin_retry();
        exchange.count_retry(kind);
        Ok(())
    }

    /// Waits for the backend that was chosen, or for any other if that will do: it has all that it may have.
    pub(super) fn crowd(&mut self, exchange: &mut Exchange<'_>) {
        exchange.backend = None;
        self.repeats = false;
        let want = exchange.facts.choice.map_or(Want::Any, Want::of);
        self.held = Some(Held::Room(want));
    }

    /// Waits before the next plan.
    fn wait(&mut self, held: Held) -> Result<Option<Plan>, Failure> {
        self.is_planned = true;
        self.held = Some(held);
        Ok(None)
    }

    /// What becomes of a request for which no backend was chosen.
    fn stay(
        &mut self,
        nowhere: Nowhere,
        generation: &Generation,
        route: &Route,
        head: &RequestHead<'_>,
    ) -> Result<Option<Plan>, Failure> {
        self.is_planned = true;
        match nowhere {
            Nowhere::Ask => {
                self.has_asked = true;
                self.held = ask(route, head).map(Held::Answer);
                Ok(None)
            }
            Nowhere::HomeAway => {
                self.held = Some(Held::Change(generation.pool(route.pool).epoch()));
                Ok(None)
            }
            Nowhere::Full(own) => {
                self.held = Some(Held::Room(own.map_or(Want::Any, Want::Backend)));
                Ok(None)
            }
            Nowhere::HomeDown => Err(Failure::HomeDown),
            Nowhere::NoBackend if self.fall_back(route.fallback) => Ok(None),
            Nowhere::NoBackend => Err(self.failure.unwrap_or(Failure::NoBackend)),
        }
    }
}

/// Until when a request of the route may be held; `None` when it is not.
pub(super) fn patience(route: &Route, started: Instant) -> Option<Instant> {
    match route.sticky.as_ref()?.on_failure {
        OnFailure::Wait(wait) => started.checked_add(wait),
        _ => None,
    }
}

/// What the retry rules make of a failure. Bytes of an answer, interim ones too, end all retries.
fn kind_of(failure: Failure, exchange: &Exchange<'_>) -> retry::Failure {
    let answered = exchange.answer.interims > 0
        || exchange
            .backend
            .as_ref()
            .is_some_and(|upstream| !upstream.partial.is_empty());
    match failure {
        Failure::Connect(_) | Failure::NoSocket | Failure::ConnectTimeout | Failure::Unproven => {
            retry::Failure::Connect
        }
        Failure::BackendClosed if answered => retry::Failure::Other,
        // A backend that says so has done nothing, and so has not failed a request that it may have seen.
        Failure::BackendClosed if is_unprocessed(exchange) => retry::Failure::Connect,
        Failure::BackendClosed if exchange.facts.reused => retry::Failure::ReusedClosed,
        Failure::BackendClosed => retry::Failure::NewClosed,
        Failure::SessionOver => retry::Failure::SessionOver,
        Failure::ErrorStatus(_) => retry::Failure::ErrorStatus,
        Failure::ResponseTimeout if !answered => retry::Failure::Timeout,
        _ => retry::Failure::Other,
    }
}

/// Whether a backend that speaks HTTP/2 said that it did nothing for the request.
fn is_unprocessed(exchange: &Exchange<'_>) -> bool {
    let upstream = exchange.backend.as_ref();
    upstream.is_some_and(|upstream| upstream.stream.is_http2() && !upstream.sent)
}

/// Chooses where the next attempt goes, and composes the head for it in the worker's scratch. `None`: the request is held first.
pub(super) fn plan(
    exchange: &mut Exchange<'_>,
    attempts: &mut Attempts,
) -> Result<Option<Plan>, Failure> {
    let (local, generation) = (exchange.client.local.clone(), exchange.generation.clone());
    let snapshot = &*generation.snapshot;
    let scratch = &mut *local.scratch.borrow_mut();
    // No wait lies between the first plan and the reading of the head: the scratch still has its lines.
    let known = exchange.head.filter(|_| !attempts.is_planned);
    let (limits, started) = (&snapshot.config.limits, exchange.facts.started);
    let request = request_of(known, &exchange.received, &mut scratch.lines, limits)?;
    let head = &request.head;
    let (trusted, tls) = (&snapshot.config.trusted_proxies, &exchange.client.tls);
    let source = Source::of(head, exchange.client.remote, tls.is_some(), trusted);
    (exchange.facts.client, exchange.facts.secure) = (source.client, source.secure);
    if !attempts.is_planned {
        protect::ask_gate(snapshot, exchange.listener, &source, head, started)?;
        check_host(exchange, &source, head)?;
    }
    let checks = snapshot.listeners[exchange.listener].path_checks;
    let mut facts = Facts {
        client: source.client,
        listener: exchange.listener,
        session: None,
        hello: None,
        request: Some(RequestFacts {
            head,
            path: path::normalize(head.path, &mut scratch.path, checks).map_err(Failure::Path)?,
            secure: source.secure,
        }),
        now: started,
        wall_millis: exchange.facts.wall_millis,
    };
    let ordinal = snapshot.router.route(&facts).ok_or(Failure::NoRoute)?;
    let route = &snapshot.routes[ordinal];
    exchange.facts.route = Some(ordinal);
    Retrying::begin(&mut exchange.retrying, route.retry, head, started);
    let edits = &mut scratch.edits;
    edits.clear();
    conceal(snapshot, route, head, edits);
    if let Some(filters) = &route.filters {
        let (mut filtered, seen) = (exchange.filtered.take(), (head, &source, &facts));
        let passed = exchange.filter_request(filters, seen, &mut filtered, edits);
        exchange.filtered = filtered;
        if let Some(awaited) = passed? {
            return attempts.wait(Held::Verdict(awaited));
        }
    }
    if request.body.exceeds(route.max_body) || exchange.upload.exceeds(route.max_body) {
        return Err(Failure::BodyTooLarge);
    }
    let (ordinal, route) = attempts.way(&local, snapshot, ordinal, &facts);
    exchange.facts.route = Some(ordinal);
    facts.session = look_up(snapshot, route, &facts);
    exchange.facts.session = facts.session.map(Shown::from);
    let (client, last) = (&mut *exchange.client, exchange.facts.choice);
    let last = last.filter(|_| attempts.repeats);
    let chosen = choose_together(client, &generation, route, &facts, attempts, last);
    let (choice, flight) = match chosen {
        Ok(chosen) => chosen,
        Err(nowhere) => return attempts.stay(nowhere, &generation, route, head),
    };
    attempts.is_planned = true;
    exchange.facts.choice = Some(choice);
    forwarding::edit(head, &source, snapshot.config.forwarding, edits);
    introduce(exchange.client, &source, edits);
    let pool = &snapshot.pools[route.pool];
    compose(&request, pool, choice.backend, edits, &mut scratch.out);
    Ok(Some(Plan::new(route, &choice, flight)))
}

/// Takes out what is between the client and weir, whichever way of the route it belongs to.
fn conceal(snapshot: &Snapshot, route: &Route, head: &RequestHead<'_>, edits: &mut Edits) {
    let others = route.others.iter().map(|&way| &snapshot.routes[way]);
    let sticky = std::iter::once(route)
        .chain(others)
        .flat_map(|way| &way.sticky);
    sticky.for_each(|sticky| sticky.conceal(head, edits));
}

/// The request as it was read, if its lines are still there; else it is read again.
fn request_of<'a>(
    known: Option<Head>,
    received: &'a [u8],
    lines: &'a mut Vec<Line>,
    limits: &Limits,
) -> Result<Request<'a>, Failure> {
    if let Some(head) = known.filter(Head::is_whole) {
        return Ok(head.request(received, lines));
    }
    let parsed = request::parse(received, lines, limits).map_err(Failure::Request)?;
    parsed.ok_or(Failure::ClientGone)
}

impl Plan {
    /// What the choice comes to. Of the requests of one flight the one that leads it counts, since they are one client's.
    fn new(route: &Route, choice: &Choice, flight: Option<(Flight, bool)>) -> Plan {
        Plan {
            pool: route.pool,
            backend: choice.backend,
            counts: choice.is_new() && flight.is_none_or(|(_, leads)| leads),
            flight: flight.map(|(flight, _)| Box::new(flight)),
        }
    }
}

/// Chooses, unless `last` says what was chosen before, and takes part in the first flight; chooses again if the client's other requests
/// were chosen for elsewhere meanwhile, by another worker.
fn choose_together(
    client: &mut Client,
    generation: &Generation,
    route: &Route,
    facts: &Facts<'_>,
    attempts: &Attempts,
    last: Option<Choice>,
) -> Result<(Choice, Option<(Flight, bool)>), Nowhere> {
    let first_flight = FirstFlight::of(&generation.snapshot, route, facts);
    let first_flight = first_flight.as_ref();
    let choose =
        |client: &mut _| choose_backend(client, generation, route, facts, attempts, first_flight);
    let choice = match last {
        Some(last) => last,
        None => choose(client)?,
    };
    let Some(flight) = first_flight.filter(|_| choice.is_new()) else {
        return Ok((choice, None));
    };
    let taken = flight.take(&choice, facts, client);
    if last.is_some() || taken.is_some() {
        return Ok((choice, taken));
    }
    let choice = choose(client)?;
    let taken = choice.is_new().then(|| flight.take(&choice, facts, client));
    Ok((choice, taken.flatten()))
}

/// Persistence first, then the balancer.
fn choose_backend(
    client: &mut Client,
    generation: &Generation,
    route: &Route,
    facts: &Facts<'_>,
    attempts: &Attempts,
    first_flight: Option<&FirstFlight<'_>>,
) -> Result<Choice, Nowhere> {
    let pool = &generation.snapshot.pools[route.pool];
    let view = generation.pool(route.pool);
    let (sets, own) = (view.eligible(pool), view);
    let view = Some(own);
    let loads = PoolLoads { pool, view };
    let view = PoolView {
        balancer: &own.balancer,
        ring: &pool.ring,
        sets: &sets,
        loads: &loads,
    };
    let mut fill_secure = rng::fill_secure;
    let scope = |sticky| scope(generation, route, sticky);
    let told = route
        .sticky
        .as_ref()
        .and_then(|sticky| Told::within(&client.told, scope(sticky)));
    let companions = || first_flight?.destination(facts);
    let rebalance = route.sticky.as_ref().and_then(|sticky| sticky.rebalance);
    let may_move = || rebalance.is_some_and(|moves| pool.moves.take(moves.rate, facts.now));
    let sticky = route.sticky.as_ref().map(|sticky| StickyView {
        sticky,
        remembered: &mut client.remembered,
        told,
        companions: &companions,
        fill_secure: &mut fill_secure,
        patient: attempts.is_patient(route, facts.now),
        asks: !attempts.has_asked,
        gives_up: (attempts.queued.as_ref()).is_some_and(|queued| queued.gives_up),
        anew: attempts.anew,
        watched: (pool.sessions.as_ref()).and_then(|sessions| sessions.watched(facts.now)),
        may_move: &may_move,
    });
    let rng = &mut client.local.rng.borrow_mut();
    let choice = choose(&view, sticky, attempts.tried(), facts, rng)?;
    match attempts.must_queue(generation, route.pool) {
        true => Err(Nowhere::Full(Want::of(choice).backend())),
        false => Ok(choice),
    }
}

/// What is told on a route is good for the same cookie of the same pool, in the same generation.
fn scope(generation: &Generation, route: &Route, sticky: &Sticky) -> Scope {
    Scope {
        generation: generation.snapshot.generation,
        pool: route.pool,
        cookie: sticky.mode.scope(),
    }
}

/// Writes the request's head as the backend gets it.
fn compose(
    request: &Request<'_>,
    pool: &Pool,
    backend: BackendIndex,
    edits: &mut Edits,
    out: &mut Vec<u8>,
) {
    let head = &request.head;
    forwarding::remove_hop_by_hop(head.bytes, head.lines, request.connection_options, edits);
    if !request.upgrade.is_empty() && pool.protocol == PoolProtocol::Http1 {
        upgrade::offer(request.upgrade, edits);
    }
    out.clear();
    out.extend_from_slice(head.method);
    let target = edits.target().unwrap_or(head.path_and_query);
    out.extend_from_slice(if target.starts_with(b"?") {
        b" /"
    } else {
        b" "
    });
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    edit_host(head, &pool.backends[backend.index()], edits);
    if head.version == Version::Http10 {
        // An HTTP/1.0 client cannot be sent the 100 that it asks for.
        head.field(Field::Expect)
            .for_each(|(ordinal, _)| edits.remove(ordinal));
    }
    edits.apply(head.bytes, head.lines, out);
    out.extend_from_slice(b"\r\n");
}

/// An absolute target overrides `Host` (RFC 9112 section 3.2.2); HTTP/1.1 toward the backend needs one.
fn edit_host(head: &RequestHead<'_>, backend: &Backend, edits: &mut Edits) {
    if edits.keeps_host() {
        return;
    }
    let mut hosts = head.field(Field::Host);
    match hosts.next() {
        Some((ordinal, _)) if head.form == TargetForm::Absolute => {
            edits.replace(ordinal, head.authority)
        }
        Some(_) => {}
        None if head.authority.is_empty() => {
            edits.append("Host", backend.live.address.to_string().as_bytes())
        }
        None => edits.append("Host", head.authority),
    }
}

impl Exchange<'_> {
    /// Tells the client on its answer what to show from now on.
    pub(super) fn remember(&mut self, answer: &AnswerHead<'_>, edits: &mut Edits) {
        let generation = self.generation.clone();
        let sticky = self
            .facts
            .route
            .and_then(|route| generation.snapshot.routes[route].sticky.as_ref());
        let Some(sticky) = sticky else {
            return;
        };
        if let Some(chosen) = self.facts.choice.and_then(|choice| choice.sticky) {
            let (secure, session) = (self.facts.secure, sticky.given(answer));
            self.note_session(&chosen, session);
            self.facts.stickiness = Some(chosen.result(session));
            let is_told = sticky.remember(
                &chosen,
                answer,
                session,
                secure,
                &mut rng::fill_secure,
                edits,
            );
            if chosen.stickiness.is_new() && !self.client.early.is_empty() {
                self.keep_told(sticky, &chosen, is_told);
            }
        }
    }

    /// Remembers what a new client is told for those of its requests that are here already.
    #[cold]
    fn keep_told(&mut self, sticky: &Sticky, chosen: &Chosen, is_told: bool) {
        let generation = &*self.generation;
        let route = self
            .facts
            .route
            .map(|route| &generation.snapshot.routes[route]);
        let sent = route.zip(self.facts.choice).and_then(|(route, choice)| {
            let home = chosen.told_home(choice.backend).filter(|_| is_told);
            let scope = scope(generation, route, sticky);
            Told::new(scope, choice.backend, home, self.client.early.len())
        });
        self.client.told = sent;
    }

    /// Counts a request that is tried again.
    fn count_retry(&self, failure: retry::Failure) {
        if let Some((route, cause)) = self.facts.route.zip(failure.cause()) {
            let counts = self.generation.route_counts(&self.client.local.rows, route);
            counts.retries[cause].increment();
        }
    }
}
