//! The sticky cookie: what it looks like, who may make one, and where it leads as backends come and go.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use crate::support::origin::ok;
use crate::support::weir::{get, list};
use crate::support::{Message, Origin, Weir, until};

/// Named backends, so that an address may change without moving anyone; sticky on every route.
fn sticky(backends: &[SocketAddr], head: &str) -> String {
    format!(
        "{head}\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = {{ mode = \"cookie-hash\", sessions = \"local\" }}\n\
         [pools.was]\nbackends = [{}]\nhealth.type = \"none\"\n",
        list(backends)
    )
}

fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

fn three() -> [Origin; 3] {
    ["a", "b", "c"].map(Origin::named)
}

/// GETs with these cookies on a connection of its own.
fn with_cookie(weir: &Weir, cookie: &str) -> Message {
    weir.client().ask(format!(
        "GET / HTTP/1.1\r\nHost: shop.example.com\r\nCookie: {cookie}\r\n\r\n"
    ))
}

/// `name=value` of the only cookie that the answer sets.
#[track_caller]
fn cookie_of(answer: &Message) -> String {
    let line = answer.value("set-cookie").expect("a cookie is set");
    line.split(';').next().unwrap().to_owned()
}

#[test]
fn a_new_client_gets_a_modest_cookie() {
    let origins = three();
    let weir = Weir::start(&sticky(&addresses(&origins), ""));
    let answer = weir.get("/");
    let line = answer.value("set-cookie").unwrap();
    let (pair, attributes) = line.split_once("; ").unwrap();
    assert!(pair.starts_with("weir_was="), "{line}");
    let value = pair.trim_start_matches("weir_was=");
    assert!(
        value.len() >= 32
            && value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        "{line}"
    );
    let mut attributes: Vec<&str> = attributes.split("; ").collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["HttpOnly", "Path=/", "SameSite=Lax"]);
    assert_eq!(answer.values("cache-control"), ["private"]);
}

#[test]
fn every_cookie_is_another() {
    let origins = three();
    let weir = Weir::start(&sticky(&addresses(&origins), ""));
    let mut cookies: Vec<String> = (0..50).map(|_| cookie_of(&weir.get("/"))).collect();
    cookies.sort_unstable();
    cookies.dedup();
    assert_eq!(cookies.len(), 50);
}

#[test]
fn a_client_stays_for_a_hundred_requests() {
    let origins = three();
    let weir = Weir::start(&format!(
        "workers = 2\n{}",
        sticky(&addresses(&origins), "")
    ));
    let first = weir.get("/");
    let cookie = cookie_of(&first);
    for count in 0..100 {
        let answer = with_cookie(&weir, &cookie);
        assert_eq!(answer.text(), first.text(), "request {count}");
        assert!(
            !answer.has("set-cookie") && !answer.has("cache-control"),
            "nothing changed"
        );
    }
    let mut client = weir.client();
    for _ in 0..100 {
        let request =
            format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\nCookie: {cookie}\r\n\r\n");
        assert_eq!(client.ask(request).text(), first.text());
    }
    weir.settles("weir_sticky_total", &[("result", "kept")], 200.0);
    weir.settles("weir_sticky_total", &[("result", "new")], 1.0);
}

#[test]
fn new_clients_spread_evenly() {
    let origins = three();
    let weir = Weir::start(&sticky(&addresses(&origins), ""));
    let mut counts = BTreeMap::new();
    for _ in 0..90 {
        *counts.entry(weir.get("/").text()).or_insert(0) += 1;
    }
    assert!(
        counts.len() == 3
            && counts
                .values()
                .all(|&count: &i32| (20..=40).contains(&count)),
        "{counts:?}"
    );
}

#[test]
fn one_connection_may_carry_many_clients() {
    let origins = three();
    let weir = Weir::start(&sticky(&addresses(&origins), ""));
    let homes: Vec<(String, String)> = (0..20)
        .map(|_| weir.get("/"))
        .map(|answer| (cookie_of(&answer), answer.text()))
        .collect();
    // As another proxy in front would do it.
    let mut client = weir.client();
    for (cookie, home) in homes.iter().chain(homes.iter().rev()) {
        let request =
            format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\nCookie: {cookie}\r\n\r\n");
        assert_eq!(client.ask(request).text(), *home);
    }
    let fresh = client.ask(get("/"));
    assert!(
        fresh.has("set-cookie"),
        "a request without a cookie is a new client, whatever the connection knows"
    );
}

