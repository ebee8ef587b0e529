//! TLS toward backends: who is believed, what is shown to them, and what a request gets when nobody is.

use crate::support::tls::{Authority, Kind, TlsOrigin};
use crate::support::{Weir, until};

fn config(origin: &TlsOrigin, tls: &str) -> String {
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\"]\nhealth = {{ type = \"http\", interval = \"100ms\", initial = \"up\" }}\n{tls}\n",
        origin.address
    )
}

#[test]
fn a_backend_that_proves_its_name_is_asked_and_its_connections_are_used_again() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    let origin = authority.origin("was", false);
    let tls = format!(
        "tls = {{ ca = \"{}\", sni = \"was.internal\" }}",
        authority.ca()
    );
    let weir = Weir::start(&config(&origin, &tls));
    let mut client = weir.client();
    for _ in 0..3 {
        let answer = client.ask(crate::support::weir::get("/"));
        assert_eq!((answer.status(), answer.text()), (200, "secure".to_owned()));
    }
    let seen = origin.requests();
    assert!(seen.iter().all(|seen| seen.connection == seen.connection));
    assert_eq!(seen.len(), 3);
    assert!(
        seen.windows(2)
            .all(|two| two[0].connection == two[1].connection)
    );
    assert_eq!(seen[0].server_name.as_deref(), Some("was.internal"));
    assert!(
        seen[0].head.contains("X-Forwarded-Proto: http\r\n"),
        "{}",
        seen[0].head
    );
    weir.settles("weir_backend_up", &[("pool", "was")], 1.0);
    let passed = || weir.metric("weir_probe_total", &[("result", "pass")]) > 2.0;
    until("checks that pass", || passed().then_some(()));
}

#[test]
fn a_backend_that_is_not_believed_is_not_asked() {
    let authority = Authority::new();
    let stranger = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    let origin = authority.origin("was", false);
    let expired = Kind {
        expired: true,
        ..Kind::default()
    };
    authority.issue("expired", &["was.internal"], expired);
    let old = authority.origin("expired", false);
    for (origin, ca, sni, why) in [
        (
            &origin,
            authority.ca(),
            ", sni = \"other.internal\"",
            "not valid for name",
        ),
        (&origin, authority.ca(), "", "not valid for name"),
        (
            &origin,
            stranger.ca(),
            ", sni = \"was.internal\"",
            "UnknownIssuer",
        ),
        (&old, authority.ca(), ", sni = \"was.internal\"", "expired"),
    ] {
        let weir = Weir::start(&config(origin, &format!("tls = {{ ca = \"{ca}\"{sni} }}")));
        let answer = weir.get("/");
        assert_eq!(answer.status(), 502, "{why}");
        weir.settles("weir_http_refused_total", &[("reason", "unproven")], 1.0);
        assert!(weir.metric("weir_backend_connect_errors_total", &[]) >= 1.0);
        until("a line that says why", || {
            weir.stderr().contains(why).then_some(())
        });
        assert!(
            weir.stderr().contains(&format!("was/{}", origin.address)),
            "{}",
            weir.stderr()
        );
        weir.settles("weir_backend_up", &[("pool", "was")], 0.0);
    }
    assert!(origin.requests().is_empty() && old.requests().is_empty());
}

#[test]
fn nothing_is_verified_only_when_the_file_says_so() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    let origin = authority.origin("was", false);
    let weir = Weir::start(&config(&origin, "tls.verify = false"));
    assert_eq!(weir.get("/").status(), 200);
    assert!(weir.stderr().contains("W0801"), "{}", weir.stderr());
}

#[test]
fn a_backend_is_shown_the_certificate_that_it_asks_for() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    authority.issue("weir", &["weir.internal"], Kind::default());
    let origin = authority.origin("was", true);
    let tls = |more: &str| {
        let ca = authority.ca();
        config(
            &origin,
            &format!("tls = {{ ca = \"{ca}\", sni = \"was.internal\"{more} }}"),
        )
    };
    let weir = Weir::start(&tls(""));
    assert_eq!(weir.get("/").status(), 502);
    let generation = weir.generation();
    weir.write(&tls(&format!(", {}", authority.pair("weir"))));
    weir.await_generation_after(generation);
    until("an answer", || {
        (weir.get("/").status() == 200).then_some(())
    });
    assert!(origin.requests().iter().all(|seen| seen.has_certificate));
}

/// A connection that was made under other settings is not used again, and a new one resumes a session only under the same.
#[test]
fn other_settings_are_another_connection() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal", "two.internal"], Kind::default());
    let origin = authority.origin("was", false);
    let tls = |sni: &str| {
        config(
            &origin,
            &format!("tls = {{ ca = \"{}\", sni = \"{sni}\" }}", authority.ca()),
        )
    };
    let weir = Weir::start(&tls("was.internal"));
    assert_eq!(weir.get("/").status(), 200);
    weir.write(&tls("two.internal"));
    weir.await_generation_after(1);
    assert_eq!(weir.get("/").status(), 200);
    let seen = origin.requests();
    assert_ne!(seen[0].connection, seen[1].connection);
    assert_eq!(seen[1].server_name.as_deref(), Some("two.internal"));
}
