//! `weir run`: starts the proxy.
//! It must hold no more than the way into `control`.
//! The walk goes on in `control/run.rs`.

use std::path::Path;
use std::process::ExitCode;

use crate::control;

/// Serves what the file says until the process is told to stop.
pub fn run(path: &Path) -> ExitCode {
    control::run::run(path)
}
