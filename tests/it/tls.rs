//! TLS toward clients: names, versions, client certificates, and what becomes of those who do not speak it as they should.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};

use crate::support::tls::{Authority, Key, Kind, TlsClient};
use crate::support::{Client, DEADLINE, Origin, Weir, until};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// One listener at `$web` with these keys in its table, and one route to `origin`.
fn config(origin: &Origin, tls: &str, head: &str) -> String {
    format!(
        "{head}\n[listeners.web]\nbind = [\"$web\"]\n{tls}\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        origin.address
    )
}

fn certificates(authority: &Authority, files: &[&str]) -> String {
    let pairs: Vec<String> = files
        .iter()
        .map(|file| format!("{{ {} }}", authority.pair(file)))
        .collect();
    format!("tls.certificates = [{}]", pairs.join(", "))
}

#[test]
fn every_version_is_served_and_the_backend_is_told() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering(ANSWER);
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    for (version, label) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let client = authority.config(&[version], None);
        let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test").unwrap();
        for _ in 0..3 {
            assert_eq!(client.get("shop.test").unwrap().text(), "ok");
        }
        let labels = [("version", label), ("resumed", "false")];
        weir.settles("weir_tls_handshakes_total", &labels, 1.0);
    }
    for request in origin.requests() {
        assert_eq!(request.value("x-forwarded-proto").as_deref(), Some("https"));
        assert!(!request.has("client-cert"));
    }
    let only13 = format!(
        "{}\ntls.min_version = \"1.3\"",
        certificates(&authority, &["shop"])
    );
    weir.write(&config(&origin, &only13, ""));
    weir.await_generation_after(1);
    let old = authority.config(&[&TLS12], None);
    assert!(TlsClient::connect(weir.address("web"), &old, "shop.test").is_err());
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "version")],
        1.0,
    );
}

#[test]
fn the_name_chooses_the_certificate_and_a_strict_listener_refuses_the_rest() {
    let authority = Authority::new();
    let kind = Kind::default();
    authority.issue("first", &["first.test"], kind);
    authority.issue("wild", &["*.shop.test"], Kind::of(Key::P384));
    authority.issue("exact", &["cart.shop.test"], kind);
    let origin = Origin::answering(ANSWER);
    let files = certificates(&authority, &["first", "wild", "exact"]);
    let weir = Weir::start(&config(&origin, &files, ""));
    let shown = |name: &'static str| {
        let connected = TlsClient::connect(weir.address("web"), &authority.client(), name);
        let client = connected.ok()?;
        let chain = client.stream.conn.peer_certificates()?;
        Some(chain[0].to_vec())
    };
    let [first, wild, exact] =
        ["first.test", "www.shop.test", "cart.shop.test"].map(|name| shown(name).expect(name));
    assert!(first != wild && wild != exact);
    // The client finds that it is not the one that it asked for.
    assert_eq!(shown("elsewhere.test"), None);
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "alert")],
        1.0,
    );

    weir.write(&config(
        &origin,
        &format!("{files}\ntls.strict_sni = true"),
        "",
    ));
    weir.await_generation_after(1);
    assert_eq!(shown("cart.shop.test"), Some(exact));
    let refused = TlsClient::connect(weir.address("web"), &authority.client(), "elsewhere.test");
    let why = refused.err().expect("a refusal").to_string();
    assert!(why.contains("UnrecognisedName"), "{why}");
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "unknown_name")],
        1.0,
    );
}

#[test]
fn plain_http_on_a_port_that_speaks_tls_is_answered() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering(ANSWER);
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    for whole in [true, false] {
        let mut client = weir.client();
        let request = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
        match whole {
            true => client.send(request),
            false => client.drip("GET / HTT"),
        };
        let answer = client.answer();
        assert_eq!(answer.status(), 400);
        assert!(answer.text().contains("speaks TLS"), "{}", answer.text());
        client.expect_end();
    }
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "plain_http")],
        2.0,
    );
    assert!(origin.requests().is_empty());
}

#[test]
fn tls_on_a_plain_port_is_told_and_counted() {
    let authority = Authority::new();
    let origin = Origin::answering(ANSWER);
    let weir = Weir::start(&config(&origin, "", ""));
    let refused = TlsClient::connect(weir.address("web"), &authority.client(), "shop.test");
    assert!(refused.is_err());
    let labels = [("reason", "tls_on_plain_port")];
    weir.settles("weir_http_refused_total", &labels, 1.0);
    let mut client = weir.client();
    client.send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03");
    let answer = client.answer();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("does not speak TLS"));
}

