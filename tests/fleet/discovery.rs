//! A real DNS server, Debian's dnsmasq, as the source of a pool: its answers change, it dies and comes back, and no request fails. And
//! the example whose fleet grows and shrinks with its load.
//! It must leave nothing running, and call what is missing skipped.
//! Its own runner, so that what is missing is a skipped scenario. `WEIR_FULL=1` changes the answer 200 times, else 12 times.

#[path = "claims.rs"]
mod claims;
#[allow(dead_code)]
#[path = "client.rs"]
mod client;
#[path = "dnsmasq.rs"]
mod dnsmasq;
#[path = "many.rs"]
mod many;
#[allow(dead_code)]
#[path = "ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "process.rs"]
mod process;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use claims::Claim;
use client::{Answer, Line, Session};
use many::Many;
use process::{Process, wait};

/// Everything that is waited for happens within this time.
const PATIENCE: Duration = Duration::from_secs(15);

/// Clients that ask all the time.
const CLIENTS: usize = 4;

/// What is looked up.
const NAME: &str = "was.shop.test";

/// The last numbers of the servers' addresses, 127.0.0.N.
const SERVERS: std::ops::Range<u8> = 11..15;

const CLAIMS: [Claim; 3] = [
    ("discovery::addresses", dnsmasq::missing, addresses),
    ("discovery::services", dnsmasq::missing, services),
    ("scale::example", missing_python, example),
];

fn main() -> ExitCode {
    claims::run(&CLAIMS)
}

fn missing_python() -> Option<String> {
    let found = Command::new("python3").arg("--version").output();
    (!found.is_ok_and(|found| found.status.success())).then(|| "no python3 here".to_owned())
}

/// A name server for the hosts of a file, which it reads again on SIGHUP.
struct NameServer {
    process: Process,
    address: SocketAddr,
    hosts: PathBuf,
    directory: PathBuf,
    more: Vec<String>,
}

impl NameServer {
    fn start(directory: &Path, more: &[String]) -> NameServer {
        let address = ports::free();
        let hosts = directory.join("hosts");
        fs::write(&hosts, "").expect("a file");
        NameServer {
            process: NameServer::process(directory, &hosts, address, more),
            address,
            hosts,
            directory: directory.to_owned(),
            more: more.to_vec(),
        }
    }

    fn process(directory: &Path, hosts: &Path, address: SocketAddr, more: &[String]) -> Process {
        let mut says = vec![
            "--local=/shop.test/".to_owned(),
            format!("--addn-hosts={}", hosts.display()),
        ];
        says.extend_from_slice(more);
        let process = dnsmasq::start(address, &says, &directory.join("dnsmasq.log"));
        // It takes connections, too.
        wait("dnsmasq", PATIENCE, || TcpStream::connect(address).ok());
        process
    }

    fn says(&self, lines: &[String]) {
        fs::write(&self.hosts, lines.join("\n") + "\n").expect("a file");
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-HUP", &id]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    /// That the name has these servers' addresses.
    fn names(&self, servers: &[u8]) {
        let lines = servers.iter().map(|n| format!("127.0.0.{n} {NAME}"));
        self.says(&lines.collect::<Vec<_>>());
    }

    fn restart(&mut self) {
        self.process = NameServer::process(&self.directory, &self.hosts, self.address, &self.more);
    }
}

/// Servers on one port of several addresses, each of which says its number.
fn servers() -> u16 {
    let listeners = || {
        let port = ports::free().port();
        let bind = |number| TcpListener::bind(SocketAddr::from(([127, 0, 0, number], port)));
        let all: Result<Vec<_>, _> = SERVERS.map(bind).collect();
        all.ok().map(|all| (port, all))
    };
    let (port, all) = wait("a port of all addresses", PATIENCE, listeners);
    for (listener, number) in all.into_iter().zip(SERVERS) {
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, number));
            }
        });
    }
    port
}

