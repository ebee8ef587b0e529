//! `weir run`: starts the proxy.
//! It must hold no more than the way into `control`.
//! The walk goes on in `control/run.rs`.

use std::path::Path;
use std::process::ExitCode;

use super::check;

/// Serves what the file says until the process is told to stop.
pub fn run(path: &Path) -> ExitCode {
    match check::load_and_report(path) {
        Some(_) => {
            eprintln!("weir: serving is not built yet");
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    }
}
