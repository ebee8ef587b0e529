//! UDP listeners: whose datagrams go where, when flows begin and end, and what is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::datagrams::{Answerer, Caller, parted};
use crate::support::weir::list;
use crate::support::{Client, Weir, until};

/// A udp listener at `$dns` before these backends; `pool` says more of the pool, `route` of the route.
fn config(backends: &[SocketAddr], head: &str, route: &str, pool: &str) -> String {
    format!(
        "{head}\n[listeners.dns]\nbind = [\"$dns\"]\nprotocol = \"udp\"\n\
         [[routes]]\nname = \"main\"\nlisteners = [\"dns\"]\npool = \"ns\"\n{route}\n\
         [pools.ns]\nbackends = [{}]\n{pool}\n",
        list(backends)
    )
}

#[track_caller]
fn caller(weir: &Weir) -> Caller {
    Caller::new(weir.address("dns"))
}

#[test]
fn datagrams_of_any_size_pass_and_the_log_tells_of_the_flow() {
    let echo = Answerer::echo();
    let head = "[timeouts]\nudp_idle = \"1s\"";
    let weir = Weir::start(&config(&[echo.address], head, "", ""));
    let client = caller(&weir);
    for size in [0, 1, 1400, 9000, 65_507] {
        assert_eq!(client.ask(vec![7; size]), vec![7; size], "{size} bytes");
    }
    assert_eq!(
        weir.metric("weir_backend_in_flight", &[("pool", "ns")]),
        1.0
    );
    weir.settles(
        "weir_udp_flows",
        &[("backend", &echo.address.to_string())],
        0.0,
    );
    let line = weir.access(|line| line["protocol"] == "udp");
    let expected = serde_json::json!({
        "listener": "dns", "client": "127.0.0.1", "datagrams_in": 5, "datagrams_out": 5, "bytes_in": 75_908,
        "bytes_out": 75_908, "route": "main", "pool": "ns", "backend": echo.address.to_string(), "end": "idle",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key} in {line}");
    }
    for direction in ["in", "out"] {
        let labels = [("listener", "dns"), ("direction", direction)];
        assert_eq!(weir.metric("weir_udp_datagrams_total", &labels), 5.0);
        assert_eq!(weir.metric("weir_udp_bytes_total", &labels), 75_908.0);
    }
    assert_eq!(weir.metric("weir_udp_flows_total", &[("end", "idle")]), 1.0);
    assert_eq!(
        weir.metric("weir_backend_in_flight", &[("pool", "ns")]),
        0.0
    );
}

#[test]
fn many_clients_get_their_own_answers() {
    let backends = [Answerer::echo(), Answerer::echo(), Answerer::echo()];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let weir = Weir::start(&config(&addresses, "workers = 2", "", ""));
    let clients: Vec<Caller> = (0..300).map(|_| caller(&weir)).collect();
    for round in 0..3 {
        for (number, client) in clients.iter().enumerate() {
            client.send(format!("{round} {number}"));
        }
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(client.answer(), format!("{round} {number}").into_bytes());
        }
    }
    for backend in &backends {
        assert!(
            (250..=350).contains(&backend.heard()),
            "{}",
            backend.heard()
        );
    }
    assert_eq!(weir.metric("weir_udp_flows", &[]), 300.0);
    assert_eq!(
        weir.metric("weir_listener_connections", &[("listener", "dns")]),
        300.0
    );
    assert_eq!(weir.metric("weir_udp_lost_total", &[]), 0.0);
}

/// A train of datagrams that a backend sends arrives whole and in order, also what it says without being asked again.
#[test]
fn a_backend_may_answer_with_many() {
    let backend = Answerer::start(|_, _| (0..60_u8).map(|n| vec![n; 1000]).collect());
    let weir = Weir::start(&config(&[backend.address], "", "", ""));
    let client = caller(&weir);
    for _ in 0..5 {
        client.send("all of them");
        for n in 0..60 {
            assert_eq!(client.answer(), [n; 1000]);
        }
    }
}

