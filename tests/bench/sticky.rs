//! What stickiness costs: the decision about one request and its answer on a sticky route, against the same on a route without.
//! It measures the calls that `l7/plan.rs` makes, on heads that were parsed before; sockets and framing are `load`'s business.
//!
//!     cargo bench --bench sticky            # nanoseconds, by criterion
//!     tests/bench/instructions              # instructions, by callgrind
//!
//! `WEIR_BENCH_CASE` and `WEIR_BENCH_COUNT` run one case so often and measure nothing: a profiler does.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::Criterion;
use weir::config::model::Limits;
use weir::http::edits::Edits;
use weir::http::head::{AnswerHead, RequestHead};
use weir::http::{answer, request};
use weir::policy::choose::{Choice, PoolView, StickyView, choose};
use weir::policy::facts::{Facts, RequestFacts};
use weir::policy::health::Health;
use weir::policy::persist::Remembered;
use weir::policy::persist::token::Secrets;
use weir::rng::{self, Rng};
use weir::state::compile::compile;
use weir::state::snapshot::Route;
use weir::upstream::generation::{Generation, IdleStacks, PoolLoads};
use weir::{clock, config};

const CONFIG: &str = r#"
[listeners.web]
bind = ["127.0.0.1:8080"]
[[routes]]
path = "/plain"
pool = "was"
[[routes]]
path = "/insert"
pool = "was"
sticky = { mode = "insert" }
[[routes]]
path = "/hash"
pool = "was"
sticky = { mode = "cookie-hash", cookie = "weir_hash", sessions = "shared" }
[[routes]]
path = "/route"
pool = "was"
sticky = { mode = "route" }
[pools.was]
balancer = "least-connections"
backends = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080", "10.0.0.14:8080"]
"#;

const LIMITS: Limits = Limits {
    head: 65_536,
    header_lines: 128,
};

/// The application's own cookies; the session is known to weir from the second request on.
const SESSION: &str = "JSESSIONID=8F2E0A9D4C7B11EE9A350242AC120002.10.0.0.12:8080";

const ANSWER: &str = "HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 03:00:00 GMT\r\nContent-Type: text/html;charset=UTF-8\r\n\
    Cache-Control: no-cache\r\nVary: Accept-Encoding\r\nContent-Length: 128\r\n\r\n";

/// A client that asks once more.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// The route's ordinal in the file.
    route: usize,
    /// Whether it was there before.
    is_known: bool,
    /// Whether its connection remembers the token.
    remembers: bool,
}

const PLAIN: usize = 0;
const INSERT: usize = 1;

const CASES: [Case; 6] = [
    case("plain", PLAIN, true, false),
    case("insert-kept", INSERT, true, true),
    case("insert-opened", INSERT, true, false),
    case("insert-new", INSERT, false, false),
    case("cookie-hash-kept", 2, true, true),
    case("route-kept", 3, true, false),
];

const fn case(name: &'static str, route: usize, is_known: bool, remembers: bool) -> Case {
    Case {
        name,
        route,
        is_known,
        remembers,
    }
}

/// What a worker has at hand.
struct Worker {
    generation: Generation,
    rng: Rng,
    edits: Edits,
    out: Vec<u8>,
    now: Instant,
    wall_millis: u64,
}

impl Worker {
    fn new() -> Worker {
        let loaded = config::parse("bench.toml", CONFIG).expect("a good configuration");
        let secrets = Secrets::parse(&Secrets::new_file(rng::fill_secure)).expect("a secret");
        let snapshot = compile(
            Arc::new(loaded.config),
            Some(&secrets),
            None,
            1,
            1,
            clock::now(),
        );
        for backend in &snapshot.pools[0].backends {
            backend.live.set_health(Health::Up, clock::now());
        }
        Worker {
            generation: Generation::new(Arc::new(snapshot), &mut IdleStacks::default(), 0, 1),
            rng: Rng::from_seed(1),
            edits: Edits::default(),
            out: Vec::with_capacity(16_384),
            now: clock::now(),
            wall_millis: clock::wall_millis(),
        }
    }

