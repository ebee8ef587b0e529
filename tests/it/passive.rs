//! Passive health: backends that fail what clients send them are left out for a while, though their checks pass or there are none.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::origin::{nobody, ok};
use crate::support::weir::{get, post};
use crate::support::{Client, Origin, Weir, until};

/// Answers 200 with its name while it is well, else what `ill` says.
fn moody(name: &str, is_ill: &Arc<AtomicBool>, ill: &'static [u8]) -> Origin {
    let (is_ill, name) = (Arc::clone(is_ill), name.to_owned());
    Origin::start(move |visit| {
        while visit.request().is_ok() {
            match is_ill.load(SeqCst) {
                true if ill.is_empty() => return,
                true => visit.send(ill),
                false => visit.send(ok(name.as_str())),
            };
        }
    })
}

const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";

/// A pool without checks in front of these origins, with these rules.
fn pool(origins: &[&Origin], rules: &str) -> String {
    let backends: Vec<String> = (origins.iter().enumerate())
        .map(|(index, one)| format!("{{ name = \"b{index}\", address = \"{}\" }}", one.address))
        .collect();
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nname = \"all\"\npool = \"was\"\n[pools.was]\nbackends = [{}]\nhealth.type = \"none\"\n\
         [pools.was.passive]\n{rules}\n",
        backends.join(", ")
    )
}

/// Whether the backend is ejected.
fn standing(weir: &Weir, backend: usize) -> String {
    let status = weir.status();
    let backend = &status["pools"][0]["backends"][backend];
    backend["passive"]["standing"].as_str().unwrap().to_owned()
}

fn await_standing(weir: &Weir, backend: usize, wanted: &str) {
    until(&format!("b{backend} to be {wanted}"), || {
        (standing(weir, backend) == wanted).then_some(())
    });
}

#[test]
fn statuses_in_a_row_eject_until_a_trial_that_goes_well() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let (ill, well) = (moody("ill", &is_ill, BUSY), Origin::named("well"));
    let weir = Weir::start(&pool(
        &[&ill, &well],
        "consecutive_errors = 3\nejection = \"1s\"\n",
    ));
    let mut client = weir.client();
    let mut ask = || client.ask(get("/")).status();
    let first: Vec<u16> = (0..6).map(|_| ask()).collect();
    assert_eq!(first.iter().filter(|status| **status == 503).count(), 3);
    await_standing(&weir, 0, "ejected");
    let hits = ill.hits();
    let later: Vec<u16> = (0..20).map(|_| ask()).collect();
    assert_eq!(
        (later, ill.hits()),
        (vec![200; 20], hits),
        "nobody goes there"
    );
    let labels = [("pool", "was"), ("backend", "b0")];
    assert_eq!(weir.metric("weir_backend_ejected", &labels), 1.0);
    assert_eq!(weir.metric("weir_backend_ejections_total", &labels), 1.0);
    let state = [("backend", "b0"), ("state", "ejected")];
    assert_eq!(weir.metric("weir_backend_state", &state), 1.0);
    weir.tells("health: was/b0 is ejected for 1s: 3 errors in a row");

    // The first failure on trial ejects it again, for longer.
    await_standing(&weir, 0, "trial");
    let mut failed = 0;
    until("a request to be tried there", || {
        failed += u32::from(ask() == 503);
        (failed == 1).then_some(())
    });
    await_standing(&weir, 0, "ejected");
    let trial = [("backend", "b0"), ("cause", "trial")];
    assert_eq!(weir.metric("weir_backend_ejections_total", &trial), 1.0);

    is_ill.store(false, SeqCst);
    await_standing(&weir, 0, "trial");
    until("it to be back", || {
        assert_eq!(ask(), 200);
        (standing(&weir, 0) == "good").then_some(())
    });
    let hits = ill.hits();
    (0..20).for_each(|_| assert_eq!(ask(), 200));
    let share = ill.hits() - hits;
    assert!((9..=11).contains(&share), "it has its share again: {share}");
    weir.tells("health: was/b0 is back");
}

#[test]
fn connections_that_close_before_an_answer_count_and_stale_ones_do_not() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let (ill, well) = (moody("ill", &is_ill, b""), Origin::named("well"));
    let mut rules = "consecutive_errors = 4\nerror_ratio = 0\n".to_owned();
    let weir = Weir::start(&pool(&[&ill, &well], &rules));
    let mut statuses: Vec<u16> = (0..20)
        .map(|_| weir.client().ask(post("/", "x")).status())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 4);
    await_standing(&weir, 0, "ejected");
    drop(weir);

    // Each connection is closed after its first answer, without a word: that is not held against anybody.
    rules.push_str("max_ejected = 1\n");
    let brief = Origin::start(|visit| {
        if visit.request().is_ok() {
            visit.send(ok("once"));
            let _ = visit.request();
        }
    });
    let weir = Weir::start(&pool(&[&brief, &well], &rules));
    let mut client = weir.client();
    (0..60).for_each(|_| assert_eq!(client.ask(get("/")).status(), 200));
    assert_eq!(standing(&weir, 0), "good");
}

