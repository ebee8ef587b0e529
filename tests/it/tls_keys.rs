//! Keys of TLS: what certificates are proven with, in every form that a file may have, and what a connection's own keys are agreed on by.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::NamedGroup;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::support::tls::{Authority, Key, Kind, TlsClient, provider};
use crate::support::{Origin, Weir};

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";

fn config(origin: &Origin, authority: &Authority, files: &[&str]) -> String {
    let pairs: Vec<String> = files
        .iter()
        .map(|file| format!("{{ {} }}", authority.pair(file)))
        .collect();
    format!(
        "[listeners.web]\nbind = [\"$web\"]\ntls.certificates = [{}]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        pairs.join(", "),
        origin.address
    )
}

fn origin() -> Origin {
    Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// The kind of key (an object identifier) of the certificate that a client is shown.
fn shown(client: &TlsClient) -> String {
    let chain = client.stream.conn.peer_certificates().expect("a chain");
    let certificate = Certificate::from_der(&chain[0]).unwrap();
    let key = certificate.tbs_certificate().subject_public_key_info();
    key.algorithm.oid.to_string()
}

/// Clients that can check signatures of these schemes only, whatever their authorities sign with.
fn checks(only: impl Fn(&str) -> bool) -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&provider());
    let all = provider.signature_verification_algorithms;
    let known = all.mapping.iter().copied();
    let mapping: Vec<_> = known
        .filter(|(scheme, _)| only(scheme.as_str().unwrap()))
        .collect();
    provider.signature_verification_algorithms = WebPkiSupportedAlgorithms {
        all: all.all,
        mapping: mapping.leak(),
    };
    Arc::new(provider)
}

/// The key as programs wrote it before PKCS #8 (RFC 5208), which wraps it: PKCS #1 or SEC 1.
fn unwrapped(pkcs8: &[u8], label: &str) -> String {
    let (_, all) = element(pkcs8);
    let (_version, rest) = (element(all), &all[element(all).0..]);
    let (_algorithm, rest) = (element(rest), &rest[element(rest).0..]);
    let lines = BASE64_STANDARD.encode(element(rest).1);
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}

/// The length of a DER element and its content.
fn element(der: &[u8]) -> (usize, &[u8]) {
    let extra = match der[1] {
        long @ 0x81..=0x84 => usize::from(long - 0x80),
        _ => 0,
    };
    let length = match extra {
        0 => usize::from(der[1]),
        _ => (der[2..2 + extra].iter()).fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
    };
    let end = 2 + extra + length;
    (end, &der[2 + extra..end])
}

#[test]
fn every_kind_and_form_of_key_is_served_in_every_version() {
    let authority = Authority::new();
    let origin = origin();
    for (key, label, kind) in [
        (Key::Rsa, "RSA PRIVATE KEY", RSA),
        (Key::P256, "EC PRIVATE KEY", EC),
        (Key::P384, "EC PRIVATE KEY", EC),
    ] {
        authority.issue("shop", &["shop.test"], Kind::of(key));
        let path = authority.directory.join("shop.key");
        let pkcs8 = PrivateKeyDer::from_pem_file(path).unwrap();
        for is_unwrapped in [false, true] {
            if is_unwrapped {
                authority.replace("shop.key", &unwrapped(pkcs8.secret_der(), label));
            }
            let weir = Weir::start(&config(&origin, &authority, &["shop"]));
            for version in [&TLS12, &TLS13] {
                let client = authority.config(&[version], None);
                let client = TlsClient::connect(weir.address("web"), &client, "shop.test");
                let mut client = client.unwrap_or_else(|why| panic!("{key:?} {version:?}: {why}"));
                assert_eq!(client.get("shop.test").unwrap().text(), "ok");
                assert_eq!(shown(&client), kind);
            }
        }
    }
}

/// The usual pair for old clients and new ones: the first that the client can check, and the first of all if it can check none.
#[test]
fn of_two_kinds_of_key_a_client_is_shown_the_one_that_it_can_check() {
    let authority = Authority::new();
    authority.issue("ec", &["shop.test", "*.shop.test"], Kind::default());
    authority.issue("rsa", &["shop.test", "*.shop.test"], Kind::of(Key::Rsa));
    let origin = origin();
    let weir = Weir::start(&config(&origin, &authority, &["ec", "rsa"]));
    let kind = |provider: &Arc<CryptoProvider>, version, name| {
        let client = authority.config_by(provider.clone(), &[version], None);
        TlsClient::connect(weir.address("web"), &client, name).map(|client| shown(&client))
    };
    let old = checks(|scheme| scheme.starts_with("RSA"));
    let new = checks(|scheme| scheme.starts_with("ECDSA"));
    for version in [&TLS12, &TLS13] {
        for name in ["shop.test", "www.shop.test"] {
            assert_eq!(kind(&provider(), version, name).unwrap(), EC);
            assert_eq!(kind(&old, version, name).unwrap(), RSA);
            assert_eq!(kind(&new, version, name).unwrap(), EC);
        }
    }
    let neither = checks(|scheme| scheme == "ED25519");
    assert!(kind(&neither, &TLS13, "shop.test").is_err());
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "other")],
        1.0,
    );
}

/// X25519MLKEM768 is taken where the client knows it, and one of the older groups where it does not.
#[test]
fn keys_are_agreed_on_against_quantum_computers_too() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = origin();
    let weir = Weir::start(&config(&origin, &authority, &["shop"]));
    let agreed = |offers: &[NamedGroup], version| {
        let mut provider = CryptoProvider::clone(&provider());
        let known = provider.kx_groups.clone();
        let group = |name: &NamedGroup| known.iter().find(|group| group.name() == *name);
        let chosen = offers.iter().map(|name| *group(name).expect("a group"));
        provider.kx_groups = chosen.collect();
        let client = authority.config_by(Arc::new(provider), &[version], None);
        let mut client =
            TlsClient::connect(weir.address("web"), &client, "shop.test").expect("a connection");
        assert_eq!(client.get("shop.test").unwrap().status(), 200);
        let group = client.stream.conn.negotiated_key_exchange_group();
        group.expect("a group").name()
    };
    let (new, old, oldest) = (
        NamedGroup::X25519MLKEM768,
        NamedGroup::X25519,
        NamedGroup::secp256r1,
    );
    assert_eq!(agreed(&[new, old, oldest], &TLS13), new);
    assert_eq!(agreed(&[old, oldest], &TLS13), old);
    assert_eq!(agreed(&[oldest], &TLS13), oldest);
    assert_eq!(agreed(&[new, oldest], &TLS12), oldest);
}
