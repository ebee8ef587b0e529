//! What clap does not know of a wrong command line: what was probably meant.
//! It must only add a line to an error, never make one or take one away.
//! Here the walk ends.

use clap::Command;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// The same error; where a file is named as if it were all that a command takes, with a word about `-c`, and of `explain` without a URL,
/// with one about `--listener`.
pub fn advised(error: Error, weir: Command) -> Error {
    let command = std::env::args_os().nth(1).unwrap_or_default();
    let command = command.to_str().and_then(|name| weir.find_subcommand(name));
    match command {
        Some(command) => of_command(error, command),
        None => error,
    }
}

fn of_command(mut error: Error, command: &Command) -> Error {
    let takes_file = command.get_arguments().any(|it| it.get_id() == "config");
    let advice = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word)))
            if takes_file && !word.starts_with('-') =>
        {
            format!("to name the configuration file, write -c {word}")
        }
        (ErrorKind::MissingRequiredArgument, _) if command.get_name() == "explain" => {
            "what a tcp or udp listener passes on has no URL: write --listener NAME in its place"
                .to_owned()
        }
        _ => return error,
    };
    let advice = ContextValue::StyledStrs(vec![StyledStr::from(advice)]);
    error.insert(ContextKind::Suggested, advice);
    error
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::Arguments;

    fn said(line: &[&str]) -> String {
        let error = match Arguments::try_parse_from([&["weir"], line].concat()) {
            Ok(_) => panic!("{line:?} is well"),
            Err(error) => error,
        };
        let weir = Arguments::command();
        let command = weir.find_subcommand(line[0]).unwrap();
        of_command(error, command).to_string()
    }

    #[test]
    fn a_file_without_its_option_is_seen() {
        for command in ["check", "run", "diff", "reload", "status", "upgrade"] {
            let said = said(&[command, "a.toml"]);
            let wanted = "tip: to name the configuration file, write -c a.toml\n";
            assert!(said.contains(wanted), "{said}");
            assert!(
                said.contains("unexpected argument 'a.toml' found"),
                "{said}"
            );
        }
        assert!(!said(&["schema", "a.toml"]).contains("-c a.toml"));
        assert!(!said(&["check", "--file"]).contains("-c --file"));
    }

    #[test]
    fn what_stands_for_a_url_is_told() {
        let said = said(&["explain"]);
        assert!(said.contains("<URL>"), "{said}");
        assert!(said.contains("tip: what a tcp or udp listener"), "{said}");
    }
}
