//! `max_in_flight`, `max_connections` and the queue: what a backend may have at once, who waits, whose turn is next, and who is turned away.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::origin::ok;
use crate::support::weir::{get, plain};
use crate::support::{Client, Origin, Weir, process, until};
use crate::tcp;

/// Answers when it is let go, and counts what it has at once.
struct Gate {
    origin: Origin,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Gate {
    /// Lets `free` requests through at first.
    fn start(name: &'static str, free: usize) -> Gate {
        let (open, now, most) = (
            Arc::new(AtomicUsize::new(free)),
            AtomicUsize::new(0),
            Arc::new(AtomicUsize::new(0)),
        );
        let (gate, peak) = (open.clone(), most.clone());
        let origin = Origin::start(move |visit| {
            while let Ok(request) = visit.request() {
                let at_once = now.fetch_add(1, SeqCst) + 1;
                peak.fetch_max(at_once, SeqCst);
                let mut passed = false;
                while !passed && request.target() != "/quick" {
                    let take = |free: usize| free.checked_sub(1);
                    passed = gate.fetch_update(SeqCst, SeqCst, take).is_ok();
                    thread::sleep(Duration::from_millis(1));
                }
                now.fetch_sub(1, SeqCst);
                visit.send(ok(format!("{name} {}", request.target())));
            }
        });
        Gate { origin, open, most }
    }

    fn let_go(&self, more: usize) {
        self.open.fetch_add(more, SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.let_go(1 << 20);
    }
}

fn limited(origins: &[&Origin], head: &str, pool: &str) -> String {
    plain(origins, head).replace("[pools.was]\n", &format!("[pools.was]\n{pool}\n"))
}

fn queued(weir: &Weir) -> f64 {
    weir.metric("weir_pool_queue_length", &[("pool", "was")])
}

/// A request on a connection of its own, once so many wait.
#[track_caller]
fn send(weir: &Weir, target: &str, waiting: usize) -> Client {
    let mut client = weir.client();
    client.send(get(target));
    until("it to wait", || {
        (queued(weir) == waiting as f64).then_some(())
    });
    client
}

#[track_caller]
fn busy(weir: &Weir, in_flight: usize) {
    until("the backend to be busy", || {
        (weir.metric("weir_backend_in_flight", &[]) == in_flight as f64).then_some(())
    });
}

#[test]
fn what_is_above_the_limit_waits_and_is_served_in_turn() {
    let gate = Gate::start("a", 0);
    let weir = Weir::start(&limited(&[&gate.origin], "", "max_in_flight = 1"));
    let mut first = weir.client();
    first.send(get("/0"));
    busy(&weir, 1);
    let mut others: Vec<Client> = (1..4).map(|n| send(&weir, &format!("/{n}"), n)).collect();
    assert_eq!(gate.origin.hits(), 1);
    assert_eq!(weir.status()["pools"][0]["queued"], 3);
    gate.let_go(1);
    assert_eq!(first.answer().text(), "a /0");
    for (n, client) in others.iter_mut().enumerate() {
        gate.let_go(1);
        assert_eq!(client.answer().text(), format!("a /{}", n + 1));
    }
    let targets: Vec<String> = (gate.origin.requests().iter())
        .map(|asked| asked.target())
        .collect();
    assert_eq!(
        targets,
        ["/0", "/1", "/2", "/3"],
        "first come, first served"
    );
    assert_eq!(gate.most.load(SeqCst), 1);
    weir.settles("weir_pool_queue_length", &[], 0.0);
    weir.settles("weir_pool_queued_total", &[("pool", "was")], 3.0);
    let line = weir.access(|line| line["path"] == "/3");
    assert!(line["queued"].as_f64().unwrap() > 0.0, "{line}");
    assert!(
        line["overhead"].as_f64().unwrap() < line["queued"].as_f64().unwrap(),
        "{line}"
    );
    assert!(
        weir.access(|line| line["path"] == "/0")
            .get("queued")
            .is_none()
    );
}

#[test]
fn a_queue_that_stands_serves_who_came_last() {
    let gate = Gate::start("a", 0);
    let pool = "max_in_flight = 1\nqueue_order = \"adaptive-lifo\"";
    let weir = Weir::start(&limited(&[&gate.origin], "", pool));
    let mut first = weir.client();
    first.send(get("/0"));
    busy(&weir, 1);
    let mut old = send(&weir, "/old", 1);
    // Beyond the time at which a queue stands.
    assert!(old.is_silent(Duration::from_millis(150)));
    let mut new = send(&weir, "/new", 2);
    gate.let_go(2);
    assert_eq!(new.answer().text(), "a /new");
    assert!(old.is_silent(Duration::from_millis(50)), "it still waits");
    gate.let_go(1);
}

#[test]
fn who_waits_too_long_or_finds_the_queue_full_is_told_when_to_come_back() {
    let gate = Gate::start("a", 0);
    let pool = "max_in_flight = 1\nmax_queue = 1\nqueue_timeout = \"300ms\"";
    let weir = Weir::start(&limited(&[&gate.origin], "", pool));
    let mut first = weir.client();
    first.send(get("/0"));
    busy(&weir, 1);
    let began = Instant::now();
    let mut waiting = send(&weir, "/1", 1);
    let refused = weir.get("/2");
    assert_eq!(
        (refused.status(), refused.value("retry-after").as_deref()),
        (503, Some("5"))
    );
    let late = waiting.answer();
    assert_eq!(
        (late.status(), late.value("retry-after").as_deref()),
        (503, Some("5"))
    );
    assert!(began.elapsed() >= Duration::from_millis(290));
    for (cause, reason) in [("full", "queue_full"), ("timeout", "queue_timeout")] {
        weir.settles(
            "weir_pool_shed_total",
            &[("pool", "was"), ("cause", cause)],
            1.0,
        );
        weir.settles("weir_http_refused_total", &[("reason", reason)], 1.0);
        assert_eq!(weir.access(|line| line["error"] == reason)["status"], 503);
    }
    // The connection lives, and so does the next request on it.
    gate.let_go(2);
    assert_eq!(first.answer().status(), 200);
    assert_eq!(waiting.ask(get("/3")).text(), "a /3");
}

#[test]
fn who_goes_away_leaves_the_queue_to_the_next() {
    let gate = Gate::start("a", 0);
    let weir = Weir::start(&limited(&[&gate.origin], "", "max_in_flight = 1"));
    let mut first = weir.client();
    first.send(get("/0"));
    busy(&weir, 1);
    let gone = send(&weir, "/gone", 1);
    let mut next = send(&weir, "/next", 2);
    drop(gone);
    until("it to leave", || (queued(&weir) == 1.0).then_some(()));
    gate.let_go(2);
    assert_eq!(first.answer().text(), "a /0");
    assert_eq!(next.answer().text(), "a /next");
    assert_eq!(gate.origin.hits(), 2);
}

#[test]
fn a_limit_holds_over_all_workers_and_nobody_is_forgotten() {
    // Enough of everything to meet on: three workers, two backends with a limit of their own, clients that come and go.
    let gates = ["a", "b"].map(|name| Gate::start(name, 1 << 20));
    let origins = [&gates[0].origin, &gates[1].origin];
    let config = limited(
        &origins,
        "workers = 3",
        "max_in_flight = 2\nqueue_timeout = \"30s\"",
    );
    let weir = Weir::start(&config);
    let web = weir.address("web");
    let clients: Vec<_> = (0..24)
        .map(|number| {
            thread::spawn(move || {
                let mut client = Client::connect(web);
                for n in 0..25 {
                    assert_eq!(client.ask(get("/")).status(), 200, "request {n}");
                    if (n + number) % 7 == 0 {
                        client = Client::connect(web);
                    }
                }
            })
        })
        .collect();
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    for gate in &gates {
        assert!(gate.most.load(SeqCst) <= 2, "{}", gate.most.load(SeqCst));
        assert!(gate.origin.hits() > 100);
    }
    assert!(weir.metric("weir_pool_queued_total", &[]) > 0.0);
    weir.settles("weir_pool_queue_length", &[], 0.0);
    weir.settles("weir_backend_in_flight", &[], 0.0);
}

#[test]
fn another_worker_hears_of_room_at_once() {
    let gate = Gate::start("a", 0);
    let config = limited(
        &[&gate.origin],
        "workers = 4",
        "max_in_flight = 1\nqueue_timeout = \"30s\"",
    );
    let weir = Weir::start(&config);
    let mut clients: Vec<Client> = (0..16).map(|_| weir.client()).collect();
    clients.iter_mut().for_each(|client| {
        client.send(get("/"));
    });
    until("them to wait", || (queued(&weir) == 15.0).then_some(()));
    gate.let_go(16);
    for client in &mut clients {
        assert_eq!(client.answer().status(), 200);
    }
    assert_eq!(gate.most.load(SeqCst), 1);
}

#[test]
fn a_backend_that_comes_and_a_limit_that_is_raised_end_the_wait() {
    let gate = Gate::start("a", 0);
    let spare = Origin::named("spare");
    let pool = "max_in_flight = 1\nqueue_timeout = \"30s\"";
    let two = limited(&[&gate.origin, &spare], "", pool);
    let spare_drains = two.replace(
        &format!("\"{}\"]", spare.address),
        &format!(
            "{{ name = \"spare\", address = \"{}\", state = \"drain\" }}]",
            spare.address
        ),
    );
    let weir = Weir::start(&spare_drains);
    let mut first = weir.client();
    first.send(get("/0"));
    busy(&weir, 1);
    let mut waiting = send(&weir, "/1", 1);
    assert_eq!(
        weir.post("/api/v1/pools/was/backends/spare/ready").status(),
        200
    );
    assert_eq!(waiting.answer().text(), "spare");
}

#[test]
fn a_client_waits_for_the_server_that_has_its_session() {
    let gate = Gate::start("a", 0);
    let other = Origin::named("b");
    let sticky = |sessions: &str| {
        let route = format!(
            "pool = \"was\"\nsticky = {{ mode = \"header\", header = \"x-user\", sessions = \"{sessions}\" }}"
        );
        let pool = "max_in_flight = 1\nqueue_timeout = \"200ms\"";
        limited(&[&gate.origin, &other], "", pool).replace("pool = \"was\"", &route)
    };
    let ask = |user: usize| get("/").replace("\r\n\r\n", &format!("\r\nX-User: {user}\r\n\r\n"));
    let quick = |user: usize| ask(user).replace("GET / ", "GET /quick ");
    let weir = Weir::start(&sticky("local"));
    let home = |user: &usize| weir.client().ask(quick(*user)).text() != "b";
    let user = (0..64).find(home).expect("a user whose home is a");
    let mut first = weir.client();
    first.send(ask(user));
    busy(&weir, 1);
    // Its session is nowhere else.
    assert_eq!(weir.client().ask(ask(user)).status(), 503);

    let before = weir.generation();
    weir.write(&sticky("replicated"));
    weir.await_generation_after(before);
    let began = Instant::now();
    assert_eq!(weir.client().ask(ask(user)).text(), "b");
    assert!(
        began.elapsed() >= Duration::from_millis(190),
        "it waits for its own at first"
    );

    let before = weir.generation();
    weir.write(&sticky("shared").replace("200ms", "30s"));
    weir.await_generation_after(before);
    assert_eq!(weir.client().ask(ask(user)).text(), "b");
    gate.let_go(1);
    assert_eq!(first.answer().text(), "a /");
}

#[test]
fn connections_are_bounded_with_those_that_are_idle() {
    let gate = Gate::start("a", 1 << 20);
    let pool = "max_connections = 2\nqueue_timeout = \"30s\"";
    let weir = Weir::start(&limited(&[&gate.origin], "workers = 4", pool));
    // Each request comes to some worker: those without a connection of their own take one from the others.
    for _ in 0..30 {
        assert_eq!(weir.get("/").status(), 200);
        // The origin hears of the end of one a moment later than of the next one's beginning.
        until("connections to end", || {
            (gate.origin.open() <= 2).then_some(())
        });
    }
    let web = weir.address("web");
    let clients: Vec<_> = (0..12)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::connect(web);
                (0..10).for_each(|_| assert_eq!(client.ask(get("/")).status(), 200));
            })
        })
        .collect();
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    assert!(gate.most.load(SeqCst) <= 2);
}

