//! What a request of `/api/v1/explain` would come to, in a sentence.
//! It tells a balancer's candidates and no pick: what a balancer knows is its worker's.
//! The walk goes back to `explain.rs`.

use serde::Serialize;

use crate::clock;
use crate::config::duration_text;
use crate::config::model::{BalancerKind, OnFailure, Sessions};
use crate::control::effective::Effective;
use crate::l7::reject::Failure;
use crate::policy::balance::{BackendIndex, EligibleSet};
use crate::policy::choose::{Nowhere, Place};
use crate::policy::persist::{Home, Recall, Stickiness, Sticky};
use crate::state::snapshot::Pool;

/// What would become of the request.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Outcome {
    /// Where it would go; absent when it goes nowhere, and when a balancer has several to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    /// The backends that the balancer has to choose from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<String>,
    /// How it would be counted in `weir_sticky_total`.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    /// Whether its backend would be its home from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    for_good: Option<bool>,
    /// The status that weir itself would answer with.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// What becomes of bytes that go nowhere: `closed` or `dropped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
    /// Whether a filter answers, since the route has no pool.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    answered: bool,
    because: String,
}

/// What it follows from.
pub(super) struct Seen<'a> {
    /// The route's pool.
    pub pool: &'a Pool,
    /// Who may be chosen.
    pub sets: &'a EligibleSet,
    /// Where the balancer leads the client, if every worker's does.
    pub led: Option<BackendIndex>,
    /// On a sticky route.
    pub client: Option<ClientSeen<'a>>,
}

/// A client of a sticky route.
pub(super) struct ClientSeen<'a> {
    /// How the route is sticky.
    pub sticky: &'a Sticky,
    /// What the client is known by.
    pub recall: Recall,
    /// Where it goes if it has a home.
    pub place: Option<Result<Place, Nowhere>>,
}

/// What the request comes to.
pub(super) fn outcome(seen: &Seen<'_>) -> Outcome {
    if seen.pool.backends.is_empty() {
        return Outcome::of_filters();
    }
    let Some(client) = &seen.client else {
        return balanced(seen, None, "the route is not sticky");
    };
    let (pool, sticky) = (seen.pool, client.sticky);
    match (&client.recall, client.place) {
        (Recall::Keep(home), Some(Ok(place))) => placed(pool, sticky, home, &place),
        (Recall::Keep(home), Some(Err(nowhere))) => nowhere_to(pool, sticky, home, nowhere),
        (Recall::Expired, _) => {
            let why = "the client's token or session is too old, so that it is a new client";
            balanced(seen, Some(Stickiness::Expired), why)
        }
        (Recall::Forged, _) => {
            let why = "the client's token is not one that weir made, so that it is a new client";
            balanced(seen, Some(Stickiness::Forged), why)
        }
        (Recall::Ask, _) => {
            let why = "weir does not know the client's session, so that it is a new client unless the store does";
            balanced(seen, Some(Stickiness::New), why)
        }
        _ => {
            let why = "the client shows nothing that it is known by, so that it is a new one";
            balanced(seen, Some(Stickiness::New), why)
        }
    }
}

impl Outcome {
    /// On a route without a pool.
    fn of_filters() -> Outcome {
        Outcome {
            answered: true,
            because: "the route has no pool: one of its filters answers".to_owned(),
            ..Outcome::default()
        }
    }

    /// Of bytes that go nowhere.
    pub(super) fn of_bytes(refused: &'static str, because: &str) -> Outcome {
        Outcome {
            refused: Some(refused),
            because: because.to_owned(),
            ..Outcome::default()
        }
    }

    /// The same that was of a request, of bytes: nobody is told a status.
    pub(super) fn pass_on(&mut self, refused: &'static str) {
        self.refused = self.status.take().map(|_| refused);
    }

    /// Of a request that weir refuses.
    pub(super) fn refused(failure: Failure) -> Outcome {
        let row = failure.row();
        Outcome {
            status: Some(row.status),
            because: format!("{} ({})", row.text.trim_end_matches('.'), row.reason),
            ..Outcome::default()
        }
    }
}