/// Much has come while weir stood still; what its backend answers meanwhile finds more room than its flow's socket has.
#[test]
fn answers_are_read_while_clients_wait() {
    let backend = Answerer::echo();
    let weir = Weir::start(&config(&[backend.address], "", "", ""));
    let client = caller(&weir);
    client.ask("first");
    weir.signal(libc::SIGSTOP);
    (0..6000).for_each(|_| client.send("more"));
    weir.signal(libc::SIGCONT);
    let passed = |direction| weir.metric("weir_udp_datagrams_total", &[("direction", direction)]);
    let mut last = (0.0, 0);
    until("all that fitted to be passed on and answered", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = (passed("in"), backend.heard());
        (now.1 > 1 && std::mem::replace(&mut last, now) == now).then_some(())
    });
    let (heard, out) = (backend.heard(), passed("out") as usize);
    // On a busy machine weir itself may come too late for some.
    assert!(out > heard / 2, "of {heard} answers {out} were read");
}

#[test]
fn a_flow_that_was_silent_ends_and_the_next_datagram_begins_another() {
    let backend = Answerer::named("a");
    let weir = Weir::start(&config(
        &[backend.address],
        "",
        "timeouts.udp_idle = \"300ms\"",
        "",
    ));
    let client = caller(&weir);
    let first = client.flow();
    assert_eq!(client.flow(), first);
    weir.settles("weir_udp_flows", &[], 0.0);
    assert_ne!(client.flow(), first, "a socket of its own");
}

#[test]
fn a_flow_with_all_of_its_answers_ends_soon() {
    let backend = Answerer::named("a");
    let weir = Weir::start(&config(&[backend.address], "", "replies = 1", ""));
    let clients: Vec<Caller> = (0..50).map(|_| caller(&weir)).collect();
    clients.iter().for_each(|client| drop(client.flow()));
    weir.settles("weir_udp_flows_total", &[("end", "answered")], 50.0);
    assert_eq!(weir.metric("weir_udp_flows", &[]), 0.0);
}

/// Sources are made up as long as there are addresses in 127.0.0.0/8, and the backend answers them all.
#[test]
fn a_flood_of_made_up_sources_ends_no_quiet_clients_flow() {
    let strangers = match std::env::var_os("WEIR_FULL") {
        Some(_) => 100_000,
        None => 4_000,
    };
    let backend = Answerer::named("a");
    let text = config(&[backend.address], "[log]\naccess = \"off\"", "", "");
    let weir = Weir::start(&text.replace("\"udp\"\n", "\"udp\"\nmax_flows = 1000\n"));
    let quiet: Vec<(Caller, _)> = (0..100)
        .map(|_| {
            let client = caller(&weir);
            client.flow();
            let flow = client.flow();
            (client, flow)
        })
        .collect();
    let before = weir.resident();
    for number in 0..strangers {
        let [_, high, middle, low] = u32::to_be_bytes(0x0100_0000 / 2 + number);
        let stranger = Caller::from_address([127, high, middle, low], weir.address("dns"));
        // One in a hundred waits, so that nothing is lost for want of speed.
        match number % 100 {
            0 => drop(stranger.ask("hello")),
            _ => stranger.send("hello"),
        }
    }
    assert!(
        weir.metric("weir_udp_flows_total", &[("end", "evicted")]) > f64::from(strangers) / 2.0
    );
    // Its two counters are not read in one moment: while flows come and go it may be one more.
    until("no more flows than there may be", || {
        (weir.metric("weir_udp_flows", &[]) <= 1000.0).then_some(())
    });
    let grown = weir.resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    for (client, flow) in quiet {
        assert_eq!(client.flow(), flow, "the same flow as before");
    }
}

/// Nobody is answered, as with logs: who sent more than once keeps the way there while strangers come and go.
#[test]
fn a_flood_ends_no_flow_of_those_who_only_send() {
    let ways = Arc::new(Mutex::new(BTreeMap::<Vec<u8>, BTreeSet<u16>>::new()));
    let seen = ways.clone();
    let backend = Answerer::start(move |bytes, from| {
        let mut seen = seen.lock().unwrap();
        seen.entry(bytes.to_vec()).or_default().insert(from.port());
        match bytes {
            b"who" => vec![b"it".to_vec()],
            _ => Vec::new(),
        }
    });
    let text = config(&[backend.address], "[log]\naccess = \"off\"", "", "");
    let weir = Weir::start(&text.replace("\"udp\"\n", "\"udp\"\nmax_flows = 200\n"));
    let quiet: Vec<Caller> = (0..50).map(|_| caller(&weir)).collect();
    let all_send = || {
        for (number, client) in quiet.iter().enumerate() {
            client.send(format!("line of {number}"));
        }
        // What was sent before an answer on another flow has arrived, too.
        caller(&weir).ask("who");
    };
    all_send();
    all_send();
    for number in 0..2000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let stranger = Caller::from_address([127, 77, high, low], weir.address("dns"));
        stranger.send("once");
        if number % 50 == 0 {
            caller(&weir).ask("who");
        }
    }
    all_send();
    assert!(weir.metric("weir_udp_flows_total", &[("end", "evicted")]) > 1000.0);
    let ways = ways.lock().unwrap();
    for number in 0..quiet.len() {
        let ways = &ways[format!("line of {number}").as_bytes()];
        assert_eq!(ways.len(), 1, "client {number} came by the ports {ways:?}");
    }
}