#[test]
fn slow_counts_apart_from_dead() {
    let slow = Origin::start(|visit| while visit.request().is_ok() {});
    let well = Origin::named("well");
    let rules = "consecutive_errors = 2\nconsecutive_timeouts = 4\nerror_ratio = 0\n";
    let config = pool(&[&slow, &well], rules).replace(
        "pool = \"was\"",
        "pool = \"was\"\ntimeouts.response = \"60ms\"",
    );
    let weir = Weir::start(&config);
    let mut late = 0;
    for _ in 0..6 {
        late += usize::from(weir.get("/").status() == 504);
    }
    assert_eq!(
        (late, standing(&weir, 0).as_str()),
        (3, "good"),
        "three time-outs are no two errors"
    );
    until("the fourth one", || {
        (weir.get("/").status() == 504).then_some(())
    });
    await_standing(&weir, 0, "ejected");
    let cause = [("backend", "b0"), ("cause", "timeouts")];
    assert_eq!(weir.metric("weir_backend_ejections_total", &cause), 1.0);
}

#[test]
fn at_most_one_of_two_is_ejected_and_panic_uses_the_last() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let ill = [moody("x", &is_ill, BUSY), moody("y", &is_ill, BUSY)];
    let weir = Weir::start(&pool(&[&ill[0], &ill[1]], "consecutive_errors = 2\n"));
    let mut client = weir.client();
    (0..30).for_each(|_| assert_eq!(client.ask(get("/")).status(), 503));
    weir.settles("weir_backend_ejected", &[], 1.0);
    weir.settles("weir_pool_panic", &[], 0.0);
    drop(weir);
    let weir = Weir::start(&pool(&[&ill[0]], "consecutive_errors = 2\n"));
    is_ill.store(true, SeqCst);
    let mut client = weir.client();
    (0..5).for_each(|_| assert_eq!(client.ask(get("/")).status(), 503));
    weir.settles("weir_backend_ejected", &[], 1.0);
    weir.settles("weir_pool_panic", &[], 1.0);
    is_ill.store(false, SeqCst);
    assert_eq!(client.ask(get("/")).status(), 200, "the only one there is");
}

#[test]
fn a_kept_client_stays_at_an_ejected_home_and_a_new_one_does_not_go_there() {
    let is_ill = Arc::new(AtomicBool::new(false));
    let origins = [moody("x", &is_ill, BUSY), Origin::named("y")];
    let rules = "consecutive_errors = 2\n";
    let config = pool(&[&origins[0], &origins[1]], rules).replace(
        "pool = \"was\"",
        "pool = \"was\"\nsticky = { mode = \"insert\" }",
    );
    let weir = Weir::start(&config);
    // A client whose home is the first one.
    let cookie = until("a client there", || {
        let answer = weir.get("/");
        let cookie = answer
            .value("set-cookie")
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        (answer.text() == "x").then_some(cookie)
    });
    let at_home = |client: &mut Client| {
        client.ask(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"
        ))
    };
    is_ill.store(true, SeqCst);
    let mut client = weir.client();
    (0..2).for_each(|_| assert_eq!(at_home(&mut client).status(), 503));
    await_standing(&weir, 0, "ejected");
    is_ill.store(false, SeqCst);
    for _ in 0..10 {
        assert_eq!(at_home(&mut client).text(), "x", "its session is there");
        assert_eq!(weir.get("/").text(), "y", "new clients go elsewhere");
    }
}

#[test]
fn refused_connections_of_a_tcp_listener_eject() {
    let (dead, well) = (nobody(), Origin::named("well"));
    let weir = Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\nprotocol = \"tcp\"\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [{{ name = \"b0\", address = \"{dead}\" }}, \"{}\"]\n\
         health.type = \"none\"\npassive = true\n",
        well.address
    ));
    until("it to be ejected", || {
        assert_eq!(weir.get("/").text(), "well");
        (standing(&weir, 0) == "ejected").then_some(())
    });
    weir.settles(
        "weir_backend_connect_errors_total",
        &[("backend", "b0")],
        5.0,
    );
    (0..10).for_each(|_| assert_eq!(weir.get("/").text(), "well"));
    weir.settles(
        "weir_backend_connect_errors_total",
        &[("backend", "b0")],
        5.0,
    );
}

#[test]
fn each_pool_has_its_own_verdict_on_a_backend() {
    let both = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            let is_bad = request.first_line().contains("/bad");
            match is_bad {
                true => visit.send(BUSY),
                false => visit.send(ok("both")),
            };
        }
    });
    let other = Origin::named("other");
    let pool = |name: &str, check: &str| {
        format!(
            "[pools.{name}]\nbackends = [\"{}\", \"{}\"]\n{check}\npassive = {{ consecutive_errors = 2 }}\n",
            both.address, other.address
        )
    };
    let none = "health.type = \"none\"";
    let failing = "health = { type = \"http\", path = \"/bad\", interval = \"50ms\", fall = 1 }";
    let weir = Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npath = \"/bad\"\npool = \"one\"\n[[routes]]\npool = \"two\"\n[[routes]]\npath = \"/checked\"\npool = \"three\"\n{}{}{}",
        pool("one", none),
        pool("two", none),
        pool("three", failing),
    ));
    (0..8).for_each(|_| drop(weir.get("/bad")));
    let name = both.address.to_string();
    let is = |metric: &str, pool: &str| weir.metric(metric, &[("pool", pool), ("backend", &name)]);
    until("a check to fail in one pool", || {
        (is("weir_backend_up", "three") == 0.0).then_some(())
    });
    let ejected = ["one", "two", "three"].map(|pool| is("weir_backend_ejected", pool));
    let up = ["one", "two", "three"].map(|pool| is("weir_backend_up", pool));
    assert_eq!((ejected, up), ([1.0, 0.0, 0.0], [1.0, 1.0, 0.0]));
    let texts: Vec<String> = (0..4).map(|_| weir.get("/").text()).collect();
    assert!(texts.contains(&"both".to_owned()), "{texts:?}");
    (0..4).for_each(|_| assert_eq!(weir.get("/checked").text(), "other"));
}
