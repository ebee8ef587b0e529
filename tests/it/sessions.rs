//! Where a session lives decides where its client goes: the sealed cookie, the application's own session id, failover and hand-over.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use crate::support::weir::get;
use crate::support::{Message, Origin, Weir, until};

pub const NAMES: [&str; 3] = ["was1", "was2", "was3"];

/// Three named backends; `states` are their administrative states.
pub fn pool(name: &str, backends: &[SocketAddr], states: [&str; 3]) -> String {
    let entries: Vec<String> = backends
        .iter()
        .zip(NAMES)
        .zip(states)
        .map(|((address, name), state)| {
            format!("{{ name = \"{name}\", address = \"{address}\", state = \"{state}\" }}")
        })
        .collect();
    format!(
        "[pools.{name}]\nbackends = [{}]\n[pools.{name}.health]\ntype = \"tcp\"\n{}",
        entries.join(", "),
        crate::balancing::PROBES
    )
}

pub const READY: [&str; 3] = ["ready"; 3];

pub fn config(backends: &[SocketAddr], sticky: &str, head: &str) -> String {
    format!(
        "{head}\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = {{ {sticky} }}\n{}",
        pool("was", backends, READY)
    )
}

/// Says its name; with `X-Login` it opens a session of its own, with `X-Public` it says that anyone may keep the answer.
pub fn application(
    name: &'static str,
) -> impl Fn(&mut crate::support::origin::Visit) + Send + Sync {
    move |visit| {
        while let Ok(request) = visit.request() {
            let mut head = String::new();
            if request.has("x-login") {
                head += &format!("Set-Cookie: JSESSIONID=0A1B.{name}; Path=/; HttpOnly\r\n");
            }
            if request.has("x-public") {
                head += "Cache-Control: public, max-age=60\r\n";
            }
            let length = name.len();
            visit.send(format!(
                "HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\n\r\n{name}"
            ));
        }
    }
}

pub fn fleet() -> Vec<Option<Origin>> {
    NAMES
        .map(|name| Some(Origin::start(application(name))))
        .into()
}

pub fn addresses(fleet: &[Option<Origin>]) -> Vec<SocketAddr> {
    fleet
        .iter()
        .flatten()
        .map(|origin| origin.address)
        .collect()
}

pub fn up(weir: &Weir, count: f64) {
    until("the probes' verdict", || {
        (weir.metric("weir_backend_up", &[]) == count).then_some(())
    });
}

/// A browser with one cookie jar.
#[derive(Clone, Default)]
pub struct Browser {
    pub jar: BTreeMap<String, String>,
}