#[test]
fn the_backend_never_sees_the_cookie_and_sees_all_others() {
    let origin = Origin::named("a");
    let weir = Weir::start(&sticky(&[origin.address], ""));
    let token = cookie_of(&weir.get("/"));
    for (sent, expected) in [
        (token.clone(), vec![]),
        (format!("a=1; {token}; b=2"), vec!["a=1; b=2"]),
        (format!("{token}; a=1"), vec!["a=1"]),
        (format!("a=1; {token}"), vec!["a=1"]),
        (format!("a=1;{token};b=2"), vec!["a=1;b=2"]),
        (
            format!("a=1\r\nCookie: {token}\r\nCookie: b=2"),
            vec!["a=1", "b=2"],
        ),
        (format!("{token}; a=1; {token}"), vec!["a=1"]),
        ("weir_was=forged; a=1".to_owned(), vec!["a=1"]),
        (
            "a=1; weir_was2=x; xweir_was=y; WEIR_WAS=z".to_owned(),
            vec!["a=1; weir_was2=x; xweir_was=y; WEIR_WAS=z"],
        ),
        (
            "a=\"weir_was=x\"; JSESSIONID=0123.jvm1".to_owned(),
            vec!["a=\"weir_was=x\"; JSESSIONID=0123.jvm1"],
        ),
        ("a; =b; ; c==d".to_owned(), vec!["a; =b; ; c==d"]),
    ] {
        assert_eq!(with_cookie(&weir, &sent).status(), 200);
        let got = origin.requests().pop().unwrap().values("cookie");
        let tidy = |text: &str| text.replace("; ", ";");
        let got: Vec<String> = got.iter().map(|line| tidy(line)).collect();
        let expected: Vec<String> = expected.into_iter().map(tidy).collect();
        assert_eq!(got, expected, "of {sent:?}");
    }
}

#[test]
fn a_forged_cookie_is_a_new_client() {
    let origins = three();
    let weir = Weir::start(&sticky(&addresses(&origins), ""));
    let good = cookie_of(&weir.get("/"));
    let mut flipped = good.clone().into_bytes();
    let last = flipped.len() - 2;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    let mut first = good.clone().into_bytes();
    first["weir_was=".len()] ^= 1;
    let forgeries = [
        "weir_was=".to_owned(),
        "weir_was=x".to_owned(),
        format!("weir_was={}", "A".repeat(43)),
        format!("weir_was={}", "A".repeat(5000)),
        "weir_was=\"\"".to_owned(),
        format!("weir_was={}", origins[0].address),
        String::from_utf8(flipped).unwrap(),
        String::from_utf8(first).unwrap(),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        format!("{good}="),
    ];
    for forgery in &forgeries {
        let answer = with_cookie(&weir, forgery);
        assert_eq!(answer.status(), 200, "{forgery}");
        assert_ne!(cookie_of(&answer), *forgery);
    }
    weir.settles(
        "weir_sticky_total",
        &[("result", "forged")],
        forgeries.len() as f64,
    );
    let both = with_cookie(&weir, &format!("weir_was=forged; {good}"));
    assert!(
        !both.has("set-cookie"),
        "a good one counts, whatever stands before it"
    );
}

#[test]
fn a_cookie_is_for_its_own_pool() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let config = format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npath = \"/a\"\npool = \"one\"\nsticky = {{ mode = \"cookie-hash\" }}\n\
         [[routes]]\npath = \"/also\"\npool = \"one\"\nsticky = {{ mode = \"cookie-hash\" }}\n\
         [[routes]]\npool = \"two\"\nsticky = {{ mode = \"cookie-hash\" }}\n\
         [pools.one]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n[pools.two]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        a.address, b.address
    );
    let weir = Weir::start(&config);
    let one = cookie_of(&weir.get("/a"));
    assert!(one.starts_with("weir_one="));
    let ask = |target: &str, cookie: &str| {
        weir.client().ask(format!(
            "GET {target} HTTP/1.1\r\nHost: a.test\r\nCookie: {cookie}\r\n\r\n"
        ))
    };
    assert!(
        !ask("/also", &one).has("set-cookie"),
        "routes to one pool share it"
    );
    let stolen = one.replace("weir_one", "weir_two");
    assert!(
        ask("/", &stolen).has("set-cookie"),
        "a value is no good under another name"
    );
    assert!(ask("/", &one).has("set-cookie"));
}

