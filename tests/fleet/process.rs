//! A program that the test started: its output goes to a file, and it never outlives the test.
//! It must be started from the main thread, because the kernel ties the parent-death signal to the starting thread.
//! Read `tomcat.rs`, `weir.rs` and `prometheus.rs` for the programs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// A running program; dropped, it is killed.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, its output in `log`; killed by the kernel when the test dies.
    pub fn start(program: &str, arguments: &[String], log: &Path) -> Self {
        let output = File::create(log).expect("the log file can be made");
        let errors = output.try_clone().expect("a descriptor can be copied");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        Self {
            child,
            log: log.to_path_buf(),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("a child of this process can be waited for")
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then its exit status; `None` when it is still there after `patience`.
    pub fn terminate(&mut self, patience: Duration) -> Option<ExitStatus> {
        let command = format!("kill -TERM {}", self.id());
        let sent = Command::new("sh").args(["-c", &command]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{command}");
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            thread::sleep(POLL);
        }
        None
    }

    /// The last `lines` lines of what it wrote.
    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks at `condition` again and again until it holds a value; panics with `what` after `patience`.
pub fn wait<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Whether there is such a program.
pub fn there(program: &str) -> bool {
    Command::new("sh")
        .args([
            "-c",
            "PATH=$PATH:/usr/sbin:/sbin; command -v \"$0\"",
            program,
        ])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// What a program wrote to both its outputs.
pub fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Runs a command, and panics with what it wrote when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}:\n{}", said(&output));
    said(&output)
}
