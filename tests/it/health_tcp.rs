//! TCP checks that speak: what they send, what they expect, and what is said of a server that answers otherwise.

use crate::support::origin::Visit;
use crate::support::redis::{Mood, Redis};
use crate::support::tls::{Authority, Kind};
use crate::support::{Origin, Weir, until};

fn start(address: impl std::fmt::Display, check: &str, more: &str) -> Weir {
    Weir::start(&format!(
        "[listeners.db]\nprotocol = \"tcp\"\nbind = [\"$db\"]\n[[routes]]\npool = \"db\"\n[pools.db]\nbackends = [\"{address}\"]\n{more}\n\
         [pools.db.health]\ntype = \"tcp\"\ninterval = \"30ms\"\ntimeout = \"500ms\"\nfall = 2\nrise = 2\n{check}\n"
    ))
}

/// Waits until the only backend is this because of that.
#[track_caller]
fn await_told(weir: &Weir, state: &str, because: &str) {
    until(&format!("{state}: {because}"), || {
        let status = weir.status();
        let backend = &status["pools"][0]["backends"][0];
        (backend["effective"] == state && backend["because"] == because).then_some(())
    });
}

#[test]
fn a_redis_is_up_while_it_answers_its_ping() {
    let redis = Redis::start();
    // As clients write it; Redis takes `PING` on a line, too.
    let ping = "send = \"*1\\r\\n$4\\r\\nPING\\r\\n\"\nexpect = \"+PONG\"";
    let weir = start(redis.address(), ping, "");
    await_told(&weir, "up", "the check passes");
    redis.behave(Mood::Says(b"-LOADING data\r\n".to_vec()));
    let why = "another answer than expected: \"-LOADING data\\r\\n\"";
    await_told(&weir, "down", why);
    assert!(weir.metric("weir_probe_total", &[("result", "protocol")]) > 0.0);
    redis.behave(Mood::Silent);
    await_told(&weir, "down", "timeout after 500ms");
    redis.behave(Mood::Fine);
    await_told(&weir, "up", "the check passes");
}

#[test]
fn a_server_that_speaks_first_is_heard_and_left_in_order() {
    let origin = Origin::start(|visit: &mut Visit| {
        visit.send("220 mail ready\r\n");
        // An end, and no reset.
        assert_eq!(visit.stall(), crate::support::message::Fault::Closed);
        visit.record_end();
    });
    let weir = start(origin.address, "expect = \"220\"", "");
    await_told(&weir, "up", "the check passes");
    until("an orderly end", || (origin.hits() > 2).then_some(()));
}

#[test]
fn a_server_that_never_ends_its_line_is_not_heard_out() {
    let origin = Origin::start(|visit: &mut Visit| while visit.send([b'x'; 4096]) {});
    let weir = start(origin.address, "expect = \"220\"", "");
    let why = format!("another answer than expected: \"{}…\"", "x".repeat(64));
    await_told(&weir, "down", &why);
    until("no connection that stays", || {
        (origin.open() < 12).then_some(())
    });
}

#[test]
fn within_tls_the_question_is_asked_after_the_handshake() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    let origin = authority.origin("was", false);
    let tls = format!(
        "tls = {{ ca = \"{}\", sni = \"was.internal\" }}",
        authority.ca()
    );
    let ask = |expect: &str| {
        let send = "GET / HTTP/1.1\\r\\nHost: was.internal\\r\\n\\r\\n";
        format!("send = \"{send}\"\nexpect = \"{expect}\"")
    };
    let weir = start(origin.address, &ask("HTTP/1.1 200"), &tls);
    await_told(&weir, "up", "the check passes");
    let weir = start(origin.address, &ask("HTTP/1.1 204"), &tls);
    until("a wrong answer", || {
        let status = weir.status();
        let because = status["pools"][0]["backends"][0]["because"]
            .as_str()?
            .to_owned();
        because
            .starts_with("another answer than expected: \"HTTP/1.1 200")
            .then_some(())
    });
}
