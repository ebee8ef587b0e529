//! `weir run`: starts the proxy.
//! It must hold no more than the way into `control`.
//! The walk goes on in `control/run.rs`.

use std::path::Path;
use std::process::ExitCode;

use super::check;
use crate::control::run;
use crate::control::upgrade::take_over::Inheritance;
use crate::control::watch::Identity;

/// Serves what the file says until the process is told to stop.
pub fn run(path: &Path) -> ExitCode {
    // Before anything is opened: what was given has numbers that would be something else's.
    let inheritance = match Inheritance::find() {
        Ok(inheritance) => inheritance,
        Err(why) => return super::print(Err(format!("error: {why}"))),
    };
    let read = Identity::of(path);
    match check::judge(path) {
        Ok(files) => {
            check::print(&files.0.warnings.without_advice());
            run::run(path, read, files, inheritance)
        }
        Err(problems) => {
            check::refuse(&problems);
            inheritance.fail(problems.render(false).trim_end());
            ExitCode::FAILURE
        }
    }
}
