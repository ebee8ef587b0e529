//! TLS on tcp listeners: passed through to the pool that its name or protocol leads to, or ended at weir and begun again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::support::tls::{Authority, Kind, TlsClient};
use crate::support::{Client, Origin, Weir, until};

const NAMES: [&str; 3] = ["a.example.com", "b.example.com", "c.example.com"];

/// A tcp listener at `$tls` whose routes look at what clients ask for, before three TLS servers and a plain one.
fn by_name(addresses: [SocketAddr; 4], more: &str) -> String {
    let [a, b, c, plain] = addresses;
    let mut text = format!(
        "{more}\n[listeners.tls]\nbind = [\"$tls\"]\nprotocol = \"tcp\"\n\
         [[routes]]\nsni = [\"a.example.com\"]\npool = \"a\"\n[[routes]]\nsni = [\"*.example.com\"]\npool = \"b\"\n\
         [[routes]]\nalpn = [\"other\"]\npool = \"c\"\n[[routes]]\nlisteners = [\"tls\"]\npool = \"plain\"\n"
    );
    for (name, address) in [("a", a), ("b", b), ("c", c), ("plain", plain)] {
        text += &format!("[pools.{name}]\nbackends = [\"{address}\"]\nhealth.type = \"none\"\n");
    }
    text
}

fn with_protocols(config: &Arc<ClientConfig>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = protocols.iter().map(|own| own.to_vec()).collect();
    Arc::new(config)
}

#[test]
fn tls_passes_through_to_the_pool_of_its_name() {
    let authority = Authority::new();
    let servers = NAMES.map(|name| {
        authority.issue(&name[..1], &[name], Kind::default());
        authority.origin(&name[..1], false)
    });
    let plain = Origin::start(|visit| {
        let said = visit.reader.exactly(5).unwrap_or_default();
        visit.send(&said);
    });
    let [a, b, c] = &servers;
    let weir = Weir::start(&by_name(
        [a.address, b.address, c.address, plain.address],
        "",
    ));
    let (address, config) = (weir.address("tls"), authority.client());

    // The certificate is the server's own, since nobody else has its key.
    let mut client = TlsClient::connect(address, &config, NAMES[0]).expect("server a");
    assert_eq!(client.get(NAMES[0]).unwrap().text(), "secure");
    let mut client = TlsClient::connect(address, &config, NAMES[1]).expect("server b");
    assert_eq!(client.get(NAMES[1]).unwrap().text(), "secure");
    let seen = |server: usize| servers[server].requests().len();
    assert_eq!([0, 1, 2].map(seen), [1, 1, 0]);
    drop(client);
    let line = weir.access(|line| line["pool"] == "b");
    assert_eq!(line["sni"], NAMES[1], "{line}");
    assert_eq!(line["route"], "*.example.com", "{line}");

    // A protocol is one of those that are offered; the name has no route. What is no TLS has none either.
    let asks_other = with_protocols(&config, &[b"h2", b"other"]);
    let mut socket = TcpStream::connect(address).unwrap();
    let name = ServerName::try_from("elsewhere.org").unwrap();
    let mut connection = ClientConnection::new(asks_other, name).unwrap();
    let refused = (0..10).find_map(|_| connection.complete_io(&mut socket).err());
    let refused = refused.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        refused.contains("not valid for name"),
        "server c has another name: {refused}"
    );
    let mut client = Client::connect(address);
    client.send("SSH-2");
    assert_eq!(client.reader.exactly(5).unwrap(), b"SSH-2");
}