#[test]
fn a_switched_connection_keeps_its_seat() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/chat" {
                visit.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
                visit.stall();
                return;
            }
            visit.send(ok("plain"));
        }
    });
    let weir = Weir::start(&limited(
        &[&origin],
        "",
        "max_in_flight = 1\nqueue_timeout = \"30s\"",
    ));
    let mut chat = weir.client();
    chat.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
    assert!(chat.answer_head().first_line().contains("101"));
    let mut next = send(&weir, "/", 1);
    drop(chat);
    assert_eq!(next.answer().text(), "plain");
}

#[test]
fn connections_of_tcp_listeners_wait_too() {
    let origin = Origin::start(|visit| {
        visit.send("a");
        tcp::send_back(visit);
    });
    let pool = "[pools.pg]\nmax_connections = 1\nmax_queue = 1\nqueue_timeout = \"400ms\"\n";
    let config = tcp::relay(&[origin.address], "").replace("[pools.pg]\n", pool);
    let weir = Weir::start(&config);
    let mut first = tcp::client(&weir);
    assert_eq!(first.reader.exactly(1).unwrap(), b"a");
    let mut second = tcp::client(&weir);
    until("it to wait", || {
        (weir.metric("weir_pool_queue_length", &[]) == 1.0).then_some(())
    });
    // One more than may wait is closed.
    tcp::client(&weir).expect_end();
    assert_eq!(
        weir.access(|line| line["error"] == "queue_full")["end"],
        "failed"
    );
    drop(first);
    assert_eq!(second.reader.exactly(1).unwrap(), b"a");
    let mut late = tcp::client(&weir);
    late.expect_end();
    assert_eq!(
        weir.access(|line| line["error"] == "queue_timeout")["end"],
        "failed"
    );
    let shed = |cause| weir.metric("weir_pool_shed_total", &[("pool", "pg"), ("cause", cause)]);
    assert_eq!((shed("full"), shed("timeout")), (1.0, 1.0));
}

