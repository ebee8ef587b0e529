//! Live sessions: opened and deleted by the application, counted by backend, named in the log, and what a drain waits for.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use crate::support::weir::binary;
use crate::support::{Client, Message, Origin, Weir, until};

/// An application that opens a session at `/login`, deletes it at `/logout`, gives another id at `/rename`, and refuses none.
fn application(name: &'static str) -> Origin {
    let next = Mutex::new(0);
    Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            let mut next = next.lock().unwrap();
            *next += 1;
            let cookie = match request.target().as_str() {
                "/login" | "/rename" => {
                    format!("Set-Cookie: JSESSIONID={next}.{name}; Path=/; HttpOnly\r\n")
                }
                "/logout" => {
                    "Set-Cookie: JSESSIONID=x; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:10 GMT\r\n"
                        .to_owned()
                }
                _ => String::new(),
            };
            let length = name.len();
            visit.send(format!(
                "HTTP/1.1 200 OK\r\n{cookie}Content-Length: {length}\r\n\r\n{name}"
            ));
        }
    })
}

fn config(origins: &[&Origin], sticky: &str) -> String {
    let backends = origins
        .iter()
        .zip(["a", "b", "c"])
        .map(|(origin, name)| format!("{{ name = \"{name}\", address = \"{}\" }}", origin.address));
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = {{ {sticky} }}\n\
         [pools.was]\nbackends = [{}]\nhealth.type = \"none\"\n",
        backends.collect::<Vec<_>>().join(", ")
    )
}

/// A browser: it keeps the cookies that it is given.
struct Browser {
    connection: Client,
    cookies: Vec<(String, String)>,
}

impl Browser {
    fn new(weir: &Weir) -> Browser {
        Browser {
            connection: weir.client(),
            cookies: Vec::new(),
        }
    }

