//! The stage: namespaces for a client, a router, two weirs and the backends, joined by veth pairs and a bridge.
//! It must leave nothing behind, and clears what runs that were killed have left.
//!
//! client 10.98.0.2 ── 10.98.0.1 router 10.99.0.1 ── bridge ─┬─ weir1 10.99.0.11
//!                                                           ├─ weir2 10.99.0.12
//!                                                           └─ was   10.99.0.21 to .23
//!
//! Read `takeover.rs` for what happens on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::time::Duration;

use crate::process::{Process, run, said, there, wait};

/// What names of this test begin with.
const PREFIX: &str = "weir-kernel-";

/// The places of the stage.
pub const PLACES: [&str; 5] = ["client", "router", "weir1", "weir2", "was"];
/// Where the backends listen, in `was`.
pub const BACKENDS: [(&str, &str); 3] = [
    ("was1", "10.99.0.21:8080"),
    ("was2", "10.99.0.22:8080"),
    ("was3", "10.99.0.23:8080"),
];

const PATIENCE: Duration = Duration::from_secs(20);

/// Why there can be no stage here, if so.
pub fn missing() -> Option<String> {
    for (program, package) in [
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
    ] {
        if !there(program) {
            return Some(format!("Debian's package {package} is not installed"));
        }
    }
    let name = format!("{PREFIX}{}-try", id());
    let output = Command::new("ip").args(["netns", "add", &name]).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return Some(error.to_string()),
    };
    let pair = output.status.success().then(|| {
        let pair = [
            "-n", &name, "link", "add", "one", "type", "veth", "peer", "name", "other",
        ];
        Command::new("ip").args(pair).output()
    });
    let _ = Command::new("ip").args(["netns", "delete", &name]).output();
    match pair {
        None => Some(format!(
            "network namespaces are not allowed (it needs root): {}",
            said(&output).trim()
        )),
        Some(Ok(pair)) if pair.status.success() => None,
        Some(_) => Some("this kernel has no veth pairs".to_owned()),
    }
}

/// The namespaces; dropped, they are gone.
pub struct Network {
    name: String,
    /// Where configurations and logs lie.
    pub directory: PathBuf,
}

impl Network {
    /// Builds the stage.
    pub fn new(directory: &Path) -> Self {
        sweep();
        let network = Self {
            name: format!("{PREFIX}{}", id()),
            directory: directory.to_owned(),
        };
        for place in PLACES {
            ip(&format!("netns add {}", network.of(place)));
            network.ip(place, "link set lo up");
        }
        let router = network.of("router");
        network.ip("router", "link add lan type bridge");
        network.join("client", "client");
        network.ip("router", "address add 10.98.0.1/24 dev client");
        network.ip("client", "address add 10.98.0.2/24 dev eth0");
        network.ip("client", "route add default via 10.98.0.1");
        network.ip("router", "link set lan up");
        network.ip("router", "address add 10.99.0.1/24 dev lan");
        let addresses: [(&str, &[u8]); 3] =
            [("weir1", &[11]), ("weir2", &[12]), ("was", &[21, 22, 23])];
        for (place, last) in addresses {
            network.join(place, place);
            ip(&format!("-n {router} link set {place} master lan"));
            for byte in last {
                network.ip(place, &format!("address add 10.99.0.{byte}/24 dev eth0"));
            }
            network.ip(place, "route add default via 10.99.0.1");
        }
        // All connections of one address must be able to take different ways.
        network.set(
            "router",
            &[
                ("ipv4/ip_forward", "1"),
                ("ipv4/fib_multipath_hash_policy", "1"),
            ],
        );
        network
    }

    /// A cable from `place` to the router, where its end is called `name`.
    fn join(&self, place: &str, name: &str) {
        let (router, place) = (self.of("router"), self.of(place));
        ip(&format!(
            "link add {name} netns {router} type veth peer name eth0 netns {place}"
        ));
        ip(&format!("-n {router} link set {name} up"));
        ip(&format!("-n {place} link set eth0 up"));
    }

