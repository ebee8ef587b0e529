//! PROXY headers before bytes that are passed on.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::Value;

use super::told::{Told, told};
use super::{client_from, config, extension, v1, v2};
use crate::support::tls::{Authority, Kind, TlsClient};
use crate::support::{DEADLINE, Origin, Weir};

/// An origin whose connections begin with a header, and which then says `first` and sends back what comes.
fn echoing(first: &'static [u8]) -> (Origin, Arc<Mutex<Vec<Told>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let shared = all.clone();
    let origin = Origin::start(move |visit| {
        let Ok(header) = told(visit) else { return };
        shared.lock().unwrap().push(header);
        visit.send(first);
        loop {
            let bytes = std::mem::take(&mut visit.reader.buffer);
            visit.send(bytes);
            if visit.reader.fill(Instant::now() + DEADLINE).is_err() {
                return;
            }
        }
    });
    (origin, all)
}

/// A tcp listener that wants headers from 127.0.0.1, before a pool that is sent them.
fn relaying(origin: &Origin, version: &str, more: &str) -> String {
    config(
        "trusted_proxies = [\"127.0.0.1\"]",
        &format!("protocol = \"tcp\"\nproxy_protocol = \"require\"\n{more}"),
        &format!("proxy_protocol = \"{version}\""),
        &[origin.address],
    )
}

#[test]
fn bytes_behind_a_header_are_passed_on_behind_another() {
    for (version, is_binary) in [("v1", false), ("v2", true)] {
        let (origin, told) = echoing(b"220 ready\r\n");
        let weir = Weir::start(&relaying(&origin, version, ""));
        let ends = ["192.0.2.7:40001", "198.51.100.1:5432"];
        let expected = Some((ends[0].parse().unwrap(), ends[1].parse().unwrap()));
        for header in [
            v1(ends[0], ends[1]),
            v2(ends[0], ends[1], &extension(5, b"from-before")),
        ] {
            // A server that speaks first need not wait for its client.
            let mut quiet = weir.client();
            quiet.send(&header);
            assert_eq!(quiet.reader.exactly(11).unwrap(), b"220 ready\r\n");
            let mut together = weir.client();
            together.send([&header[..], b"PROXY of my own"].concat());
            assert_eq!(
                together.reader.exactly(26).unwrap(),
                b"220 ready\r\nPROXY of my own"
            );
            let mut slow = weir.client();
            slow.drip([&header[..], b"hello"].concat());
            assert_eq!(slow.reader.exactly(16).unwrap(), b"220 ready\r\nhello");
        }
        let seen = told.lock().unwrap().clone();
        assert_eq!(seen.len(), 6);
        assert!(
            seen.iter()
                .all(|told| told.ends == expected && told.is_binary == is_binary)
        );
        let line = weir.access(|line| line["client"] == "192.0.2.7");
        if is_binary {
            let ids: Vec<_> = seen.iter().map(|told| told.extension(5).unwrap()).collect();
            assert!(ids[3..].iter().all(|id| *id == b"from-before"));
            assert!(
                ids[..3]
                    .iter()
                    .any(|id| line["id"] == String::from_utf8_lossy(id).as_ref()),
                "{line}"
            );
        }
        weir.client().send("hello").expect_end();
        weir.settles(
            "weir_proxy_protocol_errors_total",
            &[("reason", "missing")],
            1.0,
        );
        assert_eq!(origin.connections(), 6);
    }
}

