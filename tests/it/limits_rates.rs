//! Rate limits: a burst passes, what comes above it is told when to come again, and nobody pays for another's requests.

use crate::support::http2::Multiplexer;
use crate::support::message::Message;
use crate::support::weir::{get, plain};
use crate::support::{Origin, Weir, until};

/// One listener with this rate limit.
fn limited(origin: &Origin, limit: &str) -> String {
    plain(&[origin], "").replace(
        "bind = [\"$web\"]",
        &format!("bind = [\"$web\"]\nrate_limit = {limit}"),
    )
}

#[track_caller]
fn seconds(answer: &Message, field: &str) -> u64 {
    let value = answer.value(field).expect("the field is there");
    value.parse().expect("whole seconds")
}

#[test]
fn above_the_burst_a_client_is_told_when_to_come_again() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&limited(&origin, "{ rate = \"10/h\", burst = 3 }"));
    let mut client = weir.client();
    for _ in 0..3 {
        assert_eq!(client.ask(get("/")).text(), "fine");
    }
    let answer = client.ask(get("/"));
    assert_eq!(answer.status(), 429);
    let wait = seconds(&answer, "retry-after");
    assert!((350..=360).contains(&wait), "{wait}");
    assert_eq!(
        answer.value("ratelimit-policy").as_deref(),
        Some("\"source\";q=3;w=1080")
    );
    assert_eq!(
        answer.value("ratelimit"),
        Some(format!("\"source\";r=0;t={wait}"))
    );
    assert_eq!(answer.value("connection"), None, "the connection is good");
    assert_eq!(client.ask(get("/")).status(), 429);
    assert_eq!(origin.hits(), 3);
    let labels = [("listener", "web"), ("limit", "10/h source")];
    weir.settles("weir_limited_total", &labels, 2.0);
    weir.settles("weir_http_refused_total", &[("reason", "limited")], 2.0);
    let line = weir.access(|line| line["status"] == 429);
    assert_eq!(line["error"], "limited");
    let log = until("a line of the log", || {
        Some(weir.stderr()).filter(|log| log.contains("is over the limit"))
    });
    let told = log.matches("listener web: 127.0.0.1 is over the limit of 10/h source");
    assert_eq!(told.count(), 1, "one line for two: {log}");
}

#[test]
fn who_comes_back_in_time_passes() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&limited(&origin, "{ rate = \"4/s\", burst = 1 }"));
    let mut client = weir.client();
    let mut refused = 0;
    for _ in 0..3 {
        until("a token", || {
            let status = client.ask(get("/")).status();
            refused += usize::from(status == 429);
            (status == 200).then_some(())
        });
    }
    assert!(refused > 0);
}

#[test]
fn workers_count_together_and_a_reload_forgets_nobody() {
    let origin = Origin::named("fine");
    let config = limited(&origin, "{ rate = \"10/h\", burst = 20 }");
    let weir = Weir::start(&format!("workers = 4\n{config}"));
    let passed = |count: usize| {
        let answers = (0..count).map(|_| weir.get("/").status());
        answers.filter(|status| *status == 200).count()
    };
    assert_eq!(passed(12), 12);
    let generation = weir.generation();
    weir.write(
        &format!("workers = 4\n{config}").replace("[pools.was]", "[pools.was]\nmax_idle = 7"),
    );
    weir.await_generation_after(generation);
    assert_eq!(passed(20), 8);
    let other = config.replace("burst = 20", "burst = 2");
    let generation = weir.generation();
    weir.write(&format!("workers = 4\n{other}"));
    weir.await_generation_after(generation);
    assert_eq!(passed(5), 2, "another limit begins anew");
}

#[test]
fn the_client_behind_a_trusted_proxy_is_the_one_that_counts() {
    let origin = Origin::named("fine");
    let config = limited(&origin, "{ rate = \"10/h\", burst = 1, prefix_v4 = 24 }");
    let weir = Weir::start(&format!("trusted_proxies = [\"127.0.0.1\"]\n{config}"));
    let ask = |client: &str| {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-Forwarded-For: {client}\r\n\r\n"
        );
        weir.client().ask(request).status()
    };
    assert_eq!(ask("192.0.2.1"), 200);
    assert_eq!(ask("192.0.2.1"), 429);
    assert_eq!(ask("192.0.2.2"), 429, "the same /24");
    assert_eq!(ask("198.51.100.1"), 200);
    assert_eq!(ask("2001:db8::1"), 200);
    assert_eq!(ask("2001:db8::ffff:2"), 429, "the same /64");
}

#[test]
fn a_stranger_cannot_pass_for_somebody_else() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&limited(&origin, "{ rate = \"10/h\", burst = 1 }"));
    for (number, field) in [
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "x_forwarded_for",
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\n{field}: 192.0.2.{number}\r\n\r\n"
        );
        let expected = if number == 0 { 200 } else { 429 };
        assert_eq!(weir.client().ask(request).status(), expected, "{field}");
    }
}

#[test]
fn a_request_with_a_body_is_refused_before_its_body() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&limited(&origin, "{ rate = \"10/h\", burst = 1 }"));
    assert_eq!(weir.get("/").status(), 200);
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 100000\r\n\r\nabc");
    let answer = client.answer();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    assert_eq!(origin.hits(), 1);
}

#[test]
fn streams_and_connections_are_counted_alike() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&limited(&origin, "{ rate = \"10/h\", burst = 3 }"));
    let mut multiplexer = Multiplexer::connect(weir.address("web"));
    assert_eq!(weir.get("/").status(), 200);
    assert_eq!(multiplexer.get("/").status(), 200);
    assert_eq!(multiplexer.get("/").status(), 200);
    let answer = multiplexer.get("/");
    assert_eq!(answer.status(), 429);
    assert_eq!(
        answer.value("ratelimit-policy"),
        Some("\"source\";q=3;w=1080")
    );
    let wait = answer.value("retry-after").unwrap().to_owned();
    let told = format!("\"source\";r=0;t={wait}");
    assert_eq!(answer.value("ratelimit"), Some(&*told));
    assert_eq!(weir.get("/").status(), 429);
    assert!(multiplexer.is_open());
    assert_eq!(origin.hits(), 3);
}
