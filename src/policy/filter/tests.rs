//! The steps over heads that are written out: what a backend or a client would get.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::config;
use crate::config::model::Limits;
use crate::http::Sample;
use crate::http::answer;

const LIMITS: Limits = Limits {
    head: 65536,
    header_lines: 128,
};

/// The filters that a route with this list has, and its configuration must be fine.
fn filters(list: &str) -> Box<Filters> {
    let text = format!(
        "[listeners.web]\nbind = [\"127.0.0.1:1\"]\n[[routes]]\npool = \"was\"\nfilters = [\n{list}\n]\n[pools.was]\nbackends = [\"127.0.0.1:2\"]\n"
    );
    let loaded = config::parse("weir.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    Filters::new(&loaded.config.routes[0].filters).expect("a filter")
}

/// A limit that nobody meets.
#[derive(Debug)]
struct Generous;

impl super::Limits for Generous {
    fn take(&self, _: usize, _: &Request<'_>) -> Option<Duration> {
        None
    }
}

fn view<'a>(head: &RequestHead<'a>) -> View<'a> {
    View {
        client: IpAddr::from([192, 0, 2, 1]),
        port: Some(4711),
        trusted: false,
        secure: false,
        id: 0x1234,
        method: head.method,
        authority: head.authority,
        target: head.path_and_query,
        sni: "sni.example",
        listener: "web",
        route: "all",
        pool: "was",
        backend: "",
    }
}

/// What became of a request: the target and field lines that go on, or how it ended.
#[derive(Debug)]
enum Became {
    Sent { target: String, fields: String },
    Answered(Answer),
    Refused(Refusal),
    Asked(Claim),
}

