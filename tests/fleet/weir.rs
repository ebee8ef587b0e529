//! The weir under test: the built binary, its config file in the test's directory, its admin server.
//! It must be asked only what an operator could ask: the file, the admin address, the process table.
//! Read `scenarios.rs` for what it must show.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::client::Line;
use crate::ports;
use crate::process::{Process, wait};
use crate::tomcat::{HEALTH, Tomcat};

/// Between two probes of a backend.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// After this a probe has failed; long, so that a busy machine is not taken for a dead server.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// Failed probes until `down`.
pub const FALL: u32 = 3;

const START: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(3);

/// What the file says, as far as the scenarios vary it.
#[derive(Clone)]
pub struct Setup {
    /// Where clients come in.
    pub web: SocketAddr,
    /// The admin server.
    pub admin: SocketAddr,
    /// A second listener.
    pub extra: Option<SocketAddr>,
    /// Name, address and weight of each backend.
    pub backends: Vec<(String, SocketAddr, u16)>,
    /// `timeouts.response` in seconds.
    pub response: u32,
    /// What the route says of stickiness.
    pub sticky: String,
    /// Lines at the top of the file.
    pub head: String,
}

impl Setup {
    /// One listener before `fleet`.
    pub fn new<'a>(fleet: impl IntoIterator<Item = &'a Tomcat>) -> Self {
        let mut setup = Self {
            web: ports::free(),
            admin: ports::free(),
            extra: None,
            backends: Vec::new(),
            response: 30,
            sticky: r#"{ mode = "cookie-hash", sessions = "local" }"#.to_owned(),
            head: String::new(),
        };
        for tomcat in fleet {
            setup.add(tomcat);
        }
        setup
    }

    /// One more backend.
    pub fn add(&mut self, tomcat: &Tomcat) {
        self.add_server(&tomcat.name, tomcat.address);
    }

    /// One more backend, of whatever kind.
    pub fn add_server(&mut self, name: &str, address: SocketAddr) {
        self.backends.push((name.to_owned(), address, 1));
    }

    /// The file's text.
    pub fn text(&self, state: &Path) -> String {
        let Self { web, admin, .. } = self;
        let extra = self.extra.map_or(String::new(), |address| {
            format!("[listeners.extra]\nbind = [\"{address}\"]\n")
        });
        let mut backends = String::new();
        for (name, address, weight) in &self.backends {
            let line =
                format!("{{ name = \"{name}\", address = \"{address}\", weight = {weight} }}");
            writeln!(backends, "  {line},").expect("a string grows");
        }
        format!(
            r#"{head}workers = 2
state_dir = "{state}"
drain_timeout = "{drain}s"

[timeouts]
response = "{response}s"
upstream_idle = "2s"

[admin]
bind = "{admin}"

[log]
access = "off"

[listeners.web]
bind = ["{web}"]
{extra}
[[routes]]
name = "shop"
pool = "was"
sticky = {sticky}

[pools.was]
backends = [
{backends}]

[pools.was.health]
type = "http"
path = "{HEALTH}"
interval = "{interval}s"
timeout = "{timeout}s"
fall = {FALL}
rise = 2
"#,
            state = state.display(),
            drain = DRAIN.as_secs(),
            response = self.response,
            head = self.head,
            sticky = self.sticky,
            interval = INTERVAL.as_secs(),
            timeout = TIMEOUT.as_secs(),
        )
    }
}

/// How the file is written.
#[derive(Clone, Copy)]
pub enum Manner {
    /// A new file takes the old one's place, as editors and orchestrators do.
    Rename,
    /// The same file is truncated and written, as a shell does.
    InPlace,
}

/// A running weir.
pub struct Weir {
    /// Where clients come in.
    pub web: SocketAddr,
    admin: SocketAddr,
    process: Process,
    directory: PathBuf,
}

