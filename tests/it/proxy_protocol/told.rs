//! What backends are told of clients by PROXY headers, and by whom else they are told.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::{SIGNATURE, config, extension};
use crate::support::message::Fault;
use crate::support::origin::{Visit, ok};
use crate::support::tls::{Authority, Kind, TlsClient};
use crate::support::weir::get;
use crate::support::{DEADLINE, Multiplexer, Origin, Weir, until};

/// A header as a backend reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether it is of version 2.
    pub is_binary: bool,
    /// Client and server; none for LOCAL.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// Kinds and values.
    extensions: Vec<(u8, Vec<u8>)>,
}

impl Told {
    pub fn extension(&self, kind: u8) -> Option<&[u8]> {
        let found = self.extensions.iter().find(|(known, _)| *known == kind);
        found.map(|(_, value)| &value[..])
    }
}

/// Reads a header without weir's help.
pub fn told(visit: &mut Visit) -> Result<Told, Fault> {
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
