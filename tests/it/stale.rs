//! Sessions that are over do not hold a drain up: their clients begin anew elsewhere, and whoever logs in stays.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::sessions::{Browser, NAMES, config, up};
use crate::support::origin::Visit;
use crate::support::{Message, Origin, Weir};

/// A server that keeps sessions in its memory, as Tomcat does: an unknown id gets a new session, a login (`X-Login`) a new id.
fn server(name: &'static str) -> Origin {
    let sessions = Mutex::new(HashSet::new());
    let serial = std::sync::atomic::AtomicUsize::new(0);
    Origin::start(move |visit: &mut Visit| {
        while let Ok(request) = visit.request() {
            let shown = shown(&request);
            let mut sessions = sessions.lock().unwrap();
            let is_known = shown.as_ref().is_some_and(|id| sessions.contains(id));
            let mut head = String::new();
            if !is_known || request.has("x-login") {
                shown.inspect(|id| assert!(sessions.remove(id) || !is_known));
                let number = serial.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let id = format!("{number:04}.{name}");
                head = format!("Set-Cookie: JSESSIONID={id}; Path=/; HttpOnly\r\n");
                sessions.insert(id);
            }
            drop(sessions);
            let length = name.len();
            let body = if request.head.starts_with(b"HEAD") {
                ""
            } else {
                name
            };
            visit.send(format!(
                "HTTP/1.1 200 OK\r\n{head}X-Name: {name}\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
    })
}

fn shown(request: &Message) -> Option<String> {
    let cookies = request.value("cookie")?;
    let mut pairs = cookies.split("; ");
    pairs.find_map(|pair| pair.strip_prefix("JSESSIONID=").map(str::to_owned))
}

struct Scene {
    weir: Weir,
    fleet: Vec<Origin>,
}

impl Scene {
    fn new(mode: &str, count: usize) -> Scene {
        let fleet: Vec<Origin> = NAMES[..count].iter().map(|name| server(name)).collect();
        let addresses: Vec<_> = fleet.iter().map(|origin| origin.address).collect();
        let weir = Weir::start(&config(&addresses, &format!("mode = \"{mode}\""), ""));
        up(&weir, count as f64);
        Scene { weir, fleet }
    }

    /// A browser with a live session on the first server.
    fn at_home(&self) -> Browser {
        crate::support::until("a client of the first server", || {
            let mut browser = Browser::default();
            (browser.text(&self.weir) == NAMES[0]).then_some(browser)
        })
    }

    /// The same, which shows a session that nobody knows any more.
    fn stale(&self) -> Browser {
        let mut browser = self.at_home();
        let gone = format!("GONE.{}", NAMES[0]);
        browser.jar.insert("JSESSIONID".to_owned(), gone);
        browser
    }

    fn drain(&self) {
        self.weir.post("/api/v1/pools/was/backends/was1/drain");
    }

    fn remaining(&self) -> u64 {
        let status = self.weir.status();
        status["pools"][0]["backends"][0]["sessions"]
            .as_u64()
            .unwrap()
    }
}

#[test]
fn a_client_whose_session_is_over_leaves_a_draining_server() {
    for mode in ["insert", "cookie-hash", "route"] {
        let scene = Scene::new(mode, 3);
        let weir = &scene.weir;
        let mut live = scene.at_home();
        let mut stale = scene.stale();
        scene.drain();
        let first = stale.ask(weir, "/first", "");
        let there = first.text();
        assert_ne!(there, NAMES[0], "{mode}");
        assert!(
            stale.jar["JSESSIONID"].ends_with(&there),
            "{mode}: {:?}",
            stale.jar
        );
        let line = weir.access(|line| line["path"] == "/first");
        assert_eq!(line["sticky"], "moved", "{line}");
        assert_eq!(line["home"], NAMES[0], "{line}");
        assert_eq!(line["tries"], 2, "{line}");
        let session = stale.jar["JSESSIONID"].clone();
        for _ in 0..3 {
            assert_eq!(stale.text(weir), there, "{mode}");
            assert_eq!(live.text(weir), NAMES[0], "{mode}: who has a session stays");
        }
        assert_eq!(
            stale.jar["JSESSIONID"], session,
            "{mode}: and keeps the new one"
        );
        weir.settles("weir_sticky_total", &[("result", "moved")], 1.0);
        weir.settles("weir_sticky_total", &[("result", "lost")], 0.0);
    }
}

#[test]
fn a_drain_ends_with_the_last_live_session_whatever_old_cookies_show() {
    let scene = Scene::new("insert", 3);
    let mut stale: Vec<Browser> = (0..5).map(|_| scene.stale()).collect();
    scene.drain();
    let before = scene.remaining();
    for browser in &mut stale {
        assert_ne!(browser.text(&scene.weir), NAMES[0]);
    }
    assert!(scene.remaining() <= before, "none was opened there");
    let hits = scene.fleet[0].hits();
    for browser in &mut stale {
        assert_ne!(browser.text(&scene.weir), NAMES[0]);
    }
    assert_eq!(scene.fleet[0].hits(), hits, "nobody asks there again");
}

#[test]
fn a_login_during_a_drain_is_kept() {
    for mode in ["insert", "cookie-hash", "route"] {
        let scene = Scene::new(mode, 3);
        let mut browser = scene.at_home();
        assert_eq!(browser.text(&scene.weir), NAMES[0]);
        scene.drain();
        let before = browser.jar["JSESSIONID"].clone();
        let answer = browser.ask(&scene.weir, "/login", "X-Login: 1\r\n");
        assert_eq!(answer.text(), NAMES[0], "{mode}");
        let after = browser.jar["JSESSIONID"].clone();
        assert_ne!(before, after, "{mode}");
        assert_eq!(browser.text(&scene.weir), NAMES[0], "{mode}");
        assert_eq!(
            browser.jar["JSESSIONID"], after,
            "{mode}: and is still there"
        );
        let line = scene.weir.access(|line| line["path"] == "/login");
        assert_eq!(
            (&line["sticky"], &line["tries"]),
            (&"kept".into(), &1.into())
        );
    }
}

#[test]
fn what_could_be_noticed_twice_is_not_done_twice() {
    let scene = Scene::new("insert", 3);
    let stale: Vec<Browser> = (0..3).map(|_| scene.stale()).collect();
    scene.drain();
    let requests = [
        "POST / HTTP/1.1\r\nContent-Length: 2\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 0\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 2\r\n",
    ];
    for (browser, start) in stale.iter().zip(requests) {
        let [token, session] = ["weir_was", "JSESSIONID"].map(|name| &browser.jar[name]);
        let body = if start.contains(": 2") { "ab" } else { "" };
        let hits = scene.fleet[0].hits();
        let answer = scene.weir.client().ask(format!(
            "{start}Host: a\r\nCookie: weir_was={token}; JSESSIONID={session}\r\n\r\n{body}"
        ));
        assert_eq!(answer.text(), NAMES[0], "{start}");
        assert_eq!(scene.fleet[0].hits(), hits + 1);
    }
    // A HEAD has no body to look at, and is as harmless as a GET.
    let mut browser = scene.stale_after_drain();
    let [token, session] = ["weir_was", "JSESSIONID"].map(|name| browser.jar.remove(name).unwrap());
    let mut client = scene.weir.client();
    client.send(format!(
        "HEAD / HTTP/1.1\r\nHost: a\r\nCookie: weir_was={token}; JSESSIONID={session}\r\n\r\n"
    ));
    let answer = client.answer_to_head();
    assert_ne!(answer.value("x-name").as_deref(), Some(NAMES[0]));
}

impl Scene {
    /// A stale client of the first server, which drains.
    fn stale_after_drain(&self) -> Browser {
        self.weir.post("/api/v1/pools/was/backends/was1/ready");
        let browser = self.stale();
        self.drain();
        browser
    }
}

#[test]
fn the_only_server_keeps_everyone() {
    let scene = Scene::new("insert", 1);
    let mut stale = scene.stale();
    scene.drain();
    assert_eq!(stale.text(&scene.weir), NAMES[0]);
    let line = scene.weir.access(|line| line["sticky"] == "kept");
    assert_eq!(line["tries"], 1);
}

#[test]
fn a_server_that_does_not_drain_keeps_everyone_too() {
    let scene = Scene::new("insert", 3);
    let mut stale = scene.stale();
    assert_eq!(stale.text(&scene.weir), NAMES[0]);
    assert!(stale.jar["JSESSIONID"].ends_with(NAMES[0]));
}
