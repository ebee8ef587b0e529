//! `GET /api/v1/explain`: which route and which backend a request, a connection or a datagram would take, and why.
//! It asks what the workers ask, changes nothing, sends nothing, and tells no cookie to anyone.
//! The walk goes on in `policy/judge.rs` (routes) and `policy/choose.rs` (backends); `asked.rs` reads the question, `passed_on.rs` answers those
//! that are of no request.

use std::net::{IpAddr, SocketAddr};

use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, Problem, json};
use super::asked::{Asked, Passed, What};
use super::backend_state::missing;
use super::outcome::{ClientSeen, Outcome, Seen, outcome};
use super::passed_on;
use crate::clock::{self, Rfc3339};
use crate::config::duration_text;
use crate::config::model::{BalancerKind, Filter, OnFailure, Protocol, Sessions};
use crate::control::because::Because;
use crate::control::effective::Effective;
use crate::control::shared::Shared;
use crate::http::forwarding::Source;
use crate::http::{path, request};
use crate::l7::reject::Failure;
use crate::policy::balance::{AnyBalancer, BackendIndex, Balancer, Eligible, EligibleSet};
use crate::policy::canary::{Side, is_canary};
use crate::policy::choose::{Nowhere, PoolView, foresee};
use crate::policy::facts::{Facts, RequestFacts, SessionFacts};
use crate::policy::judge::{Miss, judge};
use crate::policy::persist::{AnyPersistence, Recall, Sticky};
use crate::policy::route::RouteMatch;
use crate::rng::Rng;
use crate::state::compile::matches;
use crate::state::snapshot::{self, Pool, Snapshot, Split};
use crate::upstream::generation::{PoolLoads, eligible};

/// Routes that are told one by one.
const SHOWN: usize = 256;

/// The whole document.
#[derive(Debug, Default, Serialize)]
pub(super) struct Explanation {
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
    /// What is passed on, where it is no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<passed_on::Connection>,
    /// The route that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Route>,
    /// Why it is none of the others.
    other_routes: Vec<Route>,
    /// Why the pool is another one than the route's, or may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ways: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Client>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<PoolSeen>,
    pub outcome: Outcome,
}

