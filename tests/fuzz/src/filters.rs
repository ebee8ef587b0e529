//! Filters over what a client sent: the head that they make is one head, what they set stands there once, what they remove is gone, and
//! where they send a client is no place that it made up. The input is a request head.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use weir::config::model::{Limits, PathChecks};
use weir::config::parse;
use weir::http::edits::Edits;
use weir::http::head::{Field, RequestHead};
use weir::http::path::normalize;
use weir::http::{answer, request};
use weir::policy::facts::{Facts, RequestFacts};
use weir::policy::filter::{Answer, Filters, Flow, Limits as Tokens, Memory, Request, View};

use super::support::{LIMITS, Numbers, folded, is_token, read_plainly, values};

/// Room for what is added.
const ROOM: Limits = Limits {
    head: 64 << 10,
    header_lines: 128,
};

const CONFIG: &str = r#"
[listeners.web]
bind = ["127.0.0.1:0"]
[pools.was]
backends = ["127.0.0.1:1"]
[[routes]]
path = "/a"
pool = "was"
filters = [
  { type = "request-id" },
  { type = "rewrite-path", prefix = "/a", to = "/new" },
  { type = "rewrite-path", regex = "^/new/([^/]+)/(.*)$", to = "/$2/$1" },
  { type = "request-headers", remove = ["X-Gone"], set = { X-Set = "{client_ip} {host} {method} {path} {query} {scheme} {listener} {route} {pool}" }, add = { X-Added = "{request_id}-{client_port}{sni}" } },
  { type = "response-headers", set = { X-Path = "{path}?{query}", X-Backend = "{backend}" } },
]
[[routes]]
path = "/b"
pool = "was"
filters = [{ type = "redirect", scheme = "https" }]
[[routes]]
path = "/c"
pool = "was"
filters = [{ type = "redirect", host = "www.{host}", path = "/x/{path}?from={path}&{query}" }]
[[routes]]
path = "/d"
pool = "was"
filters = [{ type = "redirect", host = "example.com", path = "{path}" }]
[[routes]]
path = "/e"
pool = "was"
filters = [
  { type = "cors", origins = ["https://a.example", "https://*.b.example"], credentials = true },
  { type = "basic-auth", users_file = "/nowhere" },
  { type = "request-headers", set = { X-User = "{user}" } },
  { type = "compress", min_size = "1B" },
  { type = "security-headers" },
]
[[routes]]
pool = "was"
filters = [{ type = "redirect", path = "/{host}{path}", code = 308 }]
"#;

/// None of the routes has a limit.
#[derive(Debug)]
struct Unlimited;

impl Tokens for Unlimited {
    fn take(&self, _: usize, _: &Request<'_>) -> Option<Duration> {
        None
    }
}

/// The route that asks who it is.
const DOOR: usize = 4;

static FILTERS: LazyLock<Vec<Filters>> = LazyLock::new(|| {
    let loaded = parse("filters.toml", CONFIG).unwrap_or_else(|found| panic!("{found}"));
    let routes = loaded.config.routes.iter();
    routes
        .filter_map(|route| Filters::new(&route.filters).map(|filters| *filters))
        .collect()
});

pub fn run(bytes: &[u8]) {
    let mut lines = Vec::new();
    let Ok(Some(request)) = request::parse(bytes, &mut lines, &LIMITS) else {
        return;
    };
    let mut scratch = Vec::new();
    let Ok(path) = normalize(request.head.path, &mut scratch, PathChecks::Strict) else {
        return;
    };
    let which = match path {
        [b'/', route @ b'a'..=b'e', ..] => usize::from(route - b'a'),
        _ => Numbers::of(bytes).up_to(FILTERS.len() - 1),
    };
    let trusted = Numbers::of(bytes).up_to(1) == 1;
    step(&FILTERS[which], &request.head, path, trusted, which);
}

fn step(filters: &Filters, head: &RequestHead<'_>, path: &[u8], trusted: bool, which: usize) {
    let client = [192, 0, 2, 1].into();
    let view = View {
        client,
        port: (!trusted).then_some(4711),
        trusted,
        secure: false,
        id: 1,
        method: head.method,
        authority: head.authority,
        target: head.path_and_query,
        sni: "",
        listener: "web",
        route: "r",
        pool: "was",
        backend: "127.0.0.1:1",
    };
    let facts = Facts {
        client,
        listener: 0,
        request: Some(RequestFacts {
            head,
            path,
            secure: false,
        }),
        session: None,
        hello: None,
        now: Instant::now(),
        wall_millis: 0,
    };
    let request = Request {
        view: &view,
        facts: &facts,
        head,
        checks: PathChecks::Strict,
        again: false,
    };
    let (mut memory, mut edits) = (Memory::new(7), Edits::default());
    let mut flow = filters.request(request, &Unlimited, &mut memory, &mut edits);
    if let Flow::Ask(claim) = &flow {
        assert!(which == DOOR && !claim.name.chars().any(char::is_control));
        memory.judge(true);
        flow = filters.resume(request, &Unlimited, &mut memory, &mut edits);
    }
    match flow {
        Flow::Continue if which == 0 => check_edited(head, &mut edits),
        Flow::Continue if which == DOOR => check_behind_door(head, &mut edits, memory.user()),
        Flow::Continue => {}
        Flow::Answer(answer) if which == DOOR => {
            assert!(answer.status == 401 || answer.status == 204);
        }
        Flow::Answer(answer) => check_redirect(head, &answer),
        Flow::Refuse(_) => return,
        Flow::Ask(claim) => panic!("{claim:?} twice"),
    }
    check_answer(filters, (&view, head), &memory, which);
}

