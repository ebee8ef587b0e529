//! Processes whose wall clocks differ: a preloaded library answers for the system's clock.
//! Monotonic time stays as it is; only what stands in tokens and logs shifts.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Makes the command's wall clock run this many seconds ahead, or behind.
pub fn shift(command: &mut Command, seconds: i64) {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    command
        .env("LD_PRELOAD", LIBRARY.get_or_init(build))
        .env("WEIR_TEST_CLOCK_AHEAD", seconds.to_string());
}

/// Compiled by what links weir, so that it is there wherever the tests are.
fn build() -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/clock.c");
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clock.so");
    let draft = library.with_extension(std::process::id().to_string());
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([draft.as_os_str(), source.as_ref()])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cc {source}");
    std::fs::rename(&draft, &library).unwrap();
    library
}