impl Explanation {
    /// One that says nothing yet.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Explanation {
            generation: snapshot.generation,
            ..Explanation::default()
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Request {
    method: String,
    host: String,
    /// In normal form, as routes see it.
    path: String,
    listener: String,
    /// The client's address, past trusted proxies.
    client: String,
}

#[derive(Debug, Serialize)]
struct Route {
    name: String,
    matches: String,
    pool: String,
    /// The types of its filters, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<&'static str>,
    because: String,
}

/// What a sticky route knows of the client.
#[derive(Debug, Serialize)]
struct Client {
    mode: &'static str,
    sessions: &'static str,
    on_failure: String,
    /// `home`, `new`, `expired`, `forged`, or `store`: only that may know.
    known: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    home_state: Option<&'static str>,
    /// Where it was last, if that was not at home.
    #[serde(skip_serializing_if = "Option::is_none")]
    refuge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_home: Option<String>,
    /// The application's session that it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Session>,
}

#[derive(Debug, Serialize)]
struct Session {
    /// Whether a backend accepted it within the idle timeout.
    live: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PoolSeen {
    name: String,
    balancer: String,
    backends: Vec<BackendSeen>,
}

#[derive(Debug, Serialize)]
struct BackendSeen {
    name: String,
    address: String,
    weight: u16,
    /// Whether it serves only where no other can.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    effective: &'static str,
    /// Why it is that, where it is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u32>,
    /// Whether the balancer may give it new clients now.
    takes_new: bool,
}

/// What the request of the query, or what is passed on, would come to.
pub(super) fn explain(shared: &Shared, query: &str) -> Result<Answer, Problem> {
    let snapshot = shared.current.borrow().clone();
    let asked = Asked::of(query)?;
    let mut explanation = match &asked.what {
        What::Request { head, port } => {
            let listener = listener(&snapshot, asked.listener.as_deref(), *port)?;
            explain_at(&snapshot, listener, asked.client, head)
        }
        What::Passed(passed) => {
            let name = asked.listener.as_deref().unwrap_or_default();
            let listener = named(&snapshot, name)?;
            fits(&snapshot.listeners[listener], Some(passed))?;
            passed_on::explain(&snapshot, listener, &asked, passed)
        }
    };
    if let Some(seen) = &mut explanation.pool {
        seen.tell_why(&snapshot, shared);
    }
    Ok(json(StatusCode::OK, &explanation))
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// The listener that was named, else the first that a client with a URL of this port would reach, else the first.
fn listener(snapshot: &Snapshot, name: Option<&str>, port: u16) -> Result<usize, Problem> {
    if let Some(name) = name {
        let found = named(snapshot, name)?;
        return fits(&snapshot.listeners[found], None).map(|()| found);
    }
    let listeners = || {
        let all = snapshot.listeners.iter().enumerate();
        all.filter(|(_, listener)| listener.protocol == Protocol::Http)
    };
    let binds =
        |port| listeners().find(|(_, it)| it.keys.iter().any(|key| key.address.port() == port));
    let found = binds(port).or_else(|| listeners().next());
    found
        .map(|(ordinal, _)| ordinal)
        .ok_or_else(|| bad("there is no http listener".to_owned()))
}

fn named(snapshot: &Snapshot, name: &str) -> Result<usize, Problem> {
    let names = snapshot.listeners.iter().map(|listener| &*listener.name);
    let found = names.clone().position(|known| known == name);
    found.ok_or_else(|| missing(&format!("no listener {name:?}"), name, names))
}

/// Whether a listener has a use for what was asked: a request, or what is passed on.
fn fits(listener: &snapshot::Listener, passed: Option<&Passed>) -> Result<(), Problem> {
    let (name, protocol) = (&listener.name, listener.protocol.as_str());
    let says_something =
        |passed: &Passed| passed.server_name.is_some() || !passed.protocols.is_empty();
    match (listener.protocol, passed) {
        (Protocol::Http, None) => Ok(()),
        (_, None) => Err(bad(format!(
            "the listener {name} speaks {protocol}, which has no requests: leave `url` out, and say `client`{}",
            if listener.protocol == Protocol::Tcp {
                ", `sni` or `alpn`"
            } else {
                ""
            },
        ))),
        (Protocol::Http, Some(_)) => Err(bad(format!(
            "the listener {name} speaks http: a question about it has a `url`"
        ))),
        (Protocol::Udp, Some(passed)) if says_something(passed) => Err(bad(format!(
            "the listener {name} speaks udp, and weir reads no datagrams: leave `sni` and `alpn` out"
        ))),
        _ => Ok(()),
    }
}

fn explain_at(snapshot: &Snapshot, listener: usize, client: IpAddr, head: &[u8]) -> Explanation {
    let mut explanation = Explanation::of(snapshot);
    if let Err(failure) = follow(snapshot, listener, (client, head), &mut explanation) {
        explanation.outcome = Outcome::refused(failure);
    }
    explanation
}

/// Goes the way of a request, and writes down what it sees.
fn follow(
    snapshot: &Snapshot,
    listener: usize,
    (client, head): (IpAddr, &[u8]),
    explanation: &mut Explanation,
) -> Result<(), Failure> {
    let told = explanation.request.insert(Request {
        listener: snapshot.listeners[listener].name.to_string(),
        ..Request::default()
    });
    let (mut lines, mut memory) = (Vec::new(), Vec::new());
    let parsed = request::parse(head, &mut lines, &snapshot.config.limits);
    let head = &(parsed.map_err(Failure::Request)?)
        .ok_or(Failure::ClientGone)?
        .head;
    let remote = SocketAddr::new(client, 0);
    let is_tls = snapshot.listeners[listener].tls.is_some();
    let source = Source::of(head, remote, is_tls, &snapshot.config.trusted_proxies);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (told.method, told.host) = (text(head.method), text(head.host()));
    told.client = source.client.to_string();
    if !snapshot.listeners[listener].gate.permits(source.client) {
        return Err(Failure::Denied);
    }
    let checks = snapshot.listeners[listener].path_checks;
    let path = path::normalize(head.path, &mut memory, checks).map_err(Failure::Path)?;
    told.path = text(path);
    let facts = Facts {
        client: source.client,
        listener,
        request: Some(RequestFacts {
            head,
            path,
            secure: source.secure,
        }),
        hello: None,
        session: None,
        now: clock::now(),
        wall_millis: clock::wall_millis(),
    };
    route_and_pool(snapshot, facts, explanation).ok_or(Failure::NoRoute)
}

/// Finds the route, and its pool or the one that takes over; writes down both, and what becomes of the client there. `None`: no route matches.
pub(super) fn route_and_pool(
    snapshot: &Snapshot,
    facts: Facts<'_>,
    explanation: &mut Explanation,
) -> Option<()> {
    let taken = snapshot.router.route(&facts);
    (explanation.route, explanation.other_routes) = routes(snapshot, &facts, taken);
    let mut ordinal = taken?;
    if let Some(split) = &snapshot.routes[ordinal].canary {
        let (way, why) = side(snapshot, ordinal, split, &facts);
        ordinal = way;
        explanation.ways.push(why);
    }
    while let Some(fallback) = at_pool(snapshot, ordinal, facts, explanation) {
        let name = |way: usize| &*snapshot.pools[snapshot.routes[way].pool].name;
        let (own, other) = (name(ordinal), name(fallback));
        explanation.ways.push(format!(
            "no backend of {own} may be chosen: {other} takes over"
        ));
        ordinal = fallback;
    }
    Some(())
}

/// The side of a canary that the request is on, and why.
fn side(snapshot: &Snapshot, ordinal: usize, split: &Split, facts: &Facts<'_>) -> (usize, String) {
    let routes = [ordinal, split.way].map(|way| &snapshot.routes[way]);
    let pools = routes.map(|route| &snapshot.pools[route.pool]);
    let known = [0, 1].map(|at| Facts {
        session: session(routes[at], pools[at], facts),
        ..*facts
    });
    let side = |at: usize| {
        Some(Side {
            sticky: routes[at].sticky.as_ref()?,
            ring: &pools[at].ring,
            facts: &known[at],
        })
    };
    let sides = side(0).zip(side(1));
    let canary = &pools[1].name;
    let weight = snapshot.config.routes[ordinal].canary.as_ref();
    let weight = weight.map_or(0.0, |canary| canary.weight);
    match sides.and_then(|(own, canary)| is_canary(split.share, &own, &canary)) {
        Some(true) => (
            split.way,
            format!("the client is on the side of the canary {canary}"),
        ),
        Some(false) => (
            ordinal,
            format!("the client is not on the side of the canary {canary}"),
        ),
        None => (
            ordinal,
            format!(
                "the canary {canary} takes {weight} % of such requests, by chance; this is of the others"
            ),
        ),
    }
}

fn session(route: &snapshot::Route, pool: &Pool, facts: &Facts<'_>) -> Option<SessionFacts> {
    let shown = route.sticky.as_ref()?.session(facts.request?.head)?;
    Some(pool.sessions.as_ref()?.look(shown, facts.now))
}

/// Writes down what becomes of the request at the pool of a way; the way that takes over if nobody is there.
fn at_pool(
    snapshot: &Snapshot,
    ordinal: usize,
    mut facts: Facts<'_>,
    explanation: &mut Explanation,
) -> Option<usize> {
    let route = &snapshot.routes[ordinal];
    let pool = &snapshot.pools[route.pool];
    let sets = eligible(pool);
    explanation.pool = Some(pool_seen(pool, &sets));
    let view = PoolView {
        balancer: &AnyBalancer::new(&pool.balancer, &pool.shared, 0, 1, 0),
        ring: &pool.ring,
        sets: &sets,
        loads: &PoolLoads { pool, view: None },
    };
    let Some(sticky) = &route.sticky else {
        explanation.outcome = outcome(&Seen {
            pool,
            sets: &sets,
            led: led(&view, pool, &facts),
            client: None,
        });
        return route.fallback.filter(|_| sets.fresh().list().is_empty());
    };
    facts.session = session(route, pool, &facts);
    let (recall, place) = foresee(&view, sticky, &facts);
    explanation.client = Some(client(sticky, pool, &recall, facts.session));
    explanation.outcome = outcome(&Seen {
        pool,
        sets: &sets,
        led: None,
        client: Some(ClientSeen {
            sticky,
            recall,
            place,
        }),
    });
    let is_nobody = match place {
        None => sets.fresh().list().is_empty(),
        Some(place) => place == Err(Nowhere::NoBackend),
    };
    route.fallback.filter(|_| is_nobody)
}

/// Where a balancer leads that goes by what a client shows and keeps nothing, so that every worker agrees.
fn led(view: &PoolView<'_, PoolLoads<'_>>, pool: &Pool, facts: &Facts<'_>) -> Option<BackendIndex> {
    let goes_by_that = match &pool.balancer {
        BalancerKind::Maglev => true,
        BalancerKind::Hash(_) => pool.shared.hash.key(facts).is_some(),
        _ => false,
    };
    let eligible = Eligible::new(view.sets.fresh(), &[], view.loads);
    // There is nothing to draw.
    let pick = || view.balancer.pick(&eligible, facts, &mut Rng::from_seed(0));
    goes_by_that.then(pick)?
}

/// The route that is taken, and why it is none of the others.
fn routes(
    snapshot: &Snapshot,
    facts: &Facts<'_>,
    taken: Option<usize>,
) -> (Option<Route>, Vec<Route>) {
    let rules = matches(&snapshot.config);
    let told = |route: usize, because: String| Route {
        name: snapshot.routes[route].name.to_string(),
        matches: match_text(&rules[route], protocol(snapshot, &rules[route])),
        pool: snapshot.pools[snapshot.routes[route].pool].name.to_string(),
        filters: snapshot.config.routes[route]
            .filters
            .iter()
            .map(Filter::kind)
            .collect(),
        because,
    };
    let listener = &snapshot.listeners[facts.listener].name;
    let others = (0..rules.len()).filter(|route| Some(*route) != taken);
    let others = others.take(SHOWN).map(|route| {
        let because = match judge(&rules[route], facts) {
            Ok(_) => {
                "it matches too, but the route that is taken is more specific or stands before it"
                    .to_owned()
            }
            Err(miss) => miss_text(miss, &rules[route], listener),
        };
        told(route, because)
    });
    let chosen = taken.map(|route| told(route, "the most specific of those that match".to_owned()));
    (chosen, others.collect())
}

fn miss_text(miss: Miss<'_>, rule: &RouteMatch, listener: &str) -> String {
    match miss {
        Miss::Listener => format!("it does not serve the listener {listener}"),
        Miss::ServerName => format!("the client does not ask for {}", rule.hosts.join(" or ")),
        Miss::Protocol => format!("the client does not offer {}", rule.alpn.join(" or ")),
        Miss::Host => format!("the host is not {}", rule.hosts.join(" or ")),
        Miss::Path => format!("the path does not begin with {}", rule.path),
        Miss::Method => format!("the method is not {}", rule.methods.join(" or ")),
        Miss::Header(header) => match &header.value {
            Some(value) => format!("no header {} is {value:?}", header.name),
            None => format!("there is no header {}", header.name),
        },
    }
}

/// What the listeners of a route speak, which is one for all of them.
fn protocol(snapshot: &Snapshot, rule: &RouteMatch) -> Protocol {
    let first = rule.listeners.first();
    first.map_or(Protocol::Http, |&first| snapshot.listeners[first].protocol)
}

/// A match in one line: `shop.example.com/cart, POST, x-beta: "1"`, or `sni db.example.com, alpn postgresql`.
fn match_text(rule: &RouteMatch, protocol: Protocol) -> String {
    if protocol != Protocol::Http {
        let lists = [("sni", &rule.hosts), ("alpn", &rule.alpn)];
        let said = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let said: Vec<String> = said
            .map(|(key, list)| format!("{key} {}", list.join(" ")))
            .collect();
        return match said.is_empty() {
            true => format!("all of {}", protocol.as_str()),
            false => said.join(", "),
        };
    }
    let hosts = match rule.hosts.is_empty() {
        true => "any host".to_owned(),
        false => rule.hosts.join(" "),
    };
    let mut text = format!("{hosts}, {}", rule.path);
    if !rule.methods.is_empty() {
        text += &format!(", {}", rule.methods.join(" "));
    }
    for header in &rule.headers {
        text += &match &header.value {
            Some(value) => format!(", {}: {value}", header.name),
            None => format!(", {}", header.name),
        };
    }
    text
}

fn client(sticky: &Sticky, pool: &Pool, recall: &Recall, session: Option<SessionFacts>) -> Client {
    let home = match recall {
        Recall::Keep(home) => Some(home),
        _ => None,
    };
    let backend = |index: BackendIndex| &pool.backends[index.index()];
    let name = |index| backend(index).name.to_string();
    let own = home.and_then(|home| home.backend);
    let [issued, last_seen, left_home] = home
        .map_or([None; 3], |home| home.times())
        .map(|time| time.map(|seconds| Rfc3339(u64::from(seconds) * 1000).to_string()));
    Client {
        mode: mode_word(&sticky.mode),
        sessions: match sticky.sessions {
            Sessions::Local => "local",
            Sessions::Replicated => "replicated",
            Sessions::Shared => "shared",
        },
        on_failure: match sticky.on_failure {
            OnFailure::Temporary => "temporary".to_owned(),
            OnFailure::Permanent => "permanent".to_owned(),
            OnFailure::Wait(wait) => format!("wait {}", duration_text(wait)),
            OnFailure::Error => "error".to_owned(),
        },
        known: match recall {
            Recall::New => "new",
            Recall::Keep(_) => "home",
            Recall::Expired => "expired",
            Recall::Forged => "forged",
            Recall::Ask => "store",
        },
        home: own.map(name),
        home_state: own.map(|own| {
            let own = backend(own);
            Effective::of(own).as_str()
        }),
        refuge: home.and_then(|home| home.refuge).map(name),
        issued,
        last_seen,
        left_home,
        session: session.map(|session| Session {
            live: session.known.is_some(),
            backend: session.known.and_then(|known| known.backend).map(name),
            idle_seconds: session.known.map(|known| known.idle.as_secs()),
            age_seconds: session.known.map(|known| known.age.as_secs()),
        }),
    }
}

fn mode_word(mode: &AnyPersistence) -> &'static str {
    match mode {
        AnyPersistence::Insert(_) => "insert",
        AnyPersistence::CookieHash(_) => "cookie-hash",
        AnyPersistence::Route(_) => "route",
        AnyPersistence::Learn(_) => "learn",
        AnyPersistence::Source(_) => "source",
        AnyPersistence::Header(_) => "header",
    }
}

impl PoolSeen {
    /// Adds why backends are not up.
    fn tell_why(&mut self, snapshot: &Snapshot, shared: &Shared) {
        let mut pools = snapshot.pools.iter();
        let Some(pool) = pools.find(|pool| *pool.name == self.name) else {
            return;
        };
        for (seen, backend) in self.backends.iter_mut().zip(&pool.backends) {
            let is_up = seen.effective == Effective::Up.as_str();
            seen.because = (!is_up).then(|| Because::of(pool, backend, shared).text);
        }
    }
}

fn pool_seen(pool: &Pool, sets: &EligibleSet) -> PoolSeen {
    let backends = pool.backends.iter().zip((0..=u16::MAX).map(BackendIndex));
    PoolSeen {
        name: pool.name.to_string(),
        balancer: pool.balancer.to_string(),
        backends: backends
            .map(|(backend, index)| BackendSeen {
                name: backend.name.to_string(),
                address: backend.live.address.to_string(),
                weight: backend.weight,
                backup: backend.backup,
                effective: Effective::of(backend).as_str(),
                because: None,
                in_flight: backend.live.in_flight(),
                sessions: pool.sessions.as_ref().map(|sessions| sessions.count(index)),
                takes_new: sets.fresh().contains(index),
            })
            .collect(),
    }
}
