//! What once went wrong with sticky sessions, here or elsewhere: clocks that differ, icons that overwrite a cookie, two pools on one
//! host, servers that are gone from the file, several weirs, secrets that change under open connections.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::sessions::{
    Browser, NAMES, READY, addresses, application, config, fleet, pool, twins, up,
};
use crate::support::weir::{get, list};
use crate::support::{Message, Origin, Weir, clock, until};

const SECRET: &str = "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80=";
const OTHER: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn reload(weir: &Weir, text: &str) {
    let generation = weir.generation();
    weir.write(text);
    weir.signal(libc::SIGHUP);
    weir.await_generation_after(generation);
}

fn counted(weir: &Weir, result: &str) -> f64 {
    weir.metric("weir_sticky_total", &[("result", result)])
}

/// `name=value` of weir's cookie that the answer sets, if any.
fn told(answer: &Message) -> Option<String> {
    let lines = answer.values("set-cookie");
    let line = lines.iter().find(|line| line.starts_with("weir_"))?;
    line.split(';').next().map(str::to_owned)
}

/// Weirs with one secret in front of the same servers; the wall clock of each is so many seconds ahead.
fn in_other_times<const N: usize>(fleet: &[Option<Origin>], seconds: [i64; N]) -> [Weir; N] {
    let port = addresses(fleet)[0].port();
    let name = format!("weir-it-clocks-{}-{port}", std::process::id());
    let file = std::env::temp_dir().join(name);
    fs::write(&file, SECRET).unwrap();
    let text = config(
        &addresses(fleet),
        "mode = \"insert\", idle_timeout = \"1h\"",
        &format!("secrets_file = \"{}\"", file.display()),
    );
    let weirs = seconds.map(|s| Weir::start_with(&text, |command| clock::shift(command, s)));
    fs::remove_file(&file).unwrap();
    weirs.iter().for_each(|weir| up(weir, 3.0));
    weirs
}

#[test]
fn clocks_that_differ_a_little_cost_nothing() {
    let fleet = fleet();
    let weirs = in_other_times(&fleet, [0, 50, -50]);
    for first in 0..3 {
        let mut browser = Browser::default();
        let home = browser.text(&weirs[first]);
        for request in 0..12 {
            let answer = browser.ask(&weirs[request % 3], "/", "");
            assert_eq!(answer.text(), home);
            // The two that differ by more than a minute may put one token right, and then agree.
            let is_settled = request >= 3;
            assert!(!is_settled || told(&answer).is_none(), "request {request}");
        }
    }
    for weir in &weirs {
        assert_eq!(counted(weir, "expired"), 0.0);
    }
}

#[test]
fn clocks_that_differ_much_keep_everyone_who_is_there() {
    let fleet = fleet();
    // Twenty minutes: more than the tolerance and more than a quarter of the idle time, which is an hour.
    let [now, later] = in_other_times(&fleet, [0, 1200]);
    for _ in 0..5 {
        let mut browser = Browser::default();
        let home = browser.text(&later);
        for _ in 0..3 {
            assert_eq!(browser.text(&now), home);
            assert_eq!(browser.text(&later), home);
        }
    }
    assert_eq!(counted(&now, "expired") + counted(&later, "expired"), 0.0);
}

#[test]
fn a_clock_far_ahead_forgets_clients_and_one_far_behind_does_not_make_them_immortal() {
    let fleet = fleet();
    let [now, far] = in_other_times(&fleet, [0, 7200]);
    let mut browser = Browser::default();
    browser.text(&now);
    let answer = browser.ask(&far, "/", "");
    assert_eq!(answer.status(), 200);
    assert!(told(&answer).is_some(), "a new client, not an error");
    far.settles("weir_sticky_total", &[("result", "expired")], 1.0);
    // A token from two hours ahead is good, and is given the right time at once, or it would live for two hours more.
    let mut ahead = Browser::default();
    let home_there = ahead.text(&far);
    let answer = ahead.ask(&now, "/", "");
    assert_eq!(answer.text(), home_there);
    assert!(told(&answer).is_some());
    assert!(told(&ahead.ask(&now, "/", "")).is_none(), "once");
    ahead.ask(&far, "/", "");
    far.settles("weir_sticky_total", &[("result", "expired")], 2.0);
}

/// What a browser sends for parts of a page; the last is too old to say what it wants.
const PARTS: [(&str, &str); 5] = [
    ("/favicon.ico", "Sec-Fetch-Dest: image\r\n"),
    ("/style.css", "Sec-Fetch-Dest: style\r\n"),
    ("/app.js", "Sec-Fetch-Dest: script\r\n"),
    ("/app.webmanifest", "Sec-Fetch-Dest: manifest\r\n"),
    ("/favicon.ico", ""),
];

