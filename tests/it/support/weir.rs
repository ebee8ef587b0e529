//! One weir process with its own directory, configuration file and addresses; it dies with the test.
//! A panic in it fails the test even when every answer was right.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::{Client, Message, Origin, process, until};

/// A running weir.
pub struct Weir {
    child: RefCell<Child>,
    pub directory: PathBuf,
    pub file: PathBuf,
    addresses: RefCell<HashMap<String, SocketAddr>>,
    stdout: Lines,
    stderr: Lines,
    collecting: Vec<thread::JoinHandle<()>>,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Weir {
    /// Starts weir with this configuration and waits until it is ready.
    ///
    /// `$name` stands for a free loopback address, the same wherever it stands, `$name_port` for its port alone, and `$dir` for
    /// weir's own directory. Unless the text
    /// says otherwise there is one worker, and the admin server is at `$admin`.
    #[track_caller]
    pub fn start(config: &str) -> Weir {
        Weir::start_with(config, |_| {})
    }

    /// The same, after `setup` had a look at the command.
    #[track_caller]
    pub fn start_with(config: &str, setup: impl FnOnce(&mut Command)) -> Weir {
        let weir = Weir::launch(config, setup);
        until("weir to be ready", || {
            if let Some(status) = weir.exited() {
                panic!("weir ended with {status}:\n{}", weir.stderr());
            }
            let mut admin = Client::try_connect(weir.address("admin")).ok()?;
            admin
                .try_send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .ok()?;
            let ready = admin.try_answer().ok()?;
            (ready.status() == 200).then_some(())
        });
        weir
    }

    /// Starts the process and waits for nothing.
    pub fn launch(config: &str, setup: impl FnOnce(&mut Command)) -> Weir {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-it-{}-{serial}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("weir.toml");
        let addresses = RefCell::new(HashMap::new());
        fs::write(&file, fill_in(config, &directory, &addresses)).unwrap();

        let mut command = Command::new(binary());
        command.args(["run", "-c"]).arg(&file);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
            .env("RUST_BACKTRACE", "1")
            .env_remove("NOTIFY_SOCKET");
        process::die_with_parent(&mut command);
        setup(&mut command);
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (Lines::default(), Lines::default());
        Weir {
            collecting: [
                (child.stdout.take()).map(|pipe| collect(pipe, Arc::clone(&stdout))),
                (child.stderr.take()).map(|pipe| collect(pipe, Arc::clone(&stderr))),
            ]
            .into_iter()
            .flatten()
            .collect(),
            stdout,
            stderr,
            child: RefCell::new(child),
            directory,
            file,
            addresses,
        }
    }

    /// In front of these origins: one listener, one route, no probes.
    #[track_caller]
    pub fn before(origins: &[&Origin]) -> Weir {
        Weir::start(&plain(origins, ""))
    }

    /// The address that `$name` stood for.
    #[track_caller]
    pub fn address(&self, name: &str) -> SocketAddr {
        let addresses = self.addresses.borrow();
        *addresses.get(name).expect("an address of that name")
    }

    /// A connection to the listener at `$web`.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address("web"))
    }

