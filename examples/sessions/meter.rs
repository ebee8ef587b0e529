//! Bytes that the servers and their stores exchange: nftables counters on the loopback ports between them.
//! It must leave no table behind: its own goes when it is dropped, those of processes that were killed go with the next start.
//! The bytes are those of whole IP packets, acknowledgements included, each counted once.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const PREFIX: &str = "weir_sessions_";

/// A counter of the traffic from and to some ports.
pub struct Meter {
    table: String,
}

impl Meter {
    /// Begins to count; `None` where nftables may not be used.
    pub fn start(ports: &[u16]) -> Option<Self> {
        remove_stale(&nft("list tables\n").ok()?);
        let table = format!("{PREFIX}{}", std::process::id());
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        // Nothing is sent to or from port 0.
        let ports = [vec!["0".to_owned()], ports].concat().join(", ");
        let rules = format!(
            "table inet {table} {{\n\
               counter between {{ }}\n\
               chain out {{\n\
                 type filter hook output priority 0; policy accept;\n\
                 tcp dport {{ {ports} }} counter name between accept\n\
                 tcp sport {{ {ports} }} counter name between accept\n\
               }}\n\
             }}\n"
        );
        nft(&rules).unwrap_or_else(|error| panic!("{error}:\n{rules}"));
        Some(Self { table })
    }

    /// Bytes since the start.
    pub fn bytes(&self) -> u64 {
        let said = nft(&format!("list counters table inet {}\n", self.table));
        let said = said.unwrap_or_else(|error| panic!("{error}"));
        let after = said.split("bytes ").nth(1).unwrap_or_default();
        let number = after.split_ascii_whitespace().next();
        number
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("no counter in {said:?}"))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let _ = nft(&format!("delete table inet {}\n", self.table));
    }
}

fn remove_stale(tables: &str) {
    for table in tables.split_ascii_whitespace() {
        let process = table.strip_prefix(PREFIX).map(|id| format!("/proc/{id}"));
        if process.is_some_and(|process| !Path::new(&process).exists()) {
            let _ = nft(&format!("delete table inet {table}\n"));
        }
    }
}

/// What nft says to `commands`.
fn nft(commands: &str) -> Result<String, String> {
    let program = ["/usr/sbin/nft", "/sbin/nft"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("nft");
    let mut running = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut input = running.stdin.take().expect("nft reads");
    let written = input.write_all(commands.as_bytes());
    drop(input);
    let output = running
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    match output.status.success() && written.is_ok() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