#[test]
fn what_is_no_handshake_is_counted_by_reason() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering(ANSWER);
    let head = "[timeouts]\nheader = \"300ms\"";
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), head));
    let failures = |reason, count| {
        weir.settles(
            "weir_tls_handshake_errors_total",
            &[("reason", reason)],
            count,
        );
    };
    let mut garbage = weir.client();
    garbage.send([0; 64]);
    garbage.rest();
    failures("other", 1.0);
    let mut oversize = weir.client();
    let _ = oversize.try_send(&[&[22, 3, 1, 0xff, 0xff][..], &[1; 70_000]].concat());
    oversize.rest();
    failures("other", 2.0);
    drop(weir.client());
    failures("closed", 1.0);
    let mut silent = weir.client();
    silent.send(b"\x16\x03\x01");
    silent.expect_end();
    failures("timeout", 1.0);
    // Others are served meanwhile, and afterwards.
    let mut good =
        TlsClient::connect(weir.address("web"), &authority.client(), "shop.test").unwrap();
    assert_eq!(good.get("shop.test").unwrap().status(), 200);
}

#[test]
fn a_client_certificate_is_required_and_told_and_cannot_be_forged() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    authority.issue("alice", &[], Kind::default());
    authority.issue(
        "expired",
        &[],
        Kind {
            expired: true,
            ..Kind::default()
        },
    );
    let stranger = Authority::new();
    stranger.issue("mallory", &[], Kind::default());
    let origin = Origin::answering(ANSWER);
    let files = certificates(&authority, &["shop"]);
    let auth = |mode: &str| {
        let ca = authority.ca();
        let tls = format!("{files}\ntls.client_auth = \"{mode}\"\ntls.client_ca = \"{ca}\"");
        config(&origin, &tls, "")
    };
    let weir = Weir::start(&auth("require"));
    let ask = |shows: Option<&str>, version| {
        let client = authority.config(&[version], shows);
        let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test")?;
        let forged = "GET / HTTP/1.1\r\nHost: shop.test\r\nClient-Cert: :Zm9yZ2Vk:\r\nClient_Cert: f\r\nclient-cert-chain: f\r\nX-Client-Cert-Subject: CN=root\r\nX_CLIENT_CERT_SUBJECT: CN=root\r\n\r\n";
        client.ask(forged)
    };
    for version in [&TLS12, &TLS13] {
        for (shows, alert) in [
            (None, "ertificate"),
            (Some("expired"), "CertificateExpired"),
        ] {
            let why = ask(shows, version).err().expect("a refusal").to_string();
            assert!(why.contains(alert), "{why}");
        }
        assert_eq!(ask(Some("alice"), version).unwrap().status(), 200);
    }
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "client_certificate")],
        4.0,
    );
    assert_eq!(origin.requests().len(), 2);
    for request in origin.requests() {
        let certificate = request.value("client-cert").expect("a certificate");
        assert!(certificate.starts_with(":MII") && certificate.ends_with(':'));
        let subject = request.value("x-client-cert-subject").expect("a subject");
        assert!(subject.contains("CN=alice"), "{subject}");
        assert!(subject.contains(r"Gr\c3\b6\c3\9fe\, Ltd"), "{subject}");
        assert_eq!(request.values("client-cert").len(), 1);
        let text = String::from_utf8_lossy(&request.head).to_ascii_lowercase();
        assert!(
            !text.contains("cn=root")
                && !text.contains("client_cert")
                && !text.contains("client-cert-chain"),
            "{text}"
        );
    }

    weir.write(&auth("request"));
    weir.await_generation_after(1);
    assert_eq!(ask(None, &TLS13).unwrap().status(), 200);
    let request = origin.requests().pop().expect("a request");
    assert!(!request.has("client-cert") && !request.has("x-client-cert-subject"));
    assert!(ask(Some("expired"), &TLS13).is_err());
}

