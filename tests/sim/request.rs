//! Clients and their requests: plan, lease, attempt, what follows a failure, and what the answer changes, in the order of the request function.
//! Every decision is asked of weir's core; the shadow model hears of each.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use weir::config::model::OnFailure;
use weir::http::cookie::Given;
use weir::http::edits::Edits;
use weir::http::{answer, request};
use weir::policy::balance::BackendIndex;
use weir::policy::choose::{Choice, Nowhere, PoolView, StickyView, choose, foresee};
use weir::policy::facts::{Facts, RequestFacts, SessionFacts};
use weir::policy::persist::{AnyPersistence, Remembered, Stickiness};
use weir::policy::retry::{self, Failure, MAX_RETRIES, NewId, Retry, Try};
use weir::state::snapshot::{Pool, Route};
use weir::upstream::generation::{Generation, PoolLoads};

use crate::judge::{Asked, Told};
use crate::server::{self, Outcome};
use crate::world::World;

/// A person at a browser: one request after another, now here, now there.
pub struct Client {
    pub number: usize,
    jars: BTreeMap<String, Jar>,
    remembered: Option<Remembered>,
}

/// The cookies of one pool's path.
#[derive(Clone, Default)]
struct Jar {
    token: Option<String>,
    session: Option<String>,
}

/// A request on its way.
struct Way {
    generation: Rc<Generation>,
    worker: usize,
    pool: String,
    is_post: bool,
    started: Duration,
    tried: Vec<BackendIndex>,
    retries: u8,
    led_by: Option<Retry>,
    anew: bool,
    /// Where it goes once more, over a new connection.
    again: Option<Planned>,
    /// Whether it waits a moment for its home.
    pauses: bool,
    /// Servers that have seen all of it.
    arrivals: Rc<Cell<u32>>,
}

/// What a plan came to.
#[derive(Clone, Copy)]
struct Planned {
    choice: Choice,
    wall_millis: u64,
    session: Option<SessionFacts>,
}

impl Client {
    pub fn new(number: usize) -> Client {
        Client {
            number,
            jars: BTreeMap::new(),
            remembered: None,
        }
    }

    pub async fn live(mut self, world: &World) {
        while !world.is_over() {
            world.time.wait(world.chance.millis(10..2500)).await;
            let names: Vec<_> = world
                .file
                .borrow()
                .pools
                .iter()
                .map(|p| p.name.clone())
                .collect();
            let pool =
                names[(self.number + usize::from(world.chance.one_in(10))) % names.len()].clone();
            self.tamper(world, &pool);
            let patience = world.chance.seconds(1..40);
            let time = world.time.clone();
            if time.within(patience, self.ask(world, pool)).await.is_none() {
                world.count("client gave up");
            }
            if world.chance.one_in(30) {
                // A new connection, perhaps to the other worker.
                self.remembered = None;
            }
        }
    }

    /// Some clients lose their cookies, and some make some up.
    fn tamper(&mut self, world: &World, pool: &str) {
        let jar = self.jars.entry(pool.to_owned()).or_default();
        match world.chance.below(60) {
            0 => *jar = Jar::default(),
            1 => {
                jar.token = jar
                    .token
                    .take()
                    .map(|token| format!("{}A", &token[..token.len() - 1]))
            }
            2 => jar.session = None,
            _ => return,
        }
        world.shadow.borrow_mut().forget(self.number, pool);
    }

    async fn ask(&mut self, world: &World, pool: String) {
        let worker = (self.number + usize::from(world.chance.one_in(5))) % world.workers.len();
        let generation = world.workers[worker].generation.borrow().clone();
        let name = pool.clone();
        let mut way = Way {
            generation: generation.clone(),
            worker,
            pool,
            is_post: world.chance.one_in(3),
            started: world.time.elapsed(),
            tried: Vec::new(),
            retries: 0,
            led_by: None,
            anew: false,
            again: None,
            pauses: false,
            arrivals: Rc::default(),
        };
        loop {
            let plan = way.again.take().map_or_else(|| self.plan(world, &way), Ok);
            let planned = match plan {
                Ok(planned) => planned,
                Err(Nowhere::HomeAway) => {
                    world.count("held");
                    way.hold(world).await;
                    continue;
                }
                Err(Nowhere::HomeDown) => return world.count("home down"),
                Err(_) => return world.count("no backend"),
            };
            let (pool, _) = place(&generation, &name);
            let backend = &pool.backends[planned.choice.backend.index()];
            let _lease = backend.lease().expect("no backend has a limit");
            let _shadow = world.shadow.borrow().enter(&backend.live);
            let arrival = planned.choice.is_new().then(|| backend.live.arrival());
            let outcome = way.attempt(world, &planned).await;
            let failed = match outcome {
                Outcome::Answered => match self.answered(world, &way, &planned) {
                    true => return,
                    false => (Failure::SessionOver, true),
                },
                Outcome::Failed { failure, sent } => (failure, sent),
            };
            drop(arrival);
            world.tell(|| format!("  client {} at {}: {failed:?}", self.number, backend.name));
            if !way.goes_on(world, planned, failed) {
                return;
            }
            if way.pauses {
                world.time.wait(Duration::from_millis(100)).await;
            }
        }
    }

