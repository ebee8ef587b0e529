//! What a change costs whoever is served: told before it by `weir diff`, and after it by the log, the API and `weir reload`.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::origin::ok;
use crate::support::weir::{binary, get};
use crate::support::{Client, Origin, Weir, until};
use crate::upgrade_process::{echo, switched};

fn command(weir: &Weir, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    let output = command.args(arguments).env_remove("WEIR_ADMIN");
    let output = output
        .env("WEIR_ADMIN", weir.address("admin").to_string())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    (
        output.status.code(),
        told + &String::from_utf8_lossy(&output.stderr),
    )
}

#[track_caller]
fn reload(weir: &Weir, config: &str) -> Value {
    weir.write(config);
    let answer = weir.post("/api/v1/reload");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// The listeners `web` and `more`, and a pool of these backends, named a, b, ...; `route` and `pool` say more of either.
fn config(listeners: &[&str], origins: &[&Origin], route: &str, pool: &str) -> String {
    let mut text = "watch = \"off\"\n".to_owned();
    for listener in listeners {
        text += &format!("[listeners.{listener}]\nbind = [\"${listener}\"]\n");
    }
    let backends = origins.iter().zip("abcdef".chars());
    let backends = backends
        .map(|(origin, name)| format!("{{ name = \"{name}\", address = \"{}\" }}", origin.address));
    let backends = backends.collect::<Vec<_>>().join(", ");
    text + &format!(
        "[[routes]]\npool = \"was\"\n{route}\n[pools.was]\nbackends = [{backends}]\nhealth.type = \"none\"\n{pool}\n"
    )
}

#[test]
fn a_reload_tells_what_it_closes_and_diff_told_it_before() {
    let (a, b) = (echo("a"), echo("a"));
    let weir = Weir::start(&config(&["web", "more"], &[&a], "", ""));
    let _socket = switched(&weir);
    let mut other = Client::connect(weir.address("more"));
    assert_eq!(other.ask(get("/")).text(), "a");
    assert_eq!(
        weir.status()["last_reload"]["report"]["connections_closing"],
        0
    );

    let next = config(&["web"], &[&b], "", "");
    let file = weir.directory.join("next.toml");
    std::fs::write(&file, weir.filled(&next)).unwrap();
    let (code, told) = command(&weir, &["diff", "-c", file.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{told}");
    let more = weir.address("more");
    let closes = format!("listener more: {more} closes, 1 connections open there");
    let leaves = "pool was: a leaves with 0 in flight and 1 upgraded";
    for line in [&closes, leaves] {
        assert!(told.contains(&format!("cost: {line}\n")), "{told}");
    }
    let reloaded = reload(&weir, &next);
    let report = &reloaded["report"];
    assert_eq!(report["connections_closing"], 1);
    assert_eq!(report["listeners"][0]["closed"][0], more.to_string());
    assert_eq!(report["pools"][0]["removed"][0], "a");
    assert_eq!(report["pools"][0]["upgraded"], 1);
    let shown = weir.status()["last_reload"].clone();
    assert_eq!(shown["report"], *report, "it is served until the next one");
    assert_eq!(shown["summary"], reloaded["summary"]);
    for line in [&closes, leaves] {
        let line = format!("reload:   {line}");
        weir.tells(&line);
    }
    let quiet = reload(&weir, &config(&["web"], &[&b], "", "max_idle = 3"));
    assert_eq!(quiet["report"]["pools"], serde_json::json!([]));
}

#[test]
fn the_share_of_keys_that_move_is_told() {
    let origins = [(); 5].map(|()| echo("a"));
    let [four, five] = [4, 5].map(|count| origins.iter().take(count).collect::<Vec<_>>());
    for (balancer, at_most) in [("maglev", 0.35), ("hash source", 0.25)] {
        let pool = format!("balancer = \"{balancer}\"");
        let weir = Weir::start(&config(&["web"], &four, "", &pool));
        let moved = |report: &Value| report["pools"][0]["keys_moved"].as_f64().unwrap();
        let grown = reload(&weir, &config(&["web"], &five, "", &pool));
        let part = moved(&grown["report"]);
        assert!((0.15..at_most).contains(&part), "{balancer}: {part}");
        let other = "balancer = \"hash uri\"";
        let turned = reload(&weir, &config(&["web"], &five, "", other));
        assert_eq!(moved(&turned["report"]), 1.0);
    }
}

#[test]
fn sessions_that_are_lost_are_counted() {
    let opens = |name: &'static str| {
        let opened = AtomicUsize::new(0);
        Origin::start(move |visit| {
            while let Ok(request) = visit.request() {
                let answer = match request.has("cookie") {
                    true => ok(name),
                    false => format!(
                        "HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID={name}{}\r\nContent-Length: 1\r\n\r\n{name}",
                        opened.fetch_add(1, Ordering::SeqCst)
                    )
                    .into_bytes(),
                };
                visit.send(answer);
            }
        })
    };
    let (a, b) = (opens("a"), opens("b"));
    let route = "sticky = { mode = \"insert\", sessions = \"local\" }";
    let weir = Weir::start(&config(&["web"], &[&a, &b], route, ""));
    let mut at_b = 0;
    for _ in 0..10 {
        let answer = weir.get("/");
        at_b += u64::from(answer.text() == "b");
    }
    until("the sessions to be counted", || {
        let backends = &weir.status()["pools"][0]["backends"];
        let count = |place: usize| backends[place]["sessions"].as_u64().unwrap();
        (count(0) + count(1) == 10).then_some(())
    });
    let reloaded = reload(&weir, &config(&["web"], &[&a], route, ""));
    let report = &reloaded["report"];
    assert_eq!(report["sessions_lost"], at_b);
    assert_eq!(report["pools"][0]["sessions"], 10);
    assert_eq!(report["pools"][0]["sessions_moved"], at_b);
}

#[test]
fn a_pool_that_speaks_another_protocol_is_a_change() {
    let origin = echo("a");
    let weir = Weir::start(&config(&["web"], &[&origin], "", ""));
    let reloaded = reload(
        &weir,
        &config(&["web"], &[&origin], "", "protocol = \"http2\""),
    );
    assert_eq!(reloaded["summary"], "pool was: protocol");
    assert_eq!(reloaded["generation"], 2);
}