#[test]
fn caches_never_keep_a_cookie() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let line = match request.value("x-say") {
                Some(value) => format!("Cache-Control: {value}\r\n"),
                None => String::new(),
            };
            visit.send(format!(
                "HTTP/1.1 200 OK\r\n{line}Content-Length: 0\r\n\r\n"
            ));
        }
    });
    let weir = Weir::start(&sticky(&[origin.address], ""));
    for (says, sets, expected) in [
        (Some("public"), false, "public"),
        (Some("public, max-age=60"), false, "public, max-age=60"),
        (Some("max-age=60, PUBLIC"), false, "max-age=60, PUBLIC"),
        (Some("s-maxage=60"), false, "s-maxage=60"),
        (
            Some("max-age=0, s-maxage = 60"),
            false,
            "max-age=0, s-maxage = 60",
        ),
        (Some("private"), true, "private"),
        (Some("max-age=60, Private"), true, "max-age=60, Private"),
        (Some("no-store"), true, "no-store"),
        (Some("max-age=60"), true, "max-age=60, private"),
        (Some("no-cache"), true, "no-cache, private"),
        (Some("x=\"public\""), true, "x=\"public\", private"),
        (None, true, "private"),
    ] {
        let line = says.map_or(String::new(), |says| format!("X-Say: {says}\r\n"));
        let answer = weir
            .client()
            .ask(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{line}\r\n"));
        assert_eq!(answer.has("set-cookie"), sets, "{says:?}");
        let told = answer.values("cache-control").join(", ");
        assert_eq!(told, expected, "{says:?}");
    }
}

#[test]
fn the_cookie_stands_on_the_final_answer_only() {
    let origin = Origin::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 304 Not Modified\r\nSet-Cookie: app=1\r\n\r\n",
    );
    let weir = Weir::start(&sticky(&[origin.address], ""));
    let mut client = weir.client();
    client.send(get("/"));
    assert!(!client.answer().has("set-cookie"));
    let last = client.answer();
    assert_eq!(
        last.values("set-cookie").len(),
        2,
        "the application's own and weir's"
    );
}

#[test]
fn two_weirs_with_one_secret_agree() {
    let origins = three();
    let config = sticky(&addresses(&origins), "");
    let first = Weir::start(&config);
    let secret = "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80=";
    let other = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let file = first.directory.join("shared");
    fs::write(&file, format!("{secret}\n")).unwrap();
    let shared = format!("secrets_file = \"{}\"\n{config}", file.display());
    let [one, two] = [Weir::start(&shared), Weir::start(&shared)];
    let homes: Vec<Message> = (0..20).map(|_| one.get("/")).collect();
    for answer in &homes {
        let there = with_cookie(&two, &cookie_of(answer));
        assert_eq!(there.text(), answer.text());
        assert!(!there.has("set-cookie"));
        assert!(
            with_cookie(&first, &cookie_of(answer)).has("set-cookie"),
            "another secret, another house"
        );
    }
    // A new secret on top seals; the old one still opens, and moves nobody.
    fs::write(&file, format!("# rotated\n{other}\n{secret}\n")).unwrap();
    let rotated = Weir::start(&shared);
    for answer in &homes {
        let there = with_cookie(&rotated, &cookie_of(answer));
        assert_eq!(there.text(), answer.text());
        assert!(!there.has("set-cookie"));
    }
    let sealed = cookie_of(&rotated.get("/"));
    assert!(
        with_cookie(&one, &sealed).has("set-cookie"),
        "the first line seals"
    );
}

#[test]
fn a_secret_outlives_a_restart() {
    let origins = three();
    let state = std::env::temp_dir().join(format!("weir-it-state-{}", std::process::id()));
    fs::create_dir_all(&state).unwrap();
    let config = format!(
        "state_dir = \"{}\"\n{}",
        state.display(),
        sticky(&addresses(&origins), "")
    );
    let weir = Weir::start(&config);
    let answer = weir.get("/");
    drop(weir);
    let weir = Weir::start(&config);
    let again = with_cookie(&weir, &cookie_of(&answer));
    assert_eq!(again.text(), answer.text());
    assert!(!again.has("set-cookie"));
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{:?} is for weir alone", entry.path());
    }
    fs::remove_dir_all(&state).unwrap();
}

#[test]
fn a_client_moves_when_its_backend_dies_and_returns_with_it() {
    let mut origins: Vec<Option<Origin>> = three().into_iter().map(Some).collect();
    let backends: Vec<SocketAddr> = origins
        .iter()
        .flatten()
        .map(|origin| origin.address)
        .collect();
    let config = sticky(&backends, "").replace(
        "health.type = \"none\"\n",
        &format!(
            "[pools.was.health]\ntype = \"tcp\"\n{}",
            crate::balancing::PROBES
        ),
    );
    let weir = Weir::start(&config);
    until("all to be up", || {
        (weir.metric("weir_backend_up", &[]) == 3.0).then_some(())
    });
    let clients: Vec<(String, String)> = (0..30)
        .map(|_| weir.get("/"))
        .map(|answer| (cookie_of(&answer), answer.text()))
        .collect();
    let home = clients[0].1.clone();
    let ordinal = ["a", "b", "c"]
        .iter()
        .position(|name| *name == home)
        .unwrap();
    origins[ordinal] = None;
    let mut refuges = BTreeMap::new();
    for (cookie, before) in &clients {
        let answer = with_cookie(&weir, cookie);
        assert_eq!(answer.status(), 200, "at once, probe or no probe");
        assert!(!answer.has("set-cookie"), "the cookie keeps its home");
        if *before == home {
            assert_ne!(answer.text(), home);
            refuges.insert(cookie.clone(), answer.text());
        } else {
            assert_eq!(answer.text(), *before, "others stay");
        }
    }
    let mut used: Vec<&String> = refuges.values().collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 2, "refugees spread over the others");
    until("the dead one to be down", || {
        (weir.metric("weir_backend_up", &[]) == 2.0).then_some(())
    });
    for (cookie, refuge) in &refuges {
        assert_eq!(
            with_cookie(&weir, cookie).text(),
            *refuge,
            "a refuge does not change"
        );
    }
    let name = home.clone();
    let _back = Origin::at(backends[ordinal], move |visit| {
        while visit.request().is_ok() {
            visit.send(ok(&name));
        }
    });
    until("it to be up again", || {
        (weir.metric("weir_backend_up", &[]) == 3.0).then_some(())
    });
    for (cookie, before) in &clients {
        assert_eq!(with_cookie(&weir, cookie).text(), *before, "home again");
    }
}