#[test]
fn who_is_gone_is_left_for_another_and_left_alone() {
    let (one, two) = (Answerer::named("a"), Answerer::named("b"));
    let weir = Weir::start(&config(&[one.address, two.address], "", "", ""));
    let clients: Vec<Caller> = (0..10).map(|_| caller(&weir)).collect();
    let flows: Vec<_> = clients.iter().map(Caller::flow).collect();
    let at_two = flows.iter().filter(|flow| flow.0 == "b").count();
    assert_eq!(at_two, 5);
    drop(one);
    let mut lost = 0;
    for (client, flow) in clients.iter().zip(&flows) {
        let (answer, tries) = client.insist("who");
        lost += tries - 1;
        let (name, port) = parted(&answer);
        assert_eq!(name, "b");
        assert_eq!(flow.0 == "b", flow.1 == port, "who was there stays");
    }
    assert!(lost <= 10, "{lost} datagrams went lost");
    assert!(weir.metric("weir_udp_flows_total", &[("end", "refused")]) >= 5.0);
    assert!(weir.metric("weir_backend_connect_errors_total", &[("pool", "ns")]) >= 1.0);
    // It is known to be gone: new clients lose nothing.
    for _ in 0..10 {
        assert_eq!(caller(&weir).flow().0, "b");
    }
}

/// Nothing is shared and nothing is kept: a second weir, with the pool in another order, sends everybody where the first one did.
#[test]
fn maglev_leads_every_client_to_the_same_backend_after_a_restart() {
    let backends = [
        Answerer::named("a"),
        Answerer::named("b"),
        Answerer::named("c"),
    ];
    let [one, two, three] = backends.each_ref().map(|backend| backend.address);
    let homes = |order: &[SocketAddr]| -> BTreeMap<u8, String> {
        let weir = Weir::start(&config(order, "workers = 2", "", "balancer = \"maglev\""));
        let home = |last| {
            let client = || Caller::from_address([127, 0, 3, last], weir.address("dns"));
            let flows = [client().flow().0, client().flow().0];
            assert_eq!(flows[0], flows[1], "whatever the port");
            (last, flows[0].clone())
        };
        (1..60).map(home).collect()
    };
    let first = homes(&[one, two, three]);
    assert_eq!(homes(&[three, one, two]), first);
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn sticky_by_source_holds_across_ports() {
    let backends = [
        Answerer::named("a"),
        Answerer::named("b"),
        Answerer::named("c"),
    ];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let route = "sticky = { mode = \"source\" }";
    let weir = Weir::start(&config(&addresses, "", route, ""));
    let mut used = BTreeSet::new();
    for last in 1..20 {
        let client = || Caller::from_address([127, 0, 4, last], weir.address("dns"));
        let home = client().flow().0;
        for _ in 0..3 {
            assert_eq!(client().flow().0, home);
        }
        used.insert(home);
    }
    assert_eq!(used.len(), 3);
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let backend = Answerer::echo();
    let text = config(&[backend.address], "", "", "");
    let weir = Weir::start(&text.replace("\"$dns\"", "\"0.0.0.0:$dns_port\""));
    let port = weir.address("dns").port();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(crate::support::DEADLINE))
        .unwrap();
    for last in [1, 9, 77] {
        let asked = SocketAddr::from(([127, 0, 0, last], port));
        socket.send_to(b"hello", asked).unwrap();
        let mut memory = [0; 10];
        assert_eq!(socket.recv_from(&mut memory).unwrap(), (5, asked));
    }
    assert_eq!(
        weir.metric("weir_udp_flows", &[]),
        3.0,
        "a flow for each address"
    );
}

