//! Backends from DNS, by a name server that says what the test wants: also that it cannot tell, or nothing at all.
//! A real name server is asked in `tests/fleet/discovery.rs`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::datagrams::Answerer;
use crate::support::{Origin, Weir, until};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// What is said of a name and a type.
#[derive(Clone)]
enum Said {
    /// These data, for so many seconds.
    Records(Vec<Vec<u8>>, u32),
    /// This code and nothing else.
    Code(u8),
    Nothing,
}

/// A name server; what it was not told to say it answers with no records.
struct NameServer {
    answerer: Answerer,
    zone: Arc<Mutex<HashMap<(String, u16), Said>>>,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

impl NameServer {
    fn start() -> NameServer {
        let zone = Arc::<Mutex<HashMap<(String, u16), Said>>>::default();
        let asked = Arc::<Mutex<Vec<(String, u16)>>>::default();
        let (known, noted) = (zone.clone(), asked.clone());
        let answerer = Answerer::start(move |question, _| {
            let (name, kind, end) = read(question);
            noted.lock().unwrap().push((name.clone(), kind));
            let said = known.lock().unwrap().get(&(name, kind)).cloned();
            let (code, records, ttl) = match said {
                Some(Said::Records(records, ttl)) => (0, records, ttl),
                Some(Said::Code(code)) => (code, Vec::new(), 0),
                Some(Said::Nothing) => return Vec::new(),
                None => (0, Vec::new(), 0),
            };
            let mut answer = question[..2].to_vec();
            answer.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
            answer.extend(&question[12..end]);
            for data in records {
                answer.extend([0xc0, 12]);
                answer.extend(kind.to_be_bytes());
                answer.extend([0, 1]);
                answer.extend(ttl.to_be_bytes());
                answer.extend((data.len() as u16).to_be_bytes());
                answer.extend(data);
            }
            vec![answer]
        });
        NameServer {
            answerer,
            zone,
            asked,
        }
    }

    fn says(&self, name: &str, kind: u16, said: Said) {
        self.zone
            .lock()
            .unwrap()
            .insert((name.to_owned(), kind), said);
    }

    fn address_of(&self, name: &str, kind: u16, addresses: &[IpAddr]) {
        let data = addresses.iter().map(|address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        });
        self.says(name, kind, Said::Records(data.collect(), 0));
    }

    fn services_of(&self, name: &str, services: &[(u16, u16, u16, &str)]) {
        let data = services.iter().map(|(priority, weight, port, target)| {
            let mut data = [priority, weight, port].map(|n| n.to_be_bytes()).concat();
            for label in target.split('.') {
                data.push(label.len() as u8);
                data.extend(label.as_bytes());
            }
            data.push(0);
            data
        });
        self.says(name, SRV, Said::Records(data.collect(), 0));
    }

    fn asked_for(&self, kind: u16) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.1 == kind).count()
    }
}

/// The name and type that are asked for, and where the question ends.
fn read(question: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    (labels.join("."), kind, at + 5)
}

fn weir(server: &NameServer, more: &str) -> Weir {
    let at = server.answerer.address;
    Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\n\
         discovery = {{ type = \"dns\", servers = [\"{at}\"], min_ttl = \"100ms\", timeout = \"400ms\", {more} }}\n"
    ))
}

fn pool(weir: &Weir) -> Value {
    weir.status()["pools"][0].clone()
}

/// Waits until the pool has backends of these names at these addresses, and no others.
#[track_caller]
fn has(weir: &Weir, wanted: &[(&str, SocketAddr)]) {
    let mut last = Value::Null;
    let mut wanted: Vec<_> = wanted
        .iter()
        .map(|(name, address)| ((*name).to_owned(), address.to_string()))
        .collect();
    wanted.sort();
    let found = crate::support::within(crate::support::DEADLINE, || {
        last = pool(weir);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let backends = last["backends"].as_array()?;
        let mut found: Vec<_> = backends
            .iter()
            .map(|own| (text(&own["name"]), text(&own["address"])))
            .collect();
        found.sort();
        (found == wanted).then_some(())
    });
    assert!(found.is_some(), "not {wanted:?} but {last:#}");
}

#[track_caller]
fn complains(weir: &Weir, words: &str) {
    let mut last = Value::Null;
    until(&format!("a problem with {words}"), || {
        last = pool(weir)["discovery"]["problem"].clone();
        last.as_str()
            .unwrap_or_default()
            .contains(words)
            .then_some(())
    });
}