impl Browser {
    pub fn ask(&mut self, weir: &Weir, target: &str, more: &str) -> Message {
        let jar: Vec<String> = self.jar.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let cookies = match jar.is_empty() {
            true => String::new(),
            false => format!("Cookie: {}\r\n", jar.join("; ")),
        };
        let answer = weir.client().ask(format!(
            "GET {target} HTTP/1.1\r\nHost: shop.example.com\r\n{cookies}{more}\r\n"
        ));
        for line in answer.values("set-cookie") {
            let pair = line.split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.jar.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    pub fn text(&mut self, weir: &Weir) -> String {
        let answer = self.ask(weir, "/", "");
        assert_eq!(answer.status(), 200);
        answer.text()
    }
}

/// A browser whose home is the first backend.
pub fn at_home(weir: &Weir) -> Browser {
    until("a client of the first backend", || {
        let mut browser = Browser::default();
        (browser.text(weir) == NAMES[0]).then_some(browser)
    })
}

#[test]
fn the_sealed_cookie_is_modest_and_stays_with_weir() {
    let fleet = fleet();
    let weir = Weir::start(&config(&addresses(&fleet), "mode = \"insert\"", ""));
    let answer = weir.get("/");
    let line = answer.value("set-cookie").unwrap();
    let (pair, attributes) = line.split_once("; ").unwrap();
    let value = pair.strip_prefix("weir_was=").unwrap();
    assert!(
        value.len() < 200
            && value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        "{line}"
    );
    let mut attributes: Vec<&str> = attributes.split("; ").collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["HttpOnly", "Path=/", "SameSite=Lax"]);
    assert_eq!(answer.values("cache-control"), ["private"]);

    let mut browser = Browser::default();
    let home = browser.text(&weir);
    for _ in 0..20 {
        let answer = browser.ask(&weir, "/", "");
        assert_eq!(answer.text(), home);
        assert!(!answer.has("set-cookie"), "nothing changed");
    }
    for origin in fleet.iter().flatten() {
        for request in origin.requests() {
            assert!(!request.has("cookie"), "it is weir's alone");
        }
    }
    let public = weir
        .client()
        .ask("GET / HTTP/1.1\r\nHost: a\r\nX-Public: 1\r\n\r\n");
    assert!(!public.has("set-cookie"), "caches would hand it to others");
    for forged in ["x".to_owned(), format!("{value}A"), value.to_lowercase()] {
        let mut jar = Browser::default();
        jar.jar.insert("weir_was".to_owned(), forged);
        assert!(jar.ask(&weir, "/", "").has("set-cookie"));
    }
    weir.settles("weir_sticky_total", &[("result", "forged")], 3.0);
    weir.settles("weir_sticky_total", &[("result", "kept")], 20.0);
}

#[test]
fn the_cookie_is_renewed_while_it_is_used_and_expires_when_not() {
    let fleet = fleet();
    let sticky = "mode = \"insert\", idle_timeout = \"4s\"";
    let weir = Weir::start(&config(&addresses(&fleet), sticky, ""));
    let mut browser = Browser::default();
    let home = browser.text(&weir);
    let left = browser.clone();
    until("a renewed cookie", || {
        let answer = browser.ask(&weir, "/", "");
        assert_eq!(answer.text(), home);
        answer.has("set-cookie").then_some(())
    });
    until("the end of the old one", || {
        let mut old = left.clone();
        assert_eq!(browser.text(&weir), home, "who is there stays");
        old.ask(&weir, "/", "");
        (weir.metric("weir_sticky_total", &[("result", "expired")]) > 0.0).then_some(())
    });
}

/// Two weirs with one secret; the second has the backends in another order.
pub fn twins(backends: &[SocketAddr], sticky: &str) -> [Weir; 2] {
    let file = std::env::temp_dir().join(format!(
        "weir-it-secret-{}-{}",
        std::process::id(),
        backends[0].port()
    ));
    fs::write(&file, "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80=\n").unwrap();
    let text = config(
        backends,
        sticky,
        &format!("secrets_file = \"{}\"", file.display()),
    );
    let (before, list) = text.split_once("backends = [").unwrap();
    let (list, after) = list.split_once("]\n").unwrap();
    let mut entries: Vec<&str> = list.split_inclusive('}').collect();
    entries.reverse();
    let list: Vec<&str> = entries.iter().map(|e| e.trim_start_matches(", ")).collect();
    let turned = format!("{before}backends = [{}]\n{after}", list.join(", "));
    assert!(turned.find("was3") < turned.find("was1"), "{turned}");
    let weirs = [Weir::start(&text), Weir::start(&turned)];
    fs::remove_file(&file).unwrap();
    weirs
}

#[test]
fn two_weirs_send_every_client_to_the_same_server_and_to_the_same_successor() {
    for mode in ["insert", "cookie-hash", "route"] {
        let mut fleet = fleet();
        let [one, two] = twins(&addresses(&fleet), &format!("mode = \"{mode}\""));
        up(&one, 3.0);
        up(&two, 3.0);
        let mut clients = Vec::new();
        for id in 0..24 {
            let mut browser = Browser::default();
            let home = browser.ask(&one, "/", "X-Login: 1\r\n").text();
            // Sessions of the application differ, as those of real clients do.
            let session = format!("{id}.{home}");
            browser.jar.insert("JSESSIONID".to_owned(), session);
            assert_eq!(browser.text(&two), home, "{mode}");
            assert_eq!(browser.text(&one), home, "{mode}");
            clients.push((browser, home));
        }
        fleet[0] = None;
        let mut successors = BTreeMap::new();
        for (browser, home) in &clients {
            let there = browser.clone().text(&one);
            assert_eq!(browser.clone().text(&two), there, "{mode}");
            if home == NAMES[0] {
                *successors.entry(there).or_insert(0) += 1;
            } else {
                assert_eq!(there, *home, "{mode}: others stay");
            }
        }
        assert!(!successors.is_empty() && !successors.contains_key(NAMES[0]));
    }
}

#[test]
fn two_sticky_routes_on_one_host_and_a_favicon_between() {
    let [shop, files] = [fleet(), fleet()];
    let text = format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npath = \"/shop\"\npool = \"shop\"\nsticky = {{ mode = \"insert\" }}\n\
         [[routes]]\npath = \"/favicon.ico\"\npool = \"files\"\n\
         [[routes]]\npool = \"files\"\nsticky = {{ mode = \"insert\" }}\n{}{}",
        pool("shop", &addresses(&shop), READY),
        pool("files", &addresses(&files), READY)
    );
    let weir = Weir::start(&text);
    for _ in 0..10 {
        let mut browser = Browser::default();
        let first = browser.ask(&weir, "/shop/cart", "").text();
        let other = browser.ask(&weir, "/", "").text();
        let jar = browser.jar.clone();
        assert_eq!(jar.keys().collect::<Vec<_>>(), ["weir_files", "weir_shop"]);
        assert!(!browser.ask(&weir, "/favicon.ico", "").has("set-cookie"));
        assert_eq!(browser.ask(&weir, "/shop/cart", "").text(), first);
        assert_eq!(browser.ask(&weir, "/", "").text(), other);
        assert_eq!(browser.jar, jar, "nobody overwrote anything");
    }
}