#[test]
fn a_reload_keeps_flows_but_those_of_a_backend_that_is_gone() {
    let backends = [
        Answerer::named("a"),
        Answerer::named("b"),
        Answerer::named("c"),
    ];
    let [one, two, three] = backends.each_ref().map(|backend| backend.address);
    let weir = Weir::start(&config(&[one, two], "", "", ""));
    let clients: Vec<Caller> = (0..6).map(|_| caller(&weir)).collect();
    let flows: Vec<_> = clients.iter().map(Caller::flow).collect();
    let reload = |text: &str| {
        let generation = weir.generation();
        weir.write(text);
        weir.await_generation_after(generation);
    };
    let other = "[listeners.other]\nbind = [\"$other\"]\nprotocol = \"udp\"";
    reload(&config(
        &[three, two, one],
        other,
        "",
        "balancer = \"least-connections\"",
    ));
    for (client, flow) in clients.iter().zip(&flows) {
        assert_eq!(client.flow(), *flow);
    }
    reload(&config(&[three, two], "", "", ""));
    for (client, flow) in clients.iter().zip(&flows) {
        match &*flow.0 {
            "a" => assert_ne!(client.flow().0, "a"),
            _ => assert_eq!(client.flow(), *flow),
        }
    }
    weir.access(|line| line["end"] == "moved" && line["backend"] == one.to_string());
}

#[test]
fn a_backend_that_drains_keeps_its_flows_and_one_in_maintenance_does_not() {
    let (one, two) = (Answerer::named("a"), Answerer::named("b"));
    let weir = Weir::start(&config(&[one.address, two.address], "", "", ""));
    let clients: Vec<Caller> = (0..4).map(|_| caller(&weir)).collect();
    let flows: Vec<_> = clients.iter().map(Caller::flow).collect();
    let set = |state: &str| {
        let path = format!("/api/v1/pools/ns/backends/{}/{state}", one.address);
        assert_eq!(weir.post(&path).status(), 200);
    };
    set("drain");
    for (client, flow) in clients.iter().zip(&flows) {
        assert_eq!(client.flow(), *flow);
    }
    for _ in 0..6 {
        assert_eq!(caller(&weir).flow().0, "b", "new flows go elsewhere");
    }
    set("maint");
    for client in &clients {
        assert_eq!(client.flow().0, "b");
    }
}

#[test]
fn a_check_by_datagram_finds_who_does_not_answer() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let good = Answerer::start(|bytes, from| match bytes {
        b"\x01ping" => vec![b"pong".to_vec()],
        _ => vec![format!("b {}", from.port()).into_bytes()],
    });
    let check = "health = { type = \"udp\", send = \"hex:01 70696e67\", expect = \"pong\", interval = \"50ms\", timeout = \"100ms\", fall = 2 }";
    let addresses = [silent.local_addr().unwrap(), good.address];
    let weir = Weir::start(&config(&addresses, "", "", check));
    weir.settles(
        "weir_backend_up",
        &[("backend", &good.address.to_string())],
        1.0,
    );
    weir.settles(
        "weir_backend_state",
        &[("backend", &addresses[0].to_string()), ("state", "down")],
        1.0,
    );
    for _ in 0..6 {
        assert_eq!(caller(&weir).flow().0, "b");
    }
    // Its flows move when it goes down.
    let client = caller(&weir);
    client.flow();
    drop(good);
    weir.settles(
        "weir_backend_state",
        &[("backend", &addresses[1].to_string()), ("state", "down")],
        1.0,
    );
    client.send("who");
    until("a datagram that nobody takes", || {
        (weir.metric("weir_udp_lost_total", &[("reason", "no_backend")]) >= 1.0).then_some(())
    });
}