/// A trusted proxy connects in its own name: what it says of the client behind it counts, and no host is the wrong one.
#[test]
fn a_trusted_proxy_speaks_for_the_client_behind_it() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    authority.issue("proxy", &[], Kind::default());
    let origin = Origin::answering(ANSWER);
    let (files, ca) = (certificates(&authority, &["shop"]), authority.ca());
    let tls = format!("{files}\ntls.client_auth = \"require\"\ntls.client_ca = \"{ca}\"");
    let text = |trusted: &str| config(&origin, &tls, &format!("trusted_proxies = [{trusted}]"));
    let weir = Weir::start(&text("\"127.0.0.1\""));
    let client = authority.config(&[&TLS13], Some("proxy"));
    let ask = |host: &str, more: &str| {
        let connected = TlsClient::connect(weir.address("web"), &client, "shop.test");
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
        connected.unwrap().ask(&head).unwrap().status()
    };
    let claim = "Client-Cert: :Zm9v:\r\nX-Client-Cert-Subject: CN=behind\r\n";
    assert_eq!(ask("other.test", claim), 200);
    assert_eq!(ask("other.test", ""), 200);
    let seen = origin.requests();
    assert_eq!(seen[0].values("client-cert"), [":Zm9v:"]);
    assert_eq!(seen[0].values("x-client-cert-subject"), ["CN=behind"]);
    assert!(!seen[1].has("client-cert") && !seen[1].has("x-client-cert-subject"));

    weir.write(&text(""));
    weir.await_generation_after(1);
    assert_eq!(ask("other.test", claim), 421);
    assert_eq!(ask("shop.test", claim), 200);
    let seen = origin.requests().pop().expect("a request");
    let subjects = seen.values("x-client-cert-subject");
    assert!(
        subjects.len() == 1 && subjects[0].contains("CN=proxy"),
        "{subjects:?}"
    );
}

/// A session that began where nobody was asked for a certificate is no way in where one must be shown.
#[test]
fn a_session_is_not_resumed_where_more_is_asked() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering(ANSWER);
    let files = certificates(&authority, &["shop"]);
    let open = config(&origin, &files, "");
    let weir = Weir::start(&open);
    for version in [&TLS12, &TLS13] {
        let client = authority.config(&[version], None);
        let ask = || {
            let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test")?;
            let answer = client.get("shop.test")?;
            Ok::<_, std::io::Error>((answer, client.stream.conn.handshake_kind().unwrap()))
        };
        ask().unwrap();
        assert_eq!(ask().unwrap().1, rustls::HandshakeKind::Resumed);
        let generation = weir.generation();
        let ca = authority.ca();
        let asking = format!("{files}\ntls.client_auth = \"require\"\ntls.client_ca = \"{ca}\"");
        weir.write(&config(&origin, &asking, ""));
        weir.await_generation_after(generation);
        assert!(ask().is_err());
        let generation = weir.generation();
        weir.write(&open);
        weir.await_generation_after(generation);
    }
}

#[test]
fn a_request_for_another_host_is_misdirected() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test", "*.shop.test"], Kind::default());
    let origin = Origin::answering(ANSWER);
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    let client = authority.client();
    let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test").unwrap();
    // What the certificate is good for may come on one connection.
    for (host, status) in [
        ("shop.test", 200),
        ("SHOP.test:8443", 200),
        ("www.shop.test", 200),
        ("bank.test", 421),
        ("a.b.shop.test", 421),
        ("shop.test", 200),
    ] {
        assert_eq!(client.get(host).unwrap().status(), status, "{host}");
    }
    weir.settles("weir_http_refused_total", &[("reason", "misdirected")], 2.0);
}

#[test]
fn large_bodies_pass_both_ways_whoever_is_slow() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let body: Vec<u8> = (0..3_000_000_u32)
        .map(|place| (place % 251) as u8)
        .collect();
    let answer = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        &body,
    ]
    .concat();
    let origin = Origin::answering(answer);
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    let client = authority.client();
    let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test").unwrap();
    for round in 0..2 {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.stream.write_all(head.as_bytes()).unwrap();
        for piece in body.chunks(100_000) {
            client.stream.write_all(piece).unwrap();
        }
        client.stream.flush().unwrap();
        // The answer fills weir's and the kernel's buffers before it is read.
        until("the backend's answer", || {
            (origin.requests().len() > round).then_some(())
        });
        let answer = client.answer().unwrap();
        assert!(answer.body == body);
    }
    assert!(origin.requests().iter().all(|request| request.body == body));
}

