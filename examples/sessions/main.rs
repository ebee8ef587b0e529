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

use std::path::Path;
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
    let directory = std::env::temp_dir().join(format!("weir-sessions-{}", std::process::id()));
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
        let row = plan.run(scale, &directory);
        row.failures
            .iter()
            .for_each(|it| eprintln!("  failed: {it}"));
        rows.push(row);
    }
    let _ = std::fs::remove_dir_all(&directory);
    print!("{}", table::print(&rows));
    ExitCode::SUCCESS
}
