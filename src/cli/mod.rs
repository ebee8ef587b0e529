//! The command line: what the `weir` binary is asked to do.
//! It parses arguments, prints and chooses the exit code; everything else is done elsewhere.
//! The walk goes on in `run.rs`, which starts the proxy; each other command has its own file.

mod check;
mod run;
mod schema;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// A load-balancing reverse proxy that knows where the session lives.
#[derive(Parser)]
#[command(name = "weir", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the proxy and serve until SIGTERM or SIGINT.
    ///
    /// The configuration is read again when its file changes and on SIGHUP. A file with errors changes nothing.
    Run(ConfigFile),
    /// Judge a configuration file without starting anything.
    ///
    /// Prints every error and warning with its place in the file. Exits with 0 when weir would use the file, and with 1 when it would not.
    Check(ConfigFile),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
}

/// Which configuration is meant.
#[derive(Args)]
pub struct ConfigFile {
    /// The configuration file.
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/weir/weir.toml"
    )]
    config: PathBuf,
}

/// Does what the arguments of the process ask for. Prints a usage message and ends the process when they make no sense.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(file) => run::run(&file.config),
        Command::Check(file) => check::check(&file.config),
        Command::Schema => schema::schema(),
    }
}