/// A header of version 2 (section 2.2 of its specification) before every datagram: UDP over IPv4, the client, and where it sent to.
#[test]
fn a_backend_is_told_who_asks_with_every_datagram() {
    let echo = Answerer::echo();
    let weir = Weir::start(&config(&[echo.address], "", "", "proxy_protocol = \"v2\""));
    let client = Caller::from_address([127, 0, 0, 5], weir.address("dns"));
    let ports =
        [client.0.local_addr().unwrap(), weir.address("dns")].map(|end| end.port().to_be_bytes());
    let ends = [&[127, 0, 0, 5, 127, 0, 0, 1][..], &ports[0], &ports[1]].concat();
    for asked in ["one", "", "three"] {
        let told = client.ask(asked);
        let (head, rest) = told.split_at(16);
        assert_eq!(head[..12], *b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(head[12..14], [0x21, 0x12]);
        let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
        assert_eq!(rest[..12], ends);
        assert_eq!(rest[length..], *asked.as_bytes());
    }
}

#[test]
fn who_is_not_on_the_list_is_not_heard() {
    let backend = Answerer::echo();
    let text = config(&[backend.address], "", "", "");
    let weir = Weir::start(&text.replace("\"udp\"\n", "\"udp\"\ndeny = [\"127.0.0.66\"]\n"));
    Caller::from_address([127, 0, 0, 66], weir.address("dns")).send("hello");
    weir.settles("weir_udp_lost_total", &[("reason", "denied")], 1.0);
    assert_eq!(caller(&weir).ask("hello"), b"hello");
    assert_eq!(backend.heard(), 1);
}

/// Flows are no reason to stay: nobody ends them but time.
#[test]
fn weir_ends_soon_although_flows_are_open() {
    let backend = Answerer::echo();
    let weir = Weir::start(&config(&[backend.address], "", "", ""));
    let client = caller(&weir);
    client.ask("hello");
    let began = Instant::now();
    weir.signal(libc::SIGTERM);
    weir.await_exit();
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let line = weir.access(|line| line["protocol"] == "udp");
    assert_eq!(line["end"], "closed");
}

/// Half of the descriptors are for others: with sixty sockets for five hundred clients weir and its admin server go on.
#[test]
fn flows_leave_descriptors_to_others() {
    let backend = Answerer::echo();
    let text = config(&[backend.address], "[log]\naccess = \"off\"", "", "");
    let weir = Weir::start_with(&text, |command| {
        crate::support::process::limit_descriptors(command, 120);
    });
    for number in 0..500 {
        let asked = format!("{number}").into_bytes();
        assert_eq!(caller(&weir).ask(&asked), asked);
    }
    assert_eq!(weir.metric("weir_udp_flows", &[]), 60.0);
    assert_eq!(weir.metric("weir_udp_lost_total", &[]), 0.0);
    weir.tells("at most 60 flows");
}

/// Connections have them all, and no flow is there that could make room.
#[test]
fn a_want_of_descriptors_is_not_held_against_backends() {
    const MOST: usize = 60;
    let echo = Answerer::echo();
    let web = "workers = 1\ntimeouts.udp_idle = \"100ms\"\n[log]\naccess = \"off\"\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nlisteners = [\"web\"]\n\
               pool = \"was\"\n[pools.was]\nbackends = [\"127.0.0.1:9\"]\nhealth.type = \"none\"";
    let weir = Weir::start_with(&config(&[echo.address], web, "", ""), |command| {
        crate::support::process::limit_descriptors(command, MOST as u64);
    });
    let reason = [("pool", "ns"), ("reason", "no_socket")];
    // What weir held for a moment may be free again for a flow; then the next try meets no such thing.
    until("one to be lost", || {
        weir.settles("weir_udp_flows", &[], 0.0);
        let others: Vec<Client> = (0..MOST).map(|_| weir.client()).collect();
        until("no descriptor to be left", || {
            (weir.descriptors() >= MOST).then_some(())
        });
        caller(&weir).send("lost");
        // The worker that reads it opens the flow before it sees that others leave.
        until("it to be read", || {
            (waiting(weir.address("dns")) == 0).then_some(())
        });
        drop(others);
        (weir.metric("weir_udp_lost_total", &reason) > 0.0).then_some(())
    });
    assert_eq!(caller(&weir).insist("hello").0, b"hello");
    assert_eq!(
        weir.metric("weir_backend_connect_errors_total", &[("pool", "ns")]),
        0.0
    );
}

/// How many bytes lie in the queues of the sockets at an address, as the system counts.
fn waiting(at: SocketAddr) -> u64 {
    let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
    let port = format!(":{:04X}", at.port());
    let queues = sockets.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let is_own = fields.nth(1)?.ends_with(&port);
        let (_, waiting) = fields.nth(2)?.split_once(':')?;
        is_own.then(|| u64::from_str_radix(waiting, 16).ok())?
    });
    queues.sum()
}
