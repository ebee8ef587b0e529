//! The PROXY protocol on listeners and toward backends: whom a header makes a client, what is no header, and what backends are told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::support::http2::{self, Wire};
use crate::support::message::Fault;
use crate::support::origin::{Visit, ok};
use crate::support::tls::{Authority, Kind, TlsClient};
use crate::support::weir::{get, list};
use crate::support::{Client, DEADLINE, Multiplexer, Origin, Weir, until};

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

/// A header as a backend reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// Whether it is of version 2.
    is_binary: bool,
    /// Client and server; none for LOCAL.
    ends: Option<(SocketAddr, SocketAddr)>,
    /// Kinds and values.
    extensions: Vec<(u8, Vec<u8>)>,
}

impl Told {
    fn extension(&self, kind: u8) -> Option<&[u8]> {
        let found = self.extensions.iter().find(|(known, _)| *known == kind);
        found.map(|(_, value)| &value[..])
    }
}

/// Reads a header without weir's help.
fn told(visit: &mut Visit) -> Result<Told, Fault> {
    let mut start = visit.reader.exactly(SIGNATURE.len())?;
    if start == SIGNATURE {
        let head = visit.reader.exactly(4)?;
        let length = u16::from_be_bytes([head[2], head[3]]);
        let block = visit.reader.exactly(length.into())?;
        return Ok(told_of_block(head[0], head[1], &block));
    }
    while !start.ends_with(b"\r\n") {
        start.extend(visit.reader.exactly(1)?);
    }
    let line = String::from_utf8(start).unwrap();
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!((words.len(), words[0]), (6, "PROXY"), "{line}");
    let end = |address: &str, port: &str| {
        SocketAddr::new(address.parse().unwrap(), port.parse().unwrap())
    };
    let ends = (end(words[2], words[4]), end(words[3], words[5]));
    assert_eq!(words[1], if ends.0.is_ipv4() { "TCP4" } else { "TCP6" });
    Ok(Told {
        is_binary: false,
        ends: Some(ends),
        extensions: Vec::new(),
    })
}

fn told_of_block(command: u8, family: u8, block: &[u8]) -> Told {
    let mut told = Told {
        is_binary: true,
        ends: None,
        extensions: Vec::new(),
    };
    if command == 0x20 {
        assert_eq!((family, block.len()), (0, 0));
        return told;
    }
    assert_eq!(command, 0x21);
    let size = match family {
        0x11 => 4,
        0x21 => 16,
        _ => panic!("family {family}"),
    };
    let address = |at: usize| -> std::net::IpAddr {
        match size {
            4 => <[u8; 4]>::try_from(&block[at..at + 4]).unwrap().into(),
            _ => <[u8; 16]>::try_from(&block[at..at + 16]).unwrap().into(),
        }
    };
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    told.ends = Some((
        SocketAddr::new(address(0), port(2 * size)),
        SocketAddr::new(address(size), port(2 * size + 2)),
    ));
    let mut left = &block[2 * size + 4..];
    while !left.is_empty() {
        let length = usize::from(u16::from_be_bytes([left[1], left[2]]));
        told.extensions
            .push((left[0], left[3..3 + length].to_vec()));
        left = &left[3 + length..];
    }
    told
}

