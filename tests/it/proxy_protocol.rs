//! The PROXY protocol on listeners: whom a header makes a client, and what is no header.

mod haproxy;
mod passed_on;
mod told;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::support::http2::{self, Wire};
use crate::support::tls::{Authority, Kind, TlsClient};
use crate::support::weir::{get, list};
use crate::support::{Client, DEADLINE, Origin, Weir, until};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// One listener at `$web` with these keys, and one route to a pool with these.
fn config(head: &str, listener: &str, pool: &str, backends: &[SocketAddr]) -> String {
    format!(
        "{head}\n[listeners.web]\nbind = [\"$web\"]\n{listener}\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [{}]\nhealth.type = \"none\"\n{pool}\n",
        list(backends)
    )
}

/// A listener that wants headers from 127.0.0.1.
fn requiring(origin: &Origin, more: &str) -> String {
    config(
        "trusted_proxies = [\"127.0.0.1\"]",
        &format!("proxy_protocol = \"require\"\n{more}"),
        "",
        &[origin.address],
    )
}

/// A header of version 2 with this block behind its first 16 bytes.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

/// A header of version 2 for a client, with extensions.
fn v2(source: &str, destination: &str, extensions: &[u8]) -> Vec<u8> {
    let [source, destination]: [SocketAddr; 2] =
        [source, destination].map(|end| end.parse().unwrap());
    let octets = |end: SocketAddr| match end {
        SocketAddr::V4(end) => end.ip().octets().to_vec(),
        SocketAddr::V6(end) => end.ip().octets().to_vec(),
    };
    let ports = [source.port(), destination.port()].map(u16::to_be_bytes);
    let block = [
        &octets(source)[..],
        &octets(destination),
        ports.as_flattened(),
        extensions,
    ];
    binary(
        0x21,
        if source.is_ipv4() { 0x11 } else { 0x21 },
        &block.concat(),
    )
}

fn v1(source: &str, destination: &str) -> Vec<u8> {
    let [source, destination]: [SocketAddr; 2] =
        [source, destination].map(|end| end.parse().unwrap());
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!(
        "PROXY {family} {from} {to} {} {}\r\n",
        source.port(),
        destination.port()
    )
    .into_bytes()
}

fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
}

/// A connection from another loopback address.
fn client_from(source: &str, to: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect_timeout(&to.into(), DEADLINE).unwrap();
    Client::of(socket.into())
}

/// What the origin was told of the client's address.
fn forwarded_for(origin: &Origin) -> Option<String> {
    origin.requests().last().unwrap().value("x-forwarded-for")
}

#[test]
fn the_client_is_whom_the_header_names() {
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(&origin, ""));
    let (four, six) = ("192.0.2.7:40001", "[2001:db8::7]:40001");
    let (to_four, to_six) = ("198.51.100.1:80", "[2001:db8::1]:80");
    let headers = [
        (v1(four, to_four), "192.0.2.7"),
        (v1(six, to_six), "2001:db8::7"),
        (v2(four, to_four, &extension(4, &[0; 300])), "192.0.2.7"),
        (v2(six, to_six, &extension(2, b"shop.test")), "2001:db8::7"),
        (
            v2("[::ffff:192.0.2.7]:1", "[::ffff:198.51.100.1]:80", &[]),
            "192.0.2.7",
        ),
    ];
    for (header, client) in headers {
        let target = format!("/{}", origin.hits());
        let whole = [&header[..], get(&target).as_bytes()].concat();
        let mut together = weir.client();
        assert_eq!(together.ask(&whole).text(), "was");
        assert_eq!(forwarded_for(&origin).as_deref(), Some(client));
        // The next request of the connection is the same client's.
        assert_eq!(together.ask(get("/next")).text(), "was");
        assert_eq!(forwarded_for(&origin).as_deref(), Some(client));
        let mut slow = weir.client();
        assert_eq!(slow.drip(&whole).answer().text(), "was");
        assert_eq!(forwarded_for(&origin).as_deref(), Some(client));
        let line = weir.access(|line| line["path"] == target.as_str());
        assert_eq!(line["client"], client);
    }
    assert_eq!(weir.metric("weir_proxy_protocol_errors_total", &[]), 0.0);
}

#[test]
fn a_client_behind_a_proxy_is_believed_no_more_than_any_other() {
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(&origin, ""));
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n";
    let to = "198.51.100.1:80";
    for (client, expected) in [
        ("192.0.2.7:1", "192.0.2.7"),
        ("127.0.0.1:1", "203.0.113.1, 127.0.0.1"),
    ] {
        let whole = [&v2(client, to, &[])[..], request.as_bytes()].concat();
        assert_eq!(weir.client().ask(whole).text(), "was");
        assert_eq!(forwarded_for(&origin).as_deref(), Some(expected));
    }
}