    fn of(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// `ip` at a place; what it printed.
    pub fn ip(&self, place: &str, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.of(place)))
    }

    /// Sets variables below `/proc/sys/net`.
    pub fn set(&self, place: &str, variables: &[(&str, &str)]) {
        for (name, value) in variables {
            let write = format!("echo {value} > /proc/sys/net/{name}");
            run(self.command(place, "sh").args(["-c", &write]));
        }
    }

    /// A command at a place.
    pub fn command(&self, place: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/run/netns/{}", self.of(place)), program]);
        command
    }

    /// The sum of a metric of the weir at a place, over the rows that have this label.
    pub fn metric(&self, place: &str, name: &str, label: &str) -> u64 {
        let curl = ["-sS", "http://127.0.0.1:9900/metrics"];
        let metrics = run(self.command(place, "curl").args(curl));
        let lines = (metrics.lines()).filter(|line| line.starts_with(&format!("{name}{{")));
        let values = lines.filter(|line| line.contains(label));
        let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>() as u64
    }

    /// Sockets of datagrams at a place.
    pub fn sockets_of_datagrams(&self, place: &str) -> u64 {
        let sockets = run(self.command(place, "cat").arg("/proc/net/sockstat"));
        let udp = (sockets.lines()).find_map(|line| line.strip_prefix("UDP: inuse "));
        let sockets = udp.and_then(|rest| rest.split(' ').next()?.parse().ok());
        sockets.expect("the kernel tells")
    }

    /// A path for a socket of a place; those must be short.
    pub fn socket(&self, place: &str) -> String {
        let folder = std::env::temp_dir().join(&self.name);
        fs::create_dir_all(&folder).expect("a directory can be made");
        folder.join(place).display().to_string()
    }

    /// A program that runs at a place until the result is dropped; `name` is its log's.
    pub fn start(&self, place: &str, name: &str, line: &[&str]) -> Process {
        let network = format!("--net=/run/netns/{}", self.of(place));
        // Scripts that are run by others find this weir, and the programs of the system's keeper.
        let path = format!(
            "PATH={}:{}:/usr/sbin:/sbin",
            self.directory.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let all = [network.as_str(), "env", &path]
            .into_iter()
            .chain(line.iter().copied());
        let all: Vec<String> = all.map(str::to_owned).collect();
        Process::start("nsenter", &all, &self.directory.join(format!("{name}.log")))
    }

    /// This program in another role, see `roles.rs`.
    pub fn cast(&self, place: &str, name: &str, role: &[&str]) -> Process {
        let own = std::env::current_exe().expect("a program knows where it is");
        let own = own.display().to_string();
        let line: Vec<&str> = [own.as_str(), "--role"]
            .into_iter()
            .chain(role.iter().copied())
            .collect();
        self.start(place, name, &line)
    }

    /// The three backends.
    pub fn backends(&self) -> Vec<Process> {
        let start = |(name, address)| self.cast("was", name, &["backend", name, address]);
        BACKENDS.into_iter().map(start).collect()
    }

    /// A weir at a place, once it is ready, with its configuration but for the admin server, which is where it is by default.
    pub fn weir(&self, place: &str, configuration: &str) -> Process {
        let file = self.directory.join(format!("{place}.toml"));
        fs::write(&file, configuration).expect("a file can be written");
        let link = self.directory.join("weir");
        // It is there from the second one on.
        let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weir"), &link);
        let weir = link.display().to_string();
        let mut process = self.start(
            place,
            place,
            &[&weir, "run", "-c", &file.display().to_string()],
        );
        wait("weir is ready", PATIENCE, || {
            assert!(process.ended().is_none(), "{}", process.tail(20));
            let output = self
                .command(place, &weir)
                .args(["status", "--ready", "-c"])
                .arg(&file)
                .output();
            output
                .is_ok_and(|output| output.status.success())
                .then_some(())
        });
        process
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in PLACES {
            let _ = Command::new("ip")
                .args(["netns", "delete", &self.of(place)])
                .output();
        }
        let _ = fs::remove_dir_all(std::env::temp_dir().join(&self.name));
    }
}

fn ip(arguments: &str) -> String {
    run(Command::new("ip").args(arguments.split_whitespace()))
}

/// What runs of this test that were killed have left in the kernel.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}