#[test]
fn addresses_come_and_go_and_failures_change_nothing() {
    let a = Origin::named("a");
    let port = a.address.port();
    let name = "was.shop.test";
    let server = NameServer::start();
    let one: IpAddr = "127.0.0.1".parse().unwrap();
    let two: IpAddr = "127.0.0.2".parse().unwrap();
    server.address_of(name, A, &[one]);
    let weir = weir(&server, &format!("name = \"{name}\", port = {port}"));
    let [first, second] = [one, two].map(|ip| SocketAddr::new(ip, port));
    let (first_name, second_name) = (first.to_string(), second.to_string());
    has(&weir, &[(&first_name, first)]);
    assert_eq!(weir.get("/").text(), "a");
    assert_eq!(server.asked_for(AAAA), 0, "there is an A");

    server.address_of(name, A, &[two, one]);
    has(&weir, &[(&first_name, first), (&second_name, second)]);
    let generation = weir.generation();
    // The same in another order is no news.
    server.address_of(name, A, &[one, two]);
    let asked = server.asked_for(A);
    until("more questions", || {
        (server.asked_for(A) > asked + 3).then_some(())
    });
    for (said, words) in [
        (Said::Code(SERVFAIL), "Server Failure"),
        (Said::Nothing, "no answer within 400ms"),
        (Said::Code(NXDOMAIN), "it names no backend"),
        (Said::Records(Vec::new(), 0), "it names no backend"),
    ] {
        server.says(name, A, said);
        complains(&weir, words);
        has(&weir, &[(&first_name, first), (&second_name, second)]);
    }
    assert_eq!(weir.generation(), generation);
    assert!(weir.metric("weir_discovery_failures_total", &[("type", "dns")]) >= 3.0);

    // Where a name has no A, its AAAA counts.
    let six: IpAddr = "::1".parse().unwrap();
    server.address_of(name, AAAA, &[six]);
    let third = SocketAddr::new(six, port);
    has(&weir, &[(&third.to_string(), third)]);
    // Where nobody can tell whether it has one, it does not.
    server.says(name, A, Said::Code(SERVFAIL));
    complains(&weir, "Server Failure");
    has(&weir, &[(&third.to_string(), third)]);
    server.address_of(name, A, &[one]);
    has(&weir, &[(&first_name, first)]);
    assert_eq!(pool(&weir)["discovery"]["problem"], Value::Null);
}

#[test]
fn an_answer_holds_as_long_as_it_says() {
    let a = Origin::named("a");
    let port = a.address.port();
    let server = NameServer::start();
    server.says("was.test", A, Said::Records(vec![vec![127, 0, 0, 1]], 3600));
    let weir = weir(
        &server,
        &format!("name = \"was.test\", port = {port}, max_ttl = \"1s\""),
    );
    let asked = server.asked_for(A);
    let began = std::time::Instant::now();
    until("the cap of its time", || {
        (server.asked_for(A) > asked + 1).then_some(())
    });
    assert!(began.elapsed().as_millis() > 900, "{:?}", began.elapsed());
    assert_eq!(weir.get("/").text(), "a");
}

#[test]
fn services_tell_ports_weights_and_names() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let ports = [&a, &b, &c].map(|own| own.address.port());
    let server = NameServer::start();
    let loopback: IpAddr = "127.0.0.1".parse().unwrap();
    let other: IpAddr = "127.0.0.3".parse().unwrap();
    let service = "_http._tcp.shop.test";
    let all = [
        (10, 1, ports[0], "one.shop.test"),
        (10, 2, ports[1], "two.shop.test"),
        (20, 0, ports[2], "three.shop.test"),
    ];
    server.services_of(service, &all);
    for target in ["one.shop.test", "two.shop.test", "three.shop.test"] {
        server.address_of(target, A, &[loopback]);
    }
    let weir = weir(&server, &format!("name = \"{service}\", records = \"srv\""));
    let one = format!("one.shop.test:{}", ports[0]);
    let two = format!("two.shop.test:{}", ports[1]);
    has(&weir, &[(&one, a.address), (&two, b.address)]);
    let backends = pool(&weir)["backends"].clone();
    let weight = backends
        .as_array()
        .unwrap()
        .iter()
        .find(|own| own["name"] == *two);
    assert_eq!(weight.unwrap()["weight"], 2);

    // A target that moves keeps its name.
    server.address_of("two.shop.test", A, &[other]);
    let moved = SocketAddr::new(other, ports[1]);
    has(&weir, &[(&one, a.address), (&two, moved)]);
    // One that nobody can tell of stays, while another goes.
    server.says("two.shop.test", A, Said::Code(SERVFAIL));
    complains(&weir, "two.shop.test.: ");
    server.services_of(service, &all[1..]);
    has(&weir, &[(&two, moved)]);
    server.services_of(service, &all);
    has(&weir, &[(&one, a.address), (&two, moved)]);
    // One that is known not to be goes.
    server.says("two.shop.test", A, Said::Code(NXDOMAIN));
    has(&weir, &[(&one, a.address)]);
    assert_eq!(pool(&weir)["discovery"]["problem"], Value::Null);
    // The next best come when the best are gone.
    server.services_of(service, &all[2..]);
    let three = format!("three.shop.test:{}", ports[2]);
    has(&weir, &[(&three, c.address)]);
    assert_eq!(weir.get("/").text(), "c");
}