#[test]
fn a_favicon_does_not_overwrite_the_cookie() {
    for mode in ["insert", "cookie-hash"] {
        let fleet = fleet();
        let weir = Weir::start(&config(
            &addresses(&fleet),
            &format!("mode = \"{mode}\""),
            "",
        ));
        up(&weir, 3.0);
        for (target, fields) in PARTS {
            // Asked at once with the page, or by a browser that sends no cookies for it: three backends, so some would differ.
            let mut browser = Browser::default();
            let home = browser.ask(&weir, "/login", "X-Login: 1\r\n").text();
            let jar = browser.jar.clone();
            for _ in 0..4 {
                let answer = Browser::default().ask(&weir, target, fields);
                assert_eq!(answer.status(), 200);
                assert!(!answer.has("set-cookie"), "{mode} {target}");
                assert!(!answer.has("cache-control"), "it may be cached as before");
            }
            // With its cookies it goes where the client is.
            let answer = browser.ask(&weir, target, fields);
            assert_eq!(answer.text(), home);
            assert_eq!(browser.jar, jar, "{mode} {target}");
            assert_eq!(browser.text(&weir), home);
        }
    }
}

#[test]
fn a_part_of_a_page_that_opens_a_session_brings_its_home_along() {
    let fleet = fleet();
    let weir = Weir::start(&config(&addresses(&fleet), "mode = \"insert\"", ""));
    up(&weir, 3.0);
    let mut browser = Browser::default();
    let fields = "Sec-Fetch-Dest: image\r\nX-Login: 1\r\n";
    let home = browser.ask(&weir, "/captcha", fields).text();
    assert_eq!(
        browser.jar.keys().collect::<Vec<_>>(),
        ["JSESSIONID", "weir_was"]
    );
    for _ in 0..6 {
        assert_eq!(browser.text(&weir), home);
    }
    for destination in ["document", "empty", "iframe"] {
        let fields = format!("Sec-Fetch-Dest: {destination}\r\n");
        let answer = Browser::default().ask(&weir, "/", &fields);
        assert!(told(&answer).is_some(), "{destination} begins a visit");
    }
}

