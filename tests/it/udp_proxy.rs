//! PROXY headers before datagrams: whose datagram it is then, what is no header, and what of that backends and the log are told.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::support::Weir;
use crate::support::datagrams::{Answerer, Caller, parted};
use crate::support::weir::list;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
const UDP4: u8 = 0x12;
const UDP6: u8 = 0x22;

/// A udp listener at `$dns` that trusts 127.0.0.1, with these keys, before these backends.
fn config(listener: &str, backends: &[SocketAddr], pool: &str) -> String {
    format!(
        "trusted_proxies = [\"127.0.0.1\"]\n[timeouts]\nudp_idle = \"2s\"\n\
         [listeners.dns]\nbind = [\"$dns\"]\nprotocol = \"udp\"\n{listener}\n\
         [[routes]]\nname = \"main\"\nlisteners = [\"dns\"]\npool = \"ns\"\n\
         [pools.ns]\nbackends = [{}]\n{pool}\n",
        list(backends)
    )
}

fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

fn block(source: &str, destination: &str) -> (u8, Vec<u8>) {
    let ends: [SocketAddr; 2] = [source, destination].map(|end| end.parse().unwrap());
    let octets = ends.map(|end| match end {
        SocketAddr::V4(end) => end.ip().octets().to_vec(),
        SocketAddr::V6(end) => end.ip().octets().to_vec(),
    });
    let ports = ends.map(|end| end.port().to_be_bytes());
    let family = if ends[0].is_ipv4() { UDP4 } else { UDP6 };
    (
        family,
        [&octets[0][..], &octets[1], ports.as_flattened()].concat(),
    )
}

/// A datagram of this client, with its header.
fn of(source: &str, data: &str) -> Vec<u8> {
    toward(source, "198.51.100.53:53", data)
}

fn toward(source: &str, destination: &str, data: &str) -> Vec<u8> {
    let (family, block) = block(source, destination);
    [header(PROXY, family, &block), data.into()].concat()
}

/// What was dropped for this reason.
fn dropped(weir: &Weir, reason: &str) -> f64 {
    weir.metric("weir_proxy_protocol_errors_total", &[("reason", reason)])
}

#[test]
fn each_client_of_a_proxy_has_a_flow_of_its_own() {
    let backend = Answerer::named("a");
    let text = config("proxy_protocol = \"require\"", &[backend.address], "");
    let weir = Weir::start(&text);
    let (proxy, other) = (
        Caller::new(weir.address("dns")),
        Caller::new(weir.address("dns")),
    );
    let six = toward("[2001:db8::7]:4000", "[2001:db8::53]:53", "who");
    let asked = [
        of("192.0.2.1:4000", "who"),
        of("192.0.2.1:4001", "who"),
        of("192.0.2.2:4000", "who"),
        toward("192.0.2.2:4000", "198.51.100.54:53", "who"),
        six,
    ];
    let flows: Vec<_> = asked
        .iter()
        .map(|asked| parted(&proxy.ask(asked)))
        .collect();
    let ports: BTreeSet<u16> = flows.iter().map(|flow| flow.1).collect();
    assert_eq!(ports.len(), asked.len(), "{flows:?}");
    for (asked, flow) in asked.iter().zip(&flows) {
        assert_eq!(parted(&proxy.ask(asked)), *flow, "again");
    }
    // Answers go to whoever sent, so that the same client by way of another socket is another flow.
    let elsewhere = parted(&other.ask(&asked[0]));
    assert!(!ports.contains(&elsewhere.1));
    assert_eq!(weir.metric("weir_udp_flows", &[]), 6.0);
    assert_eq!(
        weir.metric("weir_udp_bytes_total", &[("direction", "in")]),
        33.0,
        "headers are no data"
    );
    for client in ["192.0.2.2", "2001:db8::7"] {
        let line = weir.access(|line| line["client"] == client);
        assert_eq!(line["end"], "idle");
    }
    assert_eq!(weir.metric("weir_udp_lost_total", &[]), 0.0);
}

#[test]
fn what_has_no_header_that_counts_is_dropped_and_counted() {
    let backend = Answerer::echo();
    let text = config("proxy_protocol = \"require\"", &[backend.address], "");
    let weir = Weir::start(&text);
    let proxy = Caller::new(weir.address("dns"));
    let (family, ends) = block("192.0.2.1:4000", "198.51.100.53:53");
    let good = of("192.0.2.1:4000", "hello");
    let missing: [&[u8]; 6] = [
        b"",
        b"hello",
        &SIGNATURE[..11],
        b"PROXY UDP4 192.0.2.1 198.51.100.53 4000 53\r\nhello",
        b"PROXY TCP4 192.0.2.1 198.51.100.53 4000 53\r\nhello",
        b"X\r\n\r\n\0\r\nQUIT\n",
    ];
    let sum_of_zero = [&ends[..], &[3, 0, 4, 0, 0, 0, 0]].concat();
    let over_long = [&good[..14], &0xffff_u16.to_be_bytes(), &[0; 20_000]].concat();
    let malformed: [&[u8]; 8] = [
        SIGNATURE,
        &good[..15],
        &good[..27],
        &header(0x11, family, &ends),
        &header(PROXY, 0x13, &ends),
        &header(PROXY, UDP6, &ends),
        &header(PROXY, family, &[&ends[..], &[5, 0, 9, 1]].concat()),
        &over_long,
    ];
    missing.iter().for_each(|bytes| proxy.send(bytes));
    malformed.iter().for_each(|bytes| proxy.send(bytes));
    proxy.send(header(PROXY, family, &sum_of_zero));
    let stranger = Caller::from_address([127, 0, 0, 66], weir.address("dns"));
    stranger.send(&good);
    stranger.send("hello");
    weir.settles("weir_udp_lost_total", &[("reason", "proxy_header")], 17.0);
    let counted = ["missing", "malformed", "checksum", "untrusted"];
    assert_eq!(
        counted.map(|reason| dropped(&weir, reason)),
        [6.0, 8.0, 1.0, 2.0]
    );
    assert_eq!(proxy.ask(&good), b"hello");
    assert_eq!(proxy.ask(of("192.0.2.1:4000", "")), b"");
    assert_eq!(backend.heard(), 2, "of all these");
    weir.tells("listener dns: 127.0.0.1 sent no PROXY header");
}