#[test]
fn a_backend_in_drain_keeps_its_clients() {
    let origins = three();
    let config = sticky(&addresses(&origins), "watch = \"off\"");
    let weir = Weir::start(&config);
    let clients: Vec<(String, String)> = (0..15)
        .map(|_| weir.get("/"))
        .map(|answer| (cookie_of(&answer), answer.text()))
        .collect();
    let generation = weir.generation();
    let quoted = format!("\"{}\"", origins[0].address);
    weir.write(&config.replace(
        &quoted,
        &format!("{{ address = {quoted}, state = \"drain\" }}"),
    ));
    weir.signal(libc::SIGHUP);
    weir.await_generation_after(generation);
    for (cookie, home) in &clients {
        assert_eq!(
            with_cookie(&weir, cookie).text(),
            *home,
            "its memory holds their sessions"
        );
    }
    for _ in 0..15 {
        assert_ne!(weir.get("/").text(), "a", "nobody new");
    }
}

#[test]
fn a_new_backend_moves_few_and_only_to_itself() {
    let origins = three();
    let fourth = Origin::named("d");
    let config = sticky(&addresses(&origins), "watch = \"off\"");
    let weir = Weir::start(&config);
    let clients: Vec<(String, String)> = (0..300)
        .map(|_| weir.get("/"))
        .map(|answer| (cookie_of(&answer), answer.text()))
        .collect();
    let generation = weir.generation();
    let mut backends = addresses(&origins);
    backends.insert(1, fourth.address);
    weir.write(&sticky(&backends, "watch = \"off\""));
    weir.signal(libc::SIGHUP);
    weir.await_generation_after(generation);
    let mut moved = 0;
    for (cookie, home) in &clients {
        let answer = with_cookie(&weir, cookie);
        if answer.text() != *home {
            assert_eq!(answer.text(), "d", "between old backends nobody moves");
            moved += 1;
        }
    }
    // A quarter, give or take chance: four deviations of a binomial of 300.
    assert!((45..=105).contains(&moved), "{moved} of 300 moved");
}

#[test]
fn every_attribute_can_be_said() {
    let origin = Origin::named("a");
    let config = sticky(&[origin.address], "").replace(
        "sessions = \"local\" }",
        "sessions = \"local\", cookie = { name = \"SRV\", path = \"/shop\", domain = \"example.com\", same_site = \"strict\", http_only = false, secure = \"always\", max_age = \"1h\" } }",
    );
    let weir = Weir::start(&config);
    let line = weir.get("/").value("set-cookie").unwrap();
    assert!(line.starts_with("SRV="), "{line}");
    let mut attributes: Vec<&str> = line.split("; ").skip(1).collect();
    attributes.sort_unstable();
    assert_eq!(
        attributes,
        [
            "Domain=example.com",
            "Max-Age=3600",
            "Path=/shop",
            "SameSite=Strict",
            "Secure"
        ]
    );
}

#[test]
fn a_name_alone_is_enough() {
    let origin = Origin::named("a");
    let config =
        sticky(&[origin.address], "").replace("sessions = \"local\" }", "cookie = \"SRV\" }");
    let weir = Weir::start(&config);
    assert!(cookie_of(&weir.get("/")).starts_with("SRV="));
}

#[test]
fn secure_when_a_trusted_proxy_says_https() {
    let origin = Origin::named("a");
    let secure = |weir: &Weir| {
        let answer = weir.client().ask("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
        answer.value("set-cookie").unwrap().contains("; Secure")
    };
    assert!(secure(&Weir::start(&sticky(
        &[origin.address],
        "trusted_proxies = [\"127.0.0.1\"]"
    ))));
    assert!(
        !secure(&Weir::start(&sticky(&[origin.address], ""))),
        "a stranger may not say so"
    );
}