#[test]
fn headers_that_name_nobody_leave_the_connection_its_address() {
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(&origin, ""));
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ff:: 1.2.3.4 what ever\r\n".to_vec(),
        binary(0x20, 0, &[]),
        binary(0x20, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0, 1, 0, 80]),
        binary(0x21, 0, &extension(4, b"padding")),
        binary(0x21, 0x31, &[b'/'; 216]),
    ];
    for header in headers {
        let whole = [&header[..], get("/").as_bytes()].concat();
        assert_eq!(weir.client().ask(whole).text(), "was");
        assert_eq!(forwarded_for(&origin).as_deref(), Some("127.0.0.1"));
    }
}

#[test]
fn what_is_no_header_is_refused_and_counted() {
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(&origin, ""));
    let fine = v2(
        "192.0.2.7:1",
        "198.51.100.1:80",
        &extension(2, b"shop.test"),
    );
    let mut bent = fine.clone();
    bent[12] = 0x31;
    let mut cut = fine.clone();
    cut[15] -= 1;
    let sum = v2(
        "192.0.2.7:1",
        "198.51.100.1:80",
        &extension(3, &[1, 2, 3, 4]),
    );
    let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92));
    assert_eq!(long.len(), 108);
    let bad: [(&str, &[u8]); 11] = [
        ("missing", b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        ("missing", b"\x16\x03\x01\x02\x00\x01"),
        ("missing", b"\0\x01\x02garbage"),
        ("missing", b"PROXY\tTCP4 192.0.2.7 198.51.100.1 1 80\r\n"),
        (
            "malformed",
            b"PROXY TCP4 192.0.2.7 \xff\xfe 1 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "malformed",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 80\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        ("malformed", long.as_bytes()),
        ("malformed", &bent),
        ("malformed", &cut),
        ("malformed", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"),
        ("checksum", &sum),
    ];
    for (reason, bytes) in bad {
        let labels = [("reason", reason)];
        let before = weir.metric("weir_proxy_protocol_errors_total", &labels);
        let mut client = weir.client();
        client.send(bytes).expect_end();
        weir.settles("weir_proxy_protocol_errors_total", &labels, before + 1.0);
        let mut slow = weir.client();
        // It may be closed before the last byte.
        let _ = bytes.iter().all(|byte| slow.try_send(&[*byte]).is_ok());
        slow.expect_end();
        weir.settles("weir_proxy_protocol_errors_total", &labels, before + 2.0);
    }
    // Two headers are one too many.
    let twice = [&fine[..], &fine, get("/").as_bytes()].concat();
    assert_eq!(weir.client().ask(twice).status(), 400);
    assert_eq!(origin.hits(), 0);
    weir.tells("PROXY header");
    // Who only looks whether the port is open is no error.
    drop(weir.client());
    assert_eq!(
        weir.client()
            .ask([&fine[..], get("/").as_bytes()].concat())
            .text(),
        "was"
    );
    assert_eq!(
        weir.metric("weir_proxy_protocol_errors_total", &[("reason", "closed")]),
        0.0
    );
    let mut gone = weir.client();
    gone.send(&fine[..20]).finish();
    gone.expect_end();
    weir.settles(
        "weir_proxy_protocol_errors_total",
        &[("reason", "closed")],
        1.0,
    );
}

#[test]
fn a_header_that_never_ends_has_a_deadline() {
    let origin = Origin::named("was");
    let config = requiring(&origin, "").replace("trusted", "timeouts.header = \"300ms\"\ntrusted");
    let weir = Weir::start(&config);
    let labels = [("reason", "timeout")];
    let begun: [&[u8]; 4] = [
        b"",
        b"P",
        b"PROXY TCP4 192.0.2.7 ",
        &v2("192.0.2.7:1", "198.51.100.1:80", &[])[..27],
    ];
    for (count, bytes) in begun.into_iter().enumerate() {
        let mut client = weir.client();
        client.send(bytes).expect_end();
        weir.settles(
            "weir_proxy_protocol_errors_total",
            &labels,
            count as f64 + 1.0,
        );
    }
}

#[test]
fn only_trusted_proxies_are_heard() {
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(&origin, ""));
    let whole = [
        &v2("192.0.2.7:1", "198.51.100.1:80", &[])[..],
        get("/").as_bytes(),
    ]
    .concat();
    let mut stranger = client_from("127.0.0.9", weir.address("web"));
    let _ = stranger.try_send(&whole);
    stranger.expect_end();
    weir.settles(
        "weir_proxy_protocol_errors_total",
        &[("reason", "untrusted")],
        1.0,
    );
    weir.tells("127.0.0.9 is not among trusted_proxies");
    assert_eq!(
        (weir.client().ask(&whole).text(), origin.hits()),
        ("was".to_owned(), 1)
    );
}

#[test]
fn a_listener_may_accept_them_and_do_without() {
    let origin = Origin::named("was");
    let accepting = requiring(&origin, "").replace("\"require\"", "\"accept\"");
    let weir = Weir::start(&accepting);
    let whole = [
        &v2("192.0.2.7:1", "198.51.100.1:80", &[])[..],
        get("/").as_bytes(),
    ]
    .concat();
    assert_eq!(weir.client().ask(&whole).text(), "was");
    assert_eq!(forwarded_for(&origin).as_deref(), Some("192.0.2.7"));
    for request in [
        get("/"),
        format!("\r\n\r\n{}", get("/")),
        get("/").replace("GET", "PRO"),
    ] {
        assert_eq!(weir.client().ask(&request).text(), "was", "{request}");
        assert_eq!(forwarded_for(&origin).as_deref(), Some("127.0.0.1"));
        assert_eq!(
            weir.client().drip(&request).answer().text(),
            "was",
            "{request}"
        );
    }
    // What a stranger sends is a request, and not a good one.
    let mut stranger = client_from("127.0.0.9", weir.address("web"));
    assert_eq!(stranger.ask(&whole).status(), 400);
    assert_eq!(
        client_from("127.0.0.9", weir.address("web"))
            .ask(get("/"))
            .text(),
        "was"
    );
    assert_eq!(forwarded_for(&origin).as_deref(), Some("127.0.0.9"));
    // One that is no more than begun is still an error.
    weir.client().send("PROXY TCP9\r\n").expect_end();
    weir.settles(
        "weir_proxy_protocol_errors_total",
        &[("reason", "malformed")],
        1.0,
    );
    // A reload holds for new connections.
    weir.write(&accepting.replace("\"accept\"", "\"off\""));
    weir.await_generation_after(1);
    assert_eq!(weir.client().ask(&whole).status(), 400);
}

#[test]
fn lists_and_limits_are_for_the_client_behind_the_proxy() {
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(
        &origin,
        "max_connections_per_source = 2\ndeny = [\"203.0.113.0/24\"]\nrate_limit = { rate = \"1/h\", burst = 3 }",
    ));
    let from = |source: &str| v2(source, "198.51.100.1:80", &[]);
    let mut kept: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = weir.client();
            let whole = [&from("192.0.2.7:1")[..], get("/").as_bytes()].concat();
            assert_eq!(client.ask(whole).text(), "was");
            client
        })
        .collect();
    let mut third = weir.client();
    third.send(from("192.0.2.7:2")).expect_end();
    weir.settles("weir_limited_total", &[("limit", "connections")], 1.0);
    let mut other = weir.client();
    let whole = [&from("192.0.2.8:1")[..], get("/").as_bytes()].concat();
    assert_eq!(other.ask(whole).text(), "was");
    weir.client().send(from("203.0.113.5:1")).expect_end();
    weir.settles("weir_limited_total", &[("limit", "access")], 1.0);
    // What was counted for a connection ends with it, and rates are the client's too.
    assert_eq!(kept[0].ask(get("/")).text(), "was");
    assert_eq!(kept[1].ask(get("/")).status(), 429);
    drop(kept);
    until("room for another connection", || {
        let mut client = weir.client();
        client.send(from("192.0.2.7:3")).send(get("/"));
        (client.try_answer().ok()?.status() == 429).then_some(())
    });
}