/// A client that was reset has no use for a place; one that only sends no more may want its answer.
#[test]
fn a_reset_connection_leaves_the_queue() {
    let origin = Origin::start(|visit| {
        visit.send("a");
        tcp::send_back(visit);
    });
    let pool = "[pools.pg]\nmax_connections = 1\nqueue_timeout = \"60s\"\n";
    let config = tcp::relay(&[origin.address], "").replace("[pools.pg]\n", pool);
    let weir = Weir::start(&config);
    let mut first = tcp::client(&weir);
    assert_eq!(first.reader.exactly(1).unwrap(), b"a");
    let mut patient = tcp::client(&weir);
    patient.finish();
    let hasty = tcp::client(&weir);
    let length = || weir.metric("weir_pool_queue_length", &[]);
    until("both to wait", || (length() == 2.0).then_some(()));
    process::reset_on_close(&hasty.reader.stream);
    drop(hasty);
    weir.access(|line| line["error"] == "client_gone");
    assert_eq!(length(), 1.0);
    drop(first);
    assert_eq!(patient.reader.exactly(1).unwrap(), b"a");
}

#[test]
fn a_reload_forgets_nobody_who_waits() {
    let gate = Gate::start("a", 0);
    let pool = "max_in_flight = 1\nqueue_timeout = \"30s\"";
    let weir = Weir::start(&limited(&[&gate.origin], "", pool));
    let mut first = weir.client();
    first.send(get("/0"));
    busy(&weir, 1);
    let mut before = send(&weir, "/1", 1);
    let generation = weir.generation();
    weir.write(&limited(
        &[&gate.origin],
        "workers = 1\n# another",
        &format!("{pool}\nmax_idle = 7"),
    ));
    weir.await_generation_after(generation);
    let mut after = send(&weir, "/2", 2);
    gate.let_go(3);
    assert_eq!(first.answer().text(), "a /0");
    assert_eq!(before.answer().text(), "a /1");
    assert_eq!(after.answer().text(), "a /2");
}
