//! TLS toward backends: who is believed, what is shown to them, and what a request gets when nobody is.

use rustls::version::{TLS12, TLS13};

use crate::support::tls::{Authority, Kind, TlsOrigin};
use crate::support::weir::get;
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
        let answer = client.ask(get("/"));
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
            "is not for other.internal, which `sni` asks for: it is for was.internal",
        ),
        (
            &origin,
            authority.ca(),
            "",
            "is not for 127.0.0.1, which is asked for without `sni`: it is for was.internal",
        ),
        (
            &origin,
            stranger.ca(),
            ", sni = \"was.internal\"",
            "an authority that is not trusted",
        ),
        (&old, authority.ca(), ", sni = \"was.internal\"", "expired"),
    ] {
        let weir = Weir::start(&config(origin, &format!("tls = {{ ca = \"{ca}\"{sni} }}")));
        let answer = weir.get("/");
        assert_eq!(answer.status(), 502, "{why}");
        weir.settles("weir_http_refused_total", &[("reason", "unproven")], 1.0);
        assert!(weir.metric("weir_backend_connect_errors_total", &[]) >= 1.0);
        weir.tells(why);
        weir.tells(&format!("was/{}", origin.address));
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
    weir.tells("W0801");
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

/// A pool without checks, which would shake hands before the first request.
fn unchecked(origin: &TlsOrigin, tls: &str) -> String {
    let checks = "health = { type = \"http\", interval = \"100ms\", initial = \"up\" }";
    config(origin, tls).replace(checks, "health.type = \"none\"")
}

/// The second handshake with a backend is a short one, also after a reload that has nothing to do with it.
#[test]
fn a_session_with_a_backend_is_resumed_until_the_pool_asks_for_something_else() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    authority.issue("weir", &["weir.internal"], Kind::default());
    for version in [&TLS12, &TLS13] {
        let origin = TlsOrigin::start(authority.server("was", false, &[version]));
        let ca = authority.ca();
        let text = |more: &str| {
            let tls = format!("tls = {{ ca = \"{ca}\", sni = \"was.internal\"{more} }}");
            unchecked(&origin, &tls)
        };
        let weir = Weir::start(&text(""));
        let is_resumed = || {
            assert_eq!(weir.get("/close").status(), 200);
            origin.requests().pop().expect("a request").is_resumed
        };
        assert!(!is_resumed(), "the first one");
        for round in 0..5 {
            assert!(is_resumed(), "round {round} of {version:?}");
        }
        weir.write(&format!("drain_timeout = \"7s\"\n{}", text("")));
        weir.await_generation_after(1);
        assert!(is_resumed(), "{version:?}: the pool is what it was");
        weir.write(&text(&format!(", {}", authority.pair("weir"))));
        weir.await_generation_after(2);
        assert!(!is_resumed(), "{version:?}: what weir shows has changed");
        assert!(is_resumed());
        let connections: Vec<usize> = (origin.requests().iter())
            .map(|seen| seen.connection)
            .collect();
        assert!(connections.is_sorted_by(|one, next| one < next));
    }
}

/// A session that began while nobody was verified proves nothing.
#[test]
fn a_session_is_not_resumed_once_a_proof_is_asked_for() {
    let authority = Authority::new();
    let stranger = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    let origin = authority.origin("was", false);
    let tls = |verify: bool| {
        let ca = stranger.ca();
        let tls = format!("tls = {{ ca = \"{ca}\", sni = \"was.internal\", verify = {verify} }}");
        unchecked(&origin, &tls)
    };
    let weir = Weir::start(&tls(false));
    for _ in 0..2 {
        assert_eq!(weir.get("/close").status(), 200);
    }
    assert!(origin.requests()[1].is_resumed);
    // Neither by a session nor on the connection that still stands.
    assert_eq!(weir.get("/").status(), 200);
    weir.write(&tls(true));
    weir.await_generation_after(1);
    assert_eq!(weir.get("/").status(), 502);
    assert_eq!(origin.requests().len(), 3);
}

