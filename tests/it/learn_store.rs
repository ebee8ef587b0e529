//! `learn` with a store: what one weir learned another one knows, and nobody waits for a store that is slow, down or mad.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::learn::{LEARN, application, fleet, logged_in, logged_in_at, stays};
use crate::sessions::{Browser, NAMES, addresses, config, up};
use crate::support::redis::Mood;
use crate::support::{Origin, Redis, Weir, until};

const SECRET: &str = "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80=\n";

/// A weir before these backends with this store; each has the same secret.
fn weir(backends: &[SocketAddr], store: &str, more: &str) -> Weir {
    let sticky = format!("{LEARN}, store = \"{store}\"{more}");
    let text = config(backends, &sticky, "secrets_file = \"$dir/secrets\"");
    let weir = Weir::start_with(&text, |command| {
        let file = command.get_args().last().unwrap().to_owned();
        let secrets = std::path::Path::new(&file).with_file_name("secrets");
        fs::write(secrets, SECRET).unwrap();
    });
    up(&weir, 3.0);
    weir
}

fn url(redis: &Redis) -> String {
    format!("redis://weir:hunter2@{}/3", redis.address())
}

/// Waits until the weir finds the store so.
#[track_caller]
fn finds(weir: &Weir, is_up: bool) {
    weir.settles("weir_sticky_store_up", &[], f64::from(u8::from(is_up)));
}

fn results(weir: &Weir, result: &str) -> f64 {
    weir.metric("weir_sticky_store_requests_total", &[("result", result)])
}

#[test]
fn what_one_learned_another_knows() {
    let (fleet, redis) = (fleet(), Redis::start());
    let backends = addresses(&fleet);
    let [one, two] = [0, 1].map(|_| weir(&backends, &url(&redis), ""));
    finds(&one, true);
    finds(&two, true);
    let mut clients: Vec<_> = (0..9).map(|_| logged_in(&one)).collect();
    redis.holds(9);
    for (browser, home) in &mut clients {
        stays(browser, &two, home);
        stays(browser, &one, home);
    }
    assert_eq!(results(&two, "found"), 9.0, "it asks once");
    two.settles("weir_backend_sessions", &[], 9.0);
    // A login at the other one is known here, too, and so is a logout.
    let (browser, home) = &mut clients[0];
    assert_eq!(browser.ask(&two, "/login", "").text(), *home);
    redis.holds(10);
    stays(browser, &one, home);
    browser.clone().ask(&one, "/logout", "");
    redis.holds(9);
    // A weir that begins anew knows all but that.
    let three = weir(&backends, &url(&redis), "");
    for (browser, home) in &mut clients[1..] {
        stays(browser, &three, home);
    }
    let unknown = results(&three, "unknown");
    clients[0].0.text(&three);
    assert_eq!(results(&three, "unknown"), unknown + 1.0);
}

#[test]
fn no_session_id_and_no_password_is_seen_elsewhere() {
    let (fleet, redis) = (fleet(), Redis::start());
    let weir = weir(&addresses(&fleet), &url(&redis), "");
    finds(&weir, true);
    let (mut browser, home) = logged_in(&weir);
    redis.holds(1);
    let id = browser.jar["SID"].clone();
    browser.ask(&weir, "/logout", "");
    redis.holds(0);
    let mut stranger = Browser::default();
    stranger.jar.insert("SID".to_owned(), "stranger".to_owned());
    stranger.text(&weir);
    let commands = redis.commands();
    assert_eq!(commands[0], ["AUTH", "weir", "hunter2"]);
    assert_eq!(commands[1], ["SELECT", "3"]);
    let set = commands.iter().find(|words| words[0] == "SET").unwrap();
    assert!(
        set[1].starts_with("weir:was:") && set[1].len() == 73,
        "{set:?}"
    );
    assert!(
        set[2].starts_with("1 ") && set[2].ends_with(&home),
        "{set:?}"
    );
    assert_eq!(set[3..], ["EX", "2250"]);
    for words in &commands[2..] {
        assert!(
            !words
                .iter()
                .any(|word| word.contains(&id) || word.contains("stranger"))
        );
    }
    let shown = [
        weir.output(),
        weir.admin("/metrics").text(),
        weir.admin("/api/v1/status").text(),
    ];
    for text in &shown {
        assert!(!text.contains("hunter2"), "{text}");
    }
    // Nor when the file is refused.
    let text = fs::read_to_string(&weir.file).unwrap();
    weir.write(&text.replace("/3\"", "/x\""));
    let answer = weir.post("/api/v1/reload").text();
    assert!(
        answer.contains("E0505") && !answer.contains("hunter2"),
        "{answer}"
    );
    let status = weir.admin("/api/v1/status").text();
    assert!(!status.contains("hunter2"), "{status}");
    assert!(!weir.output().contains("hunter2"));
}