fn balanced(seen: &Seen<'_>, result: Option<Stickiness>, why: &str) -> Outcome {
    let candidates: Vec<String> = (seen.sets.fresh().list().iter())
        .map(|index| seen.pool.backends[index.index()].name.to_string())
        .collect();
    let balancer = &seen.pool.balancer;
    let mut outcome = Outcome {
        result: result.map(Stickiness::as_str),
        ..Outcome::default()
    };
    let led = seen.led.map(|led| name(seen.pool, led).to_owned());
    outcome.because = match &candidates[..] {
        [] => {
            outcome.status = Some(503);
            outcome.result = None;
            format!("{why}, and no backend takes new clients")
        }
        [only] => {
            outcome.backend = Some(only.clone());
            format!("{why}, and {only} is the only one that takes new clients")
        }
        several if let Some(led) = &led => {
            outcome.backend = Some(led.clone());
            let condition = match balancer {
                BalancerKind::Hash(_) => ", as busy as the backends are now",
                _ => "",
            };
            format!(
                "{why}: {balancer} leads it to {led}, of {}{condition}",
                several.len()
            )
        }
        several => format!("{why}: {balancer} chooses among {}", several.len()),
    };
    if candidates.len() > 1 && led.is_none() {
        outcome.candidates = candidates;
    }
    outcome
}

fn placed(pool: &Pool, sticky: &Sticky, home: &Home, place: &Place) -> Outcome {
    let there = &pool.backends[place.backend.index()].name;
    let state = home_state(pool, home);
    let because = match place.stickiness {
        Stickiness::Kept
            if is(pool, home, Effective::Drain) || is(pool, home, Effective::Ejected) =>
        {
            format!("{state}; it keeps the clients it has")
        }
        Stickiness::Kept => state,
        Stickiness::Returned => {
            let refuge = home.refuge.map_or("elsewhere", |refuge| name(pool, refuge));
            format!("{state}; it was at {refuge} and goes home")
        }
        _ if home.settled => {
            format!("it was away from home for `rehome_after`, and stays at {there}")
        }
        _ if is(pool, home, Effective::Up) => match place.for_good {
            true => format!(
                "{state}, but has more than its part of the sessions, and this one was idle: it moves if `rebalance_rate` allows"
            ),
            false => format!(
                "{state}, but has more than its part of what is in flight: another serves this request"
            ),
        },
        _ => {
            let leaves = is(pool, home, Effective::Drain) || is(pool, home, Effective::Ejected);
            let hands_over = sticky.sessions != Sessions::Local && leaves;
            let how = match (hands_over, place.for_good) {
                (true, _) => "it is handed over, since several know its session",
                (false, true) => "its successor is its home from now on",
                (false, false) => "its successor serves it until its home can",
            };
            let costs = match place.stickiness {
                Stickiness::Lost => ", and what its home held in memory is out of reach",
                _ => "",
            };
            format!("{state}; {how}{costs}")
        }
    };
    Outcome {
        backend: Some(there.to_string()),
        result: Some(place.stickiness.as_str()),
        for_good: Some(place.for_good || home.backend == Some(place.backend)),
        because,
        ..Outcome::default()
    }
}

fn nowhere_to(pool: &Pool, sticky: &Sticky, home: &Home, nowhere: Nowhere) -> Outcome {
    let state = home_state(pool, home);
    let (status, because) = match (nowhere, sticky.on_failure) {
        (Nowhere::HomeAway, OnFailure::Wait(wait)) => {
            let wait = duration_text(wait);
            (
                None,
                format!("{state}; the request is held up to {wait} in case it comes back"),
            )
        }
        (Nowhere::HomeDown | Nowhere::HomeAway, _) => (
            Some(503),
            format!("{state}, and the route wants no other to serve its clients"),
        ),
        (Nowhere::Full(_), _) => {
            let wait = duration_text(pool.queue.timeout);
            let why = "but it has all that it may have";
            (
                None,
                format!("{state}, {why}; the request waits up to {wait}"),
            )
        }
        (Nowhere::NoBackend | Nowhere::Ask, _) => {
            (Some(503), format!("{state}, and there is no other"))
        }
    };
    Outcome {
        status,
        because,
        ..Outcome::default()
    }
}

fn name(pool: &Pool, backend: BackendIndex) -> &str {
    &pool.backends[backend.index()].name
}

fn is(pool: &Pool, home: &Home, state: Effective) -> bool {
    home.backend.is_some_and(|own| {
        let own = &pool.backends[own.index()];
        Effective::of(own) == state
    })
}

/// What is with the client's home, as the beginning of a sentence.
fn home_state(pool: &Pool, home: &Home) -> String {
    let Some(own) = home.backend else {
        return "its home is not in the pool any more".to_owned();
    };
    let own = &pool.backends[own.index()];
    let since = clock::now().saturating_duration_since(own.live.health_since());
    let name = &own.name;
    match Effective::of(own) {
        Effective::Up => format!("its home {name} is up"),
        Effective::Down => format!("its home {name} has been down for {} s", since.as_secs()),
        Effective::Unknown => format!("its home {name} was not checked yet"),
        Effective::Ejected => format!("its home {name} failed requests and is ejected"),
        Effective::Drain => format!("its home {name} drains"),
        Effective::Maint => format!("its home {name} is in maintenance"),
    }
}
