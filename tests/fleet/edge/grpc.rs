//! gRPC's own library as client and server, in Python, with weir between them over HTTP/2 in the clear.
//! It must show what a caller sees, and what the server hears of callers that stop waiting.
//! Read `server.py` and `client.py` for the two parties.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ports;
use crate::process::{Process, wait};
use crate::stage::{PATIENCE, Stage, Talk, missing_module, python, script, signal};

/// What is not here, if anything.
pub fn missing() -> Option<String> {
    missing_module("grpc_health.v1.health")
}

/// A server, by name.
struct Server {
    name: &'static str,
    address: SocketAddr,
    log: PathBuf,
    process: Process,
}

impl Server {
    fn start(directory: &Path, name: &'static str) -> Self {
        Self::start_at(directory, name, ports::free())
    }

    fn start_at(directory: &Path, name: &'static str, address: SocketAddr) -> Self {
        let log = directory.join(format!("{name}.log"));
        let arguments = [
            script("server.py"),
            name.to_owned(),
            address.port().to_string(),
        ];
        let mut server = Server {
            name,
            address,
            process: Process::start(&python(), &arguments, &log),
            log,
        };
        wait("a gRPC server listens", PATIENCE, || {
            if let Some(status) = server.process.ended() {
                panic!("{status}:\n{}", server.process.tail(40));
            }
            server.said("listening").then_some(())
        });
        server
    }

