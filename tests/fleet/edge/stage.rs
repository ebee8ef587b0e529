//! The parties of a scenario: a weir with a file of the scenario's, programs of Python in their own environment, and one that is talked to.
//! Whatever it starts ends with it.
//! Read `grpc.rs` for what they do.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::ports;
use crate::process::{Process, wait};

/// How long a program may take to start, or to do what it is asked.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a connection lasts whose backend was removed.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Where the Python modules are, which are not part of this tree.
pub fn environment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/edge/venv")
}

/// The interpreter that has them.
pub fn python() -> String {
    environment().join("bin/python").display().to_string()
}

/// A file beside this one.
pub fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/edge");
    path.join(name).display().to_string()
}

/// What is not here of one of the Python modules.
pub fn missing_module(name: &str) -> Option<String> {
    let probe = Command::new(python())
        .args(["-c", &format!("import {name}")])
        .stderr(Stdio::null())
        .status();
    match probe {
        Ok(status) if status.success() => None,
        _ => Some(format!(
            "no Python module {name} in {}: tests/run puts it there",
            environment().display()
        )),
    }
}

/// A weir before the programs of a scenario.
pub struct Stage {
    /// Where clients come in.
    pub web: SocketAddr,
    /// The admin server.
    pub admin: SocketAddr,
    directory: PathBuf,
    weir: Process,
}

impl Stage {
    /// Starts weir with one listener and `text` as what else the file says, and waits until `backends` of its backends are up.
    pub fn start(directory: &Path, text: &str, backends: usize) -> Self {
        Self::start_watching(directory, text, backends, || None)
    }

    /// The same, until `broken` says that a party has ended.
    pub fn start_watching(
        directory: &Path,
        text: &str,
        backends: usize,
        mut broken: impl FnMut() -> Option<String>,
    ) -> Self {
        let (web, admin) = (ports::free(), ports::free());
        let file = directory.join("weir.toml");
        fs::write(&file, whole(directory, web, admin, text)).expect("the config can be written");
        let arguments = ["run", "-c", &file.display().to_string()].map(str::to_owned);
        let weir = Process::start(&program(), &arguments, &directory.join("weir.log"));
        let mut stage = Stage {
            web,
            admin,
            directory: directory.to_path_buf(),
            weir,
        };
        wait("weir is ready, its backends are up", PATIENCE, || {
            if let Some(status) = stage.weir.ended() {
                panic!("weir ended, {status}:\n{}", stage.weir.tail(40));
            }
            if let Some(said) = broken() {
                panic!("a backend ended:\n{said}");
            }
            let up = stage.metric("weir_backend_up", "");
            let listens = TcpStream::connect(web).is_ok();
            (listens && up == backends as f64).then_some(())
        });
        stage
    }

    /// Writes the file anew, with `text` in the old one's place, and waits until weir serves by it.
    pub fn reload(&self, text: &str) {
        let before = self.metric("weir_config_generation", "");
        let fresh = self.directory.join("fresh");
        let text = whole(&self.directory, self.web, self.admin, text);
        fs::write(&fresh, text).expect("the config can be written");
        fs::rename(fresh, self.directory.join("weir.toml"))
            .expect("it can take the old one's place");
        wait("weir takes the new file", PATIENCE, || {
            (self.metric("weir_config_generation", "") > before).then_some(())
        });
    }

    /// Another command of weir's, such as `drain`, against this one.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.env("WEIR_ADMIN", self.admin.to_string());
        command.args(arguments);
        command
    }

    /// The lines of the access log.
    pub fn access(&self) -> String {
        fs::read_to_string(self.directory.join("access.log")).unwrap_or_default()
    }

    /// The sum of the samples of a metric whose labels contain this; 0 when there are none.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let text = metrics(self.admin).unwrap_or_default();
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            let is_same = labels.is_empty() || labels.starts_with('{');
            (is_same && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        samples.fold(0.0, |total, value| total + value)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let access = self.access();
            let lines: Vec<&str> = access.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n");
            eprintln!("-- weir's log --\n{}\n{last}", self.weir.tail(20));
        }
    }
}

/// The file's text.
fn whole(directory: &Path, web: SocketAddr, admin: SocketAddr, text: &str) -> String {
    format!(
        "workers = 2\ndrain_timeout = \"{}s\"\nstate_dir = \"{}\"\n[log]\naccess = \"{}\"\n[admin]\nbind = \"{admin}\"\n\
         [listeners.web]\nbind = [\"{web}\"]\n{text}",
        DRAIN.as_secs(),
        directory.join("state").display(),
        directory.join("access.log").display(),
    )
}

/// The weir to run: what `WEIR_BINARY` names, else the build beside the tests.
fn program() -> String {
    std::env::var("WEIR_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_weir").to_owned())
}

fn metrics(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A program that tells what it reaches line by line, and goes on when it is told to.
pub struct Talk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talk {
    /// Starts it; killed by the kernel when the test dies.
    pub fn start(program: &str, arguments: &[String]) -> Self {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "timeout", "-k", "1", "120"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Talk {
            child,
            input,
            output,
        }
    }

    /// Its next line; nothing at its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Waits for this line.
    pub fn hear(&mut self, wanted: &str) {
        let line = self.line();
        assert_eq!(line, wanted, "the program says something else, or ended");
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        self.say("");
    }

    /// Tells it a line.
    pub fn say(&mut self, words: &str) {
        let line = format!("{words}\n");
        let told = self.input.write_all(line.as_bytes());
        told.expect("the program listens");
    }

    /// What it tells at its end.
    pub fn end(mut self) -> Value {
        let line = self.line();
        let told = serde_json::from_str(&line);
        let told = told.unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let status = self.child.wait().expect("the program ends");
        assert!(status.success(), "{status}: {told}");
        told
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // `timeout` passes it on; the program cannot be killed past it.
        let command = format!("kill -TERM {}", self.child.id());
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = Command::new("sh").args(["-c", &command]).status();
        }
        let _ = self.child.wait();
    }
}

/// Sends a signal.
pub fn signal(process: &Process, name: &str) {
    let command = format!("kill -{name} {}", process.id());
    let sent = Command::new("sh").args(["-c", &command]).status();
    assert!(sent.is_ok_and(|status| status.success()), "{command}");
}