/// HTTP/2 within TLS is agreed on by ALPN; requests share the connection that came of it.
#[test]
fn a_backend_is_spoken_to_in_http_2_within_tls() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    let mut speaks = authority.server("was", false, rustls::ALL_VERSIONS);
    speaks.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let origin = TlsOrigin::start(speaks);
    let tls = format!(
        "protocol = \"http2\"\ntls = {{ ca = \"{}\", sni = \"was.internal\" }}",
        authority.ca()
    );
    let weir = Weir::start(&config(&origin, &tls));
    for _ in 0..3 {
        let answer = weir.get("/");
        assert_eq!((answer.status(), answer.text()), (200, "secure".to_owned()));
    }
    weir.settles("weir_backend_up", &[("pool", "was")], 1.0);
    let passed = || weir.metric("weir_probe_total", &[("result", "pass")]) > 2.0;
    until("checks that pass", || passed().then_some(()));
    let seen = origin.requests();
    assert!(
        seen.iter()
            .all(|seen| seen.protocol.as_deref() == Some(b"h2"))
    );
    // weir's requests share one; every check has its own.
    let mut streams = vec![0; seen.len() + 1];
    for seen in &seen {
        streams[seen.connection] += 1;
    }
    streams.sort_unstable();
    assert_eq!(streams.pop(), Some(3), "{seen:?}");
}

/// Nothing is sent to a backend that did not agree to HTTP/2, whether it refuses or says nothing.
#[test]
fn a_backend_that_does_not_agree_to_http_2_is_not_asked() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let mut speaks = authority.server("was", false, rustls::ALL_VERSIONS);
        speaks.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let origin = TlsOrigin::start(speaks);
        let tls = format!(
            "protocol = \"http2\"\ntls = {{ ca = \"{}\", sni = \"was.internal\" }}",
            authority.ca()
        );
        let weir = Weir::start(&config(&origin, &tls));
        assert_eq!(weir.get("/").status(), 502);
        weir.settles("weir_http_refused_total", &[("reason", "unproven")], 1.0);
        weir.settles("weir_backend_up", &[("pool", "was")], 0.0);
        until("a line that says why", || {
            let why = "it did not agree to HTTP/2 (ALPN h2)";
            weir.stderr().contains(why).then_some(())
        });
        assert!(origin.seen.lock().unwrap().is_empty());
    }
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

/// What `weir status` says of the only backend, once it is down.
fn reason(weir: &Weir) -> String {
    until("a reason", || {
        let status = weir.status();
        let backend = &status["pools"][0]["backends"][0];
        (backend["effective"] == "down").then(|| backend["because"].as_str().unwrap().to_owned())
    })
}

/// A certificate that is its own authority is believed when it does not say that it is one, and refused with the way out when it does.
#[test]
fn who_is_not_believed_is_told_in_words_what_to_do() {
    let authority = Authority::new();
    let ca = authority.ca();
    let directory = std::path::Path::new(&ca).parent().unwrap();
    let start = |ca: &str| {
        let origin = authority.origin("own", false);
        let tls = format!("tls = {{ ca = \"{ca}\", sni = \"was.internal\" }}");
        let weir = Weir::start(&config(&origin, &tls));
        (origin, weir)
    };
    for (is_ca, is_up) in [
        (rcgen::IsCa::ExplicitNoCa, true),
        (
            rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            false,
        ),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["was.internal".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let own = params.self_signed(&key).unwrap();
        authority.replace("own.key", &key.serialize_pem());
        authority.replace("own.pem", &own.pem());
        let (_origin, weir) = start(&directory.join("own.pem").display().to_string());
        if is_up {
            let passed = [("result", "pass")];
            until("a passed check", || {
                (weir.metric("weir_probe_total", &passed) > 2.0).then_some(())
            });
            continue;
        }
        let why = reason(&weir);
        assert!(
            why.starts_with("no TLS: the certificate that it shows is an authority's own"),
            "{why}"
        );
    }
    authority.issue("own", &["other.internal"], Kind::default());
    let (_origin, weir) = start(&ca);
    let why = reason(&weir);
    assert!(why.ends_with("it is for other.internal"), "{why}");
    let (_origin, weir) = start(&Authority::new().ca());
    let why = reason(&weir);
    assert!(why.contains("an authority that is not trusted"), "{why}");
    let expired = Kind {
        expired: true,
        ..Kind::default()
    };
    authority.issue("own", &["was.internal"], expired);
    let (_origin, weir) = start(&ca);
    assert_eq!(
        reason(&weir),
        "no TLS: its certificate expired at 2021-01-01T00:00:00.000Z"
    );
}
