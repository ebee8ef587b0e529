//! Names and passwords: who is let in, how long that takes, and what the backend and the log see of it.

use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::support::message::Message;
use crate::support::{Origin, Weir};

/// `secret`, by bcrypt with the least cost, and by argon2id with 8 KiB and one round.
const BCRYPT: &str = "$2y$04$a0j2bETjZg/gcVPjaw/tYuhozCBVdrhGO16Ow/.mBbxEvIsq.MeFq";
const ARGON2: &str =
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$QQCd8VPOryZiCF3MtwQnPTK7odKCaPcXJGplgNEuj1A";
/// `slow`, with a cost that takes a noticeable time; bcrypt itself checks it in a debug build, too.
const COST: &str = "$2y$12$";

const FILTER: &str = "{ type = \"basic-auth\", realm = \"Staging\", users_file = \"$dir/users\" }, { type = \"request-headers\", set = { X-User = \"{user}\" } }";

/// An origin behind a door with this file of users.
fn guarded(origin: &Origin, users: &str, filters: &str) -> Weir {
    let route = |filters: &str| {
        format!(
            "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nname = \"all\"\npool = \"was\"\nfilters = [{filters}]\n\
             [pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
            origin.address
        )
    };
    // The directory of weir exists from its start on.
    let weir = Weir::start(&route(""));
    std::fs::write(weir.directory.join("users"), users).unwrap();
    weir.write(&route(filters));
    let answer = weir.post("/api/v1/reload");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    weir
}

fn request(claim: &str) -> String {
    let claim = base64::engine::general_purpose::STANDARD.encode(claim);
    format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {claim}\r\nX-User: root\r\n\r\n")
}

fn ask(weir: &Weir, claim: &str) -> Message {
    weir.client().ask(request(claim))
}

#[test]
fn who_is_known_is_let_in_by_name() {
    let origin = Origin::named("fine");
    let users = format!("jane:{BCRYPT}\njohn:{ARGON2}\n");
    let weir = guarded(&origin, &users, FILTER);
    for name in ["jane", "john", "jane"] {
        let answer = ask(&weir, &format!("{name}:secret"));
        assert_eq!((answer.status(), answer.text()), (200, "fine".to_owned()));
        let request = origin.requests().pop().unwrap();
        assert_eq!(request.value("x-user").as_deref(), Some(name));
        assert!(
            !request.has("authorization"),
            "the backend saw the password"
        );
        weir.access(|line| line["user"] == name && line["status"] == 200);
    }
    let hits = origin.hits();
    for claim in [
        "jane:Secret",
        "jim:secret",
        "jane:",
        ":secret",
        "jane:secret2",
    ] {
        let answer = ask(&weir, claim);
        assert_eq!(answer.status(), 401, "{claim}");
        let challenge = answer.value("www-authenticate");
        assert_eq!(
            challenge.as_deref(),
            Some("Basic realm=\"Staging\", charset=\"UTF-8\"")
        );
        weir.access(|line| line["error"] == "unauthorized" && line.get("user").is_none());
    }
    assert_eq!(origin.hits(), hits);
    weir.settles(
        "weir_http_refused_total",
        &[("reason", "unauthorized")],
        5.0,
    );
}

#[test]
fn what_is_no_claim_is_refused_and_the_connection_goes_on() {
    let origin = Origin::named("fine");
    let weir = guarded(&origin, &format!("jane:{BCRYPT}\n"), FILTER);
    let mut client = weir.client();
    let huge = format!("Basic {}", "QUFB".repeat(10_000));
    for line in [
        "",
        "Basic",
        "Basic !!!!",
        "Bearer x",
        "Basic amFuZQ==",
        &huge,
    ] {
        let answer = client.ask(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {line}\r\n\r\n"
        ));
        assert_eq!(answer.status(), 401, "{line}");
    }
    let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.status(), 401);
    assert_eq!(origin.hits(), 0);
    assert_eq!(client.ask(request("jane:secret")).status(), 200);
}

#[test]
fn a_backend_may_see_the_password_if_the_file_says_so() {
    let origin = Origin::named("fine");
    let filter = "{ type = \"basic-auth\", users_file = \"$dir/users\", forward = true }";
    let weir = guarded(&origin, &format!("jane:{BCRYPT}\n"), filter);
    assert_eq!(ask(&weir, "jane:secret").status(), 200);
    assert!(origin.requests().pop().unwrap().has("authorization"));
}

#[test]
fn a_change_of_the_file_counts_at_the_next_reload() {
    let origin = Origin::named("fine");
    let weir = guarded(&origin, &format!("jane:{BCRYPT}\n"), FILTER);
    assert_eq!(ask(&weir, "jane:secret").status(), 200);
    let file = weir.directory.join("users");
    std::fs::write(&file, "jane:plain\n").unwrap();
    let refused = weir.post("/api/v1/reload");
    assert_eq!(refused.status(), 422, "{}", refused.text());
    assert!(
        refused.text().contains("line 1") && !refused.text().contains("plain"),
        "{}",
        refused.text()
    );
    assert_eq!(ask(&weir, "jane:secret").status(), 200);
    std::fs::write(&file, format!("john:{BCRYPT}\n")).unwrap();
    assert_eq!(weir.post("/api/v1/reload").status(), 200);
    assert_eq!(ask(&weir, "jane:secret").status(), 401);
    assert_eq!(ask(&weir, "john:secret").status(), 200);
}

/// A hash that takes long: nobody knows its password.
fn slow_users() -> String {
    format!("jane:{BCRYPT}\nslow:{COST}a0j2bETjZg/gcVPjaw/tYuhozCBVdrhGO16Ow/.mBbxEvIsq.MeFq\n")
}

#[test]
fn slow_checks_hold_nobody_up() {
    let origin = Origin::named("fine");
    let weir = guarded(&origin, &slow_users(), FILTER);
    assert_eq!(ask(&weir, "jane:secret").status(), 200);
    let mut busy: Vec<_> = (0..4)
        .map(|number| {
            let mut client = weir.client().patient(Duration::from_secs(60));
            client.send(request(&format!("slow:{number}")));
            client
        })
        .collect();
    // The one worker has all of them, and serves who is known at once.
    let began = Instant::now();
    let mut client = weir.client();
    for _ in 0..20 {
        assert_eq!(client.ask(request("jane:secret")).status(), 200);
    }
    let quick = began.elapsed();
    for client in &mut busy {
        let status = client.answer().status();
        assert!(status == 401 || status == 503, "{status}");
    }
    let slow = began.elapsed();
    assert!(quick < slow / 2, "{quick:?} of {slow:?}");
}

#[test]
fn a_bad_password_is_checked_once_in_a_while_and_a_full_queue_is_told() {
    let origin = Origin::named("fine");
    let weir = guarded(&origin, &slow_users(), FILTER);
    let mut client = weir.client().patient(Duration::from_secs(60));
    let mut timed = || {
        let began = Instant::now();
        assert_eq!(client.ask(request("slow:wrong")).status(), 401);
        began.elapsed()
    };
    let (first, second) = (timed(), timed());
    assert!(second < first / 2, "{first:?}, then {second:?}");
    // More than may wait.
    let mut crowd: Vec<_> = (0..100)
        .map(|number| {
            let mut client = weir.client().patient(Duration::from_secs(60));
            client.send(request(&format!("slow:{number}")));
            client
        })
        .collect();
    weir.access(|line| line["error"] == "door_busy" && line["status"] == 503);
    assert_eq!(
        crowd
            .pop()
            .unwrap()
            .answer()
            .value("retry-after")
            .as_deref(),
        Some("5")
    );
}
