//! What is written down of a finished request: counters, histograms, a line in the access log.
//! It never waits and never fails.
//! The walk ends here.

use super::exchange::{Exchange, Facts, Head};
use super::reject::{CLIENT_GONE, Failure};
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
        log(exchange);
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

fn count(exchange: &Exchange<'_>) {
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

fn log(exchange: &Exchange<'_>) {
    let (facts, client) = (&exchange.facts, &exchange.client);
    let snapshot = &*exchange.generation.snapshot;
    let route = facts.route.map(|route| &snapshot.routes[route]);
    let pool = route.map(|route| &snapshot.pools[route.pool]);
    let backend = facts.choice.filter(|_| facts.tries > 0).zip(pool);
    let backend = backend.map(|(choice, pool)| &*pool.backends[usize::from(choice.backend.0)].name);
    let chosen = facts.choice.and_then(|choice| choice.sticky);
    let home = chosen.and_then(|chosen| chosen.home).zip(pool);
    let home = home.map(|(home, pool)| &*pool.backends[home.index()].name);
    let part = |place: fn(&Head) -> Span| {
        exchange
            .head
            .as_ref()
            .map_or(&b""[..], |head| place(head).of(&exchange.received))
    };
    let mut lines = Vec::new();
    let parsed = match client.local.access_log.wants_client_fields() {
        true => request::parse(&exchange.received, &mut lines, &snapshot.config.limits)
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
        listener: &snapshot.listeners[exchange.listener].name,
        remote: client.remote,
        client: facts.client,
        method: part(|head| head.method),
        host: part(|head| head.authority),
        path: part(|head| head.target),
        version: match exchange.head {
            Some(head) if head.version == Version::Http10 => "HTTP/1.0",
            Some(_) => "HTTP/1.1",
            None => "",
        },
        status: status(exchange),
        bytes_in: facts.bytes_in,
        bytes_out: facts.bytes_out,
        route: route.map_or("", |route| &route.name),
        pool: pool.map_or("", |pool| &pool.name),
        backend: backend.unwrap_or_default(),
        tries: facts.tries,
        reused: facts.reused,
        sticky: facts.stickiness.map_or("", Stickiness::as_str),
        home: home.unwrap_or_default(),
        duration: facts.ended - facts.started,
        overhead: facts.overhead,
        held: facts.held,
        error: facts.failure.map_or("", |failure| failure.row().reason),
        referer: field(Field::Referer),
        user_agent: field(Field::UserAgent),
    });
}
