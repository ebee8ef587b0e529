//! `weir run`: starts the proxy.
//! It must hold no more than the way into `control`.
//! The walk goes on in `control/run.rs`.

use std::path::Path;
use std::process::ExitCode;

use super::check;
use crate::control::run;
use crate::control::watch::Identity;

/// Serves what the file says until the process is told to stop.
pub fn run(path: &Path) -> ExitCode {
    let read = Identity::of(path);
    match check::load(path) {
        Some((loaded, material)) => {
            check::print(&loaded.warnings.without_advice());
            run::run(path, read, loaded, material)
        }
        None => ExitCode::FAILURE,
    }
}