#[test]
fn many_requests_at_once_are_answered_in_order() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering(ANSWER);
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    let client = authority.client();
    let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test").unwrap();
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    client
        .stream
        .write_all(request.repeat(20).as_bytes())
        .unwrap();
    client.stream.flush().unwrap();
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    while got.windows(6).filter(|six| six == b"\r\n\r\nok").count() < 20 {
        let count = client.stream.read(&mut piece).unwrap();
        assert!(count > 0);
        got.extend_from_slice(&piece[..count]);
    }
}

/// The end of an answer without a length is told by TLS, so that a cut cannot pass for it.
#[test]
fn an_answer_up_to_the_end_ends_with_a_word() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::start(|visit| {
        let _ = visit.request();
        visit.send("HTTP/1.1 200 OK\r\n\r\nall of it");
    });
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    let client = authority.client();
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    ] {
        let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test").unwrap();
        client.stream.write_all(request.as_bytes()).unwrap();
        let mut all = String::new();
        client
            .stream
            .read_to_string(&mut all)
            .expect("an end that was told");
        assert!(all.ends_with("all of it"), "{all}");
    }
}

#[test]
fn an_upgraded_connection_passes_bytes_both_ways() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::start(|visit| {
        let _ = visit.request();
        visit.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        );
        while let Ok(bytes) = visit.reader.exactly(5) {
            visit.send(bytes);
        }
    });
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    let client = authority.client();
    let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test").unwrap();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert_eq!(answer.status(), 101);
    let mut piece = [0; 5];
    for word in ["hello", "again"] {
        client.stream.write_all(word.as_bytes()).unwrap();
        client.stream.read_exact(&mut piece).unwrap();
        assert_eq!(piece, word.as_bytes());
    }
}

#[test]
fn sessions_are_resumed_across_weirs_with_one_secret() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let secrets = authority.directory.join("secrets");
    authority.replace("secrets", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    let origin = Origin::answering(ANSWER);
    let head = format!("secrets_file = {secrets:?}");
    let text = config(&origin, &certificates(&authority, &["shop"]), &head);
    let (one, two) = (Weir::start(&text), Weir::start(&text));
    let alone = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    for (version, label) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let client = authority.config(&[version], None);
        let ask = |weir: &Weir| {
            let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test").unwrap();
            assert_eq!(client.get("shop.test").unwrap().status(), 200);
            client.stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
        };
        assert!(!ask(&one));
        assert!(ask(&two), "{label}");
        assert!(ask(&one), "{label}");
        assert!(!ask(&alone), "another secret");
        let labels = [("version", label), ("resumed", "true")];
        two.settles("weir_tls_handshakes_total", &labels, 1.0);
    }
}

#[test]
fn an_idle_connection_is_closed_with_a_word_when_its_time_is_up() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering(ANSWER);
    let head = "[timeouts]\nkeep_alive = \"100ms\"";
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), head));
    let client: Arc<_> = authority.client();
    let mut client = TlsClient::connect(weir.address("web"), &client, "shop.test").unwrap();
    assert_eq!(client.get("shop.test").unwrap().status(), 200);
    let mut byte = [0];
    assert_eq!(
        client.stream.read(&mut byte).expect("an end that was told"),
        0
    );
    until("the connection to be counted off", || {
        (weir.metric("weir_listener_connections", &[]) == 0.0).then_some(())
    });
}

/// A handshake that comes a byte at a time is a handshake.
#[test]
fn a_handshake_may_come_a_byte_at_a_time() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering(ANSWER);
    let weir = Weir::start(&config(&origin, &certificates(&authority, &["shop"]), ""));
    let name = rustls::pki_types::ServerName::try_from("shop.test").unwrap();
    let mut connection = rustls::ClientConnection::new(authority.client(), name).unwrap();
    let mut socket = TcpStream::connect(weir.address("web")).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    while connection.is_handshaking() {
        let mut records = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut records).unwrap();
        }
        for byte in records {
            socket.write_all(&[byte]).unwrap();
        }
        if connection.is_handshaking() {
            connection.read_tls(&mut socket).unwrap();
            connection.process_new_packets().unwrap();
        }
    }
    let mut client = TlsClient {
        stream: rustls::StreamOwned::new(connection, socket),
    };
    assert_eq!(client.get("shop.test").unwrap().status(), 200);
    let _ = Client::connect(weir.address("web"));
}
