//! A real Redis of Debian's package, on a loopback port of its own, that keeps nothing on the disk.
//! It must be asked nothing by the tests: what counts is what weir makes of it.
//! Read `learning.rs` for the scenario.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ports;
use crate::process::Process;

const PASSWORD: &str = "fleet-password";

/// A running Redis.
pub struct Redis {
    address: SocketAddr,
    directory: PathBuf,
    process: Process,
}

impl Redis {
    /// Why it cannot run here, if so.
    pub fn missing() -> Option<String> {
        let runs = Command::new("redis-server").arg("--version").output();
        let is_there = runs.is_ok_and(|output| output.status.success());
        (!is_there).then(|| "Debian's package redis-server is not installed".to_owned())
    }

    /// Starts one that wants a password.
    pub fn start(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory can be made");
        let address = ports::free();
        Self {
            address,
            directory: directory.to_path_buf(),
            process: launch(address, directory),
        }
    }

    /// What weir is told.
    pub fn url(&self) -> String {
        format!("redis://:{PASSWORD}@{}/1", self.address)
    }

    /// Stops it in its tracks: it accepts connections and does nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Kills it and starts it again; it knows nothing any more.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.address, &self.directory);
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.process.id());
        let sent = Command::new("sh").args(["-c", &command]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{command}");
    }
}

fn launch(address: SocketAddr, directory: &Path) -> Process {
    let port = address.port().to_string();
    let directory_text = directory.display().to_string();
    let arguments = [
        ["--bind", "127.0.0.1"],
        ["--port", &port],
        ["--requirepass", PASSWORD],
        ["--save", ""],
        ["--appendonly", "no"],
        ["--dir", &directory_text],
    ];
    let arguments: Vec<String> = arguments.concat().into_iter().map(str::to_owned).collect();
    Process::start("redis-server", &arguments, &directory.join("redis.log"))
}
