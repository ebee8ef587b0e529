//! `weir check`: judges a configuration file.
//! It must say all that a start or a reload would say, and touch nothing but the file and those that it names.
//! The walk goes on in `config/mod.rs` and `control/filter_files.rs`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::config::diagnostic::{Diagnostics, counted};
use crate::config::model::Config;
use crate::config::{self, Loaded};
use crate::control::certificates::Material;
use crate::control::filter_files;

/// Prints every problem to standard error; the verdict to standard output when the file is good.
pub fn check(path: &Path) -> ExitCode {
    match judge(path) {
        Ok((loaded, _)) => {
            print(&loaded.warnings);
            // A reader that has gone away wanted no more.
            let _ = writeln!(io::stdout(), "{}", summary(&loaded));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            refuse(&problems);
            ExitCode::FAILURE
        }
    }
}

/// Loads a file, and those that it names.
///
/// # Errors
/// Every problem, when it is refused.
pub fn judge(path: &Path) -> Result<(Loaded, Material), Diagnostics> {
    config::load(path).and_then(|loaded| filter_files::load(loaded, None))
}

/// Prints problems to standard error, with their number below them.
pub fn refuse(problems: &Diagnostics) {
    print(problems);
    let _ = writeln!(io::stderr(), "{}: {}", problems.file(), problems.counts());
}

/// Prints problems to standard error.
pub fn print(problems: &Diagnostics) {
    let _ = write!(io::stderr(), "{}", problems.render(wants_colour()));
}

/// Colour is for people at a terminal who did not ask for none (no-color.org).
fn wants_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `ok: 2 listeners, 3 routes, 1 pool, 4 backends`, with the number of warnings when there are some.
fn summary(loaded: &Loaded) -> String {
    let Config {
        listeners,
        routes,
        pools,
        ..
    } = &loaded.config;
    let backends = pools.iter().map(|pool| pool.backends.len()).sum();
    let mut parts = vec![
        counted(listeners.len(), "listener"),
        counted(routes.len(), "route"),
        counted(pools.len(), "pool"),
        counted(backends, "backend"),
    ];
    let sources = pools.iter().filter_map(|pool| {
        let discovery = pool.discovery.as_ref()?;
        Some(format!("pool {} asks {discovery} for more", pool.name))
    });
    parts.extend(sources);
    if !loaded.warnings.is_empty() {
        parts.push(loaded.warnings.counts());
    }
    format!("ok: {}", parts.join(", "))
}
