//! The files behind TLS: swapped while connections are open, kept when they cannot be used, and refused at a start.

use std::process::Command;

use crate::support::tls::{Authority, Kind, TlsClient};
use crate::support::weir::binary;
use crate::support::{Origin, Weir, until};

fn config(origin: &Origin, authority: &Authority) -> String {
    format!(
        "[listeners.web]\nbind = [\"$web\"]\ntls.certificates = [{{ {} }}]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        authority.pair("shop"),
        origin.address
    )
}

fn shown(weir: &Weir, authority: &Authority) -> Vec<u8> {
    let client = TlsClient::connect(weir.address("web"), &authority.client(), "shop.test").unwrap();
    client
        .stream
        .conn
        .peer_certificates()
        .expect("a certificate")[0]
        .to_vec()
}

#[test]
fn a_renewed_certificate_is_taken_up_and_open_connections_go_on() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let weir = Weir::start(&config(&origin, &authority));
    let first = shown(&weir, &authority);
    let mut open =
        TlsClient::connect(weir.address("web"), &authority.client(), "shop.test").unwrap();
    assert_eq!(open.get("shop.test").unwrap().status(), 200);
    authority.issue("shop", &["shop.test", "new.shop.test"], Kind::default());
    until("the new certificate", || {
        assert_eq!(open.get("shop.test").unwrap().status(), 200);
        (shown(&weir, &authority) != first).then_some(())
    });
    assert_eq!(open.get("shop.test").unwrap().status(), 200);
    let status = weir.status();
    let names = &status["listeners"][0]["certificates"][0]["names"];
    assert_eq!(names[1], "new.shop.test");
    assert_eq!(weir.generation(), 2);
}

#[test]
fn a_broken_pair_keeps_the_last_good_one_and_says_so() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let text = config(&origin, &authority);
    let weir = Weir::start(&text);
    let good = || weir.metric("weir_tls_file_reload_successful", &[]);
    assert_eq!(good(), 2.0);
    let until_end = weir.metric(
        "weir_tls_certificate_not_after_timestamp_seconds",
        &[("listener", "web")],
    );
    assert!(until_end > 2e9, "{until_end}");
    let first = shown(&weir, &authority);
    authority.replace("shop.pem", "half a certi");
    until("the log to say so", || {
        let told = weir
            .stderr()
            .contains("has no certificate; what it held before is served on");
        told.then_some(())
    });
    assert_eq!(good(), 1.0);
    assert_eq!(shown(&weir, &authority), first);
    let status = weir.status();
    let problem = &status["listeners"][0]["certificates"][0]["problem"];
    assert!(
        problem
            .as_str()
            .is_some_and(|why| why.contains("has no certificate")),
        "{status}"
    );
    let warnings = status["last_reload"]["warnings"].to_string();
    assert!(warnings.contains("has no certificate"), "{warnings}");
    // Other changes of the configuration are taken nevertheless.
    let generation = weir.generation();
    weir.write(&format!("drain_timeout = \"7s\"\n{text}"));
    weir.await_generation_after(generation);
    assert_eq!(shown(&weir, &authority), first);
    assert_eq!(good(), 1.0);

    authority.issue("shop", &["shop.test"], Kind::default());
    until("the new certificate", || {
        (shown(&weir, &authority) != first).then_some(())
    });
    assert_eq!(good(), 2.0);
}

#[test]
fn a_start_and_a_check_refuse_what_cannot_be_served() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    authority.issue("other", &["shop.test"], Kind::default());
    std::fs::copy(
        authority.directory.join("other.key"),
        authority.directory.join("shop.key"),
    )
    .unwrap();
    let origin = Origin::answering("");
    let weir = Weir::launch(&config(&origin, &authority), |_| {});
    assert!(!weir.await_exit().success());
    until("the reason", || {
        let stderr = weir.stderr();
        (stderr.contains("error[E0804]: the key in") && stderr.contains("= help: ")).then_some(())
    });
    let checked = Command::new(binary())
        .args(["check", "-c"])
        .arg(&weir.file)
        .output()
        .unwrap();
    assert!(!checked.status.success());
    assert!(
        String::from_utf8_lossy(&checked.stderr).contains("weir.toml:5:"),
        "{checked:?}"
    );
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let authority = Authority::new();
    authority.issue(
        "shop",
        &["shop.test"],
        Kind {
            expired: true,
            ..Kind::default()
        },
    );
    let origin = Origin::answering("");
    let weir = Weir::start(&config(&origin, &authority));
    weir.tells("has expired: clients refuse it");
    assert!(TlsClient::connect(weir.address("web"), &authority.client(), "shop.test").is_err());
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "alert")],
        1.0,
    );
}
