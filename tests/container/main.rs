//! weir as it is delivered: the Debian package, the container image, the site in `docker/compose.yml`, dashboard and alerts.
//! It must start its own Docker engine, in namespaces of its own, so that nothing of it outlives the test or is seen by others.
//! Its own runner, so that what is missing is a skipped claim. Read `image.rs` and `package.rs`, then `engine.rs`.

mod documents;
mod engine;
mod image;
mod package;
#[allow(dead_code)]
#[path = "../fleet/process.rs"]
mod process;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::OnceLock;
use std::time::Instant;

use engine::Engine;

/// A claim: its name, what it needs that is not here, if anything, and what it shows.
type Claim = (&'static str, fn() -> Option<String>, fn(&Path));

const CLAIMS: &[Claim] = &[
    (
        "container::alerts",
        documents::missing_promtool,
        documents::alerts,
    ),
    ("container::dashboard", nothing, documents::dashboard),
    ("container::package", package::missing, package::package),
    ("container::unit", package::missing_systemd, package::unit),
    (
        "container::compose_file",
        image::missing_compose,
        image::compose_file,
    ),
    ("container::image", image::missing, image::image),
    ("container::unhealthy", image::missing, image::unhealthy),
    ("container::compose", image::missing_site, image::compose),
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
    for (name, missing, claim) in claims() {
        if let Some(missing) = missing() {
            println!("test {name} ... ignored, {missing}");
            ignored += 1;
            continue;
        }
        let began = Instant::now();
        let directory = directory(name);
        let outcome = catch_unwind(|| claim(&directory));
        let _ = fs::remove_dir_all(directory);
        match outcome {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1?})", began.elapsed());
    }
    if let Some(Ok(engine)) = ENGINE.get() {
        engine.end();
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; \
         0 measured; 0 filtered out; finished in {:.2}s\n",
        started.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();

/// The one engine of this run, started when it is first needed; else why there is none.
fn engine() -> Result<&'static Engine, String> {
    let engine = ENGINE.get_or_init(Engine::start);
    engine.as_ref().map_err(Clone::clone)
}

fn nothing() -> Option<String> {
    None
}

/// The top of the tree.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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