/// The first flight is passed on as it came, however it came.
#[test]
fn a_hello_in_pieces_is_the_same_hello() {
    let authority = Authority::new();
    authority.issue("a", &[NAMES[0]], Kind::default());
    let server = authority.origin("a", false);
    let nobody = crate::support::origin::nobody;
    let weir = Weir::start(&by_name(
        [server.address, nobody(), nobody(), nobody()],
        "[timeouts]\nheader = \"60s\"",
    ));
    let name = ServerName::try_from(NAMES[0]).unwrap();
    let mut connection = ClientConnection::new(authority.client(), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let mut client = Client::connect(weir.address("tls"));
    client.reader.stream.set_nodelay(true).unwrap();
    client.drip(&hello);
    let mut socket = client.reader.stream.try_clone().unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).expect("a handshake");
    }
    let mut stream = StreamOwned::new(connection, socket);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn a_hello_that_is_none_or_never_ends_reaches_nobody() {
    let origin = Origin::start(|visit| {
        visit.send("?");
    });
    let timeouts = "[timeouts]\nheader = \"400ms\"";
    let weir = Weir::start(&by_name([origin.address; 4], timeouts));
    let client = || Client::connect(weir.address("tls"));
    let error = |word: &str| {
        let line = weir.access(|line| line["error"] == word);
        assert_eq!((&line["backend"], &line["tries"]), (&"".into(), &0.into()));
    };
    // A record of the handshake that begins with something else than a ClientHello.
    let mut broken = client();
    broken.send(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00");
    broken.expect_end();
    error("bad_hello");
    // One that says it is longer than any.
    let mut long = client();
    long.send(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff");
    long.expect_end();
    error("long_hello");
    // One that stops in the middle, and one that never starts.
    for first in [&b"\x16\x03\x01\x02\x00\x01"[..], b""] {
        let started = Instant::now();
        let mut never = client();
        never.send(first);
        never.expect_end();
        let took = started.elapsed();
        let window = Duration::from_millis(350)..Duration::from_secs(3);
        assert!(window.contains(&took), "{took:?}");
    }
    error("head_timeout");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn tls_may_end_at_weir_and_begin_again() {
    let authority = Authority::new();
    authority.issue("db", &[NAMES[0]], Kind::default());
    authority.issue("was", &["was.internal"], Kind::default());
    // It would refuse whoever offers another protocol than its own.
    let server = authority.origin_of("was", b"postgresql");
    let config = format!(
        "[listeners.db]\nbind = [\"$db\"]\nprotocol = \"tcp\"\ntls.certificates = [{{ {} }}]\n\
         [[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n\
         tls = {{ ca = \"{}\", sni = \"was.internal\" }}\n",
        authority.pair("db"),
        server.address,
        authority.ca()
    );
    let weir = Weir::start(&config);
    let client = with_protocols(&authority.client(), &[b"postgresql"]);
    let mut client =
        TlsClient::connect(weir.address("db"), &client, NAMES[0]).expect("weir's own certificate");
    for _ in 0..3 {
        assert_eq!(client.get("any").unwrap().text(), "secure");
    }
    assert_eq!(client.stream.conn.alpn_protocol(), None);
    let seen = server.requests();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].server_name.as_deref(), Some("was.internal"));
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    client
        .stream
        .sock
        .shutdown(std::net::Shutdown::Write)
        .unwrap();
    let line = weir.access(|line| line["protocol"] == "tcp");
    assert_eq!(
        (&line["sni"], &line["end"]),
        (&NAMES[0].into(), &"client".into()),
        "{line}"
    );
    assert_eq!(
        weir.metric("weir_tls_handshakes_total", &[("version", "1.3")]),
        1.0
    );

    // Who speaks no TLS there is not passed on.
    let mut plain = Client::connect(weir.address("db"));
    plain.send(b"\0\0\0\x08\x04\xd2\x16/");
    plain.rest();
    let line = weir.access(|line| line["error"] == "no_tls");
    assert_eq!(line["tries"], 0);
    until("the failure to be counted", || {
        (weir.metric("weir_tls_handshake_errors_total", &[]) == 1.0).then_some(())
    });
}

#[test]
fn a_backend_that_does_not_prove_its_name_is_left_for_another() {
    let authority = Authority::new();
    authority.issue("was", &["was.internal"], Kind::default());
    authority.issue("other", &["other.internal"], Kind::default());
    let (good, bad) = (
        authority.origin("was", false),
        authority.origin("other", false),
    );
    let config = format!(
        "[listeners.db]\nbind = [\"$db\"]\nprotocol = \"tcp\"\n[[routes]]\npool = \"was\"\n\
         [pools.was]\nbackends = [\"{}\", \"{}\"]\nhealth.type = \"none\"\ntls = {{ ca = \"{}\", sni = \"was.internal\" }}\n",
        bad.address,
        good.address,
        authority.ca()
    );
    let weir = Weir::start(&config);
    for _ in 0..2 {
        let mut client = Client::connect(weir.address("db"));
        assert_eq!(
            client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(),
            "secure"
        );
    }
    assert!(bad.requests().is_empty());
    weir.tells("no TLS");
}
