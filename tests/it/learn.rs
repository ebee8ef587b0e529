//! `learn`: weir sees which server opened a session, keeps its client there, and sets no cookie of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sessions::{Browser, NAMES, addresses, config, up};
use crate::support::origin::Visit;
use crate::support::weir::get;
use crate::support::{Client, Message, Origin, Weir, until};

/// Says its name and the session that it was shown. `/login` opens a session with a new id, `/again` sets the one that was shown
/// once more, `/logout` ends it.
pub fn application(name: &'static str) -> impl Fn(&mut Visit) + Send + Sync {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    move |visit| {
        while let Ok(request) = visit.request() {
            let id = SERIAL.fetch_add(1, Ordering::Relaxed);
            let shown = request.value("cookie").unwrap_or_default();
            let head = match &*request.target() {
                "/login" => format!("Set-Cookie: SID={id}x; Path=/; HttpOnly\r\n"),
                "/again" => format!("Set-Cookie: {shown}; Path=/\r\n"),
                "/logout" => "Set-Cookie: SID=; Max-Age=0\r\n".to_owned(),
                _ => String::new(),
            };
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

pub const LEARN: &str = "mode = \"learn\", session_cookie = \"SID\"";

fn start(fleet: &[Option<Origin>], more: &str, head: &str) -> (Weir, String) {
    let text = config(&addresses(fleet), &format!("{LEARN}{more}"), head);
    let weir = Weir::start(&text);
    up(&weir, 3.0);
    (weir, text)
}

/// A browser that logged in, and where.
pub fn logged_in(weir: &Weir) -> (Browser, String) {
    let mut browser = Browser::default();
    let home = browser.ask(weir, "/login", "").text();
    assert_eq!(browser.jar.keys().collect::<Vec<_>>(), ["SID"]);
    (browser, home)
}

pub fn logged_in_at(weir: &Weir, wanted: &str) -> Browser {
    until("a session there", || {
        let (browser, home) = logged_in(weir);
        (home == wanted).then_some(browser)
    })
}

pub fn stays(browser: &mut Browser, weir: &Weir, home: &str) {
    for _ in 0..6 {
        assert_eq!(browser.text(weir), home);
    }
}

/// The live sessions of a backend.
pub fn live(weir: &Weir, name: &str) -> f64 {
    weir.metric("weir_backend_sessions", &[("backend", name)])
}

fn reload(weir: &Weir, text: &str) {
    let generation = weir.generation();
    weir.write(text);
    weir.signal(libc::SIGHUP);
    weir.await_generation_after(generation);
}

#[test]
fn a_session_is_learned_and_kept_over_connections_and_workers() {
    let fleet = fleet();
    let (weir, _) = start(&fleet, "", "workers = 3");
    let mut homes = BTreeSet::new();
    for _ in 0..12 {
        let (mut browser, home) = logged_in(&weir);
        stays(&mut browser, &weir, &home);
        homes.insert(home);
    }
    assert_eq!(homes.len(), 3, "new sessions are spread");
    weir.settles("weir_sticky_total", &[("result", "kept")], 72.0);
    weir.settles("weir_sticky_total", &[("result", "new")], 12.0);
    weir.settles("weir_backend_sessions", &[], 12.0);
    // A client without a session belongs nowhere.
    let mut client = weir.client();
    let spread: BTreeSet<_> = (0..6).map(|_| client.ask(get("/")).text()).collect();
    assert_eq!(spread.len(), 3);
    for request in fleet.iter().flatten().flat_map(Origin::requests) {
        let cookie = request.value("cookie").unwrap_or("SID=".into());
        assert!(cookie.starts_with("SID="), "weir has no cookie: {cookie}");
    }
}

#[test]
fn the_id_changes_at_a_login_and_ends_at_the_logout() {
    let fleet = fleet();
    let (weir, _) = start(&fleet, ", balance_factor = 100.0", "");
    let (mut browser, home) = logged_in(&weir);
    let mut before = browser.clone();
    assert_eq!(browser.ask(&weir, "/login", "").text(), home);
    assert_ne!(browser.jar, before.jar);
    stays(&mut browser, &weir, &home);
    // Requests that were under way at the login still show the old id.
    stays(&mut before, &weir, &home);
    assert_eq!(browser.ask(&weir, "/again", "").text(), home);
    stays(&mut browser, &weir, &home);
    let shown = browser.clone();
    browser.ask(&weir, "/logout", "");
    weir.settles("weir_backend_sessions", &[], 1.0);
    let mut spread = BTreeSet::new();
    for _ in 0..6 {
        spread.insert(shown.clone().text(&weir));
    }
    // The one that has the session which is left has its part.
    assert!(spread.len() >= 2, "what is over keeps nobody");
}

#[test]
fn a_session_ends_when_it_is_idle_or_old() {
    let fleet = fleet();
    let text = ", idle_timeout = \"4s\", absolute_timeout = \"9s\"";
    let (weir, _) = start(&fleet, text, "");
    let (mut busy, home) = logged_in(&weir);
    let (idle, _) = logged_in(&weir);
    weir.settles("weir_backend_sessions", &[], 2.0);
    let expired = || weir.metric("weir_sticky_total", &[("result", "expired")]) > 0.0;
    until("the end of the idle one", || {
        assert_eq!(busy.text(&weir), home);
        (weir.metric("weir_backend_sessions", &[]) == 1.0).then_some(())
    });
    assert!(!expired());
    let before = weir.metric("weir_sticky_total", &[("result", "new")]);
    idle.clone().text(&weir);
    weir.settles("weir_sticky_total", &[("result", "new")], before + 1.0);
    until("the end of the old one", || {
        busy.text(&weir);
        expired().then_some(())
    });
    weir.settles("weir_backend_sessions", &[], 0.0);
}

#[test]
fn a_local_session_goes_home_after_an_outage_unless_another_was_opened_elsewhere() {
    let mut fleet = fleet();
    let (weir, _) = start(&fleet, "", "");
    let backends: Vec<SocketAddr> = addresses(&fleet);
    let [mut faithful, mut settler] = [0, 1].map(|_| logged_in_at(&weir, NAMES[0]));
    fleet[0] = None;
    let refuge = faithful.text(&weir);
    assert_ne!(refuge, NAMES[0]);
    up(&weir, 2.0);
    stays(&mut faithful, &weir, &refuge);
    let new_home = settler.ask(&weir, "/login", "").text();
    stays(&mut settler, &weir, &new_home);
    // The session that may come back counts where it is.
    let at_home = live(&weir, NAMES[0]);
    assert!(at_home >= 2.0, "{at_home}");
    assert!(live(&weir, &new_home) >= 1.0);
    fleet[0] = Some(Origin::at(backends[0], application(NAMES[0])));
    up(&weir, 3.0);
    stays(&mut faithful, &weir, NAMES[0]);
    stays(&mut settler, &weir, &new_home);
    assert_eq!(live(&weir, NAMES[0]), at_home);
}

#[test]
fn sessions_that_several_know_move_for_good_and_are_handed_over() {
    let mut fleet = fleet();
    let (weir, _) = start(&fleet, ", sessions = \"replicated\"", "");
    let backends = addresses(&fleet);
    let mut browser = logged_in_at(&weir, NAMES[0]);
    fleet[0] = None;
    let refuge = browser.text(&weir);
    fleet[0] = Some(Origin::at(backends[0], application(NAMES[0])));
    up(&weir, 3.0);
    stays(&mut browser, &weir, &refuge);
    weir.settles("weir_sticky_total", &[("result", "moved")], 1.0);
    assert!(live(&weir, &refuge) >= 1.0);
    let held = live(&weir, &refuge);
    let drained = weir.post(&format!("/api/v1/pools/was/backends/{refuge}/drain"));
    assert_eq!(drained.status(), 200, "{}", drained.text());
    let next = browser.text(&weir);
    assert_ne!(next, refuge);
    assert_eq!(live(&weir, &refuge), held - 1.0);
    // Who knows a session that weir does not, keeps it with whoever takes it.
    let mut stranger = Browser::default();
    stranger.jar.insert("SID".to_owned(), "unknown".to_owned());
    let home = stranger.text(&weir);
    stays(&mut stranger, &weir, &home);
}

#[test]
fn a_lost_home_is_counted_once_and_a_new_one_found() {
    let fleet = fleet();
    let (weir, text) = start(&fleet, ", on_failure = \"permanent\"", "watch = \"off\"");
    let mut browser = logged_in_at(&weir, NAMES[0]);
    // Another order and a backend in front change nothing; a name that is gone is.
    let mut entries: Vec<&str> = text.split("{ name = ").collect();
    let (head, rest) = (entries.remove(0), entries);
    let last = rest[2].split_once(" }").unwrap();
    let turned = format!(
        "{head}{{ name = {} }}, {{ name = {}{{ name = {} }}{}",
        last.0,
        rest[1],
        rest[0].trim_end_matches(" }, "),
        last.1
    );
    reload(&weir, &turned);
    stays(&mut browser, &weir, NAMES[0]);
    reload(&weir, &text.replace("name = \"was1\"", "name = \"other\""));
    let home = browser.text(&weir);
    stays(&mut browser, &weir, &home);
    weir.settles("weir_sticky_total", &[("result", "lost")], 1.0);
}

#[test]
fn a_drain_keeps_local_sessions_and_takes_no_new_ones() {
    let fleet = fleet();
    let (weir, _) = start(&fleet, "", "");
    let mut browser = logged_in_at(&weir, NAMES[1]);
    weir.post("/api/v1/pools/was/backends/was2/drain");
    stays(&mut browser, &weir, NAMES[1]);
    for _ in 0..9 {
        assert_ne!(logged_in(&weir).1, NAMES[1]);
    }
}

#[test]
fn invented_sessions_are_not_remembered() {
    let fleet = fleet();
    let (weir, _) = start(&fleet, "", "");
    let (mut browser, home) = logged_in(&weir);
    let mut client: Client = weir.client();
    for id in 0..5000 {
        let ask = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: SID=invented{id}\r\n\r\n");
        let answer: Message = client.ask(ask);
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(weir.metric("weir_backend_sessions", &[]), 1.0);
    stays(&mut browser, &weir, &home);
}

#[test]
fn the_memory_is_bounded_and_forgets_whom_it_saw_longest_ago() {
    let fleet = fleet();
    let backends = addresses(&fleet);
    let text =
        config(&backends, LEARN, "").replace("[pools.was]\n", "[pools.was]\nmax_sessions = 100\n");
    let weir = Weir::start(&text);
    up(&weir, 3.0);
    let mut client: Client = weir.client();
    for _ in 0..2000 {
        assert_eq!(client.ask(get("/login")).status(), 200);
    }
    let held = weir.metric("weir_backend_sessions", &[]);
    assert!((100.0..=512.0).contains(&held), "{held}");
    let (mut last, home) = logged_in(&weir);
    stays(&mut last, &weir, &home);
}