impl Weir {
    /// Starts weir with `setup` and waits until it is ready and every backend is up.
    pub fn start(directory: &Path, setup: &Setup) -> Self {
        fs::create_dir_all(directory.join("state")).expect("a directory can be made");
        let file = directory.join("weir.toml");
        fs::write(&file, setup.text(&directory.join("state"))).expect("the config can be written");
        let arguments = ["run", "-c", &file.display().to_string()].map(str::to_owned);
        let mut weir = Self {
            web: setup.web,
            admin: setup.admin,
            process: Process::start(&program(directory), &arguments, &directory.join("weir.log")),
            directory: directory.to_path_buf(),
        };
        wait("weir is ready, every backend up", START, || {
            if let Some(status) = weir.process.ended() {
                panic!("weir ended, {status}:\n{}", weir.process.tail(40));
            }
            let answer = Line::new(weir.admin).get("/readyz", "").ok()?;
            let up = sum(&weir.metrics(), "weir_backend_up", "")?;
            (answer.status == 200 && up == setup.backends.len() as f64).then_some(())
        });
        weir
    }

    /// Writes the file anew; the moment at which that was done.
    pub fn write(&self, setup: &Setup, manner: Manner) -> SystemTime {
        let text = setup.text(&self.directory.join("state"));
        let file = self.directory.join("weir.toml");
        match manner {
            Manner::InPlace => fs::write(&file, text).expect("the config can be written"),
            Manner::Rename => {
                let fresh = self.directory.join("weir.toml.new");
                fs::write(&fresh, text).expect("a file can be written");
                fs::rename(&fresh, &file).expect("a file can be renamed");
            }
        }
        SystemTime::now()
    }

    /// Runs another command of weir's, such as `drain`, against this one; what it printed, an error a panic.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = Command::new(program(&self.directory))
            .args(arguments)
            .env("WEIR_ADMIN", self.admin.to_string())
            .output()
            .expect("weir can be run");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "weir {arguments:?}: {said}");
        said
    }

    /// The admin server's address.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let answer = Line::new(self.admin).get("/metrics", "");
        answer.map_or(String::new(), |answer| answer.body)
    }

    /// Number of the configuration in force.
    pub fn generation(&self) -> u64 {
        let generation = sum(&self.metrics(), "weir_config_generation", "");
        generation.map_or(0, |generation| generation as u64)
    }

    /// What each open descriptor is.
    pub fn descriptors(&self) -> Vec<String> {
        let directory = format!("/proc/{}/fd", self.process.id());
        let entries = fs::read_dir(directory).expect("weir runs");
        entries
            .flatten()
            .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string()))
            .collect()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("weir runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
        number.expect("the kernel says how much memory weir has")
    }

    /// SIGTERM; weir must end by itself, and well.
    pub fn stop(mut self) {
        let status = self.process.terminate(DRAIN + Duration::from_secs(10));
        let tail = self.process.tail(20);
        let status = status.unwrap_or_else(|| panic!("weir does not end after SIGTERM:\n{tail}"));
        assert!(status.success(), "weir ended with {status}:\n{tail}");
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- the end of weir's log --\n{}", self.process.tail(40));
        }
    }
}

/// The weir to run: what `WEIR_BINARY` names, say an installed one, else the build beside the tests. An example has none
/// beside it: it is weir itself when it is called so.
fn program(directory: &Path) -> String {
    let named = std::env::var("WEIR_BINARY").ok();
    let beside = option_env!("CARGO_BIN_EXE_weir").map(str::to_owned);
    named.or(beside).unwrap_or_else(|| {
        let link = directory.join("weir");
        let own = std::env::current_exe().expect("a program knows where it is");
        // It is there from the second call on.
        let _ = std::os::unix::fs::symlink(own, &link);
        link.display().to_string()
    })
}

/// The sum of the samples of `name` whose label text contains `label`; `None` when there is none.
pub fn sum(metrics: &str, name: &str, label: &str) -> Option<f64> {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let same = labels.is_empty() || labels.starts_with('{');
        (same && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    samples.reduce(|total, sample| total + sample)
}