    fn lines(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn said(&self, word: &str) -> bool {
        self.count(word) > 0
    }

    fn count(&self, word: &str) -> usize {
        let lines = self.lines();
        lines.lines().filter(|line| line.starts_with(word)).count()
    }

    fn hears(&self, word: &str, count: usize) {
        wait(word, PATIENCE, || (self.count(word) >= count).then_some(()));
    }
}

/// One pool with these backends.
fn pool(servers: &[&Server], more: &str) -> String {
    let backends: Vec<String> = (servers.iter())
        .map(|server| {
            format!(
                "{{ name = \"{}\", address = \"{}\" }}",
                server.name, server.address
            )
        })
        .collect();
    format!(
        "[[routes]]\npath = \"/edge.Edge\"\npool = \"calls\"\n\
         [pools.calls]\nprotocol = \"http2\"\nbackends = [{}]\n{more}\n",
        backends.join(", ")
    )
}

const HEALTH: &str = "health = { type = \"grpc\", service = \"edge.Edge\", interval = \"500ms\", \
                      timeout = \"500ms\", fall = 2, rise = 1 }";

fn client(stage: &Stage, scenario: &str, arguments: &[&str]) -> Talk {
    let mut words = vec![
        script("client.py"),
        stage.web.to_string(),
        scenario.to_owned(),
    ];
    words.extend(arguments.iter().map(|&word| word.to_owned()));
    Talk::start(&python(), &words)
}

/// Whether a call took about as long as it should have.
fn is_about(told: &Value, seconds: f64) -> bool {
    let took = told["seconds"].as_f64().expect("a number");
    (seconds * 0.9..seconds + 1.5).contains(&took)
}

/// All four kinds of calls, large messages, metadata of both kinds both ways, and errors with their details.
pub fn calls(directory: &Path) {
    let server = Server::start(directory, "a");
    let stage = Stage::start(directory, &pool(&[&server], HEALTH), 1);
    let told = client(&stage, "calls", &[]).end();
    assert_eq!(told["wrong"], Value::Array(Vec::new()));
}

/// The calls of one channel, which is one connection, go to both servers alike.
pub fn spread(directory: &Path) {
    let (a, b) = (Server::start(directory, "a"), Server::start(directory, "b"));
    let stage = Stage::start(directory, &pool(&[&a, &b], HEALTH), 2);
    let mut client = client(&stage, "spread", &["1000", "16"]);
    client.hear("done");
    let connections = stage.metric("weir_listener_connections", "listener=\"web\"");
    client.go_on();
    let told = client.end();
    println!("  1,000 unary calls over {connections} connection: {told}");
    assert_eq!(connections, 1.0);
    for name in ["a", "b"] {
        let count = told["names"][name].as_u64().expect("a count");
        assert!((400..=600).contains(&count), "{told}");
    }
    let opened = stage.metric("weir_backend_connections_total", "reused=\"false\"");
    assert!(opened <= 4.0, "{opened} connections for two backends");
}

/// The server hears the deadline of a call, and its end; so does the client of a server that hears nothing.
pub fn deadline(directory: &Path) {
    let server = Server::start(directory, "a");
    let stage = Stage::start(directory, &pool(&[&server], "health.type = \"tcp\""), 1);
    let told = client(&stage, "deadline", &["0.7"]).end();
    println!("  a deadline of 0.7 s: {told}");
    for kind in ["unary", "stream"] {
        assert_eq!(told[kind]["status"], "DEADLINE_EXCEEDED", "{told}");
        assert!(is_about(&told[kind], 0.7), "{told}");
    }
    server.hears("cancelled", 2);
    let lines = server.lines();
    let left = lines.lines().filter_map(|line| line.strip_prefix("hangs "));
    let left: Vec<f64> = left.map(|left| left.parse().expect("seconds")).collect();
    assert!(
        left.iter().all(|left| (0.1..=0.7).contains(left)),
        "{left:?}"
    );
    signal(&server.process, "STOP");
    let told = client(&stage, "deadline", &["0.7"]).end();
    signal(&server.process, "CONT");
    println!("  the same with a server that stands still: {told}");
    for kind in ["unary", "stream"] {
        assert_eq!(told[kind]["status"], "DEADLINE_EXCEEDED", "{told}");
        assert!(is_about(&told[kind], 0.7), "{told}");
    }
}

/// A client that gives a call up: its server hears of it at once.
pub fn cancel(directory: &Path) {
    let server = Server::start(directory, "a");
    let stage = Stage::start(directory, &pool(&[&server], HEALTH), 1);
    let mut client = client(&stage, "cancel", &[]);
    client.hear("waiting");
    server.hears("hangs", 2);
    assert!(!server.said("cancelled"));
    client.go_on();
    let told = client.end();
    assert_eq!(told["unary"], "CANCELLED");
    assert_eq!(told["stream"], "CANCELLED");
    server.hears("cancelled", 2);
    wait("no call is at the backend", PATIENCE, || {
        (stage.metric("weir_backend_in_flight", "") == 0.0).then_some(())
    });
}

/// What weir itself says: no server, no route.
pub fn refusals(directory: &Path) {
    let mut server = Server::start(directory, "a");
    let stage = Stage::start(directory, &pool(&[&server], HEALTH), 1);
    let told = client(&stage, "one", &["edge.Edge"]).end();
    assert_eq!(told["status"], "OK", "{told}");
    let told = client(&stage, "one", &["edge.Unknown"]).end();
    assert_eq!(told["status"], "UNIMPLEMENTED", "{told}");
    server.process.kill();
    let told = client(&stage, "one", &["edge.Edge"]).end();
    assert_eq!(told["status"], "UNAVAILABLE", "{told}");
    wait("the backend is down", PATIENCE, || {
        (stage.metric("weir_backend_up", "") == 0.0).then_some(())
    });
    let told = client(&stage, "one", &["edge.Edge"]).end();
    assert_eq!(told["status"], "UNAVAILABLE", "{told}");
}

/// A server that dies in the middle of calls: none of them ends well.
pub fn killed(directory: &Path) {
    let mut server = Server::start(directory, "a");
    let stage = Stage::start(directory, &pool(&[&server], HEALTH), 1);
    let mut client = client(&stage, "stream", &[]);
    client.hear("waiting");
    server.hears("hangs", 2);
    server.process.kill();
    let told = client.end();
    println!("  the server was killed: {told}");
    for kind in ["stream", "unary"] {
        let status = told[kind]["status"].as_str().expect("a word");
        assert!(matches!(status, "UNAVAILABLE" | "INTERNAL"), "{told}");
        assert!(told[kind]["seconds"].as_f64() < Some(5.0), "{told}");
    }
}

/// A server that goes and comes back under load: it says GOAWAY, and no call is lost but those that it took and
/// gave up itself.
pub fn restart(directory: &Path) {
    let mut a = Server::start(directory, "a");
    let b = Server::start(directory, "b");
    let stage = Stage::start(directory, &pool(&[&a, &b], HEALTH), 2);
    let mut client = client(&stage, "load", &["16"]);
    client.hear("running");
    for _ in 0..3 {
        let before = served(&stage, "a");
        wait("calls at the server", PATIENCE, || {
            (served(&stage, "a") > before + 50.0).then_some(())
        });
        let status = a.process.terminate(PATIENCE);
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        let before = served(&stage, "b");
        wait("calls at the other server", PATIENCE, || {
            (served(&stage, "b") > before + 50.0).then_some(())
        });
        a = Server::start_at(directory, "a", a.address);
        wait("the server is up again", PATIENCE, || {
            (stage.metric("weir_backend_up", "") == 2.0).then_some(())
        });
    }
    client.go_on();
    let told = client.end();
    let retries = stage.metric("weir_retries_total", "");
    println!("  three graceful restarts under load, {retries} retries: {told}");
    let counts = told["counts"].as_object().expect("counts");
    let is_known = |status: &String| matches!(status.as_str(), "OK" | "CANCELLED");
    assert!(counts.keys().all(is_known), "{told}");
    // grpcio itself ends a call so that came between its shutdown and its GOAWAY: without weir before it too.
    assert!(told["counts"]["CANCELLED"].as_u64() < Some(30), "{told}");
    assert!(told["counts"]["OK"].as_u64() > Some(500), "{told}");
}

fn served(stage: &Stage, backend: &str) -> f64 {
    stage.metric(
        "weir_http_requests_total",
        &format!("backend=\"{backend}\""),
    )
}

/// The check follows what the server says of its service.
pub fn health(directory: &Path) {
    let (a, b) = (Server::start(directory, "a"), Server::start(directory, "b"));
    let stage = Stage::start(directory, &pool(&[&a, &b], HEALTH), 2);
    let is_up = |up: f64| {
        wait("the check follows", PATIENCE, || {
            (stage.metric("weir_backend_up", "backend=\"a\"") == up).then_some(())
        });
    };
    for _ in 0..2 {
        signal(&a.process, "USR1");
        is_up(0.0);
        let mut client = client(&stage, "spread", &["50", "4"]);
        client.hear("done");
        client.go_on();
        let told = client.end();
        assert_eq!(told["names"]["b"], 50, "{told}");
        signal(&a.process, "USR2");
        is_up(1.0);
    }
    assert_eq!(stage.metric("weir_backend_up", ""), 2.0);
}
