//! socket.io before and after its upgrade: clients poll first, then switch to a WebSocket, over two servers that know nothing of each other.
//! It must also show that this fails without stickiness, or it would show nothing.
//! Its own runner, so that a missing Node.js is a skipped scenario; `server.js` and `client.js` are the other two parties.

#[path = "../claims.rs"]
mod claims;
#[allow(dead_code)]
#[path = "../ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "../process.rs"]
mod process;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use claims::Claim;
use process::{Process, wait};
use serde_json::Value;

const START: Duration = Duration::from_secs(20);
const NAMES: [&str; 2] = ["a", "b"];

const CLAIMS: [Claim; 4] = [
    ("socketio::insert", missing, |directory| {
        sticky(directory, "{ mode = \"insert\" }")
    }),
    ("socketio::cookie_hash", missing, |directory| {
        sticky(directory, "{ mode = \"cookie-hash\" }")
    }),
    ("socketio::not_sticky_fails", missing, not_sticky_fails),
    ("socketio::websocket_alone", missing, websocket_alone),
];

fn main() -> ExitCode {
    claims::run(&CLAIMS)
}

/// Where the modules are, which are not part of this tree.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/socketio/node_modules")
}

/// What is not here, if anything.
fn missing() -> Option<String> {
    if !modules().join("socket.io-client").exists() {
        return Some(format!(
            "no socket.io in {}: tests/run puts it there",
            modules().display()
        ));
    }
    let node = Command::new("node").arg("--version").output();
    node.err().map(|error| format!("no node: {error}"))
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/socketio");
    path.join(name).display().to_string()
}

/// Every client stays with one server, before the upgrade and after it.
fn sticky(directory: &Path, sticky: &str) {
    let stage = Stage::start(directory, &format!("sticky = {sticky}"));
    let clients = clients();
    let (crowd, told) = Crowd::start(stage.web, clients, "polling,websocket");
    println!("  {sticky}, {clients} clients: {told}");
    assert_eq!(told["good"], clients, "{told}");
    for name in NAMES {
        assert!(told["servers"][name].as_u64() > Some(0), "{name}: {told}");
    }
    assert_eq!(stage.refused(), 0, "refused by the servers");
    // Each is one upgraded connection, at the server that it counts on.
    for name in NAMES {
        let upgraded = stage.metric("weir_backend_upgraded", &format!("backend=\"{name}\""));
        assert_eq!(Some(upgraded), told["servers"][name].as_f64());
    }
    crowd.end();
    wait("the upgraded connections to end", START, || {
        (stage.metric("weir_backend_upgraded", "") == 0.0).then_some(())
    });
}

/// The same without stickiness: the servers do not know each other's clients. This is why the route must be sticky.
fn not_sticky_fails(directory: &Path) {
    let stage = Stage::start(directory, "");
    let clients = clients();
    let (crowd, told) = Crowd::start(stage.web, clients, "polling,websocket");
    let refused = stage.refused();
    println!("  not sticky, {clients} clients: {told}, {refused} times \"Session ID unknown\"");
    let good = told["good"].as_u64().expect("a count");
    assert!(good * 2 < clients, "{good} of {clients} got through");
    assert!(refused > 0);
    crowd.end();
}

/// Clients that begin with the WebSocket need no stickiness: all that they send is on one connection.
fn websocket_alone(directory: &Path) {
    let stage = Stage::start(directory, "");
    let clients = clients();
    let (crowd, told) = Crowd::start(stage.web, clients, "websocket");
    println!("  WebSocket from the start, {clients} clients: {told}");
    assert_eq!(told["good"], clients, "{told}");
    assert_eq!(stage.refused(), 0);
    crowd.end();
}

fn clients() -> u64 {
    match std::env::var_os("WEIR_FULL") {
        Some(_) => 200,
        None => 60,
    }
}

/// Two servers and a weir before them.
struct Stage {
    directory: PathBuf,
    web: SocketAddr,
    admin: SocketAddr,
    _processes: Vec<Process>,
}

impl Stage {
    fn start(directory: &Path, sticky: &str) -> Self {
        let mut stage = Stage {
            directory: directory.to_path_buf(),
            web: ports::free(),
            admin: ports::free(),
            _processes: Vec::new(),
        };
        let servers = NAMES.map(|name| (name, ports::free()));
        for (name, address) in servers {
            let arguments = [
                format!("NODE_PATH={}", modules().display()),
                "node".to_owned(),
                script("server.js"),
                name.to_owned(),
                address.port().to_string(),
            ];
            let process = Process::start("env", &arguments, &stage.log(name));
            stage._processes.push(process);
        }
        for (name, _) in servers {
            wait("a socket.io server listens", START, || {
                stage.said(name).contains("listening").then_some(())
            });
        }
        let [a, b] = servers
            .map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}"));
        let text = format!(
            "workers = 2\nstate_dir = \"{}\"\n[admin]\nbind = \"{}\"\n[log]\naccess = \"off\"\n\
             [listeners.web]\nbind = [\"{}\"]\n[[routes]]\npool = \"was\"\n{sticky}\n\
             [pools.was]\nbackends = [{a}, {b}]\n",
            directory.join("state").display(),
            stage.admin,
            stage.web
        );
        let file = directory.join("weir.toml");
        fs::write(&file, text).expect("the config can be written");
        let program = std::env::var("WEIR_BINARY").ok();
        let program = program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_weir"));
        let arguments = ["run", "-c", &file.display().to_string()].map(str::to_owned);
        let mut weir = Process::start(program, &arguments, &stage.log("weir"));
        wait("weir is ready, both servers up", START, || {
            if let Some(status) = weir.ended() {
                panic!("weir ended, {status}:\n{}", weir.tail(40));
            }
            (stage.metric("weir_backend_up", "") == 2.0).then_some(())
        });
        stage._processes.push(weir);
        stage
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// How often a server did not know a client.
    fn refused(&self) -> usize {
        let said = NAMES.map(|name| self.said(name)).concat();
        said.lines()
            .filter(|line| line.starts_with("refused "))
            .count()
    }

    /// The sum of the samples of a metric that have this label; 0 when there are none.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let text = metrics(self.admin).unwrap_or_default();
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?.strip_prefix('{')?;
            labels.contains(label).then(|| value.parse::<f64>().ok())?
        });
        samples.fold(0.0, |total, value| total + value)
    }
}

fn metrics(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(START))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The clients, which stay until they are told to go.
struct Crowd(Child);

impl Crowd {
    /// Starts them and waits until each has upgraded and counted, or failed.
    fn start(web: SocketAddr, clients: u64, transports: &str) -> (Self, Value) {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "node", &script("client.js")])
            .args([format!("http://{web}"), clients.to_string()])
            .args(["20", transports])
            .env("NODE_PATH", modules())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let output = child.stdout.take().expect("a pipe");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("the clients tell how it went");
        let told = serde_json::from_str(&line);
        let told = told.unwrap_or_else(|error| panic!("{error}: {line:?}"));
        (Crowd(child), told)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        let status = self.0.wait().expect("the clients end");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