fn check_edited(head: &RequestHead<'_>, edits: &mut Edits) {
    check_sent(head, edits, |fields| {
        let named = |name: &str| {
            fields
                .iter()
                .filter(|field| folded(field.0) == name)
                .count()
        };
        assert_eq!(
            (named("x-gone"), named("x-set"), named("x-request-id")),
            (0, 1, 1)
        );
        assert!(!values(fields, "x-added").is_empty());
    });
}

/// The password stays here, and nobody says who it is but the one who was asked.
fn check_behind_door(head: &RequestHead<'_>, edits: &mut Edits, user: &str) {
    check_sent(head, edits, |fields| {
        assert!(
            !fields
                .iter()
                .any(|field| folded(field.0) == "authorization")
        );
        let told: Vec<_> = fields
            .iter()
            .filter(|field| folded(field.0) == "x-user")
            .collect();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1, user.as_bytes().trim_ascii());
    });
}

fn check_sent(head: &RequestHead<'_>, edits: &mut Edits, check: impl Fn(&[(&[u8], &[u8])])) {
    let mut out = b"GET ".to_vec();
    let target = edits.target().unwrap_or(head.path_and_query).to_vec();
    out.extend_from_slice(if target.starts_with(b"?") { b"/" } else { b"" });
    out.extend_from_slice(&target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // A target may name the host of a request of HTTP/1.0 that has no such line; what is sent has one then.
    let has_line = head.field(Field::Host).next().is_some();
    if !has_line && !head.authority.is_empty() && !edits.keeps_host() {
        edits.append("Host", head.authority);
    }
    edits.apply(head.bytes, head.lines, &mut out);
    out.extend_from_slice(b"\r\n");
    let mut lines = Vec::new();
    let sent = match request::parse(&out, &mut lines, &ROOM) {
        Ok(sent) => sent.expect("a whole head").head,
        // HTTP/1.0 may lack a host, an asterisk belongs to OPTIONS: neither is a matter of filters.
        Err(_) if head.authority.is_empty() || target == b"*" => return,
        Err(fault) => panic!("{fault:?} in {}", out.escape_ascii()),
    };
    assert_eq!(sent.bytes.len(), out.len(), "one head");
    let (_, fields) = read_plainly(sent.bytes, sent.lines);
    check(&fields);
    let mut scratch = Vec::new();
    normalize(sent.path, &mut scratch, PathChecks::Strict).expect("a path that may be sent");
}

fn check_redirect(head: &RequestHead<'_>, given: &Answer) {
    let mut out = b"HTTP/1.1 302 Found\r\n".to_vec();
    out.extend_from_slice(&given.fields);
    out.extend_from_slice(b"\r\n");
    let mut lines = Vec::new();
    let answer = answer::parse(&out, &mut lines, &ROOM, false);
    let answer = answer.expect("no fault").expect("a whole head").head;
    assert_eq!(answer.bytes.len(), out.len(), "one head");
    let (_, fields) = read_plainly(answer.bytes, answer.lines);
    let place = values(&fields, "location");
    let [place] = place[..] else {
        panic!("{place:?}");
    };
    assert!(
        place.iter().all(u8::is_ascii_graphic),
        "{}",
        place.escape_ascii()
    );
    let place = std::str::from_utf8(place).expect("text");
    let rest = match place.split_once("://") {
        Some(("http" | "https", rest)) => rest,
        _ => {
            assert!(
                place.starts_with('/') && !place.starts_with("//"),
                "{place}"
            );
            assert!(!place.starts_with("/\\"), "{place}");
            return;
        }
    };
    let host = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let bare = host_alone(host).to_ascii_lowercase();
    let own = host_alone(&String::from_utf8_lossy(head.authority)).to_ascii_lowercase();
    let own = own.strip_suffix('.').unwrap_or(&own).to_owned();
    let known = [own.clone(), format!("www.{own}"), "example.com".to_owned()];
    assert!(known.contains(&bare), "{place}");
}

fn host_alone(authority: &str) -> &str {
    match authority.find(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn check_answer(
    filters: &Filters,
    (view, asked): (&View<'_>, &RequestHead<'_>),
    memory: &Memory,
    which: usize,
) {
    let wire = b"HTTP/1.1 200 OK\r\nx_path: old\r\nContent-Type: text/html\r\naccess-control-allow-origin: *\r\nContent-Length: 0\r\n\r\n";
    let mut lines = Vec::new();
    let head = answer::parse(wire, &mut lines, &ROOM, false);
    let head = head.expect("no fault").expect("a whole head").head;
    let (mut edits, mut out) = (Edits::default(), b"HTTP/1.1 200 OK\r\n".to_vec());
    filters.coding(memory, &head, Some(1000), &mut edits);
    filters.answer(view, memory, &head, &mut edits);
    edits.apply(head.bytes, head.lines, &mut out);
    out.extend_from_slice(b"\r\n");
    let mut lines = Vec::new();
    let told = answer::parse(&out, &mut lines, &ROOM, false);
    let told = told.expect("no fault").expect("a whole head").head;
    assert_eq!(told.bytes.len(), out.len(), "one head");
    let (_, fields) = read_plainly(told.bytes, told.lines);
    let named = |name: &str| {
        fields
            .iter()
            .filter(|field| folded(field.0) == name)
            .count()
    };
    if which == 0 {
        assert_eq!((named("x-path"), named("x-request-id")), (1, 1));
    }
    if which == DOOR {
        let (_, request) = read_plainly(asked.bytes, asked.lines);
        let origins = values(&request, "origin");
        for origin in values(&fields, "access-control-allow-origin") {
            assert_eq!(origins, [origin], "to itself alone");
            let host = origin.strip_prefix(b"https://").expect("https");
            assert!(host == b"a.example" || host.ends_with(b".b.example"));
            assert!(host.iter().all(|byte| is_token(*byte)));
        }
    }
}
