//! `weir man` and `weir completions`: the command line as manual pages and as shell scripts, made from the arguments themselves.
//! They must say nothing that `--help` does not.
//! The pages are installed by the Debian package (`docker/deb`); here the walk ends.

use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::print;

/// Prints the script that completes weir's commands and options in `shell`.
pub fn completions(shell: Shell, mut weir: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut weir, "weir", &mut script);
    print(text(script))
}

/// Prints weir(1), or the page of one command, such as weir-drain(1).
pub fn man(name: Option<&str>, weir: Command) -> ExitCode {
    let mut weir = weir.disable_help_subcommand(true);
    // Gives each command its full name.
    weir.build();
    let command = match name {
        None => Ok(weir),
        Some(name) => weir
            .find_subcommand(name)
            .cloned()
            .map(|it| it.display_name(format!("weir-{name}")))
            .ok_or_else(|| format!("weir has no command `{name}`")),
    };
    print(command.and_then(page))
}

fn page(command: Command) -> Result<String, String> {
    let mut page = Vec::new();
    let written = Man::new(command)
        .manual("weir")
        .source(concat!("weir ", env!("CARGO_PKG_VERSION")))
        .render(&mut page);
    written.map_err(|error| format!("the page cannot be written: {error}"))?;
    text(page)
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