fn serve(stream: TcpStream, number: u8) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        let is_end = line == "\r\n";
        line.clear();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{number}");
        if is_end && (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

struct Weir {
    process: Process,
    web: SocketAddr,
    admin: SocketAddr,
}

impl Weir {
    fn start(directory: &Path, server: SocketAddr, discovery: &str) -> Weir {
        let (web, admin) = (ports::free(), ports::free());
        let text = format!(
            "workers = 2\nstate_dir = \"{}\"\n[admin]\nbind = \"{admin}\"\n[log]\naccess = \"off\"\n\
             [listeners.web]\nbind = [\"{web}\"]\n[[routes]]\npool = \"was\"\n[pools.was.discovery]\n\
             type = \"dns\"\nservers = [\"{server}\"]\nmin_ttl = \"100ms\"\n{discovery}\n",
            directory.join("state").display()
        );
        Weir::run(directory, &text, web, admin)
    }

    fn run(directory: &Path, text: &str, web: SocketAddr, admin: SocketAddr) -> Weir {
        let file = directory.join("weir.toml");
        fs::write(&file, text).expect("a file");
        let binary =
            std::env::var("WEIR_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_weir").to_owned());
        let arguments = ["run", "-c", &file.to_string_lossy()].map(str::to_owned);
        let weir = Weir {
            process: Process::start(&binary, &arguments, &directory.join("weir.log")),
            web,
            admin,
        };
        wait("weir", PATIENCE, || TcpStream::connect(admin).ok());
        wait("weir to be ready", PATIENCE, || {
            (weir.admin("/readyz").status == 200).then_some(())
        });
        weir
    }

    fn admin(&self, target: &str) -> Answer {
        let answer = Line::new(self.admin).get(target, "");
        answer.expect("the admin server answers")
    }

    fn status(&self) -> serde_json::Value {
        let status: serde_json::Value =
            serde_json::from_str(&self.admin("/api/v1/status").body).expect("JSON");
        status["pools"][0].clone()
    }

    /// Waits until the pool has backends of these names, all of them up; how long that took.
    fn has(&self, names: &[String]) -> Duration {
        let mut wanted = names.to_vec();
        wanted.sort();
        self.becomes(&format!("{wanted:?}"), |backends| {
            let up = backends.iter().filter(|own| own["effective"] == "up");
            let mut found: Vec<_> = up.filter_map(|own| own["name"].as_str()).collect();
            found.sort_unstable();
            found == wanted && backends.len() == wanted.len()
        })
    }

    /// Waits until the pool's backends are as wanted; how long that took.
    fn becomes(&self, what: &str, wanted: impl Fn(&[serde_json::Value]) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let pool = self.status();
            if pool["backends"].as_array().is_some_and(|own| wanted(own)) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE * 4, "not {what}: {pool:#}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("-- the end of weir's log --\n{}", self.process.tail(40));
        }
    }
}

/// Clients that ask until told to stop. Whatever is not a 200 is a failure.
struct Load(Many<usize>);

impl Load {
    fn start(web: SocketAddr) -> Load {
        Load(Many::start(CLIENTS, move |stop| {
            let mut line = Line::new(web);
            let mut asked = 0;
            while !stop.load(Relaxed) {
                let answer = line.get("/", "").expect("weir answers");
                assert_eq!(answer.status, 200, "{}", answer.body);
                asked += 1;
            }
            asked
        }))
    }

    /// How many answers there were.
    fn stop(self) -> usize {
        self.0.stop().into_iter().sum()
    }
}

fn changes() -> usize {
    match std::env::var_os("WEIR_FULL") {
        Some(_) => 200,
        None => 12,
    }
}

fn addresses(directory: &Path) {
    let port = servers();
    let mut server = NameServer::start(directory, &[]);
    server.names(&[11, 12]);
    let weir = Weir::start(
        directory,
        server.address,
        &format!("name = \"{NAME}\"\nport = {port}"),
    );
    let named = |numbers: &[u8]| -> Vec<String> {
        let names = numbers.iter().map(|n| format!("127.0.0.{n}:{port}"));
        names.collect()
    };
    weir.has(&named(&[11, 12]));
    let load = Load::start(weir.web);
    let sets: [&[u8]; 5] = [&[11, 12, 13], &[12, 13, 14], &[14], &[11, 14], &[13, 11]];
    let mut times: Vec<Duration> = (0..changes())
        .map(|round| {
            let set = sets[round % sets.len()];
            server.names(set);
            weir.has(&named(set))
        })
        .collect();
    times.sort();

    let last = sets[(changes() - 1) % sets.len()];
    // The name is gone (NXDOMAIN), then the server is; who was there last stays.
    server.says(&[]);
    let complains = |words: &str| {
        wait(words, PATIENCE, || {
            let problem = weir.status()["discovery"]["problem"].clone();
            problem.as_str()?.contains(words).then_some(())
        });
    };
    complains("it names no backend");
    weir.has(&named(last));
    server.process.kill();
    complains("no answer");
    weir.has(&named(last));
    server.names_for_later(&[11, 12, 13, 14]);
    server.restart();
    weir.has(&named(&[11, 12, 13, 14]));
    let asked = load.stop();
    println!(
        "{asked} requests, none failed; {} changes, from the server's to all checked: median {:?}",
        times.len(),
        times[times.len() / 2]
    );
    assert!(asked > 100, "{asked}");
}

