//! What is written down of a finished request: counters, histograms, a line in the access log.
//! It never waits and never fails.
//! The walk ends here.

use super::client::Client;
use super::exchange::{Exchange, Facts};
use super::filter::Shown;
use super::head::Head;
use super::reject::{CLIENT_GONE, Failure};
use crate::config::model::Limits;
use crate::http::head::{Field, Span, Version};
use crate::http::request;
use crate::metrics::rows::Hold;
use crate::policy::persist::Stickiness;
use crate::state::access_log::Record;

/// Writes a finished request down and gives its buffer back.
pub(super) fn record(exchange: &mut Exchange<'_>) {
    let local = exchange.client.local.clone();
    count(exchange);
    if local.access_log.is_on() {
        log(&Subject::of(exchange));
    }
    local.buffers.put(std::mem::take(&mut exchange.received));
}

fn status(exchange: &Exchange<'_>) -> u16 {
    if exchange.answer.status == 0 {
        CLIENT_GONE
    } else {
        exchange.answer.status
    }
}

/// Counts a request that has its answer.
pub(super) fn count(exchange: &Exchange<'_>) {
    let (facts, local) = (&exchange.facts, &exchange.client.local);
    let backend = facts
        .choice
        .filter(|_| facts.tries > 0)
        .map(|choice| choice.backend);
    let class = usize::from(status(exchange) / 100).clamp(1, 5) - 1;
    let requests =
        exchange
            .generation
            .request_counts(&local.rows, exchange.listener, facts.route, backend);
    requests.classes[class].increment();
    if let Some(route) = facts.route {
        let counts = exchange.generation.route_counts(&local.rows, route);
        counts.duration.record(facts.ended - facts.started);
        counts.overhead.record(facts.overhead);
        if let Some(stickiness) = facts.stickiness {
            counts.sticky[stickiness as usize].increment();
        }
        if let Some(hold) = held(facts) {
            counts.holds[hold as usize].increment();
        }
    }
}

/// What became of a request that was held for its home.
fn held(facts: &Facts) -> Option<Hold> {
    let is_home = matches!(
        facts.stickiness,
        Some(Stickiness::Kept | Stickiness::Returned)
    );
    match (facts.hold?, facts.failure) {
        (Hold::Full, _) => Some(Hold::Full),
        (_, Some(Failure::ClientGone)) => Some(Hold::Gone),
        (_, None) if is_home => Some(Hold::Home),
        (hold, _) => Some(hold),
    }
}

/// What a line of the access log tells of: a finished request, or a connection that was switched by one.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) client: &'a Client,
    pub(super) facts: &'a Facts,
    pub(super) head: Option<&'a Head>,
    pub(super) received: &'a [u8],
    pub(super) limits: &'a Limits,
    pub(super) names: Names<'a>,
    pub(super) shown: Shown,
    pub(super) status: u16,
    pub(super) error: &'static str,
}

/// Where it went; empty: nowhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) listener: &'a str,
    pub(super) route: &'a str,
    pub(super) pool: &'a str,
    pub(super) backend: &'a str,
    pub(super) home: &'a str,
}

impl<'a> Subject<'a> {
    fn of(exchange: &'a Exchange<'_>) -> Self {
        Subject {
            client: exchange.client,
            facts: &exchange.facts,
            head: exchange.head.as_ref(),
            received: &exchange.received,
            limits: &exchange.generation.snapshot.config.limits,
            names: Names::of(exchange),
            shown: exchange.shown(),
            status: status(exchange),
            error: (exchange.facts.failure).map_or("", |failure| failure.row().reason),
        }
    }
}

impl<'a> Names<'a> {
    pub(super) fn of(exchange: &'a Exchange<'_>) -> Self {
        let (facts, snapshot) = (&exchange.facts, &*exchange.generation.snapshot);
        let route = facts.route.map(|route| &snapshot.routes[route]);
        let pool = route.map(|route| &snapshot.pools[route.pool]);
        // A route that leads nowhere has a pool of nobody.
        let pool = pool.filter(|pool| !pool.backends.is_empty());
        let backend = facts.choice.filter(|_| facts.tries > 0).zip(pool);
        let backend =
            backend.map(|(choice, pool)| &*pool.backends[usize::from(choice.backend.0)].name);
        let chosen = facts.choice.and_then(|choice| choice.sticky);
        let home = chosen.and_then(|chosen| chosen.home).zip(pool);
        let home = home.map(|(home, pool)| &*pool.backends[home.index()].name);
        Names {
            listener: &snapshot.listeners[exchange.listener].name,
            route: route.map_or("", |route| &route.name),
            pool: pool.map_or("", |pool| &pool.name),
            backend: backend.unwrap_or_default(),
            home: home.unwrap_or_default(),
        }
    }
}

/// Writes the line.
pub(super) fn log(subject: &Subject<'_>) {
    let (facts, client, names) = (subject.facts, subject.client, subject.names);
    let part = |place: fn(&Head) -> Span| {
        subject
            .head
            .map_or(&b""[..], |head| place(head).of(subject.received))
    };
    let mut lines = Vec::new();
    let parsed = match client.local.access_log.wants_client_fields() {
        true => request::parse(subject.received, &mut lines, subject.limits)
            .ok()
            .flatten(),
        false => None,
    };
    let field = |field| {
        parsed
            .and_then(|request| request.head.field(field).next())
            .map_or(&b""[..], |(_, value)| value)
    };
    client.local.access_log.write(&Record {
        wall_millis: facts.wall_millis,
        id: facts.id,
        request_id: &subject.shown.id,
        listener: names.listener,
        remote: client.remote,
        client: facts.client,
        user: &subject.shown.user,
        method: part(|head| head.method),
        host: part(|head| head.authority),
        path: part(|head| head.target),
        version: match subject.head {
            Some(head) => match head.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2.0",
            },
            None => "",
        },
        status: subject.status,
        bytes_in: facts.bytes_in,
        bytes_out: facts.bytes_out,
        route: names.route,
        pool: names.pool,
        backend: names.backend,
        tries: facts.tries,
        reused: facts.reused,
        sticky: facts.stickiness.map_or("", Stickiness::as_str),
        home: names.home,
        duration: facts.ended - facts.started,
        overhead: facts.overhead,
        held: facts.held,
        queued: facts.queued,
        error: subject.error,
        referer: field(Field::Referer),
        user_agent: field(Field::UserAgent),
    });
}
