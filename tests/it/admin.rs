//! The admin server: what it tells, and to whom.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::support::origin::nobody;
use crate::support::weir::{get, plain, plain_at};
use crate::support::{Client, Message, Origin, Weir, until};

fn ask(weir: &Weir, request: &str) -> Message {
    Client::connect(weir.address("admin")).ask(request)
}

#[test]
fn health_and_readiness() {
    let origin = Origin::named("a");
    let weir = Weir::before(&[&origin]);
    assert_eq!(weir.admin("/healthz").status(), 200);
    assert_eq!(weir.admin("/readyz").status(), 200);
}

#[test]
fn a_dead_pool_is_ready_all_the_same() {
    let config = plain_at(&[nobody()], "").replace(
        "health.type = \"none\"\n",
        &format!(
            "[pools.was.health]\ntype = \"tcp\"\n{}",
            crate::balancing::PROBES
        ),
    );
    let weir = Weir::start(&config);
    until("the verdict", || {
        weir.admin("/metrics")
            .text()
            .contains("weir_backend_up{")
            .then_some(())
    });
    assert_eq!(weir.metric("weir_backend_up", &[]), 0.0);
    assert_eq!(
        weir.admin("/readyz").status(),
        200,
        "or the virtual IP would flap"
    );
}

#[test]
fn metrics_are_prometheus_text() {
    let origin = Origin::named("a");
    let config = plain(&[&origin], "").replace("[[routes]]\n", "[[routes]]\nname = \"shop\"\n");
    let weir = Weir::start(&config);
    let mut client = weir.client();
    for _ in 0..3 {
        client.ask(get("/"));
    }
    client.ask("GET /..\x20x HTTP/1.1\r\n\r\n");
    let answer = weir.admin("/metrics");
    assert!(
        answer
            .value("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let text = answer.text();
    let backend = origin.address.to_string();
    let labels = [
        ("listener", "web"),
        ("route", "shop"),
        ("pool", "was"),
        ("backend", backend.as_str()),
        ("code", "2xx"),
    ];
    weir.settles("weir_http_requests_total", &labels, 3.0);
    weir.settles("weir_http_requests_total", &[("code", "4xx")], 1.0);
    weir.settles(
        "weir_http_request_duration_seconds_count",
        &[("route", "shop"), ("pool", "was")],
        3.0,
    );
    weir.settles(
        "weir_http_overhead_seconds_count",
        &[("route", "shop")],
        3.0,
    );
    weir.settles("weir_backend_connections_total", &[("reused", "true")], 2.0);
    weir.settles("weir_backend_in_flight", &[], 0.0);
    for name in [
        "weir_backend_up",
        "weir_backend_state",
        "weir_listener_connections",
        "weir_config_generation",
        "weir_config_last_reload_successful",
        "weir_config_last_reload_success_timestamp_seconds",
        "weir_build_info",
        "process_open_fds",
        "process_resident_memory_bytes",
    ] {
        assert!(
            text.contains(&format!("# TYPE {name} ")),
            "{name} is missing"
        );
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let figure = line.rsplit_once(' ').unwrap().1;
        assert!(figure.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn what_clients_send_makes_no_series() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    weir.get("/warm");
    let series = || {
        weir.admin("/metrics")
            .text()
            .lines()
            .filter(|line| line.starts_with("weir_http"))
            .count()
    };
    // A request is written down after its answer.
    weir.settles("weir_http_requests_total", &[], 1.0);
    let before = series();
    for number in 0..50 {
        let request = format!(
            "M{number} /p{number}?q HTTP/1.1\r\nHost: h{number}.test\r\nX-H{number}: 1\r\n\r\n"
        );
        assert_eq!(weir.client().ask(request).status(), 200);
    }
    assert_eq!(series(), before);
}

#[test]
fn series_are_bounded() {
    let origin = Origin::named("a");
    let mut config = plain(&[&origin], "[metrics]\nmax_series = 100");
    for number in 0..300 {
        config.push_str(&format!(
            "[[routes]]\nname = \"r{number}\"\npath = \"/p{number}\"\npool = \"was\"\n"
        ));
    }
    let weir = Weir::start(&config);
    let mut client = weir.client();
    for number in 0..300 {
        client.ask(get(&format!("/p{number}")));
    }
    weir.settles("weir_http_requests_total", &[], 300.0);
    assert!(weir.metric("weir_http_requests_total", &[("route", "other")]) > 100.0);
}

#[test]
fn status_tells_pools_and_backends() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let weir = Weir::before(&[&a, &b]);
    let answer = weir.admin("/api/v1/status");
    assert_eq!(
        answer.value("content-type").as_deref(),
        Some("application/json")
    );
    let text = weir.status().to_string();
    for part in [
        "was",
        &a.address.to_string(),
        &b.address.to_string(),
        "generation",
        "ready",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[test]
fn mistakes_are_problems() {
    let origin = Origin::named("a");
    let weir = Weir::before(&[&origin]);
    for (request, status) in [
        ("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (
            "GET /api/v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
            404,
        ),
        (
            "DELETE /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
            405,
        ),
    ] {
        let answer = ask(&weir, request);
        assert_eq!(answer.status(), status, "{request}");
        assert_eq!(
            answer.value("content-type").as_deref(),
            Some("application/problem+json"),
            "{request}"
        );
        assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok());
    }
}

#[test]
fn a_post_from_another_site_is_refused() {
    let origin = Origin::named("a");
    let weir = Weir::before(&[&origin]);
    let own = weir.address("admin");
    let post = |host: &str, kind: &str| {
        let request = format!(
            "POST /api/v1/reload HTTP/1.1\r\nHost: {host}\r\n{kind}Content-Length: 2\r\n\r\n{{}}"
        );
        ask(&weir, &request).status()
    };
    let json = "Content-Type: application/json\r\n";
    if post(&own.to_string(), json) == 404 {
        return; // no POST exists yet
    }
    let generation = weir.generation();
    assert!(
        (400..500).contains(&post("evil.example", json)),
        "DNS rebinding"
    );
    assert!((400..500).contains(&post(&format!("evil.example:{}", own.port()), json)));
    assert!(
        (400..500).contains(&post(&own.to_string(), "Content-Type: text/plain\r\n")),
        "a cross-site form"
    );
    assert!((400..500).contains(&post(
        &own.to_string(),
        "Content-Type: application/x-www-form-urlencoded\r\n"
    )));
    assert!((400..500).contains(&post(&own.to_string(), "")));
    assert_eq!(weir.generation(), generation);
    assert!((200..300).contains(&post(&own.to_string(), json)));
    assert!((200..300).contains(&post(&format!("localhost:{}", own.port()), json)));
}

#[test]
fn off_loopback_the_api_needs_a_token() {
    let origin = Origin::named("a");
    let config = plain(&[&origin], "") + "\n[admin]\nbind = \"0.0.0.0:$admin_port\"\n";
    let weir = Weir::start(&config);
    for (target, status) in [("/metrics", 200), ("/healthz", 200), ("/readyz", 200)] {
        assert_eq!(weir.admin(target).status(), status, "{target}");
    }
    for target in ["/api/v1/status", "/api/v1/diff", "/"] {
        let status = weir.admin(target).status();
        assert!(
            matches!(status, 401 | 403 | 404),
            "{target} was answered {status} without a token"
        );
    }
    assert!(matches!(weir.admin("/api/v1/status").status(), 401 | 403));
    assert!(matches!(
        weir.post("/api/v1/reload").status(),
        401 | 403 | 404
    ));
}

#[test]
fn a_token_opens_the_api() {
    let origin = Origin::named("a");
    let token = std::env::temp_dir().join(format!("weir-it-token-{}", std::process::id()));
    fs::write(&token, "open-sesame-0123456789\n").unwrap();
    let config = plain(&[&origin], "")
        + &format!(
            "\n[admin]\nbind = \"0.0.0.0:$admin_port\"\ntoken_file = \"{}\"\n",
            token.display()
        );
    let weir = Weir::start(&config);
    let with = |line: &str| {
        let request = format!(
            "GET /api/v1/status HTTP/1.1\r\nHost: {}\r\n{line}\r\n",
            weir.address("admin")
        );
        ask(&weir, &request).status()
    };
    assert_eq!(
        with("Authorization: Bearer open-sesame-0123456789\r\n"),
        200
    );
    for wrong in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer open-sesame-012345678\r\n",
        "Authorization: Bearer open-sesame-01234567890\r\n",
        "Authorization: Bearer open-sesame-0123456780\r\n",
        "Authorization: Basic open-sesame-0123456789\r\n",
        "Authorization: open-sesame-0123456789\r\n",
    ] {
        assert!(matches!(with(wrong), 401 | 403), "{wrong}");
    }
    assert_eq!(
        weir.admin("/metrics").status(),
        200,
        "Prometheus needs none"
    );
    fs::remove_file(token).unwrap();
}

#[test]
fn a_unix_socket_needs_no_token() {
    let origin = Origin::named("a");
    let config = plain(&[&origin], "") + "\n[admin]\nbind = \"unix:$dir/admin.sock\"\n";
    let weir = Weir::launch(&config, |_| {});
    let path = weir.directory.join("admin.sock");
    let answer = until("the socket", || {
        let mut stream = UnixStream::connect(&path).ok()?;
        stream
            .write_all(
                b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            )
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    });
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    until("traffic", || {
        let mut client = Client::try_connect(weir.address("web")).ok()?;
        client.try_send(get("/").as_bytes()).ok()?;
        (client.try_answer().ok()?.text() == "a").then_some(())
    });
}

#[test]
fn garbage_at_the_admin_port_harms_nobody() {
    let origin = Origin::named("a");
    let weir = Weir::before(&[&origin]);
    let mut random = crate::support::random::Random(5);
    for _ in 0..200 {
        let mut client = Client::connect(weir.address("admin"));
        let length = random.below(400);
        let _ = client.try_send(&random.bytes(length));
    }
    assert_eq!(weir.admin("/healthz").status(), 200);
}