#[test]
fn tls_begins_behind_the_header() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let origin = Origin::named("was");
    let tls = format!("tls.certificates = [{{ {} }}]", authority.pair("shop"));
    let weir = Weir::start(&requiring(&origin, &tls));
    let header = v2("192.0.2.7:1", "198.51.100.1:443", &[]);
    for is_apart in [true, false] {
        let mut socket = TcpStream::connect(weir.address("web")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = ServerName::try_from("shop.test").unwrap();
        let mut connection = ClientConnection::new(authority.client(), name).unwrap();
        let mut first = header.clone();
        match is_apart {
            true => socket.write_all(&header).unwrap(),
            // The whole ClientHello, or its first piece, in one segment with the header.
            false => {
                connection.write_tls(&mut first).unwrap();
                socket.write_all(&first[..header.len() + 100]).unwrap();
                socket.write_all(&first[header.len() + 100..]).unwrap();
            }
        }
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        let mut client = TlsClient {
            stream: StreamOwned::new(connection, socket),
        };
        assert_eq!(client.get("shop.test").unwrap().text(), "was");
        assert_eq!(forwarded_for(&origin).as_deref(), Some("192.0.2.7"));
        let seen = origin.requests();
        assert_eq!(
            seen.last().unwrap().value("x-forwarded-proto").as_deref(),
            Some("https")
        );
    }
    let mut plain = weir.client();
    let answer = plain.ask([&header[..], get("/").as_bytes()].concat());
    assert!(answer.text().contains("https://"), "{}", answer.text());
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "plain_http")],
        1.0,
    );
}

#[test]
fn http2_is_spoken_behind_the_header() {
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(&origin, ""));
    let mut wire = Wire::silent(weir.address("web"));
    wire.send(v2("192.0.2.7:1", "198.51.100.1:80", &[]));
    wire.send([http2::PREFACE, &http2::settings(&[]), &http2::get_frame(1)].concat());
    wire.await_on(0, 1);
    assert_eq!(forwarded_for(&origin).as_deref(), Some("192.0.2.7"));
}