#[test]
fn a_client_of_local_sessions_returns_home_after_an_outage() {
    let mut fleet = fleet();
    let backends = addresses(&fleet);
    let weir = Weir::start(&config(&backends, "mode = \"insert\"", ""));
    up(&weir, 3.0);
    let [mut faithful, mut settler] = [at_home(&weir), at_home(&weir)];
    fleet[0] = None;
    let refuge = faithful.text(&weir);
    assert_ne!(refuge, NAMES[0]);
    up(&weir, 2.0);
    assert_eq!(faithful.text(&weir), refuge, "and stays there meanwhile");
    let new_home = settler.ask(&weir, "/", "X-Login: 1\r\n").text();
    fleet[0] = Some(Origin::at(backends[0], application(NAMES[0])));
    up(&weir, 3.0);
    assert_eq!(faithful.text(&weir), NAMES[0], "home again");
    assert_eq!(faithful.text(&weir), NAMES[0]);
    assert_eq!(settler.text(&weir), new_home, "its session is there now");
    weir.settles("weir_sticky_total", &[("result", "returned")], 1.0);
}

#[test]
fn a_client_of_replicated_sessions_moves_for_good() {
    for mode in ["insert", "cookie-hash"] {
        let mut fleet = fleet();
        let backends = addresses(&fleet);
        let sticky = format!("mode = \"{mode}\", sessions = \"replicated\"");
        let weir = Weir::start(&config(&backends, &sticky, ""));
        up(&weir, 3.0);
        let mut browser = at_home(&weir);
        fleet[0] = None;
        let refuge = browser.text(&weir);
        assert_ne!(refuge, NAMES[0]);
        fleet[0] = Some(Origin::at(backends[0], application(NAMES[0])));
        up(&weir, 3.0);
        assert_eq!(browser.text(&weir), refuge, "{mode}");
        weir.settles("weir_sticky_total", &[("result", "moved")], 1.0);
        weir.settles("weir_sticky_total", &[("result", "lost")], 0.0);
    }
}

