//! A real Prometheus of Debian's package that scrapes weir, and its `promtool`.
//! It never reads weir's metrics itself: what counts is what Prometheus understood.
//! Read `scenarios.rs` for the questions.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::Line;
use crate::ports;
use crate::process::Process;

/// A running Prometheus.
pub struct Prometheus {
    address: SocketAddr,
    /// Its process.
    pub process: Process,
}

impl Prometheus {
    /// Why it cannot run here, if so.
    pub fn missing() -> Option<String> {
        let runs = |program| Command::new(program).arg("--version").output().is_ok();
        let both = runs("prometheus") && runs("promtool");
        (!both).then(|| "Debian's package prometheus is not installed".to_owned())
    }

    /// Starts one that scrapes `target` every half second.
    pub fn start(directory: &Path, target: SocketAddr) -> Self {
        fs::create_dir_all(directory).expect("a directory can be made");
        let file = directory.join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}\n\
             scrape_configs:\n  - job_name: weir\n    static_configs: [{{ targets: ['{target}'] }}]\n"
        );
        fs::write(&file, text).expect("a file can be written");
        let address = ports::free();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.join("data").display()),
            format!("--web.listen-address={address}"),
        ];
        let process = Process::start("prometheus", &arguments, &directory.join("prometheus.log"));
        Self { address, process }
    }

    /// The values that an instant query finds; `query` may hold letters, digits, `_`, `(` and `)`.
    pub fn query(&self, query: &str) -> Vec<f64> {
        let path = format!("/api/v1/query?query={query}");
        let Ok(answer) = Line::new(self.address).get(&path, "") else {
            return Vec::new();
        };
        let found: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let rows = found["data"]["result"].as_array().cloned();
        let value = |row: &serde_json::Value| row["value"][1].as_str()?.parse().ok();
        rows.unwrap_or_default().iter().filter_map(value).collect()
    }
}

/// What `promtool check metrics` says about `metrics`, and whether it is content.
pub fn check(metrics: &str) -> (String, bool) {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut input = tool.stdin.take().expect("promtool reads");
    input.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(input);
    let output = tool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (said, output.status.success())
}
