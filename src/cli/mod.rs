//! The command line: what the `weir` binary is asked to do.
//! It parses arguments, prints and chooses the exit code; everything else is done elsewhere.
//! The walk goes on in `run.rs`, which starts the proxy; each other command has its own file.

mod admin_client;
mod advice;
mod backend_state;
mod check;
mod diff;
mod drain;
mod explain;
mod manual;
mod reload;
mod run;
mod schema;
mod status;
mod upgrade;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use self::admin_client::AdminAddress;
use self::backend_state::{Place, Subject};
use crate::config::duration;
use crate::config::model::AdminState;

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
    /// Tell what a configuration file would change in a running weir, without changing anything.
    ///
    /// The file that `-c` names need not be in place yet; the admin address is found in it too. It warns when sessions would be lost. Exits with 0 when nothing would change, with 1 when something would, and with 2, saying
    /// why, when the file would be refused or weir does not answer.
    Diff(AdminAddress),
    /// Tell where a running weir would send a request, and why: route, client, backend.
    ///
    /// Nothing is sent and nothing changes. A tcp or udp listener has no URL: `--listener NAME` takes its place. Where several backends may
    /// take a new client, it tells them and the balancer that chooses. Cookies are told to weir's admin address and to nobody else; they appear in no log.
    Explain(explain::Request),
    /// Show what a running weir serves, and the state of its backends.
    #[command(after_long_help = status::COLUMNS_TOLD)]
    Status {
        #[command(flatten)]
        address: AdminAddress,
        /// Print the JSON document.
        #[arg(long)]
        json: bool,
        /// Ask only whether it is ready: exit with 0 when it is, and with 1, saying why, when it is not.
        ///
        /// This is `/readyz`, for health checks of containers and virtual IPs; it needs no token.
        #[arg(long, conflicts_with = "json")]
        ready: bool,
    },
    /// Let a backend keep the clients it has and give it no new ones; or a listener, or weir as a whole.
    ///
    /// It holds until `weir ready`, whatever `state` in the file says, and survives reloads, restarts and upgrades. A listener that drains is closed, and what
    /// is open there ends by itself. When weir drains, `/readyz` fails so that others send it no clients; who comes all the
    /// same is served, and each connection closes after its answer.
    Drain {
        #[command(flatten)]
        subject: Subject,
        /// Return when nothing is left there, no session, request or connection: with 0 then, with 1 at the deadline.
        ///
        /// Sessions count where they would be lost with a backend. `weir maint` sends their clients away.
        #[arg(long)]
        wait: bool,
        /// How long to wait at most, such as 90s or 5m; without it, as long as it takes.
        #[arg(long, value_name = "DURATION", requires = "wait", value_parser = duration)]
        deadline: Option<Duration>,
    },
    /// Give a backend, a listener or weir traffic again.
    ///
    /// It ends what `weir drain` and `weir maint` began, and overrides `state` in the file if that says otherwise.
    Ready(Subject),
    /// Take a backend out of service: it gets no requests, not even from the clients it has.
    ///
    /// Requests in flight and upgraded connections there end as they would have. It holds until `weir ready`, and survives
    /// reloads and restarts.
    Maint(Place),
    /// Make a running weir read its configuration file again, and tell the outcome.
    ///
    /// Exits with 0 when it serves what the file says, and with 1, saying why, when it refused the file and goes on as before.
    Reload(AdminAddress),
    /// Make a running weir start its program anew, from the same file and with the same arguments, and hand over to it.
    ///
    /// The new process takes over the listening sockets and what is known of backends, and serves before the old one stops to accept; that
    /// one finishes what it has within `drain_timeout`. Exits with 0 when the new process serves, and with 1, saying why, when it
    /// does not and the old one goes on as before. SIGUSR2 does the same.
    Upgrade(AdminAddress),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print what completes these commands in a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print the manual page of weir, or of one of its commands.
    Man {
        /// The command; without it, weir as a whole.
        command: Option<String>,
    },
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
    let arguments = Arguments::try_parse();
    let arguments =
        arguments.unwrap_or_else(|error| advice::advised(error, Arguments::command()).exit());
    match arguments.command {
        Command::Run(file) => run::run(&file.config),
        Command::Check(file) => check::check(&file.config),
        Command::Diff(address) => diff::diff(&address),
        Command::Explain(request) => explain::explain(&request),
        Command::Status {
            address,
            ready: true,
            ..
        } => status::ready(&address),
        Command::Status { address, json, .. } => status::status(&address, json),
        Command::Drain {
            subject,
            wait,
            deadline,
        } => drain::drain(&subject, wait, deadline),
        Command::Ready(subject) => subject.set(AdminState::Ready),
        Command::Maint(place) => place.set(AdminState::Maint),
        Command::Reload(address) => reload::reload(&address),
        Command::Upgrade(address) => upgrade::upgrade(&address),
        Command::Schema => schema::schema(),
        Command::Completions { shell } => manual::completions(shell, Arguments::command()),
        Command::Man { command } => manual::man(command.as_deref(), Arguments::command()),
    }
}

/// Prints a text to standard output, or what is wrong to standard error.
fn print(outcome: Result<String, String>) -> ExitCode {
    // A reader that has gone away wanted no more.
    match outcome {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            let _ = writeln!(io::stderr(), "{}", problem.trim_end());
            ExitCode::FAILURE
        }
    }
}