/// An origin whose connections begin with a header.
fn told_origin() -> (Origin, Arc<Mutex<Vec<Told>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let shared = all.clone();
    let origin = Origin::start(move |visit| {
        let Ok(header) = told(visit) else { return };
        shared.lock().unwrap().push(header);
        while visit.request().is_ok() {
            visit.send(ok("was"));
        }
    });
    (origin, all)
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
    until("a line of the log", || {
        weir.stderr().contains("PROXY header").then_some(())
    });
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
    until("a line of the log", || {
        weir.stderr()
            .contains("127.0.0.9 is not among trusted_proxies")
            .then_some(())
    });
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

#[test]
fn backends_are_told_of_each_client() {
    for (version, is_binary) in [("v1", false), ("v2", true)] {
        let (origin, told) = told_origin();
        let pool = format!("proxy_protocol = \"{version}\"");
        let weir = Weir::start(&config("", "", &pool, &[origin.address]));
        let web = weir.address("web");
        let (mut one, mut two) = (weir.client(), weir.client());
        let clients = [&one, &two].map(|client| client.reader.stream.local_addr().unwrap());
        for _ in 0..2 {
            assert_eq!(one.ask(get("/")).text(), "was");
            assert_eq!(two.ask(get("/two")).text(), "was");
        }
        let seen = told.lock().unwrap().clone();
        let ends: Vec<_> = seen.iter().map(|told| told.ends.unwrap()).collect();
        let expected = [clients[0], clients[1]].map(|client| (client, web));
        assert_eq!(ends, [expected, expected].concat());
        assert!(seen.iter().all(|told| told.is_binary == is_binary));
        if is_binary {
            let id = String::from_utf8(seen[1].extension(5).unwrap().to_vec()).unwrap();
            weir.access(|line| line["path"] == "/two" && line["id"] == id.as_str());
            assert_eq!(seen[1].extensions.len(), 1, "{:?}", seen[1]);
        }
        let labels = [("pool", "was"), ("reused", "false")];
        weir.settles("weir_backend_connections_total", &labels, 4.0);
        // The same of HTTP/2, whose requests share the client's connection.
        let mut multiplexer = Multiplexer::connect(web);
        assert_eq!(multiplexer.get("/").text(), "was");
        assert_eq!(multiplexer.get("/").text(), "was");
        let seen = told.lock().unwrap().clone();
        assert_eq!((seen.len(), seen[4].ends), (6, seen[5].ends));
        let (client, server) = seen[4].ends.unwrap();
        assert!(server == web && client.ip() == web.ip() && !clients.contains(&client));
    }
}

#[test]
fn backends_are_told_of_tls_that_ends_at_weir() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    authority.issue("alice", &[], Kind::default());
    let (origin, told) = told_origin();
    let tls = format!(
        "tls.certificates = [{{ {} }}]\ntls.client_auth = \"request\"\ntls.client_ca = \"{}\"",
        authority.pair("shop"),
        authority.ca()
    );
    let weir = Weir::start(&config(
        "",
        &tls,
        "proxy_protocol = \"v2\"",
        &[origin.address],
    ));
    let cases = [
        (&rustls::version::TLS12, None, [1, 0, 0, 0, 1], "TLSv1.2"),
        (
            &rustls::version::TLS13,
            Some("alice"),
            [7, 0, 0, 0, 0],
            "TLSv1.3",
        ),
    ];
    for (version, shows, start, name) in cases {
        let mut settings = Arc::unwrap_or_clone(authority.config(&[version], shows));
        settings.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client =
            TlsClient::connect(weir.address("web"), &settings.into(), "shop.test").unwrap();
        assert_eq!(client.get("shop.test").unwrap().text(), "was");
        let seen = told.lock().unwrap().last().unwrap().clone();
        assert_eq!(
            seen.ends.unwrap().0,
            client.stream.sock.local_addr().unwrap()
        );
        assert_eq!(seen.extension(1), Some(&b"http/1.1"[..]));
        assert_eq!(seen.extension(2), Some(&b"shop.test"[..]));
        let ssl = [&start[..], &extension(0x21, name.as_bytes())].concat();
        assert_eq!(seen.extension(0x20), Some(&ssl[..]));
    }
}

#[test]
fn a_header_comes_before_tls_with_the_backend() {
    let authority = Authority::new();
    authority.issue("was", &["was.test"], Kind::default());
    let secure = authority.origin("was", false);
    let address = secure.address;
    // Takes the header off and passes the rest on, as a server does that knows it.
    let told = Arc::new(Mutex::new(Vec::new()));
    let shared = told.clone();
    let origin = Origin::start(move |visit| {
        let Ok(header) = self::told(visit) else {
            return;
        };
        shared.lock().unwrap().push(header);
        let mut behind = TcpStream::connect(address).unwrap();
        behind
            .write_all(&std::mem::take(&mut visit.reader.buffer))
            .unwrap();
        let (mut from, mut to) = (
            visit.reader.stream.try_clone().unwrap(),
            behind.try_clone().unwrap(),
        );
        visit
            .reader
            .stream
            .set_read_timeout(Some(DEADLINE))
            .unwrap();
        let up = std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
        let mut back = visit.reader.stream.try_clone().unwrap();
        let _ = std::io::copy(&mut behind, &mut back);
        let _ = up.join();
    });
    let pool = format!(
        "proxy_protocol = \"v1\"\ntls = {{ ca = \"{}\", sni = \"was.test\" }}",
        authority.ca()
    );
    let weir = Weir::start(&config("", "", &pool, &[origin.address]));
    let mut client = weir.client();
    assert_eq!(client.ask(get("/")).text(), "secure");
    let ends = told.lock().unwrap()[0].ends;
    assert_eq!(
        ends,
        Some((
            client.reader.stream.local_addr().unwrap(),
            weir.address("web")
        ))
    );
}

#[test]
fn checks_say_that_they_are_weirs_own() {
    for version in ["v1", "v2"] {
        for check in ["tcp", "http"] {
            let (origin, told) = told_origin();
            let pool = format!("proxy_protocol = \"{version}\"");
            let config = config("", "", &pool, &[origin.address])
                .replace("\"none\"", &format!("\"{check}\""));
            let weir = Weir::start(&config);
            let labels = [("pool", "was"), ("result", "pass")];
            until("a check", || {
                (weir.metric("weir_probe_total", &labels) > 0.0).then_some(())
            });
            let header = until("a header", || told.lock().unwrap().first().cloned());
            assert_eq!(header.is_binary, version == "v2");
            let destination = header.ends.map(|(source, destination)| {
                assert_eq!(source.ip(), destination.ip());
                destination
            });
            assert_eq!(destination, (version == "v1").then_some(origin.address));
        }
    }
}

