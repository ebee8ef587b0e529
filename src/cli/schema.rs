//! `weir schema`: prints the JSON Schema of the configuration.
//! It reads no file.
//! The walk goes on in `config/json_schema.rs`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config;

/// Prints the schema to standard output.
pub fn schema() -> ExitCode {
    match writeln!(io::stdout(), "{:#}", config::json_schema()) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has gone away wanted no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
