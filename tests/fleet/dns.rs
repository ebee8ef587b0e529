//! A real DNS server, Debian's dnsmasq, behind a udp listener: right answers, an outage, and as many questions a second as it takes directly.
//! It must leave nothing running, and call what is missing skipped.
//! Its own runner, so that what is missing is a skipped scenario. `WEIR_FULL=1` asks 20,000 questions a second, else 2,000.

#[path = "claims.rs"]
mod claims;
#[allow(dead_code)]
#[path = "client.rs"]
mod client;
#[path = "dnsmasq.rs"]
mod dnsmasq;
#[allow(dead_code)]
#[path = "ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "process.rs"]
mod process;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use claims::Claim;
use client::Line;
use process::{Process, wait};

/// Everything that is waited for happens within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sockets that questions come from.
const CLIENTS: usize = 16;

/// How often the rate may be tried.
const ROUNDS: usize = 4;

/// What is asked for.
const NAME: &str = "who.shop.test";

const CLAIMS: [Claim; 2] = [
    ("dns::outage", dnsmasq::missing, outage),
    ("dns::rate", dnsmasq::missing, rate),
];

fn main() -> ExitCode {
    claims::run(&CLAIMS)
}

/// A dnsmasq that says its number when it is asked who it is.
fn server(directory: &Path, number: u8) -> (Process, SocketAddr) {
    let address = ports::free();
    let says = [format!("--address=/{NAME}/192.0.2.{number}")];
    let log = directory.join(format!("dnsmasq-{number}.log"));
    let process = dnsmasq::start(address, &says, &log);
    wait("an answer of dnsmasq", PATIENCE, || ask(address));
    (process, address)
}

/// weir before these servers, checked by a question.
fn weir(
    directory: &Path,
    servers: &[SocketAddr],
    balancer: &str,
) -> (Process, SocketAddr, SocketAddr) {
    let (address, admin) = (ports::free(), ports::free());
    let backends: Vec<String> = servers.iter().map(|one| format!("\"{one}\"")).collect();
    let state = directory.join("state");
    let text = format!(
        "workers = 1\nstate_dir = \"{}\"\n[admin]\nbind = \"{admin}\"\n[log]\naccess = \"off\"\n\
         [listeners.dns]\nbind = [\"{address}\"]\nprotocol = \"udp\"\n\
         [[routes]]\npool = \"ns\"\nreplies = 1\n\
         [pools.ns]\nbalancer = \"{balancer}\"\nbackends = [{}]\n\
         health = {{ type = \"udp\", send = \"hex:{}\", expect = \"hex:1234\", interval = \"200ms\" }}\n",
        state.display(),
        backends.join(", "),
        hex(&question(0x1234)),
    );
    let file = directory.join("weir.toml");
    fs::write(&file, text).expect("the file can be written");
    let binary =
        std::env::var("WEIR_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_weir").to_owned());
    let arguments = [
        "run".to_owned(),
        "-c".to_owned(),
        file.display().to_string(),
    ];
    let process = Process::start(&binary, &arguments, &directory.join("weir.log"));
    wait("an answer by way of weir", PATIENCE, || ask(address));
    (process, address, admin)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A question for the address of [`NAME`] (RFC 1035 section 4.1).