#[test]
fn a_header_may_be_left_out_where_it_is_accepted() {
    let backend = Answerer::echo();
    let text = config("proxy_protocol = \"accept\"", &[backend.address], "");
    let weir = Weir::start(&text);
    let proxy = Caller::new(weir.address("dns"));
    let stranger = Caller::from_address([127, 0, 0, 66], weir.address("dns"));
    let good = of("192.0.2.1:4000", "hello");
    assert_eq!(proxy.ask(&good), b"hello");
    assert_eq!(proxy.ask("hello"), b"hello", "without one");
    assert_eq!(
        proxy.ask([header(LOCAL, 0, &[]), b"health".to_vec()].concat()),
        b"health",
        "which names nobody"
    );
    assert_eq!(weir.metric("weir_udp_flows", &[]), 2.0);
    assert_eq!(stranger.ask(&good), good, "his are his data");
    proxy.send(&good[..20]);
    weir.settles("weir_udp_lost_total", &[("reason", "proxy_header")], 1.0);
    assert_eq!(dropped(&weir, "malformed"), 1.0);
    let before = weir.generation();
    weir.write(&text.replace("accept", "require"));
    weir.await_generation_after(before);
    proxy.send("hello");
    weir.settles("weir_udp_lost_total", &[("reason", "proxy_header")], 2.0);
    assert_eq!(proxy.ask(&good), b"hello", "on the flow that there was");
    assert_eq!(
        weir.metric("weir_udp_flows_total", &[("end", "moved")]),
        0.0
    );
}

#[test]
fn a_backend_is_told_what_the_proxy_said() {
    let echo = Answerer::echo();
    let text = config(
        "proxy_protocol = \"accept\"",
        &[echo.address],
        "proxy_protocol = \"v2\"",
    );
    let weir = Weir::start(&text);
    let proxy = Caller::new(weir.address("dns"));
    let (family, ends) = block("192.0.2.1:4000", "198.51.100.53:53");
    let id = [&[5, 0, 3][..], b"abc"].concat();
    let told = header(PROXY, family, &[&ends[..], &id].concat());
    for data in ["one", "", "three"] {
        let asked = [&told[..], data.as_bytes()].concat();
        assert_eq!(proxy.ask(&asked), asked, "the same header again");
    }
    // Who names nobody is named by weir.
    let asked = [header(LOCAL, 0, &[]), b"x".to_vec()].concat();
    let own = [proxy.0.local_addr().unwrap(), weir.address("dns")];
    let (_, own) = block(&own[0].to_string(), &own[1].to_string());
    let answer = proxy.ask(&asked);
    assert_eq!(answer[12..14], [PROXY, UDP4]);
    assert_eq!(answer[16..28], own);
}

/// Whatever proxy a client comes by, and from whatever port: a hash of its address finds its backend.
#[test]
fn the_client_that_a_header_names_is_balanced_by() {
    let backends = [
        Answerer::named("a"),
        Answerer::named("b"),
        Answerer::named("c"),
    ];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let text = |pool| config("proxy_protocol = \"require\"", &addresses, pool);
    let kept = "pool = \"ns\"\nsticky = { mode = \"source\" }\n";
    for text in [
        text("balancer = \"maglev\""),
        text("").replace("pool = \"ns\"\n", kept),
    ] {
        let weir = Weir::start(&text);
        let proxies = [(); 3].map(|()| Caller::new(weir.address("dns")));
        let mut used = BTreeSet::new();
        for client in 1..30 {
            let homes: BTreeSet<String> = (proxies.iter().zip(4000..))
                .map(|(proxy, port)| proxy.ask(of(&format!("192.0.2.{client}:{port}"), "who")))
                .map(|answer| parted(&answer).0)
                .collect();
            assert_eq!(homes.len(), 1, "{client}: {homes:?}, {text}");
            used.extend(homes);
        }
        assert_eq!(used.len(), 3, "{text}");
    }
}

#[test]
fn lists_judge_the_client_and_not_its_proxy() {
    let backend = Answerer::echo();
    let text = config(
        "proxy_protocol = \"require\"\nallow = [\"192.0.2.0/24\"]\ndeny = [\"192.0.2.66\"]",
        &[backend.address],
        "",
    );
    let weir = Weir::start(&text);
    let proxy = Caller::new(weir.address("dns"));
    for denied in ["192.0.2.66:1", "198.51.100.1:1"] {
        proxy.send(of(denied, "hello"));
    }
    weir.settles("weir_udp_lost_total", &[("reason", "denied")], 2.0);
    assert_eq!(proxy.ask(of("192.0.2.1:1", "hello")), b"hello");
    let check = [header(LOCAL, 0, &[]), b"health".to_vec()].concat();
    assert_eq!(proxy.ask(check), b"health");
    assert_eq!(backend.heard(), 2);
}
