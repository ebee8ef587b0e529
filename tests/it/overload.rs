//! Backups and fallback pools: who serves where nobody else can, and that it ends as soon as somebody can again.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use crate::balancing::PROBES;
use crate::support::origin::{nobody, ok};
use crate::support::weir::get;
use crate::support::{Client, Origin, Weir, until};
use crate::tcp;

/// An origin that answers probes as it is told, and everything else with its name.
struct Server {
    origin: Origin,
    healthy: Arc<AtomicBool>,
}

impl Server {
    fn start(name: &'static str) -> Server {
        let healthy = Arc::new(AtomicBool::new(true));
        let is_healthy = healthy.clone();
        let origin = Origin::start(move |visit| {
            while let Ok(request) = visit.request() {
                let good = request.target() != "/healthz" || is_healthy.load(SeqCst);
                visit.send(match good {
                    true => ok(name),
                    false => {
                        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec()
                    }
                });
            }
        });
        Server { origin, healthy }
    }

    fn set(&self, healthy: bool) {
        self.healthy.store(healthy, SeqCst);
    }
}

/// A pool of these lines, with fast probes.
fn pool(name: &str, lines: &str) -> String {
    format!(
        "[pools.{name}]\n{lines}\n[pools.{name}.health]\ntype = \"http\"\npath = \"/healthz\"\n{PROBES}"
    )
}

#[track_caller]
fn becomes(weir: &Weir, wanted: &str) {
    until(wanted, || (weir.get("/").text() == wanted).then_some(()));
}

#[test]
fn a_backup_serves_only_where_nobody_else_can() {
    let (own, spare) = (Server::start("own"), Server::start("spare"));
    let route = "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = { mode = \"header\", header = \"x-user\" }\n";
    let backends = format!(
        "backends = [\"{}\", {{ name = \"spare\", address = \"{}\", backup = true }}]",
        own.origin.address, spare.origin.address
    );
    let weir = Weir::start(&format!("{route}{}", pool("was", &backends)));
    let user = |n: u32| get("/").replace("\r\n\r\n", &format!("\r\nX-User: {n}\r\n\r\n"));
    for n in 0..20 {
        assert_eq!(weir.get("/").text(), "own");
        // No client has its home there, either.
        assert_eq!(weir.client().ask(user(n)).text(), "own");
    }
    own.set(false);
    becomes(&weir, "spare");
    assert_eq!(weir.client().ask(user(1)).text(), "spare");
    own.set(true);
    becomes(&weir, "own");
    assert_eq!(weir.client().ask(user(1)).text(), "own");
    let status = weir.status();
    assert_eq!(status["pools"][0]["backends"][1]["backup"], true);
    assert!(status["pools"][0]["backends"][0].get("backup").is_none());
}

#[test]
fn a_fallback_takes_over_while_a_pool_has_nobody() {
    let [own, second] = ["own", "second"].map(Server::start);
    let last = Origin::named("last");
    let config = format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nname = \"shop\"\npool = \"was\"\n{}{}[pools.sorry]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        pool(
            "was",
            &format!(
                "fallback = \"second\"\nbackends = [\"{}\"]",
                own.origin.address
            )
        ),
        pool(
            "second",
            &format!(
                "fallback = \"sorry\"\nbackends = [\"{}\"]",
                second.origin.address
            )
        ),
        last.address
    );
    let weir = Weir::start(&config);
    becomes(&weir, "own");
    own.set(false);
    becomes(&weir, "second");
    second.set(false);
    becomes(&weir, "last");
    // On the same connection, and back as soon as there is somebody.
    let mut client = weir.client();
    assert_eq!(client.ask(get("/")).text(), "last");
    second.set(true);
    until("the second", || {
        (client.ask(get("/")).text() == "second").then_some(())
    });
    own.set(true);
    until("its own", || {
        (client.ask(get("/")).text() == "own").then_some(())
    });
    let served = |pool| {
        weir.metric(
            "weir_http_requests_total",
            &[("route", "shop"), ("pool", pool), ("code", "2xx")],
        )
    };
    assert!(
        ["was", "second", "sorry"]
            .iter()
            .all(|pool| served(pool) > 0.0)
    );
    let line = weir.access(|line| line["pool"] == "sorry");
    assert_eq!(
        (&line["route"], &line["status"]),
        (&"shop".into(), &200.into())
    );

    own.set(false);
    becomes(&weir, "second");
    let told = weir
        .admin("/api/v1/explain?url=http://shop.example.com/")
        .text();
    assert!(
        told.contains("no backend of was may be chosen: second takes over"),
        "{told}"
    );
}

#[test]
fn a_server_that_refuses_is_no_reason_for_another_pool() {
    let other = Origin::named("other");
    let config = format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\"]\nfallback = \"other\"\nhealth.type = \"none\"\n[pools.other]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        nobody(),
        other.address
    );
    let weir = Weir::start(&config);
    assert_eq!(weir.get("/").status(), 502);
    assert_eq!(other.hits(), 0);
}

#[test]
fn connections_of_tcp_listeners_have_backups_and_fallbacks_too() {
    let greeting = |name: &'static str| {
        Origin::start(move |visit| {
            visit.send(name);
        })
    };
    let [own, spare, other] = ["o", "s", "f"].map(greeting);
    let backends = |own_state: &str, spare_state: &str| {
        let base = tcp::relay(&[], "").replace(
            "backends = []",
            &format!(
                "fallback = \"other\"\nbackends = [{{ address = \"{}\", state = \"{own_state}\" }}, {{ address = \"{}\", backup = true, state = \"{spare_state}\" }}]",
                own.address, spare.address
            ),
        );
        format!(
            "{base}[pools.other]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
            other.address
        )
    };
    let weir = Weir::start(&backends("ready", "ready"));
    let greeted = |weir: &Weir| {
        let mut client: Client = tcp::client(weir);
        String::from_utf8(client.reader.exactly(1).expect("a greeting")).unwrap()
    };
    assert!((0..5).all(|_| greeted(&weir) == "o"));
    for (own_state, spare_state, expected) in [
        ("maint", "ready", "s"),
        ("maint", "maint", "f"),
        ("ready", "ready", "o"),
    ] {
        let before = weir.generation();
        weir.write(&backends(own_state, spare_state));
        weir.await_generation_after(before);
        assert_eq!(greeted(&weir), expected);
    }
    assert_eq!(weir.access(|line| line["pool"] == "other")["route"], "main");
}