fn question(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in NAME.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// The id of an answer, and the address in it.
fn read(answer: &[u8]) -> Option<(u16, IpAddr)> {
    let id = u16::from_be_bytes([*answer.first()?, *answer.get(1)?]);
    let is_good = answer.get(2)? & 0x80 != 0 && answer.get(3)? & 0x0f == 0 && answer.get(7)? == &1;
    let last: [u8; 4] = answer.last_chunk().copied()?;
    is_good.then(|| (id, Ipv4Addr::from(last).into()))
}

/// Asks once, from a port of its own; who answered.
fn ask(server: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
    socket.connect(server).ok()?;
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .ok()?;
    socket.send(&question(7)).ok()?;
    let mut memory = [0; 600];
    let length = socket.recv(&mut memory).ok()?;
    read(&memory[..length])
        .filter(|(id, _)| *id == 7)
        .map(|(_, who)| who)
}

/// Two servers share the questions; when one is killed all go to the other, and come back.
fn outage(directory: &Path) {
    let (mut one, first) = server(directory, 1);
    let (_two, second) = server(directory, 2);
    let (_weir, listener, _) = weir(directory, &[first, second], "round-robin");
    let answers = || -> Vec<u8> {
        let who = (0..20).filter_map(|_| match ask(listener)? {
            IpAddr::V4(address) => Some(address.octets()[3]),
            IpAddr::V6(_) => None,
        });
        who.collect()
    };
    let shared = answers();
    assert_eq!(shared.len(), 20);
    assert!(shared.contains(&1) && shared.contains(&2), "{shared:?}");
    one.kill();
    wait("all answers from the one that is left", PATIENCE, || {
        (answers() == [2; 20]).then_some(())
    });
}

/// As many questions a second as directly, and no more of them lost.
fn rate(directory: &Path) {
    let full = std::env::var_os("WEIR_FULL").is_some();
    let (a_second, seconds) = if full { (20_000, 10) } else { (2000, 3) };
    let (_server, address) = server(directory, 1);
    let (mut weir, listener, admin) = weir(directory, &[address], "maglev");
    // What a machine that is busy with other things loses says nothing, so that one quiet round is enough.
    let kept = (0..ROUNDS).any(|_| {
        let direct = load(address, a_second, seconds);
        let through = load(listener, a_second, seconds);
        println!(
            "  {a_second} questions a second for {seconds} s: of {} lost directly {}, by way of weir {}; \
             no room for {} at weir and for {} at the server so far{}",
            through.sent,
            direct.lost,
            through.lost,
            dropped(listener),
            dropped(address),
            given_up(admin)
        );
        through.sent >= a_second * seconds * 9 / 10
            && through.lost <= direct.lost + through.sent / 10_000
    });
    assert!(kept, "too many went lost, {ROUNDS} times");
    assert!(weir.ended().is_none());
}

/// Why weir itself gave some up.
fn given_up(admin: SocketAddr) -> String {
    let metrics = Line::new(admin)
        .get("/metrics", "")
        .map(|answer| answer.body);
    let metrics = metrics.unwrap_or_default();
    let reasons = metrics.lines().filter_map(|line| {
        let (labels, count) = line
            .strip_prefix("weir_udp_lost_total{")?
            .rsplit_once("} ")?;
        let (_, reason) = labels.split_once("reason=\"")?;
        (count != "0").then(|| format!(", {}: {count}", reason.trim_end_matches('"')))
    });
    reasons.collect()
}

/// How many datagrams a listening socket had no room for, as the system counts.
fn dropped(at: SocketAddr) -> u64 {
    let sockets = fs::read_to_string("/proc/net/udp").expect("the system tells");
    let port = format!(":{:04X}", at.port());
    let own = sockets.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let is_own = fields.nth(1)?.ends_with(&port);
        is_own.then(|| fields.last()?.parse::<u64>().ok())?
    });
    own.sum()
}

struct Loaded {
    sent: usize,
    lost: usize,
}

/// Asks so many questions a second and counts the right answers.
fn load(server: SocketAddr, a_second: usize, seconds: usize) -> Loaded {
    let connect = |_| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(server).expect("a way there");
        socket.set_nonblocking(true).expect("a mode");
        socket
    };
    let clients: Vec<UdpSocket> = (0..CLIENTS).map(connect).collect();
    let who = IpAddr::from([192, 0, 2, 1]);
    let mut memory = [0; 600];
    let mut gather = || -> usize {
        let mut count = 0;
        for client in &clients {
            loop {
                match client.recv(&mut memory) {
                    Ok(length) => {
                        count +=
                            usize::from(read(&memory[..length]).is_some_and(|read| read.1 == who))
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
            }
        }
        count
    };
    let (wanted, began) = (a_second * seconds, Instant::now());
    let (mut sent, mut answered) = (0, 0);
    while sent < wanted && began.elapsed() < Duration::from_secs(seconds as u64 * 2) {
        let due = (began.elapsed().as_secs_f64() * a_second as f64) as usize;
        // What a pause of this machine held back does not come at once.
        for _ in 0..due.min(wanted).saturating_sub(sent).min(a_second / 200) {
            let taken = clients[sent % CLIENTS].send(&question(sent as u16));
            sent += usize::from(taken.is_ok());
        }
        answered += gather();
        thread::sleep(Duration::from_micros(200));
    }
    let end = Instant::now() + Duration::from_secs(2);
    while answered < sent && Instant::now() < end {
        answered += gather();
        thread::sleep(Duration::from_millis(1));
    }
    Loaded {
        sent,
        lost: sent.saturating_sub(answered),
    }
}