#[test]
fn two_sticky_routes_to_different_pools_on_one_host() {
    for [one, other] in [
        ["insert", "insert"],
        ["insert", "cookie-hash"],
        ["cookie-hash", "cookie-hash"],
        ["insert", "route"],
    ] {
        let [mut shop, files] = [fleet(), fleet()];
        let text = format!(
            "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nhosts = [\"shop.example.com\"]\npath = \"/shop\"\npool = \"shop\"\n\
             sticky = {{ mode = \"{one}\" }}\n[[routes]]\nhosts = [\"shop.example.com\"]\npool = \"files\"\n\
             sticky = {{ mode = \"{other}\" }}\n{}{}",
            pool("shop", &addresses(&shop), READY),
            pool("files", &addresses(&files), READY)
        );
        let weir = Weir::start(&text);
        up(&weir, 6.0);
        let mut clients = Vec::new();
        for _ in 0..12 {
            let mut browser = Browser::default();
            let first = browser.ask(&weir, "/shop", "").text();
            // With `route` it is the application's cookie that keeps the client.
            let login = if other == "route" {
                "X-Login: 1\r\n"
            } else {
                ""
            };
            let second = browser.ask(&weir, "/", login).text();
            clients.push((browser, first, second));
        }
        // On one connection both pools' clients take turns, so that it remembers now this one and now that.
        let jar = |browser: &Browser| -> Vec<String> {
            let pairs = browser.jar.iter();
            pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        let mut line = weir.client();
        for (browser, first, second) in &clients {
            for (target, home) in [("/shop", first), ("/", second), ("/shop", first)] {
                let request = format!(
                    "GET {target} HTTP/1.1\r\nHost: shop.example.com\r\nCookie: {}\r\n\r\n",
                    jar(browser).join("; ")
                );
                let answer = line.ask(request);
                assert_eq!(answer.text(), *home, "{one}, {other}");
                assert!(!answer.has("set-cookie"), "{one}, {other}");
            }
        }
        // A server of one pool dies: nothing changes in the other.
        shop[0] = None;
        for (browser, first, second) in &mut clients {
            let before = browser.jar.clone();
            let refuge = browser.ask(&weir, "/shop", "").text();
            assert_eq!(refuge != *first, first == NAMES[0]);
            assert_eq!(browser.ask(&weir, "/", "").text(), *second);
            let mine = |jar: &BTreeMap<String, String>| {
                let mut jar = jar.clone();
                jar.remove("weir_shop");
                jar
            };
            assert_eq!(mine(&browser.jar), mine(&before), "{one}, {other}");
        }
    }
}

#[test]
fn a_cookie_that_names_a_removed_backend_finds_another_and_the_way_back() {
    for (mode, sessions, result) in [
        ("insert", "local", "lost"),
        ("insert", "replicated", "moved"),
        ("cookie-hash", "local", "kept"),
        ("route", "local", "lost"),
        ("route", "shared", "moved"),
    ] {
        let fleet = fleet();
        let sticky = format!("mode = \"{mode}\", sessions = \"{sessions}\"");
        let text = config(&addresses(&fleet), &sticky, "watch = \"off\"");
        let weir = Weir::start(&text);
        up(&weir, 3.0);
        let mut asked = 0.0;
        let mut client = || {
            until("a client of the first backend", || {
                let mut browser = Browser::default();
                browser.ask(&weir, "/", "X-Login: 1\r\n");
                asked += 2.0;
                (browser.text(&weir) == NAMES[0]).then_some(browser)
            })
        };
        let [mut busy, mut idle] = [client(), client()];
        let entry = &text[text.find("{ name = \"was1\"").unwrap()..];
        let entry = &entry[..=entry.find(", {").unwrap() + 1];
        // What was asked so far is counted a moment after its answer.
        weir.settles("weir_http_requests_total", &[], asked);
        let before = counted(&weir, result);
        reload(&weir, &text.replace(entry, ""));
        let answer = busy.ask(&weir, "/", "");
        let refuge = answer.text();
        assert_eq!(answer.status(), 200, "{mode} {sessions}");
        assert!(NAMES[1..].contains(&refuge.as_str()), "{mode}");
        weir.settles("weir_sticky_total", &[("result", result)], before + 1.0);
        assert_eq!(busy.text(&weir), refuge, "{mode}: and stays there");
        reload(&weir, &text);
        up(&weir, 3.0);
        assert_eq!(
            idle.text(&weir),
            NAMES[0],
            "{mode}: who was not there meanwhile"
        );
        // Only the sealed cookie can say that the client has a new home.
        let home = if mode == "insert" { &refuge } else { NAMES[0] };
        assert_eq!(busy.text(&weir), home, "{mode} {sessions}");
        weir.settles("weir_http_requests_total", &[("code", "5xx")], 0.0);
    }
}

#[test]
fn two_weirs_agree_through_failure_and_return() {
    for (mode, sessions) in [
        ("insert", "local"),
        ("insert", "replicated"),
        ("cookie-hash", "local"),
        ("cookie-hash", "replicated"),
        ("route", "local"),
        ("route", "replicated"),
    ] {
        let mut fleet = fleet();
        let backends = addresses(&fleet);
        let sticky = format!("mode = \"{mode}\", sessions = \"{sessions}\"");
        let weirs = twins(&backends, &sticky);
        weirs.iter().for_each(|weir| up(weir, 3.0));
        let mut clients: Vec<Browser> = Vec::new();
        for id in 0..18 {
            let mut browser = Browser::default();
            let home = browser.ask(&weirs[id % 2], "/", "X-Login: 1\r\n").text();
            let session = format!("{id}.{home}");
            browser.jar.insert("JSESSIONID".to_owned(), session);
            clients.push(browser);
        }
        // Where each client is, whichever weir it asks, and in whichever order.
        let places = |clients: &mut [Browser]| -> Vec<String> {
            let mut places = Vec::new();
            for (id, client) in clients.iter_mut().enumerate() {
                let place = client.text(&weirs[id % 2]);
                for turn in 1..4 {
                    let there = client.text(&weirs[(id + turn) % 2]);
                    assert_eq!(there, place, "{mode} {sessions}");
                }
                places.push(place);
            }
            places
        };
        let homes = places(&mut clients);
        fleet[0] = None;
        weirs.iter().for_each(|weir| up(weir, 2.0));
        let away = places(&mut clients);
        for (home, place) in homes.iter().zip(&away) {
            assert_eq!(home == place, home != NAMES[0], "{mode} {sessions}");
        }
        fleet[0] = Some(Origin::at(backends[0], application(NAMES[0])));
        weirs.iter().for_each(|weir| up(weir, 3.0));
        let later = places(&mut clients);
        let stays = sessions == "replicated" && mode != "route";
        assert_eq!(
            later,
            *if stays { &away } else { &homes },
            "{mode} {sessions}"
        );
    }
}

#[test]
fn a_reload_rotates_the_secrets_under_open_connections() {
    for mode in ["insert", "cookie-hash"] {
        let fleet = fleet();
        let sticky = format!("mode = \"{mode}\", sessions = \"shared\"");
        let text = config(
            &addresses(&fleet),
            &sticky,
            "watch = \"off\"\nsecrets_file = \"$dir/secrets\"",
        );
        let weir = Weir::start_with(&text, |command| {
            let file = command.get_args().last().unwrap();
            fs::write(Path::new(file).with_file_name("secrets"), SECRET).unwrap();
        });
        up(&weir, 3.0);
        let secrets = |lines: &[&str]| {
            fs::write(weir.directory.join("secrets"), lines.join("\n")).unwrap();
            let generation = weir.generation();
            weir.signal(libc::SIGHUP);
            weir.await_generation_after(generation);
        };
        let mut line = weir.client();
        let mut ask = |cookie: &str| {
            line.ask(format!(
                "GET / HTTP/1.1\r\nHost: shop.example.com\r\nCookie: {cookie}\r\n\r\n"
            ))
        };
        let first = ask("a=b");
        let old = told(&first).unwrap();
        assert_eq!(ask(&old).text(), first.text());
        secrets(&[OTHER, SECRET]);
        assert_eq!(ask(&old).text(), first.text(), "all open");
        let new = told(&ask("a=b")).unwrap();
        secrets(&[OTHER]);
        // The connection knew the old one well.
        assert!(told(&ask(&old)).is_some(), "{mode}: forged now");
        assert!(told(&ask(&new)).is_none(), "{mode}: the first seals");
        weir.settles("weir_sticky_total", &[("result", "forged")], 1.0);
        // What cannot be read changes nothing.
        fs::write(weir.directory.join("secrets"), "short").unwrap();
        weir.signal(libc::SIGHUP);
        until("the refusal", || {
            (weir.metric("weir_config_last_reload_successful", &[]) == 0.0).then_some(())
        });
        assert!(told(&ask(&new)).is_none(), "{mode}");
    }
}

#[test]
fn a_secret_in_memory_is_told_and_kept_when_it_can_be() {
    let origin = Origin::named("a");
    let text = format!(
        "state_dir = \"$dir/state\"\nwatch = \"off\"\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n\
         sticky = {{ mode = \"insert\" }}\n[pools.was]\nbackends = [{}]\nhealth.type = \"none\"\n",
        list(&[origin.address])
    );
    // A file where the directory should be: not even root can write there.
    let weir = Weir::start_with(&text, |command| {
        let file = command.get_args().last().unwrap();
        fs::write(Path::new(file).with_file_name("state"), "").unwrap();
    });
    let ephemeral = || weir.metric("weir_sticky_secret_ephemeral", &[]);
    assert_eq!(ephemeral(), 1.0);
    weir.tells("cookies are valid until");
    assert!(
        weir.status()
            .to_string()
            .contains("cookies are valid until")
    );
    let status = std::process::Command::new(crate::support::weir::binary())
        .args(["status", "--admin", &weir.address("admin").to_string()])
        .output()
        .unwrap();
    let page = String::from_utf8_lossy(&status.stdout);
    assert!(
        page.contains("\nwarning: secrets: nothing can be kept"),
        "{page}"
    );
    let cookie = told(&weir.get("/")).unwrap();
    let state = weir.directory.join("state");
    fs::remove_file(&state).unwrap();
    assert_eq!(weir.post("/api/v1/reload").status(), 200);
    assert_eq!(ephemeral(), 0.0);
    // What was given out before is as good afterwards.
    let kept = fs::read_to_string(state.join("secret")).unwrap();
    drop(weir);
    let weir = Weir::start_with(&text, |command| {
        let file = command.get_args().last().unwrap();
        let state = Path::new(file).with_file_name("state");
        fs::create_dir(&state).unwrap();
        fs::write(state.join("secret"), &kept).unwrap();
    });
    assert_eq!(weir.metric("weir_sticky_secret_ephemeral", &[]), 0.0);
    let request = get("/").replace("\r\n\r\n", &format!("\r\nCookie: {cookie}\r\n\r\n"));
    assert!(told(&weir.client().ask(request)).is_none());
}