#[test]
fn a_store_that_falls_silent_costs_a_moment_and_then_nothing() {
    let (fleet, redis) = (fleet(), Redis::start());
    let weir = weir(&addresses(&fleet), &url(&redis), "");
    finds(&weir, true);
    let (mut browser, home) = logged_in(&weir);
    redis.behave(Mood::Silent);
    let mut stranger = Browser::default();
    stranger.jar.insert("SID".to_owned(), "stranger".to_owned());
    let began = Instant::now();
    stranger.text(&weir);
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
    stays(&mut browser, &weir, &home);
    finds(&weir, false);
    let asked = results(&weir, "late");
    for _ in 0..20 {
        stranger.text(&weir);
    }
    assert_eq!(results(&weir, "late"), asked, "nobody waits any more");
    assert!(results(&weir, "skipped") >= 20.0);
    let (mut other, there) = logged_in(&weir);
    stays(&mut other, &weir, &there);
    stays(&mut browser, &weir, &home);
    redis.behave(Mood::Fine);
    finds(&weir, true);
    let unknown = results(&weir, "unknown");
    until("an answer", || {
        stranger.text(&weir);
        (results(&weir, "unknown") > unknown).then_some(())
    });
}

#[test]
fn a_store_that_is_not_there_changes_nothing() {
    let fleet = fleet();
    let nobody = crate::support::origin::nobody();
    let weir = weir(&addresses(&fleet), &format!("redis://{nobody}"), "");
    finds(&weir, false);
    let (mut browser, home) = logged_in(&weir);
    stays(&mut browser, &weir, &home);
    weir.tells(&format!("store redis://{nobody}/0: down: "));
}

#[test]
fn whatever_a_store_says_weir_goes_on() {
    let (fleet, redis) = (fleet(), Redis::start());
    let weir = weir(&addresses(&fleet), &url(&redis), "");
    finds(&weir, true);
    let (mut browser, home) = logged_in(&weir);
    let mut stranger = Browser::default();
    for says in [
        &b"*1\r\n$99999999999999999999\r\n"[..],
        b"*99999999\r\n",
        b"$-7\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\0\0\0\n\r\n",
        &[b'x'; 5000],
        b"+\xff\xfe\r\n+OK\r\n:1\r\n",
        b"*1\r\n$12\r\n1 -5 \xff\xfe was9\r\n",
        b"*1\r\n$12\r\n1 9 nobody..\r\n",
    ] {
        redis.behave(Mood::Says(says.to_vec()));
        for id in 0..4 {
            let name = format!("{id}{}", says.len());
            stranger.jar.insert("SID".to_owned(), name);
            stranger.text(&weir);
            stays(&mut browser, &weir, &home);
        }
        logged_in(&weir);
        redis.behave(Mood::Fine);
        finds(&weir, true);
    }
    let (mut other, there) = logged_in(&weir);
    stays(&mut other, &weir, &there);
}

#[test]
fn moves_are_shared_and_what_is_used_lives_on() {
    let (mut fleet, redis) = (fleet(), Redis::start());
    let backends = addresses(&fleet);
    let more = ", sessions = \"replicated\", idle_timeout = \"8s\"";
    let [one, two] = [0, 1].map(|_| weir(&backends, &url(&redis), more));
    let mut browser = logged_in_at(&one, NAMES[0]);
    fleet[0] = None;
    let refuge = browser.text(&one);
    assert_ne!(refuge, NAMES[0]);
    until("the move in the store", || {
        let values = redis.values();
        values
            .values()
            .any(|value| value.ends_with(&refuge))
            .then_some(())
    });
    fleet[0] = Some(Origin::at(backends[0], application(NAMES[0])));
    up(&two, 3.0);
    stays(&mut browser, &two, &refuge);
    // Used at one of them, it is written again once a quarter of the idle time.
    until("a second life", || {
        stays(&mut browser, &one, &refuge);
        let commands = redis.commands();
        commands
            .iter()
            .any(|words| words[0] == "EXPIRE")
            .then_some(())
    });
    let sets = redis.commands();
    let again = sets
        .iter()
        .find(|words| words.last().is_some_and(|word| word == "NX"));
    assert_eq!(again.unwrap()[3..5], ["EX", "10"]);
}