    /// Route, session, persistence, balancer.
    fn plan(&mut self, world: &World, way: &Way) -> Result<Planned, Nowhere> {
        let bytes = self.head(&way.pool, way.is_post);
        let mut lines = Vec::new();
        let snapshot = &way.generation.snapshot;
        let parsed = request::parse(&bytes, &mut lines, &snapshot.config.limits);
        let head = parsed.expect("a good head").expect("a whole head").head;
        let mut facts = Facts {
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, self.number as u8)),
            listener: 0,
            request: Some(RequestFacts {
                head: &head,
                path: head.path,
                secure: false,
            }),
            hello: None,
            session: None,
            now: world.time.now(),
            wall_millis: world.time.wall_millis(),
        };
        let routed = snapshot.router.route(&facts).expect("a route");
        let (pool, route) = way.place();
        assert!(
            std::ptr::eq(route, &raw const snapshot.routes[routed]),
            "the route"
        );
        let shown = route
            .sticky
            .as_ref()
            .and_then(|sticky| sticky.session(&head));
        facts.session = shown
            .zip(pool.sessions.as_ref())
            .map(|(id, known)| known.look(id, facts.now));
        let asked = Asked {
            generation: &way.generation,
            pool,
            client: self.number,
            is_current: way.is_current(world),
            tried: &way.tried,
            anew: way.anew,
            patient: way.is_patient(world, route),
            session: self.jar(&way.pool).session,
            has_token: self.jar(&way.pool).token.is_some(),
            now: facts.now,
            wall_millis: facts.wall_millis,
        };
        world.shadow.borrow().expect_loads(pool);
        let choice = self.choose(world, way, &asked, route, &facts);
        world.tell(|| {
            format!(
                "client {} asks {}: {}",
                asked.client,
                way.pool,
                asked.text(&choice)
            )
        });
        world.shadow.borrow().judge(&asked, &choice);
        self.expect_agreement(world, way, route, &facts, &choice);
        let choice = choice?;
        Ok(Planned {
            choice,
            wall_millis: facts.wall_millis,
            session: facts.session,
        })
    }

    fn choose(
        &mut self,
        world: &World,
        way: &Way,
        asked: &Asked<'_>,
        route: &Route,
        facts: &Facts<'_>,
    ) -> Result<Choice, Nowhere> {
        let pool = asked.pool;
        let view = way.generation.pool(route.pool);
        let sets = view.eligible(pool);
        let rebalance = route.sticky.as_ref().and_then(|sticky| sticky.rebalance);
        let may_move = || rebalance.is_some_and(|moves| pool.moves.take(moves.rate, facts.now));
        let mut fill_secure = |bytes: &mut [u8]| {
            bytes.fill_with(|| world.chance.below(256) as u8);
        };
        let sticky = route.sticky.as_ref().map(|sticky| StickyView {
            sticky,
            remembered: &mut self.remembered,
            told: None,
            companions: &|| None,
            fill_secure: &mut fill_secure,
            patient: asked.patient,
            asks: false,
            gives_up: false,
            anew: way.anew,
            watched: pool
                .sessions
                .as_ref()
                .and_then(|sessions| sessions.watched(facts.now)),
            may_move: &may_move,
        });
        let view = PoolView {
            balancer: &view.balancer,
            ring: &pool.ring,
            sets: &sets,
            loads: &PoolLoads { pool, view: None },
        };
        let rng = &mut world.workers[way.worker].rng.borrow_mut();
        choose(&view, sticky, &way.tried, facts, rng)
    }

    /// Another worker, which is as good as another weir, would send a client with a home to the same place.
    fn expect_agreement(
        &self,
        world: &World,
        way: &Way,
        route: &Route,
        facts: &Facts<'_>,
        choice: &Result<Choice, Nowhere>,
    ) {
        let Some(sticky) = &route.sticky else { return };
        if !way.tried.is_empty() || way.anew || sticky.rebalance.is_some() || !way.is_current(world)
        {
            return;
        }
        let other = world.workers[(way.worker + 1) % world.workers.len()]
            .generation
            .borrow()
            .clone();
        let pool = &other.snapshot.pools[route.pool];
        let view = other.pool(route.pool);
        let sets = view.eligible(pool);
        let view = PoolView {
            balancer: &view.balancer,
            ring: &pool.ring,
            sets: &sets,
            loads: &PoolLoads { pool, view: None },
        };
        let (_, place) = foresee(&view, sticky, facts);
        let is_kept = matches!(choice, Ok(choice) if !choice.is_new());
        match (place, choice) {
            (Some(Ok(place)), Ok(choice)) => {
                assert_eq!(place.backend, choice.backend, "two workers disagree")
            }
            (place, _) => assert!(
                !is_kept || place.is_some(),
                "two workers disagree on whether it is known"
            ),
        }
    }

    /// What the answer changes: sessions, cookies, homes. `false`: the session is over, and the request goes elsewhere.
    fn answered(&mut self, world: &World, way: &Way, planned: &Planned) -> bool {
        let (pool, route) = way.place();
        let backend = planned.choice.backend;
        let Some(sticky) = &route.sticky else {
            world.count("not sticky");
            world.count("answered");
            return true;
        };
        let shown = self.jar(&way.pool).session;
        let opened = world.serve(pool, backend, sticky.sessions, shown.as_deref());
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n".to_vec();
        if let Some(id) = &opened {
            bytes.extend_from_slice(format!("Set-Cookie: JSESSIONID={id}; Path=/\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        let mut lines = Vec::new();
        let limits = &way.generation.snapshot.config.limits;
        let parsed = answer::parse(&bytes, &mut lines, limits, false);
        let head = parsed.expect("a good answer").expect("a whole answer").head;
        let given = sticky.given(&head);
        let chosen = planned.choice.sticky.expect("a sticky choice");
        let sessions = pool.sessions.as_ref().expect("sessions of a sticky route");
        let key = planned.session.map(|session| session.key);
        let accepted_by = planned.session.and_then(|session| session.known?.backend);
        let is_over = chosen.may_leave
            && planned.session.is_some()
            && retry::is_over(NewId {
                may_leave: way.retries < MAX_RETRIES,
                is_harmless: !way.is_post,
                is_passed_on: false,
                is_other: matches!(given, Given::Value(id) if Some(sessions.key(id)) != key),
                was_accepted: accepted_by == Some(backend),
            });
        if is_over {
            world.count("session over");
            return false;
        }
        let now = world.time.now();
        match &sticky.mode {
            AnyPersistence::Learn(mode) => {
                if let (Stickiness::Expired, Some(key)) = (chosen.stickiness, key) {
                    sessions.end(key);
                }
                let is_known = planned.session.map(|session| session.known.is_some());
                sessions.learn(mode.lesson(is_known, &chosen, given), backend, key, now);
            }
            _ => sessions.answered(backend, key, chosen.key, given, now),
        }
        let mut edits = Edits::default();
        let mut fill_secure = |bytes: &mut [u8]| bytes.fill_with(|| world.chance.below(256) as u8);
        let is_told = sticky.remember(&chosen, &head, given, false, &mut fill_secure, &mut edits);
        let mut out = Vec::new();
        edits.apply(head.bytes, head.lines, &mut out);
        self.take_cookies(&way.pool, &String::from_utf8(out).expect("text"));
        let result = chosen.result(given);
        world.tell(|| {
            format!(
                "  client {} is {} {opened:?} told: {is_told}",
                self.number,
                result.as_str()
            )
        });
        world.shadow.borrow_mut().learn(&Told {
            client: self.number,
            generation: way.generation.snapshot.generation,
            pool,
            chosen: &chosen,
            backend,
            opened: opened.as_deref(),
            shown: shown.as_deref(),
            is_told,
            now,
            wall_millis: planned.wall_millis,
        });
        world.count(result.as_str());
        world.count("answered");
        true
    }

    fn jar(&self, pool: &str) -> Jar {
        self.jars.get(pool).cloned().unwrap_or_default()
    }

    fn head(&self, pool: &str, is_post: bool) -> Vec<u8> {
        let method = if is_post { "POST" } else { "GET" };
        let mut text = format!(
            "{method} /{pool} HTTP/1.1\r\nHost: a\r\nX-User: u{}\r\n",
            self.number
        );
        let jar = self.jar(pool);
        let cookies = [
            jar.token.map(|token| format!("weir_{pool}={token}")),
            jar.session.map(|session| format!("JSESSIONID={session}")),
        ];
        for cookie in cookies.into_iter().flatten() {
            text.push_str(&format!("Cookie: {cookie}\r\n"));
        }
        if is_post {
            text.push_str("Content-Length: 0\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    fn take_cookies(&mut self, pool: &str, fields: &str) {
        let jar = self.jars.entry(pool.to_owned()).or_default();
        for line in fields.lines() {
            let Some(cookie) = line.strip_prefix("Set-Cookie: ") else {
                continue;
            };
            let pair = cookie.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("a cookie");
            match name {
                "JSESSIONID" => jar.session = Some(value.to_owned()),
                _ => jar.token = Some(value.to_owned()),
            }
        }
    }
}

impl Way {
    /// The pool that it goes to, and the route that leads there.
    fn place(&self) -> (&Pool, &Route) {
        place(&self.generation, &self.pool)
    }

    fn is_current(&self, world: &World) -> bool {
        self.generation.snapshot.generation == world.snapshot.borrow().generation
    }

    fn is_patient(&self, world: &World, route: &Route) -> bool {
        let wait = match route.sticky.as_ref().map(|sticky| sticky.on_failure) {
            Some(OnFailure::Wait(wait)) => wait,
            _ => return false,
        };
        world.time.elapsed() < self.started + wait
    }

    /// Until the pool's state changes, or its client has waited for long enough.
    async fn hold(&self, world: &World) {
        let (pool, route) = self.place();
        let epoch = self.generation.pool(route.pool).epoch();
        while pool.epoch.value() == epoch && self.is_patient(world, route) {
            world.time.wait(Duration::from_millis(50)).await;
        }
    }

    async fn attempt(&self, world: &World, planned: &Planned) -> Outcome {
        let (pool, _) = self.place();
        let address = pool.backends[planned.choice.backend.index()].live.address;
        let server = || {
            let servers = world.servers.borrow();
            let server = &servers[&address];
            (server.condition, server.latency, server.life)
        };
        let arrived = || {
            let before = self.arrivals.replace(self.arrivals.get() + 1);
            assert!(!self.is_post || before == 0, "a POST is done twice");
        };
        let wants_fresh = self.led_by == Some(Retry::SameBackendFresh);
        server::attempt(&world.time, &world.chance, server, wants_fresh, arrived).await
    }

    /// Whether another try follows.
    fn goes_on(&mut self, world: &World, planned: Planned, failed: (Failure, bool)) -> bool {
        let (failure, sent) = failed;
        self.pauses = false;
        let chosen = planned.choice.sticky;
        let is_kept = chosen.is_some_and(|chosen| chosen.stickiness == Stickiness::Kept);
        let retry = retry::after(Try {
            failure,
            idempotent: !self.is_post,
            sent,
            replayable: true,
            retries: self.retries,
            led_by: self.led_by,
            patient: is_kept && self.is_patient(world, self.place().1),
            bound: false,
            rules: None,
        });
        match retry {
            Retry::Never => {
                world.count("failed");
                return false;
            }
            Retry::Later => {
                self.pauses = true;
                return true;
            }
            Retry::SameBackendFresh => self.again = Some(planned),
            Retry::Elsewhere | Retry::IfAffordable | Retry::Anew => {
                self.anew |= retry == Retry::Anew;
                self.tried.push(planned.choice.backend);
            }
        }
        world.count(match failure {
            Failure::Connect => "retried after a failed connect",
            Failure::SessionOver => "began anew",
            _ => "retried after a closed connection",
        });
        self.led_by = Some(retry);
        self.retries += 1;
        assert!(self.retries <= MAX_RETRIES, "a request without end");
        true
    }
}

/// A pool of a generation, and the route that leads there.
fn place<'a>(generation: &'a Generation, name: &str) -> (&'a Pool, &'a Route) {
    let snapshot = &generation.snapshot;
    let mut routes = snapshot.routes.iter();
    let route = routes
        .find(|route| *route.name == *name)
        .expect("the route");
    (&snapshot.pools[route.pool], route)
}

/// Facts of nobody in particular.
pub fn nobody(world: &World) -> Facts<'static> {
    Facts {
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: 0,
        request: None,
        hello: None,
        session: None,
        now: world.time.now(),
        wall_millis: world.time.wall_millis(),
    }
}
