//! Fleets of real servers that keep their sessions in different ways, each behind weir, and the table of what each loses and costs.
//!
//!     cargo run --release --example sessions                  # every fleet, 200 clients
//!     cargo run --release --example sessions -- --short redis # the fleets with `redis` in their names, fewer clients
//!
//! It needs what `tests/run` installs: Tomcat, Node, Redis, Memcached, PostgreSQL, nftables; `README.md` has more.

// The real servers' side is shared with `tests/fleet`, which uses more of it.
#[allow(dead_code)]
#[path = "../../tests/fleet/client.rs"]
mod client;
#[path = "../../tests/fleet/ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "../../tests/fleet/process.rs"]
mod process;
#[path = "table.rs"]
mod table;
#[allow(dead_code)]
#[path = "../../tests/fleet/tomcat.rs"]
mod tomcat;
#[allow(dead_code)]
#[path = "../../tests/fleet/weir.rs"]
mod weir;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use table::{PLANS, Row, Scale};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    // The fleets' weir is this program under another name.
    if Path::new(&words[0])
        .file_name()
        .is_some_and(|name| name == "weir")
    {
        return ::weir::cli::main();
    }
    let is_short = words.iter().any(|word| word == "--short");
    let scale = if is_short { Scale::SHORT } else { Scale::WHOLE };
    let wanted: Vec<&String> = words[1..].iter().filter(|it| *it != "--short").collect();
    let directory = Directory::new();
    let mut rows: Vec<Row> = Vec::new();
    for plan in PLANS {
        let is_wanted = wanted.is_empty() || wanted.iter().any(|it| plan.name.contains(*it));
        if !is_wanted {
            continue;
        }
        if let Some(why) = plan.keeping.missing() {
            eprintln!("{}: skipped, {why}", plan.name);
            continue;
        }
        eprintln!("{}: {} servers", plan.name, plan.servers);
        let row = plan.run(scale, &directory.0);
        eprintln!("{}", table::print(std::slice::from_ref(&row)));
        row.failures
            .iter()
            .for_each(|it| eprintln!("  failed: {it}"));
        eprintln!("  one client alone: {:.1?} a request", row.alone);
        rows.push(row);
    }
    print!("{}", table::print(&rows));
    ExitCode::SUCCESS
}

/// Where the servers of this run have their files; gone with it.
struct Directory(PathBuf);

impl Directory {
    const PREFIX: &str = "weir-sessions-";

    /// Not made yet; those of runs that were killed are removed.
    fn new() -> Directory {
        let root = std::env::temp_dir();
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name.strip_prefix(Self::PREFIX);
            if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Directory(root.join(format!("{}{}", Self::PREFIX, std::process::id())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