    /// GETs a target on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Message {
        self.client().ask(get(target))
    }

    /// GETs from the admin server.
    #[track_caller]
    pub fn admin(&self, target: &str) -> Message {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        Client::connect(self.address("admin")).ask(request)
    }

    /// POSTs an empty JSON document to the admin server.
    #[track_caller]
    pub fn post(&self, target: &str) -> Message {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}",
            self.address("admin")
        );
        Client::connect(self.address("admin")).ask(request)
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self.admin("/api/v1/status");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).expect("status is JSON")
    }

    /// The sum of a metric over the rows that have all these labels; 0 without rows.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.admin("/metrics").text();
        sum(&text, name, labels)
    }

    /// Waits until a metric has this value: counters may be a moment behind the answers that they count.
    #[track_caller]
    pub fn settles(&self, name: &str, labels: &[(&str, &str)], expected: f64) {
        let mut last = f64::NAN;
        let settled = super::within(super::DEADLINE, || {
            last = self.metric(name, labels);
            (last == expected).then_some(())
        });
        assert!(
            settled.is_some(),
            "{name}{labels:?} is {last}, not {expected}"
        );
    }

    /// Replaces the configuration in place; `$name` means what it meant at the start.
    pub fn write(&self, config: &str) {
        fs::write(&self.file, self.filled(config)).unwrap();
    }

    /// The text as it would stand in the file.
    pub fn filled(&self, config: &str) -> String {
        fill_in(config, &self.directory, &self.addresses)
    }

    #[track_caller]
    pub fn generation(&self) -> u64 {
        self.metric("weir_config_generation", &[]) as u64
    }

    /// Waits until a newer generation than this one is in service.
    #[track_caller]
    pub fn await_generation_after(&self, generation: u64) {
        until("a new generation", || {
            (self.generation() > generation).then_some(())
        });
    }

    pub fn id(&self) -> u32 {
        self.child.borrow().id()
    }

    /// The process that serves now: it may have taken over from the one that was started.
    #[track_caller]
    pub fn serving(&self) -> u32 {
        self.status()["pid"].as_u64().expect("an id") as u32
    }

    pub fn signal(&self, signal: i32) {
        process::signal(self.id(), signal);
    }

    pub fn exited(&self) -> Option<ExitStatus> {
        self.child.borrow_mut().try_wait().unwrap()
    }

    #[track_caller]
    pub fn await_exit(&self) -> ExitStatus {
        until("weir to end", || self.exited())
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// Everything it ever wrote, but for access-log lines in a file.
    pub fn output(&self) -> String {
        [self.stdout().join("\n"), self.stderr()].join("\n")
    }

    /// Waits until it has written this: a line may be a moment behind what it tells of.
    #[track_caller]
    pub fn tells(&self, wanted: &str) {
        let told = super::within(super::DEADLINE, || {
            self.output().contains(wanted).then_some(())
        });
        assert!(
            told.is_some(),
            "it does not tell {wanted:?}:\n{}",
            self.output()
        );
    }

    /// Waits for a line of the access log on standard output whose object passes `wanted`.
    #[track_caller]
    pub fn access(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        until("a line of the access log", || {
            let lines = self.stdout();
            let objects = lines
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok());
            objects
                .into_iter()
                .find(|object: &Value| object.is_object() && wanted(object))
        })
    }

    pub fn resident(&self) -> u64 {
        process::resident(self.id())
    }

    pub fn descriptors(&self) -> usize {
        process::descriptors(self.id())
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
        // Those that took over from it are nobody's children.
        for process in process::running(&self.file.to_string_lossy()) {
            process::signal(process, libc::SIGKILL);
        }
        for thread in self.collecting.drain(..) {
            let _ = thread.join();
        }
        let report = self.stderr();
        if thread::panicking() {
            eprintln!("--- weir's last lines\n{}", tail(&report));
        } else {
            assert!(!report.contains("panicked at"), "weir panicked:\n{report}");
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The binary under test: the one that was built with the tests, or `WEIR_BINARY`, say a release build.
pub fn binary() -> std::ffi::OsString {
    std::env::var_os("WEIR_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_weir").into())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn collect(source: impl Read + Send + 'static, sink: Lines) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            sink.lock().unwrap().push(text);
            line.clear();
        }
    })
}

/// Puts addresses in the place of `$name`, and what every test wants around the text.
fn fill_in(
    config: &str,
    directory: &std::path::Path,
    addresses: &RefCell<HashMap<String, SocketAddr>>,
) -> String {
    let mut text = String::new();
    let says = |key: &str| config.lines().any(|line| line.starts_with(key));
    for (key, default) in [("workers", "1"), ("state_dir", "\"$dir\"")] {
        if !says(key) {
            text.push_str(&format!("{key} = {default}\n"));
        }
    }
    text.push_str(config);
    if !says("[admin]") {
        text.push_str("\n[admin]\nbind = \"$admin\"\n");
    }
    let mut filled = String::new();
    let mut parts = text.split('$');
    filled.push_str(parts.next().unwrap());
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, rest) = part.split_at(end.unwrap_or(part.len()));
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            // Of a regular expression.
            filled.push('$');
            filled.push_str(name);
        } else if name == "dir" {
            filled.push_str(&directory.to_string_lossy());
        } else {
            let (name, port_only) = match name.strip_suffix("_port") {
                Some(name) => (name, true),
                None => (name, false),
            };
            let mut addresses = addresses.borrow_mut();
            let address = addresses.entry(name.to_owned());
            let address = address.or_insert_with(process::free_address);
            filled.push_str(&match port_only {
                true => address.port().to_string(),
                false => address.to_string(),
            });
        }
        filled.push_str(rest);
    }
    filled
}

/// A plain configuration: a listener, a route and a pool of these origins without probes; `head` stands before it.
pub fn plain(origins: &[&Origin], head: &str) -> String {
    let backends: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    plain_at(&backends, head)
}

/// The same for addresses.
pub fn plain_at(backends: &[SocketAddr], head: &str) -> String {
    format!(
        "{head}\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [{}]\nhealth.type = \"none\"\n",
        list(backends)
    )
}

/// Backends as the members of a TOML array.
pub fn list(backends: &[SocketAddr]) -> String {
    let quoted: Vec<String> = backends
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    quoted.join(", ")
}

/// A GET as a browser would send it, without what does not matter.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
}

/// A POST with a body of known length.
pub fn post(target: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let (series, figure) = line.rsplit_once(' ')?;
        let (metric, set) = series.split_once('{').unwrap_or((series, ""));
        let holds = |(label, value): &(&str, &str)| set.contains(&format!("{label}=\"{value}\""));
        (metric == name && labels.iter().all(holds)).then(|| figure.parse::<f64>().ok())?
    })
    .sum()
}
