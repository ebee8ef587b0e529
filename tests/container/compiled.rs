//! The image as `docker build` makes it without further arguments: the program compiled in a container.
//! It takes many minutes, and runs in the long form only.
//! Here the walk ends.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::bases::{base, import_compiler, suite};
use crate::image;
use crate::process::{run, there};
use crate::root;

pub fn missing() -> Option<String> {
    if std::env::var_os("WEIR_FULL").is_none() {
        return Some(
            "it compiles weir once more, which only the long form has time for".to_owned(),
        );
    }
    if !there("rustc") {
        return Some("there is no rustc here to put into an image".to_owned());
    }
    image::missing()
}

/// The Dockerfile compiles weir, and what comes of it serves.
pub fn compiled(directory: &Path) {
    let engine = image::stage();
    let suite = suite(&base().expect("it was asked for before"));
    let rust = version();
    let log = directory.join("compiler.log");
    import_compiler(engine, &suite, &format!("rust:{rust}-{suite}"), &log);
    let began = Instant::now();
    run(engine
        .docker()
        .args(["build", "--network=host"])
        .args(["--file=docker/Dockerfile", "--tag=weir-compiled"])
        .arg(format!("--build-arg=DEBIAN={suite}"))
        .arg(format!("--build-arg=RUST={rust}"))
        .arg(".")
        .current_dir(root()));
    println!("  compiled in {:.0?}", began.elapsed());
    image::serves(engine, "weir-compiled", directory);
}

/// The compiler's version as images are named by it, such as 1.95.
fn version() -> String {
    let said = run(Command::new("rustc").arg("--version"));
    let version = said.split(' ').nth(1).unwrap_or_default();
    let (minor, _) = version.rsplit_once('.').expect("three numbers");
    minor.to_owned()
}