#[test]
fn a_chain_of_weirs_tells_of_the_first_client() {
    let (origin, told) = told_origin();
    let trusted = "trusted_proxies = [\"127.0.0.1\"]";
    let (listener, pool) = ("proxy_protocol = \"require\"", "proxy_protocol = \"v2\"");
    let inner = Weir::start(&config(trusted, listener, pool, &[origin.address]));
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    let tls = format!("tls.certificates = [{{ {} }}]", authority.pair("shop"));
    let outer = Weir::start(&config("", &tls, pool, &[inner.address("web")]));
    let mut client =
        TlsClient::connect(outer.address("web"), &authority.client(), "shop.test").unwrap();
    assert_eq!(client.get("shop.test").unwrap().text(), "was");
    let seen = told.lock().unwrap()[0].clone();
    let own = client.stream.sock.local_addr().unwrap();
    assert_eq!(seen.ends, Some((own, outer.address("web"))));
    // What the first one said of TLS, and the id that it gave, come through.
    assert_eq!(seen.extension(2), Some(&b"shop.test"[..]));
    assert!(
        seen.extension(0x20)
            .is_some_and(|ssl| ssl.ends_with(b"TLSv1.3")),
        "{seen:?}"
    );
    let id = String::from_utf8(seen.extension(5).unwrap().to_vec()).unwrap();
    outer.access(|line| line["id"] == id.as_str());
    // The second one does not know the first one's client by anything but the header.
    inner.access(|line| line["client"] == own.ip().to_string());
}

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

/// A running haproxy, which dies with the test.
struct Haproxy(std::process::Child, std::path::PathBuf);

impl Haproxy {
    fn start(text: &str, address: SocketAddr) -> Haproxy {
        let file = std::env::temp_dir().join(format!(
            "weir-haproxy-{}-{}",
            std::process::id(),
            address.port()
        ));
        std::fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new("haproxy");
        command.arg("-f").arg(&file).arg("-db");
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        crate::support::process::die_with_parent(&mut command);
        let child = command.spawn().unwrap();
        until("haproxy to listen", || {
            TcpStream::connect(address).ok().map(drop)
        });
        Haproxy(child, file)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

#[test]
fn haproxy_agrees() {
    if std::process::Command::new("haproxy")
        .arg("-v")
        .output()
        .is_err()
    {
        println!("skipped: haproxy is not installed");
        return;
    }
    let head = "global\n maxconn 100\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n";
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(&origin, ""));
    for send in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl,authority",
    ] {
        let address = crate::support::process::free_address();
        let web = weir.address("web");
        let text = format!(
            "{head}frontend f\n bind {address}\n unique-id-format %ci:%cp\n default_backend b\nbackend b\n server s {web} {send} check\n"
        );
        let _haproxy = Haproxy::start(&text, address);
        let mut client = until("a check of haproxy's", || {
            let mut client = client_from("127.0.0.5", address);
            client.try_send(get("/").as_bytes()).ok()?;
            (client.try_answer().ok()?.status() == 200).then_some(client)
        });
        assert_eq!(client.ask(get("/")).text(), "was");
        assert_eq!(
            forwarded_for(&origin).as_deref(),
            Some("127.0.0.5"),
            "{send}"
        );
    }
    assert_eq!(weir.metric("weir_proxy_protocol_errors_total", &[]), 0.0);
    for version in ["v1", "v2"] {
        let (address, echo) = (crate::support::process::free_address(), Origin::echo());
        let text = format!(
            "{}frontend f\n bind {address} accept-proxy\n http-request set-header X-Seen %[src]:%[src_port]-%[dst]:%[dst_port]\n default_backend b\nbackend b\n server s {}\n",
            head.replace("mode tcp", "mode http"),
            echo.address
        );
        let _haproxy = Haproxy::start(&text, address);
        let pool = format!("proxy_protocol = \"{version}\"");
        let checked = config("", "", &pool, &[address]).replace("\"none\"", "\"http\"");
        let weir = Weir::start(&checked);
        let mut client = weir.client();
        let (own, web) = (
            client.reader.stream.local_addr().unwrap(),
            weir.address("web"),
        );
        let answer = client.ask(get("/"));
        assert!(
            answer.text().contains(&format!("{own}-{web}")),
            "{}",
            answer.text()
        );
        weir.settles("weir_backend_up", &[("pool", "was")], 1.0);
    }
}
