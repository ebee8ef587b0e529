//! weir in networks of the kernel's making: virtual IPs that move, routes of equal cost, backends that see the client's address.
//! It must touch nothing but namespaces of its own, which go with it, and call what cannot be tried here skipped.
//! Its own runner. Read `network.rs` for the stage, `takeover.rs` for the play; `roles.rs` is who else is on it.

mod network;
#[allow(dead_code)]
#[path = "../fleet/process.rs"]
mod process;
mod roles;
mod takeover;
mod transparent;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::Instant;

/// A claim: its name, what it needs that is not here, if anything, and what it shows.
type Claim = (&'static str, fn() -> Option<String>, fn(&Path));

const CLAIMS: &[Claim] = &[
    ("kernel::vrrp", takeover::missing_keepalived, takeover::vrrp),
    ("kernel::ecmp", takeover::missing_bird, takeover::ecmp),
    (
        "kernel::transparent",
        transparent::missing,
        transparent::transparent,
    ),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--role") {
        roles::play(&words[1..]);
    }
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
    for (name, missing, claim) in claims() {
        if let Some(missing) = network::missing().or_else(missing) {
            println!("test {name} ... ignored, {missing}");
            ignored += 1;
            continue;
        }
        let began = Instant::now();
        let directory = directory(name);
        let outcome = catch_unwind(|| claim(&directory));
        match outcome {
            Ok(()) => {
                let _ = fs::remove_dir_all(directory);
                passed += 1;
            }
            Err(_) => {
                println!("  what was written is in {}", directory.display());
                failed += 1;
            }
        }
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1?})", began.elapsed());
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
    fs::create_dir_all(&directory).expect("a directory can be made");
    directory
}

/// Whether there is such a program.
fn there(program: &str) -> bool {
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
fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Runs a command, and panics with what it wrote when it fails.
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}:\n{}", said(&output));
    said(&output)
}