    fn get(&mut self, path: &str) -> Message {
        let pairs = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let cookies = pairs.collect::<Vec<_>>().join("; ");
        let line = match cookies.is_empty() {
            true => String::new(),
            false => format!("Cookie: {cookies}\r\n"),
        };
        let answer = self.connection.ask(format!(
            "GET {path} HTTP/1.1\r\nHost: shop.example.com\r\n{line}\r\n"
        ));
        for line in answer.values("set-cookie") {
            let (name, rest) = line.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !line.contains("Max-Age=0") {
                let value = rest.split(';').next().unwrap();
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }
}

fn sessions(weir: &Weir) -> [f64; 2] {
    ["a", "b"].map(|name| weir.metric("weir_backend_sessions", &[("backend", name)]))
}

#[test]
fn sessions_are_counted_from_login_to_logout() {
    for mode in ["insert", "cookie-hash", "route", "source"] {
        let (a, b) = (application("a"), application("b"));
        let weir = Weir::start(&config(&[&a, &b], &format!("mode = \"{mode}\"")));
        let mut browsers: Vec<Browser> = (0..8).map(|_| Browser::new(&weir)).collect();
        for browser in &mut browsers {
            browser.get("/login");
            browser.get("/");
            browser.get("/rename");
            browser.get("/");
        }
        assert_eq!(sessions(&weir).iter().sum::<f64>(), 8.0, "{mode}");
        if mode != "source" {
            assert_eq!(sessions(&weir), [4.0, 4.0], "{mode}");
            assert_eq!(
                weir.metric("weir_sticky_skew_ratio", &[("pool", "was")]),
                1.0
            );
        }
        for browser in &mut browsers {
            browser.get("/logout");
        }
        assert_eq!(sessions(&weir), [0.0, 0.0], "{mode}");
    }
}

#[test]
fn who_keeps_no_cookies_is_no_session_and_who_keeps_weirs_is_one() {
    let a = application("a");
    let weir = Weir::start(&config(&[&a], "mode = \"insert\""));
    for _ in 0..20 {
        weir.get("/");
    }
    let counted = || weir.metric("weir_backend_sessions", &[("backend", "a")]);
    assert_eq!(counted(), 0.0);
    let mut browser = Browser::new(&weir);
    browser.get("/");
    browser.get("/");
    assert_eq!(counted(), 1.0);
    browser.get("/login");
    browser.get("/");
    assert_eq!(counted(), 1.0, "it is the same client");
}

#[test]
fn sessions_survive_reloads_by_name_and_end_when_idle() {
    let (a, b) = (application("a"), application("b"));
    let sticky = "mode = \"insert\", idle_timeout = \"4s\"";
    let weir = Weir::start(&config(&[&a, &b], sticky));
    let mut browsers: Vec<Browser> = (0..4).map(|_| Browser::new(&weir)).collect();
    browsers
        .iter_mut()
        .for_each(|browser| drop(browser.get("/login")));
    assert_eq!(sessions(&weir), [2.0, 2.0]);
    // The names stay, the order and the bound change.
    let text = config(&[&b, &a], sticky)
        .replace("\"a\"", "\"x\"")
        .replace("\"b\"", "\"a\"")
        .replace("\"x\"", "\"b\"");
    weir.write(&text.replace("[pools.was]\n", "[pools.was]\nmax_sessions = 5000\n"));
    weir.await_generation_after(1);
    assert_eq!(sessions(&weir), [2.0, 2.0]);
    until("nobody is left", || {
        (sessions(&weir) == [0.0, 0.0]).then_some(())
    });
}

#[test]
fn the_log_names_the_home() {
    let (a, b) = (application("a"), application("b"));
    let weir = Weir::start(&config(&[&a, &b], "mode = \"insert\""));
    let mut browser = Browser::new(&weir);
    let home = browser.get("/login").text();
    browser.get("/kept");
    let set = |state: &str| {
        assert_eq!(
            weir.post(&format!("/api/v1/pools/was/backends/{home}/{state}"))
                .status(),
            200
        );
    };
    set("maint");
    let refuge = browser.get("/moved").text();
    assert_ne!(refuge, home);
    let line = |path: &str| -> Value {
        until("the line", || {
            let log = weir.stdout();
            let line = log
                .iter()
                .find(|line| line.contains(&format!("\"path\":\"{path}\"")))?;
            serde_json::from_str(line).ok()
        })
    };
    assert_eq!(line("/login").get("home"), None);
    let kept = line("/kept");
    assert_eq!(
        (&kept["sticky"], &kept["home"]),
        (&"kept".into(), &home.as_str().into())
    );
    let moved = line("/moved");
    assert_eq!(
        (&moved["home"], &moved["backend"]),
        (&home.as_str().into(), &refuge.as_str().into())
    );
}

/// What a drain of local sessions waits for: it says how many remain and when the last expires, and ends with them.
#[test]
fn a_drain_waits_for_local_sessions_and_for_no_others() {
    let (a, b) = (application("a"), application("b"));
    let weir = Weir::start(&config(
        &[&a, &b],
        "mode = \"insert\", idle_timeout = \"5s\"",
    ));
    let mut browsers: Vec<Browser> = (0..6).map(|_| Browser::new(&weir)).collect();
    let homes: HashSet<String> = browsers
        .iter_mut()
        .map(|browser| browser.get("/login").text())
        .collect();
    assert_eq!(homes.len(), 2);
    let drain = |deadline: &str| {
        let mut command = Command::new(binary());
        command.args(["drain", "was/a", "--wait", "--deadline", deadline, "-c"]);
        command
            .arg(&weir.file)
            .env_remove("WEIR_ADMIN")
            .output()
            .unwrap()
    };
    let output = drain("300ms");
    let (told, error) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("was/a drains: 3 live sessions, the last session expires in "),
        "{told}"
    );
    assert!(
        error.contains("not drained by the deadline: 3 live sessions"),
        "{error}"
    );
    let backend = weir.status()["pools"][0]["backends"][0].clone();
    assert_eq!(
        (&backend["sessions"], &backend["sessions_held"]),
        (&3.into(), &3.into())
    );
    assert!(backend["sessions_expire_seconds"].as_u64().unwrap() <= 5);
    // Logging out ends the wait for one, time for the others.
    let mut of_a = browsers
        .iter_mut()
        .filter_map(|browser| (browser.get("/").text() == "a").then_some(browser));
    of_a.next().unwrap().get("/logout");
    assert_eq!(weir.status()["pools"][0]["backends"][0]["sessions"], 2);
    let output = drain("1m");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(
        told.ends_with("was/a is drained: no live session, nothing in flight\n"),
        "{told}"
    );
}

#[test]
fn a_drain_of_shared_sessions_waits_for_nobody() {
    let (a, b) = (application("a"), application("b"));
    let weir = Weir::start(&config(
        &[&a, &b],
        "mode = \"insert\", sessions = \"shared\"",
    ));
    for _ in 0..6 {
        Browser::new(&weir).get("/login");
    }
    assert_eq!(sessions(&weir), [3.0, 3.0]);
    let mut command = Command::new(binary());
    command.args(["drain", "was/a", "--wait", "--deadline", "1m", "-c"]);
    let output = command
        .arg(&weir.file)
        .env_remove("WEIR_ADMIN")
        .output()
        .unwrap();
    assert!(output.status.success());
    let backend = weir.status()["pools"][0]["backends"][0].clone();
    assert_eq!(
        (&backend["sessions"], &backend["sessions_held"]),
        (&3.into(), &0.into())
    );
}