fn run_with(
    list: &str,
    line: &str,
    fields: &[(&str, &str)],
    change: impl Fn(&mut View<'_>),
) -> Became {
    run(&filters(list), line, fields, change)
}

fn run(
    filters: &Filters,
    line: &str,
    fields: &[(&str, &str)],
    change: impl Fn(&mut View<'_>),
) -> Became {
    let sample = Sample::new(line, fields);
    let head = sample.request();
    let mut view = view(&head);
    change(&mut view);
    let facts = Facts {
        client: view.client,
        listener: 0,
        request: None,
        hello: None,
        session: None,
        now: Instant::now(),
        wall_millis: 0,
    };
    let request = Request {
        view: &view,
        facts: &facts,
        head: &head,
        checks: PathChecks::Strict,
        again: false,
    };
    let (mut memory, mut edits) = (Memory::new(0xabcd), Edits::default());
    match filters.request(request, &Generous, &mut memory, &mut edits) {
        Flow::Continue => {
            let mut out = Vec::new();
            edits.apply(head.bytes, head.lines, &mut out);
            let target = edits.target().unwrap_or(head.path_and_query);
            Became::Sent {
                target: String::from_utf8(target.to_vec()).unwrap(),
                fields: String::from_utf8_lossy(&out).into_owned(),
            }
        }
        Flow::Answer(answer) => Became::Answered(answer),
        Flow::Refuse(refusal) => Became::Refused(refusal),
        Flow::Ask(claim) => Became::Asked(claim),
    }
}

fn sent(list: &str, line: &str, fields: &[(&str, &str)]) -> (String, String) {
    match run_with(list, line, fields, |_| {}) {
        Became::Sent { target, fields } => (target, fields),
        other => panic!("{other:?}"),
    }
}

fn location(list: &str, target: &str, secure: bool) -> Option<String> {
    let line = format!("GET {target} HTTP/1.1");
    let became = run_with(list, &line, &[("Host", "shop.example:8080")], |view| {
        view.secure = secure
    });
    match became {
        Became::Sent { .. } => None,
        Became::Answered(answer) => {
            let text = String::from_utf8(answer.fields).unwrap();
            let place = text.strip_prefix("Location: ").unwrap();
            Some(place.strip_suffix("\r\n").unwrap().to_owned())
        }
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn within_a_filter_lines_are_removed_set_and_added() {
    let (_, fields) = sent(
        r#"{ type = "request-headers", add = { X-A = "added", X-B = "b" }, set = { x-a = "set" }, remove = ["X-B", "x-c"] }"#,
        "GET / HTTP/1.1",
        &[
            ("Host", "a"),
            ("X_A", "forged"),
            ("X-a", "forged"),
            ("X-B", "1"),
            ("x_c", "1"),
        ],
    );
    assert_eq!(fields, "Host: a\r\nx-a: set\r\nX-A: added\r\nX-B: b\r\n");
}

#[test]
fn filters_work_in_the_order_written() {
    let (target, fields) = sent(
        r#"{ type = "request-headers", set = { X-Before = "{path}", X-Twice = "1" } },
           { type = "rewrite-path", prefix = "/a", to = "/b" },
           { type = "request-headers", set = { X-After = "{path}?{query}", X-Twice = "2" } },
           { type = "rewrite-path", regex = "^/b/(.*)$", to = "/c/$1/$$" },
           { type = "request-headers", remove = ["X-Before"] }"#,
        "GET /a/x?q=1 HTTP/1.1",
        &[("Host", "a")],
    );
    assert_eq!(target, "/c/x/$?q=1");
    assert_eq!(fields, "Host: a\r\nX-After: /b/x?q=1\r\nX-Twice: 2\r\n");
}

#[test]
fn variables_stand_for_what_is_known() {
    let (_, fields) = sent(
        r#"{ type = "request-headers", set = { X = "{client_ip} {client_port} {request_id} {host} {method} {path} {query} {scheme} {listener} {route} {pool} {sni} [{user}] {{}}" } }"#,
        "POST /p?q HTTP/1.1",
        &[("Host", "h.example:81")],
    );
    assert_eq!(
        fields,
        "Host: h.example:81\r\nX: 192.0.2.1 4711 0000000000001234000000000000abcd h.example POST /p q http web all was sni.example [] {}\r\n"
    );
}

#[test]
fn a_host_may_be_set() {
    let list = r#"{ type = "request-headers", set = { Host = "inside.example" } }"#;
    let (_, fields) = sent(list, "GET / HTTP/1.1", &[("Host", "a"), ("X", "1")]);
    assert_eq!(fields, "X: 1\r\nHost: inside.example\r\n");
}

#[test]
fn paths_are_rewritten() {
    let shop = r#"{ type = "rewrite-path", prefix = "/shop", to = "/" }"#;
    let deep = r#"{ type = "rewrite-path", prefix = "/", to = "/app/v1/" }"#;
    let regex =
        r#"{ type = "rewrite-path", regex = "^/(?P<lang>[a-z]{2})/(.*)$", to = "/${2}/${lang}" }"#;
    for (list, target, made) in [
        (shop, "/shop/a?b", "/a?b"),
        (shop, "/shop", "/"),
        (shop, "/shop?x", "/?x"),
        (shop, "/shop;jsessionid=1", "/;jsessionid=1"),
        (shop, "/%73hop//a", "/a"),
        (shop, "/shop//evil.example", "/evil.example"),
        (shop, "/shopping", "/shopping"),
        (deep, "/", "/app/v1/"),
        (deep, "/x", "/app/v1/x"),
        (regex, "/de/a/b?c", "/a/b/de?c"),
        (regex, "/d%65/a", "/a/de"),
        (regex, "/x", "/x"),
    ] {
        let (became, _) = sent(list, &format!("GET {target} HTTP/1.1"), &[("Host", "a")]);
        assert_eq!(became, made, "{list} {target}");
    }
    let (star, _) = sent(deep, "OPTIONS * HTTP/1.1", &[("Host", "a")]);
    assert_eq!(star, "*");
}

#[test]
fn a_rewrite_leads_nowhere_else() {
    let dots = r#"{ type = "rewrite-path", regex = "^/x/(.*)$", to = "/a/.$1" }"#;
    for target in ["/x/./b", "/x/", "/x/%2e/b"] {
        let became = run_with(
            dots,
            &format!("GET {target} HTTP/1.1"),
            &[("Host", "a")],
            |_| {},
        );
        assert!(
            matches!(became, Became::Refused(Refusal::Path(_))),
            "{target}: {became:?}"
        );
    }
    let slashes = r#"{ type = "rewrite-path", regex = "^/x(.*)$", to = "$1" }"#;
    let (made, _) = sent(slashes, "GET /x//evil HTTP/1.1", &[("Host", "a")]);
    assert_eq!(made, "/evil");
}

#[test]
fn redirects_lead_elsewhere() {
    let https = r#"{ type = "redirect", scheme = "https" }"#;
    assert_eq!(
        location(https, "/a?b", false).as_deref(),
        Some("https://shop.example/a?b")
    );
    assert_eq!(location(https, "/a?b", true), None, "it is there already");
    let port = r#"{ type = "redirect", scheme = "https", port = 8443, code = 301 }"#;
    assert_eq!(
        location(port, "/", false).as_deref(),
        Some("https://shop.example:8443/")
    );
    let www = r#"{ type = "redirect", host = "www.{host}" }"#;
    assert_eq!(
        location(www, "/a", true).as_deref(),
        Some("https://www.shop.example/a")
    );
    let path = r#"{ type = "redirect", path = "/new{path}" }"#;
    assert_eq!(
        location(path, "/a?b", false).as_deref(),
        Some("http://shop.example:8080/new/a?b")
    );
    let query = r#"{ type = "redirect", path = "/find?q={path}" }"#;
    assert_eq!(
        location(query, "/a&b?c", false).as_deref(),
        Some("http://shop.example:8080/find?q=%2fa%26b")
    );
    let none = r#"{ type = "redirect", path = "/x?" }"#;
    assert_eq!(
        location(none, "/a?b", false).as_deref(),
        Some("http://shop.example:8080/x")
    );
    let old = r#"{ type = "rewrite-path", regex = "^/old/(.*)$", to = "/new/$1" }, { type = "redirect", scheme = "http" }"#;
    assert_eq!(
        location(old, "/old/a", false).as_deref(),
        Some("http://shop.example:8080/new/a")
    );
    assert_eq!(location(old, "/new/a", false), None);
}

/// What a browser would resolve before it asks again leads past the routes here.
#[test]
fn a_redirect_has_no_dot_segment() {
    let up = r#"{ type = "redirect", scheme = "https" }"#;
    let given = r#"{ type = "redirect", path = "/x/{query}" }"#;
    for (list, target) in [
        (up, "/a/../b"),
        (up, "/a/%2E%2e/b"),
        (up, "/a/."),
        (up, "/.%2e?q"),
        (given, "/a?.."),
    ] {
        let became = run_with(list, &format!("GET {target} HTTP/1.1"), &[], |_| {});
        let fault = Refusal::Path(PathFault::DotSegment);
        assert!(
            matches!(became, Became::Refused(why) if why == fault),
            "{target}"
        );
    }
    assert!(location(up, "/a?../b", false).is_some());
}

#[test]
fn a_path_never_becomes_a_host() {
    let list = r#"{ type = "redirect", path = "{path}", code = 302 }, { type = "redirect", path = "/x{path}" }"#;
    let line = "GET //evil.example/ HTTP/1.0";
    let Became::Answered(answer) = run_with(list, line, &[], |_| {}) else {
        panic!("no answer");
    };
    assert_eq!(answer.fields, b"Location: /evil.example/\r\n");
}

#[test]
fn an_id_is_believed_from_trusted_proxies_only() {
    let list = r#"{ type = "request-id", header = "X-Id" }"#;
    let given = [("Host", "a"), ("x-id", "mine"), ("X_Id", "mine")];
    let (_, fields) = sent(list, "GET / HTTP/1.1", &given);
    assert_eq!(
        fields,
        "Host: a\r\nX-Id: 0000000000001234000000000000abcd\r\n"
    );
    let Became::Sent { fields, .. } =
        run_with(list, "GET / HTTP/1.1", &given, |view| view.trusted = true)
    else {
        panic!("it was not sent");
    };
    assert_eq!(fields, "Host: a\r\nX-Id: mine\r\n");
}

#[test]
fn answers_are_changed_whoever_gave_them() {
    let filters = filters(
        r#"{ type = "response-headers", remove = ["Server"], set = { X-Backend = "{backend}" } }, { type = "request-id" }"#,
    );
    let wire = b"HTTP/1.1 200 OK\r\nServer: x\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n";
    let mut lines = Vec::new();
    let parsed = answer::parse(wire, &mut lines, &LIMITS, false)
        .unwrap()
        .unwrap();
    let sample = Sample::new("GET / HTTP/1.1", &[("Host", "a")]);
    let head = sample.request();
    let view = View {
        backend: "was1",
        ..view(&head)
    };
    let (mut edits, mut out) = (Edits::default(), Vec::new());
    filters.answer(&view, &Memory::new(1), &parsed.head, &mut edits);
    edits.apply(parsed.head.bytes, parsed.head.lines, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(
        text,
        "Content-Length: 0\r\nX-Backend: was1\r\nX-Request-Id: 00000000000012340000000000000001\r\n"
    );
}

/// What the answer to a request becomes, after the request went through.
fn answered(list: &str, request: (&str, &[(&str, &str)]), secure: bool, answer: &str) -> String {
    let filters = filters(list);
    let sample = Sample::new(request.0, request.1);
    let head = sample.request();
    let view = View {
        secure,
        ..view(&head)
    };
    let facts = Facts {
        client: view.client,
        listener: 0,
        request: None,
        hello: None,
        session: None,
        now: Instant::now(),
        wall_millis: 0,
    };
    let seen = Request {
        view: &view,
        facts: &facts,
        head: &head,
        checks: PathChecks::Strict,
        again: false,
    };
    let (mut memory, mut edits, mut out) = (Memory::new(1), Edits::default(), Vec::new());
    if let Flow::Answer(own) = filters.request(seen, &Generous, &mut memory, &mut edits) {
        out.extend_from_slice(format!("{} ", own.status).as_bytes());
        out.extend_from_slice(&own.fields);
    }
    let wire = format!("HTTP/1.1 200 OK\r\n{answer}\r\n");
    let mut lines = Vec::new();
    let parsed = answer::parse(wire.as_bytes(), &mut lines, &LIMITS, true);
    let parsed = parsed.unwrap().unwrap();
    edits.clear();
    filters.answer(&view, &memory, &parsed.head, &mut edits);
    edits.apply(parsed.head.bytes, parsed.head.lines, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn scripts_of_other_origins_read_what_they_may() {
    let list = r#"{ type = "cors", origins = ["https://a.example", "https://*.b.example"], methods = ["PUT"], headers = ["X-Token"], expose = ["X-Total"], credentials = true }"#;
    let get = |origin| {
        let fields = [("Host", "h"), ("Origin", origin)];
        let own = "Access-Control-Allow-Origin: *\r\n";
        answered(list, ("GET / HTTP/1.1", &fields), false, own)
    };
    for origin in [
        "https://a.example",
        "https://x.b.example",
        "https://x.y.b.example",
    ] {
        assert_eq!(
            get(origin),
            format!(
                "Vary: Origin\r\nAccess-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Total\r\n"
            )
        );
    }
    for origin in [
        "https://evil.example",
        "http://a.example",
        "https://a.example.evil.example",
        "https://b.example",
        "https://.b.example",
        "https://evil.example/.b.example",
        "https://evilb.example",
        "null",
        "",
    ] {
        assert_eq!(get(origin), "Vary: Origin\r\n", "{origin}");
    }
    let any = r#"{ type = "cors", origins = ["*"] }"#;
    let fields = [("Host", "h"), ("Origin", "https://x.example")];
    assert_eq!(
        answered(any, ("GET / HTTP/1.1", &fields), false, ""),
        "Access-Control-Allow-Origin: *\r\n"
    );
}

#[test]
fn browsers_that_ask_before_are_answered() {
    let list = r#"{ type = "cors", origins = ["https://a.example"], methods = ["PUT", "DELETE"], headers = ["X-Token"], max_age = "1h" }"#;
    let asks = |origin| {
        let fields = [
            ("Host", "h"),
            ("Origin", origin),
            ("Access-Control-Request-Method", "PUT"),
        ];
        answered(list, ("OPTIONS / HTTP/1.1", &fields), false, "")
    };
    assert_eq!(
        asks("https://a.example"),
        "204 Access-Control-Allow-Methods: PUT, DELETE\r\nAccess-Control-Allow-Headers: X-Token\r\nAccess-Control-Max-Age: 3600\r\nVary: Origin\r\nAccess-Control-Allow-Origin: https://a.example\r\n"
    );
    assert_eq!(asks("https://b.example"), "204 Vary: Origin\r\n");
    let plain = [("Host", "h"), ("Origin", "https://a.example")];
    let passes = answered(list, ("OPTIONS / HTTP/1.1", &plain), false, "");
    assert!(!passes.starts_with("204"), "{passes}");
}

#[test]
fn a_backend_knows_its_pages_better() {
    let list = r#"{ type = "security-headers", hsts = "8760h", hsts_subdomains = true, content_security_policy = "default-src 'self'" }"#;
    let request: (&str, &[(&str, &str)]) = ("GET / HTTP/1.1", &[("Host", "h")]);
    let own = "x-frame-options: DENY\r\n";
    assert_eq!(
        answered(list, request, false, own),
        "x-frame-options: DENY\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: strict-origin-when-cross-origin\r\nContent-Security-Policy: default-src 'self'\r\n"
    );
    let secure = answered(list, request, true, own);
    let hsts = "Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n";
    assert!(secure.ends_with(hsts), "{secure}");
}

#[test]
fn errors_have_pages() {
    let mut filters = filters(
        r#"{ type = "error-pages", pages = { "5xx" = "/p/5xx.json", "503" = "/p/503.html" } }"#,
    );
    let pages = [
        ("/p/5xx.json", "{}"),
        ("/p/503.html", "<p>{request_id}, {request_id}</p>"),
    ];
    let files = Files {
        pages: pages
            .map(|(file, text)| (file.into(), Arc::from(text.as_bytes())))
            .into(),
        ..Files::default()
    };
    filters.attach(&files);
    let page = |status| {
        let page = filters.page(status, |out| out.extend_from_slice(b"id"))?;
        let text = String::from_utf8(page.bytes.to_vec()).unwrap();
        Some((text, page.content_type.to_string()))
    };
    assert_eq!(
        page(503),
        Some(("<p>id, id</p>".into(), "text/html; charset=utf-8".into()))
    );
    assert_eq!(page(500), Some(("{}".into(), "application/json".into())));
    assert_eq!(page(404), None);
}

const DOOR: &str = r#"{ type = "basic-auth", realm = "a \"b\"", users_file = "/u" }"#;

#[test]
fn who_claims_to_be_somebody_is_asked_about() {
    let asked = |line: &str| {
        let fields = [("Host", "h"), ("Authorization", line)];
        match run_with(DOOR, "GET / HTTP/1.1", &fields, |_| {}) {
            Became::Asked(claim) => Some((claim.name, String::from_utf8(claim.password).unwrap())),
            Became::Answered(answer) if answer.status == 401 => None,
            other => panic!("{other:?}"),
        }
    };
    let jane = Some(("jane".to_owned(), "se:cret".to_owned()));
    assert_eq!(asked("Basic amFuZTpzZTpjcmV0"), jane);
    assert_eq!(asked("bASIC  amFuZTpzZTpjcmV0"), jane);
    assert_eq!(asked("Basic Og=="), Some((String::new(), String::new())));
    assert_eq!(asked("Basic Og"), Some((String::new(), String::new())));
    let huge = format!("Basic {}", "a".repeat(60_000));
    for line in [
        "",
        "Basic",
        "Basic ",
        "Basic !",
        "Basic amFuZQ==",
        "Bearer amFuZTpzZTpjcmV0",
        "Basic amFu ZTpz",
        // A name with a line end in it.
        "Basic amEKbmU6eA==",
        &huge,
    ] {
        assert_eq!(asked(line), None, "{line}");
    }
    let twice = [
        ("Host", "h"),
        ("Authorization", "Basic Og=="),
        ("authorization", "Basic Og=="),
    ];
    let became = run_with(DOOR, "GET / HTTP/1.1", &twice, |_| {});
    let Became::Answered(answer) = became else {
        panic!("{became:?}")
    };
    let fields = String::from_utf8(answer.fields).unwrap();
    assert!(
        fields.starts_with("WWW-Authenticate: Basic realm=\"a \\\"b\\\"\", charset=\"UTF-8\"\r\n"),
        "{fields}"
    );
}

#[test]
fn a_request_goes_on_where_it_was_asked() {
    let list = format!(
        r#"{{ type = "request-headers", add = {{ X-Before = "1" }} }}, {DOOR}, {{ type = "request-headers", set = {{ X-User = "{{user}}" }} }}"#
    );
    let filters = filters(&list);
    let sample = Sample::new(
        "GET / HTTP/1.1",
        &[("Host", "h"), ("Authorization", "Basic amFuZTpzZTpjcmV0")],
    );
    let head = sample.request();
    let view = view(&head);
    let facts = Facts {
        client: view.client,
        listener: 0,
        request: None,
        hello: None,
        session: None,
        now: Instant::now(),
        wall_millis: 0,
    };
    let request = Request {
        view: &view,
        facts: &facts,
        head: &head,
        checks: PathChecks::Strict,
        again: false,
    };
    let (mut memory, mut edits) = (Memory::new(1), Edits::default());
    assert!(matches!(
        filters.request(request, &Generous, &mut memory, &mut edits),
        Flow::Ask(_)
    ));
    memory.judge(true);
    assert!(matches!(
        filters.resume(request, &Generous, &mut memory, &mut edits),
        Flow::Continue
    ));
    let wanted = "Host: h\r\nX-Before: 1\r\nX-User: jane\r\n";
    let fields = |edits: &mut Edits| {
        let mut out = Vec::new();
        edits.apply(head.bytes, head.lines, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(fields(&mut edits), wanted);
    // Tried again it is not asked again, and the backend still does not see the password.
    edits.clear();
    assert!(matches!(
        filters.request(request, &Generous, &mut memory, &mut edits),
        Flow::Continue
    ));
    assert_eq!(fields(&mut edits), wanted);

    let (mut memory, mut edits) = (Memory::new(1), Edits::default());
    assert!(matches!(
        filters.request(request, &Generous, &mut memory, &mut edits),
        Flow::Ask(_)
    ));
    memory.judge(false);
    let Flow::Answer(answer) = filters.resume(request, &Generous, &mut memory, &mut edits) else {
        panic!("let in")
    };
    assert_eq!((answer.status, answer.reason), (401, Reason::Unauthorized));
}

proptest! {
    /// Whatever is known of a request, a header line stays one line.
    #[test]
    fn no_value_ends_its_line(host in ".{0,20}", target in ".{0,20}", sni in ".{0,20}", method in ".{0,8}") {
        let all: Vec<String> = config::model::Variable::ALL.iter().filter(|v| !v.is_of_answers()).map(|v| format!("{{{}}}", v.as_str())).collect();
        let list = format!(r#"{{ type = "request-headers", set = {{ X = "{}" }} }}"#, all.join("|"));
        let became = run_with(&list, "GET / HTTP/1.1", &[("Host", "a")], |view| {
            // The texts outlive the request in a test.
            view.authority = host.clone().into_bytes().leak();
            view.target = target.clone().into_bytes().leak();
            view.method = method.clone().into_bytes().leak();
            view.sni = sni.clone().leak();
        });
        let Became::Sent { fields, .. } = became else { panic!("{became:?}") };
        prop_assert_eq!(fields.matches(|c: char| c.is_ascii_control()).collect::<String>(), "\r\n\r\n");
    }

    /// Whatever a rewrite makes is a target that weir itself would take.
    #[test]
    fn what_is_rewritten_is_a_target(path in "[/a.%2eEfF;?:@x-]{0,24}", to in "(/[a.$1]{0,4}){1,3}") {
        let text = format!(r#"{{ type = "rewrite-path", regex = "^/(.*)x(.*)$", to = "{to}" }}"#);
        let config = format!("[listeners.web]\nbind = [\"127.0.0.1:1\"]\n[[routes]]\npool = \"was\"\nfilters = [{text}]\n[pools.was]\nbackends = [\"127.0.0.1:2\"]\n");
        let Ok(loaded) = config::parse("weir.toml", &config) else { return Ok(()) };
        let filters = Filters::new(&loaded.config.routes[0].filters).unwrap();
        let line = format!("GET /{path} HTTP/1.1");
        if let Became::Sent { target, .. } = run(&filters, &line, &[("Host", "a")], |_| {}) {
            let again = Sample::new(&format!("GET {target} HTTP/1.1"), &[("Host", "a")]);
            prop_assert!(target == format!("/{path}") || !target.starts_with("//"), "{}", target);
            prop_assert_eq!(again.request().path_and_query, target.as_bytes());
        }
    }

    /// A redirect stays on its host, whatever the path is.
    #[test]
    fn a_redirect_names_its_host(path in "[/a.%2e\\\\:@;?x-]{0,24}") {
        let list = r#"{ type = "redirect", scheme = "https" }"#;
        if let Some(place) = location(list, &format!("/{path}"), false) {
            prop_assert!(place.starts_with("https://shop.example/") || place.starts_with("Refused("), "{}", place);
            prop_assert!(!place.contains('\\'));
        }
    }
}