#[test]
fn a_drained_backend_hands_shared_sessions_over_and_keeps_local_ones() {
    for (sessions, stays) in [("local", true), ("shared", false)] {
        let fleet = fleet();
        let backends = addresses(&fleet);
        let sticky = format!("mode = \"insert\", sessions = \"{sessions}\"");
        let text = config(&backends, &sticky, "watch = \"off\"");
        let weir = Weir::start(&text);
        up(&weir, 3.0);
        let mut browser = at_home(&weir);
        let reload = |text: &str| {
            let generation = weir.generation();
            weir.write(text);
            weir.signal(libc::SIGHUP);
            weir.await_generation_after(generation);
        };
        reload(&text.replacen("state = \"ready\"", "state = \"drain\"", 1));
        let place = browser.text(&weir);
        assert_eq!(place == NAMES[0], stays, "{sessions}");
        reload(&text);
        assert_eq!(browser.text(&weir), place, "{sessions}");
        // And a cookie that names nobody any more leads somewhere, once for all.
        let gone = text.replace(&format!("name = \"{place}\""), "name = \"other\"");
        reload(&gone);
        let next = browser.text(&weir);
        assert_eq!(browser.text(&weir), next);
        let result = if stays { "lost" } else { "moved" };
        let count = if stays { 1.0 } else { 2.0 };
        weir.settles("weir_sticky_total", &[("result", result)], count);
    }
}

#[test]
fn a_route_may_refuse_to_move_anyone() {
    let mut fleet = fleet();
    let sticky = "mode = \"insert\", on_failure = \"error\"";
    let weir = Weir::start(&config(&addresses(&fleet), sticky, ""));
    up(&weir, 3.0);
    let mut browser = at_home(&weir);
    fleet[0] = None;
    for _ in 0..2 {
        assert_eq!(browser.ask(&weir, "/", "").status(), 503);
        up(&weir, 2.0);
    }
    weir.settles("weir_http_refused_total", &[("reason", "home_down")], 2.0);
    assert_eq!(weir.get("/").status(), 200, "others are served");
}

#[test]
fn the_session_id_says_where_a_client_belongs() {
    let mut fleet = fleet();
    let weir = Weir::start(&config(&addresses(&fleet), "mode = \"route\"", ""));
    up(&weir, 3.0);
    for name in NAMES {
        for request in [
            format!("GET /a HTTP/1.1\r\nHost: a\r\nCookie: x=y; JSESSIONID=12.{name}\r\n\r\n"),
            format!("GET /a;jsessionid=12.{name}?b=c HTTP/1.1\r\nHost: a\r\n\r\n"),
        ] {
            let answer = weir.client().ask(&request);
            assert_eq!(answer.text(), name, "{request}");
            assert!(!answer.has("set-cookie"), "weir has no cookie here");
        }
    }
    let seen = fleet[0].as_ref().unwrap().requests();
    assert_eq!(seen[0].values("cookie"), ["x=y; JSESSIONID=12.was1"]);
    assert_eq!(seen[1].target(), "/a;jsessionid=12.was1?b=c");
    fleet[0] = None;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nCookie: JSESSIONID=12.was1\r\n\r\n";
    let refuge = weir.client().ask(request).text();
    let renamed = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: JSESSIONID=12.{refuge}\r\n\r\n");
    assert_eq!(weir.client().ask(renamed).text(), refuge);
    up(&weir, 2.0);
    assert_eq!(weir.client().ask(request).text(), refuge);
}

#[test]
fn an_address_or_a_header_may_say_it_too() {
    let fleet = fleet();
    let backends = addresses(&fleet);
    let weir = Weir::start(&config(
        &backends,
        "mode = \"source\", sessions = \"shared\"",
        "",
    ));
    let home = weir.get("/").text();
    assert!((0..20).all(|_| weir.get("/").text() == home));
    let sticky = "mode = \"header\", header = \"X-User\", sessions = \"shared\"";
    let weir = Weir::start(&config(&backends, sticky, ""));
    let mut homes = BTreeMap::new();
    for round in 0..2 {
        for user in 0..30 {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nx-user: u{user}\r\n\r\n");
            let home = weir.client().ask(request).text();
            let known = homes.entry(user).or_insert_with(|| home.clone());
            assert_eq!(*known, home, "round {round}");
        }
    }
    let used: std::collections::BTreeSet<_> = homes.values().collect();
    assert_eq!(used.len(), 3);
    let mut client = weir.client();
    let spread: std::collections::BTreeSet<_> =
        (0..6).map(|_| client.ask(get("/")).text()).collect();
    assert_eq!(spread.len(), 3, "without the header the balancer chooses");
}
