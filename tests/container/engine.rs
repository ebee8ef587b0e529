//! Docker's engine of Debian's package, with its own folders, socket, processes, mounts and network.
//! Nothing of it may outlive the test: the kernel ends the engine's whole process namespace with the test, and its mounts with it.
//! Read `bases.rs` for the images that others are made from, `image.rs` for what is run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::process::{run, said, there};

/// What names of this test begin with: folders, namespaces, control groups.
const PREFIX: &str = "weir-container-";
const START: Duration = Duration::from_secs(60);

/// A running engine.
pub struct Engine {
    name: String,
    /// Short, because paths of sockets are.
    folder: PathBuf,
    process: Mutex<Process>,
}

impl Engine {
    /// Starts one; says why when none can.
    pub fn start() -> Result<Self, String> {
        for (program, package) in [
            ("dockerd", "docker.io"),
            ("docker", "docker.io"),
            ("unshare", "util-linux"),
            ("ip", "iproute2"),
        ] {
            if !there(program) {
                return Err(format!("Debian's package {package} is not installed"));
            }
        }
        if !is_root() {
            return Err("a Docker engine needs root".to_owned());
        }
        sweep();
        let name = format!("{PREFIX}{}", id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        let made = made.map_err(|error| error.to_string())?;
        if !made.status.success() {
            return Err(format!("no network namespace: {}", said(&made).trim()));
        }
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).expect("a directory can be made");
        run(Command::new("ip").args(["-n", &name, "link", "set", "lo", "up"]));
        let process = Process::start("nsenter", &arguments(&name, &folder), &folder.join("log"));
        let engine = Self {
            name,
            folder,
            process: Mutex::new(process),
        };
        match engine.wait() {
            Ok(()) => Ok(engine),
            Err(problem) => {
                engine.end();
                Err(problem)
            }
        }
    }

    fn wait(&self) -> Result<(), String> {
        let mut process = self.process.lock().expect("nobody panics with it");
        let end = Instant::now() + START;
        while !self
            .docker()
            .arg("version")
            .output()
            .is_ok_and(|it| it.status.success())
        {
            if process.ended().is_some() || Instant::now() > end {
                let tail = process.tail(1);
                return Err(format!("no Docker engine can start here: {tail}"));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The client, toward this engine; Debian's if it is there.
    pub fn docker(&self) -> Command {
        let debian = Path::new("/usr/bin/docker");
        self.client(if debian.exists() {
            debian
        } else {
            Path::new("docker")
        })
    }

    /// Debian's docker-compose, toward this engine.
    pub fn compose(&self) -> Command {
        self.client(Path::new("docker-compose"))
    }

    /// A program that finds this engine.
    pub fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env(
                "DOCKER_HOST",
                format!("unix://{}/sock", self.folder.display()),
            )
            .env("DOCKER_CONFIG", self.folder.join("client"))
            .env("DOCKER_BUILDKIT", "1")
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// A program in the engine's network.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/run/netns/{}", self.name), program]);
        command
    }

    /// A program in the engine's network that runs until the result is dropped.
    pub fn start_inside(&self, program: &str, arguments: &[&str], log: &Path) -> Process {
        let network = format!("--net=/run/netns/{}", self.name);
        let all: Vec<String> = [network.as_str(), program]
            .iter()
            .chain(arguments)
            .map(|it| (*it).to_owned())
            .collect();
        Process::start("nsenter", &all, log)
    }

    /// Removes containers, ends the engine and takes away what it left.
    pub fn end(&self) {
        let listed = self.docker().args(["ps", "-aq"]).output();
        let listed = listed.map_or(String::new(), |output| said(&output));
        let ids: Vec<&str> = listed.split_whitespace().collect();
        if !ids.is_empty() {
            let _ = self
                .docker()
                .args(["rm", "--force", "--volumes"])
                .args(ids)
                .output();
        }
        self.process.lock().expect("nobody panics with it").kill();
        clear(&self.name);
    }
}

fn arguments(name: &str, folder: &Path) -> Vec<String> {
    let program = Path::new("/usr/sbin/dockerd");
    let program = if program.exists() {
        program
    } else {
        Path::new("dockerd")
    };
    let folder = folder.display();
    [
        format!("--net=/run/netns/{name}"),
        "unshare".to_owned(),
        "--mount".to_owned(),
        "--pid".to_owned(),
        "--fork".to_owned(),
        "--kill-child".to_owned(),
        "--mount-proc".to_owned(),
        "sh".to_owned(),
        "-euc".to_owned(),
        MEMORY.to_owned(),
        format!("{folder}/data"),
        program.display().to_string(),
        format!("--data-root={folder}/data"),
        format!("--exec-root={folder}/exec"),
        format!("--pidfile={folder}/pid"),
        format!("--host=unix://{folder}/sock"),
        format!("--cgroup-parent=/{name}"),
        "--iptables=false".to_owned(),
        "--ip6tables=false".to_owned(),
        "--bridge=none".to_owned(),
    ]
    .into()
}

/// Images and containers lie in memory: that is quick, and gone with the engine. A compiler and what it makes take the most of it.
const MEMORY: &str =
    r#"mkdir -p "$0"; mount -t tmpfs -o "size=${WEIR_FULL:+1}2g" tmpfs "$0"; exec "$@""#;

pub fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| said(&output).trim() == "0")
}

/// What runs of this test that were killed have left.
fn sweep() {
    let namespaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let folders = fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten();
    for entry in namespaces.chain(folders) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            clear(&name);
        }
    }
}

fn clear(name: &str) {
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
    let groups = "find /sys/fs/cgroup -depth -type d -path \"*/$0*\" -exec rmdir {} + 2>/dev/null";
    let _ = Command::new("sh").args(["-c", groups, name]).output();
    // What it mounted went with its namespace; the kernel may take a moment.
    let folder = std::env::temp_dir().join(name);
    let end = Instant::now() + Duration::from_secs(10);
    while folder.exists() && fs::remove_dir_all(&folder).is_err() && Instant::now() < end {
        sleep(Duration::from_millis(100));
    }
}