impl NameServer {
    /// What it says when it starts again.
    fn names_for_later(&self, servers: &[u8]) {
        let lines = servers.iter().map(|n| format!("127.0.0.{n} {NAME}\n"));
        fs::write(&self.hosts, lines.collect::<String>()).expect("a file");
    }
}

/// SRV records: a target that moves keeps its name, and no request fails.
fn services(directory: &Path) {
    let port = servers();
    let service = format!("_http._tcp.{NAME}");
    let record = |target: &str| format!("--srv-host={service},{target}.shop.test,{port},1,1");
    let server = NameServer::start(directory, &[record("one"), record("two")]);
    let host = |target: &str, number: u8| format!("127.0.0.{number} {target}.shop.test");
    server.says(&[host("one", 11), host("two", 12)]);
    let weir = Weir::start(
        directory,
        server.address,
        &format!("name = \"{service}\"\nrecords = \"srv\""),
    );
    let names = [
        format!("one.shop.test:{port}"),
        format!("two.shop.test:{port}"),
    ];
    weir.has(&names);
    let load = Load::start(weir.web);
    for number in [13, 14, 12, 13] {
        server.says(&[host("one", 11), host("two", number)]);
        let moved = format!("127.0.0.{number}:{port}");
        wait("the target to move", PATIENCE, || {
            let backends = weir.status()["backends"].clone();
            let mut backends = backends.as_array()?.iter();
            let two = backends.find(|own| own["name"] == *names[1])?;
            (two["address"] == *moved).then_some(())
        });
        weir.has(&names);
    }
    let asked = load.stop();
    println!("{asked} requests, none failed; a target moved 4 times");
    assert!(asked > 100, "{asked}");
}

/// The example: two servers, then four under load, then two again, without a failed request or a lost session.
fn example(directory: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scale");
    let (web, admin, home) = (ports::free(), ports::free(), directory.join("home"));
    fs::create_dir_all(home.join("was.d")).expect("a folder");
    let script = from.join("scale");
    let text = fs::read_to_string(from.join("weir.toml")).expect("it is there");
    // The command gets the place of its files as any program does.
    let command = format!(
        "command = [\"/usr/bin/env\", \"WEIR_SCALE_HOME={}\", \"{}\"]",
        home.display(),
        script.display()
    );
    let text = text
        .replace("/tmp/weir-scale", &home.to_string_lossy())
        .replace("127.0.0.1:8080", &web.to_string())
        .replace("127.0.0.1:9900", &admin.to_string())
        .replace("command = [\"./scale\"]", &command);
    let fleet = Fleet { home, script };
    let weir = Weir::run(directory, &text, web, admin);
    let names = |numbers: &[u8]| -> Vec<String> {
        numbers
            .iter()
            .map(|number| format!("was{number}"))
            .collect()
    };
    weir.has(&names(&[1, 2]));
    let visits = |count| Many::start(count, move |stop| visit(web, stop));
    let first = visits(24);
    let grown = weir.has(&names(&[1, 2, 3, 4]));
    // So that there are sessions everywhere.
    let newcomers = visits(12);
    thread::sleep(Duration::from_secs(3));
    let views = |visitors: Many<usize>| visitors.stop().into_iter().sum::<usize>();
    let many = views(first);
    let later = views(newcomers);
    let began = Instant::now();
    let few = visits(1);
    weir.becomes("two servers again", |backends| backends.len() == 2);
    let more = views(few);
    println!(
        "{} views, none failed and no session lost; four servers after {grown:.1?}, two again after {:.1?}",
        many + later + more,
        began.elapsed()
    );
    drop(weir);
    drop(fleet);
}

/// Servers that the example's command started; they end with this.
struct Fleet {
    home: PathBuf,
    script: PathBuf,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let mut stop = Command::new(&self.script);
        stop.arg("stop").env("WEIR_SCALE_HOME", &self.home);
        let _ = stop.output();
    }
}

/// A visitor with a session that views its page until told to stop: its counter must grow by one. How many views there were.
fn visit(web: SocketAddr, stop: &AtomicBool) -> usize {
    let mut line = Line::new(web);
    let mut session = Session::default();
    let mut views = 0;
    while !stop.load(Relaxed) {
        let page = session.get(&mut line, "/").expect("weir answers");
        assert_eq!(page.status, 200, "{}", page.body);
        views += 1;
        let counted = page.body.trim().rsplit(' ').next().map(str::to_owned);
        assert_eq!(
            counted,
            Some(views.to_string()),
            "the session is lost: {}",
            page.body
        );
    }
    views
}
