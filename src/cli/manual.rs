//! `weir man` and `weir completions`: the command line as manual pages and as shell scripts, made from the arguments themselves.
//! They must say nothing of a command that its `--help` does not; what is of weir as a whole stands below them in weir(1).
//! The pages are installed by the Debian package (`docker/deb`); here the walk ends.

use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::print;

/// Sections of weir(1), with their entries.
const SECTIONS: [(&str, &[(&str, &str)]); 5] = [
    (
        "FILES",
        &[
            (
                "/etc/weir/weir.toml",
                "The configuration, where -c names no other. weir reads it again when it changes.",
            ),
            (
                "/usr/share/doc/weir/reference.toml",
                "Every key of it, with its default and what a reload does about it.",
            ),
            (
                "/var/lib/weir",
                "What `state_dir` says in that file, by default: the secret of weir's cookies, states that operators set, and the last good lists of discovery.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "WEIR_ADMIN",
                "The admin address that commands ask, IP:PORT or unix:PATH, instead of that of the configuration file; --admin goes before it.",
            ),
            (
                "NO_COLOR",
                "When it is set, problems are told without colours; so they are where standard error is no terminal.",
            ),
            (
                "SUDO_USER, USER, LOGNAME",
                "Who `weir drain`, `maint` and `ready` say it was; the first that is set counts.",
            ),
            (
                "SSL_CERT_FILE, SSL_CERT_DIR",
                "Where the authorities are that backends with TLS are checked against, instead of where the system has them.",
            ),
            (
                "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, NOTIFY_SOCKET",
                "What systemd passes: sockets that are open already, and where to say that weir is ready.",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "Reads the configuration file again and reopens the access log.",
            ),
            (
                "SIGUSR2",
                "Starts the program anew and hands over to it, as `weir upgrade` does.",
            ),
            (
                "SIGTERM, SIGINT",
                "`/readyz` fails; after `drain_delay` weir stops accepting, and has `drain_timeout` to finish what is open. A second one ends it now.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            (
                "0",
                "It is done; of `weir run`, it has ended because it was told to. Of `weir check`, weir would use the file; of `weir diff`, it would change nothing.",
            ),
            (
                "1",
                "It is not done, and standard error says why. Of `weir diff`: the file would change something.",
            ),
            (
                "2",
                "The command line makes no sense. Of `weir diff`, too: the file would be refused, or weir does not answer.",
            ),
        ],
    ),
    (
        "SEE ALSO",
        &[(
            "/usr/share/doc/weir/README.md",
            "All of it, for operators: what weir does, and how it is told to.",
        )],
    ),
];

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
    let page = match name {
        None => page(weir).and_then(|page| Ok(page + &sections()?)),
        Some(name) => weir
            .find_subcommand(name)
            .cloned()
            .map(|it| it.display_name(format!("weir-{name}")))
            .ok_or_else(|| format!("weir has no command `{name}`"))
            .and_then(page),
    };
    print(page)
}

fn page(command: Command) -> Result<String, String> {
    let mut page = Vec::new();
    let written = Man::new(command)
        .manual("weir")
        .source(concat!("weir ", env!("CARGO_PKG_VERSION")))
        .render(&mut page);
    written.map_err(unwritten)?;
    text(page)
}

fn sections() -> Result<String, String> {
    let mut page = Roff::new();
    for (title, entries) in SECTIONS {
        page.control("SH", [title]);
        for (what, said) in entries {
            page.control("TP", []);
            page.text([bold(*what)]);
            page.text([roman(*said)]);
        }
    }
    let mut bytes = Vec::new();
    page.to_writer(&mut bytes).map_err(unwritten)?;
    text(bytes)
}

fn unwritten(error: std::io::Error) -> String {
    format!("the page cannot be written: {error}")
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