#[test]
fn the_name_of_tls_that_passes_through_is_told() {
    let (origin, told) = echoing(b"");
    let authority = Authority::new();
    let config =
        relaying(&origin, "v2", "").replace("[[routes]]", "[[routes]]\nsni = [\"db.test\"]");
    let weir = Weir::start(&config);
    let name = ServerName::try_from("db.test").unwrap();
    let mut connection = ClientConnection::new(authority.client(), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let header = v2("[2001:db8::7]:1", "[2001:db8::1]:443", &[]);
    let mut client = weir.client();
    client.drip([&header[..], &hello].concat());
    assert_eq!(
        client.reader.exactly(hello.len()).unwrap(),
        hello,
        "it passes through as it came"
    );
    let seen = told.lock().unwrap()[0].clone();
    assert_eq!(seen.ends.unwrap().0, "[2001:db8::7]:1".parse().unwrap());
    assert_eq!(seen.extension(2), Some(&b"db.test"[..]));
    assert_eq!(seen.extension(0x20), None);
}

#[test]
fn backends_are_told_of_tls_whose_bytes_are_passed_on() {
    let authority = Authority::new();
    authority.issue("db", &["db.test"], Kind::default());
    let (origin, told) = echoing(b"");
    let tls = format!(
        "protocol = \"tcp\"\ntls.certificates = [{{ {} }}]",
        authority.pair("db")
    );
    let weir = Weir::start(&config(
        "",
        &tls,
        "proxy_protocol = \"v2\"",
        &[origin.address],
    ));
    let mut client =
        TlsClient::connect(weir.address("web"), &authority.client(), "db.test").unwrap();
    client.stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    let seen = told.lock().unwrap()[0].clone();
    let own = client.stream.sock.local_addr().unwrap();
    assert_eq!(seen.ends, Some((own, weir.address("web"))));
    assert_eq!(seen.extension(2), Some(&b"db.test"[..]));
    assert!(
        seen.extension(0x20)
            .is_some_and(|ssl| ssl[0] == 1 && ssl.ends_with(b"TLSv1.3"))
    );
}

/// That weir has no socket for a client says nothing of the backend, whose other clients must not suffer from it.
#[test]
fn a_client_that_cannot_be_shown_is_no_fault_of_the_backend() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: only root may bear the address of a client");
        return;
    }
    let origin = Origin::start(|_| ());
    for (protocol, status) in [("http", 503.into()), ("tcp", Value::Null)] {
        let text = config(
            "trusted_proxies = [\"127.0.0.1\"]",
            &format!("protocol = \"{protocol}\"\nproxy_protocol = \"require\""),
            "transparent = true\npassive = { consecutive_errors = 2, max_ejected = 1.0 }",
            &[origin.address],
        );
        let weir = Weir::start(&text);
        for _ in 0..5 {
            let mut client = weir.client();
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            client.send(
                [
                    &v2("[2001:db8::7]:1", "[2001:db8::1]:443", &[]),
                    &request[..],
                ]
                .concat(),
            );
            client.rest();
        }
        let line = weir.access(|line| line["error"] == "no_socket");
        assert_eq!(line["status"], status, "{line}");
        for metric in [
            "weir_backend_ejections_total",
            "weir_backend_connect_errors_total",
        ] {
            assert_eq!(weir.metric(metric, &[]), 0.0, "{protocol}: {metric}");
        }
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_tcp_listener_may_accept_headers_and_do_without() {
    let (origin, told) = echoing(b"220 ready\r\n");
    let config = relaying(&origin, "v2", "").replace("\"require\"", "\"accept\"");
    let weir = Weir::start(&config.replace("trusted", "timeouts.header = \"300ms\"\ntrusted"));
    for (source, said) in [
        ("127.0.0.9", "PROXY UNKNOWN\r\n"),
        ("127.0.0.1", "PROXIES"),
        ("127.0.0.1", ""),
    ] {
        let mut client = client_from(source, weir.address("web"));
        client.send(said);
        let expected = format!("220 ready\r\n{said}");
        assert_eq!(
            client.reader.exactly(expected.len()).unwrap(),
            expected.as_bytes()
        );
        let ends = told.lock().unwrap().last().unwrap().ends.unwrap();
        assert_eq!(ends.0, client.reader.stream.local_addr().unwrap());
    }
    let mut client = weir.client();
    client.send("PROXY UNKNOWN\r\nhello");
    assert_eq!(client.reader.exactly(16).unwrap(), b"220 ready\r\nhello");
}