    /// What a request and its answer ask of the policy. `out` holds both heads as they go on.
    #[inline(never)]
    fn serve(
        &mut self,
        route: usize,
        head: &RequestHead<'_>,
        answer: &AnswerHead<'_>,
        remembered: &mut Option<Remembered>,
    ) -> Choice {
        let snapshot = self.generation.snapshot.clone();
        let route = &snapshot.routes[route];
        let pool = &snapshot.pools[route.pool];
        let request = RequestFacts {
            head,
            path: head.path,
            secure: false,
        };
        let mut facts = Facts {
            client: [192, 0, 2, 1].into(),
            listener: 0,
            request: Some(request),
            session: None,
            hello: None,
            now: self.now,
            wall_millis: self.wall_millis,
        };
        let shown = route
            .sticky
            .as_ref()
            .and_then(|sticky| sticky.session(head));
        let sessions = pool.sessions.as_ref();
        facts.session = shown
            .zip(sessions)
            .map(|(shown, sessions)| sessions.look(shown, self.now));
        let choice = self.choose(route, &facts, remembered);

        self.out.clear();
        self.edits.clear();
        if let Some(sticky) = &route.sticky {
            sticky.conceal(head, &mut self.edits);
        }
        self.edits.apply(head.bytes, head.lines, &mut self.out);
        self.edits.clear();
        if let (Some(sticky), Some(chosen)) = (&route.sticky, &choice.sticky) {
            let given = sticky.given(answer);
            let key = facts.session.map(|session| session.key);
            if let (Some(key), Some(sessions)) = (key, sessions) {
                sessions.note(key, choice.backend, self.now);
            }
            sticky.remember(
                chosen,
                answer,
                given,
                false,
                &mut rng::fill_secure,
                &mut self.edits,
            );
        }
        self.edits.apply(answer.bytes, answer.lines, &mut self.out);
        choice
    }

    fn choose(
        &mut self,
        route: &Route,
        facts: &Facts<'_>,
        remembered: &mut Option<Remembered>,
    ) -> Choice {
        let pool = &self.generation.snapshot.pools[route.pool];
        let view = self.generation.pool(route.pool);
        let sets = view.eligible(pool);
        let view = PoolView {
            balancer: &view.balancer,
            ring: &pool.ring,
            sets: &sets,
            loads: &PoolLoads(pool),
        };
        let mut fill_secure = rng::fill_secure;
        let sticky = route.sticky.as_ref().map(|sticky| StickyView {
            sticky,
            remembered,
            fill_secure: &mut fill_secure,
            told: None,
            companions: &|| None,
            patient: false,
            asks: false,
            anew: false,
            may_move: &|| false,
            watched: None,
        });
        choose(&view, sticky, &[], facts, &mut self.rng).expect("a backend")
    }

    /// Runs `body` with what a request of the case is served by, again and again.
    fn with(&mut self, case: Case, body: impl FnOnce(&mut dyn FnMut() -> Choice)) {
        let mut parts = (Vec::new(), Vec::new());
        let answer = answer::parse(ANSWER.as_bytes(), &mut parts.0, &LIMITS, false);
        let answer = answer.ok().flatten().expect("a good answer").head;
        let token = match case.is_known {
            // The plain route's clients bring the same bytes along.
            true => self.token(case.route.max(INSERT), &answer),
            false => String::new(),
        };
        let session = if case.is_known { SESSION } else { "c=d" };
        let bytes = request_of(&format!("a=b; {token}theme=dark; {session}"));
        let request = request::parse(bytes.as_bytes(), &mut parts.1, &LIMITS);
        let head = request.ok().flatten().expect("a good request").head;
        let mut remembered = None;
        body(&mut || {
            if !case.remembers {
                remembered = None;
            }
            self.serve(case.route, &head, &answer, &mut remembered)
        });
    }

    /// The cookie that a first visit brings, or nothing.
    fn token(&mut self, route: usize, answer: &AnswerHead<'_>) -> String {
        let (bytes, mut lines) = (request_of("a=b"), Vec::new());
        let request = request::parse(bytes.as_bytes(), &mut lines, &LIMITS);
        let head = request.ok().flatten().expect("a good request").head;
        self.serve(route, &head, answer, &mut None);
        let out = String::from_utf8_lossy(&self.out);
        let mut set = out
            .lines()
            .filter_map(|line| line.strip_prefix("Set-Cookie: "));
        let token = set.next().and_then(|line| line.split(';').next());
        token.map_or(String::new(), |token| format!("{token}; "))
    }
}

/// What a browser sends.
fn request_of(cookies: &str) -> String {
    format!(
        "GET /shop/cart?item=7 HTTP/1.1\r\nHost: shop.example.com\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate, br\r\nReferer: https://shop.example.com/shop\r\nConnection: keep-alive\r\n\
         Cookie: {cookies}\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\r\n"
    )
}

/// Runs one case so often, for a profiler.
fn profile(name: &str, count: u64) {
    let case = CASES.into_iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("no case {name}"));
    Worker::new().with(case, |serve| {
        for _ in 0..count {
            black_box(serve());
        }
    });
}

fn main() {
    let (name, count) = ("WEIR_BENCH_CASE", "WEIR_BENCH_COUNT");
    if let (Ok(name), Ok(count)) = (std::env::var(name), std::env::var(count)) {
        return profile(&name, count.parse().expect("a number"));
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut worker = Worker::new();
    for case in CASES {
        worker.with(case, |serve| {
            criterion.bench_function(case.name, |bencher| bencher.iter(|| black_box(serve())));
        });
    }
    criterion.final_summary();
}
