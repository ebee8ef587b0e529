//! weir as an edge between real programs: gRPC's own library on both sides, curl and nghttp, Tomcat's examples, a browser, PostgreSQL, Redis.
//! It must speak with each of them as a user would, and never look into weir but through its admin server.
//! Its own runner, so that what is missing is a skipped scenario. Read `stage.rs` for the parties, then the file of each.

mod bytes;
mod grpc;
#[allow(dead_code)]
#[path = "../ports.rs"]
mod ports;
#[allow(dead_code)]
#[path = "../process.rs"]
mod process;
mod stage;
mod web;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// A scenario: its name, what it needs that is not here, if anything, and what it shows.
type Claim = (&'static str, fn() -> Option<String>, fn(&Path));

const CLAIMS: &[Claim] = &[
    ("edge::grpc_calls", grpc::missing, grpc::calls),
    ("edge::grpc_spread", grpc::missing, grpc::spread),
    ("edge::grpc_deadline", grpc::missing, grpc::deadline),
    ("edge::grpc_cancel", grpc::missing, grpc::cancel),
    ("edge::grpc_refusals", grpc::missing, grpc::refusals),
    ("edge::grpc_killed", grpc::missing, grpc::killed),
    ("edge::grpc_restart", grpc::missing, grpc::restart),
    ("edge::grpc_health", grpc::missing, grpc::health),
    ("edge::tomcat_servlets", web::missing_tools, web::servlets),
    ("edge::tls_tools", web::missing_tools, web::tools),
    (
        "edge::tomcat_websocket",
        web::missing_websockets,
        web::websocket,
    ),
    ("edge::browser", web::missing_browser, web::browser),
    (
        "edge::postgresql",
        bytes::missing_postgres,
        bytes::postgresql,
    ),
    ("edge::redis", bytes::missing_redis, bytes::redis),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = words.iter().filter(|word| !word.starts_with('-'));
    let filter = filters.next().map_or("", String::as_str);
    let claims = || CLAIMS.iter().filter(|(name, ..)| name.contains(filter));
    if words.iter().any(|word| word == "--list") {
        claims().for_each(|(name, ..)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", claims().count());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let started = Instant::now();
    for (name, missing, scenario) in claims() {
        if let Some(missing) = missing() {
            println!("test {name} ... ignored, {missing}");
            ignored += 1;
            continue;
        }
        let directory = directory(name);
        let outcome = catch_unwind(|| scenario(&directory));
        let _ = fs::remove_dir_all(directory);
        match outcome {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
        println!(
            "test {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; \
         0 measured; 0 filtered out; finished in {:.2}s\n",
        started.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

fn directory(name: &str) -> PathBuf {
    let name = format!("{}-{}", name.replace(':', "-"), std::process::id());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(directory.join("state")).expect("a directory can be made");
    directory
}
