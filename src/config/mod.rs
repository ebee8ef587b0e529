//! Configuration: text to a typed, valid model, with every problem of the file reported at once.
//! It never touches a socket, never decides about traffic, and opens no file but the one it is asked to load.
//! The walk goes on in `syntax.rs` (text to a tree), `keys.rs` (all keys), `lower.rs` (tree to model) and `check.rs` (what the parts mean together).

mod check;
pub mod codes;
pub mod diagnostic;
mod json_schema;
mod keys;
mod lower;
pub mod model;
mod reference;
mod render;
pub mod schema;
mod section;
mod suggest;
mod syntax;
mod value;
mod values;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use codes::Code;
use diagnostic::{Diagnostic, Diagnostics, Span};
use model::{Admin, Config};

pub use json_schema::json_schema;
pub use reference::{Show, reference};
pub use suggest::closest;
pub use values::duration_text;

/// A larger file is refused.
pub const MAX_FILE: u64 = 16 << 20;

/// A file that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What it probably did not mean to say; often empty.
    pub warnings: Diagnostics,
    /// The files that TLS needs, and where the file names them.
    pub tls_files: Vec<(PathBuf, Span)>,
    /// The files that filters have, and where these stand.
    pub filter_files: Vec<(PathBuf, Span)>,
}

/// Reads and judges the file at `path`.
///
/// # Errors
/// Every problem that it has; one that cannot be read has that problem alone.
pub fn load(path: impl AsRef<Path>) -> Result<Loaded, Diagnostics> {
    let path = path.as_ref();
    let name = path.to_string_lossy();
    let of_file = |problem| Err(Diagnostics::new(&name, "", vec![problem]));
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => return of_file(unreadable(&error)),
    };
    if bytes.len() as u64 > MAX_FILE {
        return of_file(
            Diagnostic::of_file(Code::TooLarge, "the file is larger than 16 MiB")
                .help("a configuration is far smaller: is this the file that was meant?"),
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(&name, &text),
        Err(error) => Err(not_text(&name, &error)),
    }
}

/// Judges `text`, which came from the file called `file`. Reads no file, clock or environment: the same text gives the same answer.
///
/// # Errors
/// Every problem that it has, in file order.
pub fn parse(file: &str, text: &str) -> Result<Loaded, Diagnostics> {
    let mended = syntax::mend(text);
    let mut report = mended.problems.clone();
    let mut config = None;
    if mended.readable {
        let (tree, _) = DeTable::parse_recoverable(&mended.text);
        let mut found = Vec::new();
        let draft = lower::lower(&mut found, tree.get_ref(), text);
        check::check(&mut found, &draft);
        report.extend(
            found
                .into_iter()
                .filter(|problem| !mended.withholds(problem)),
        );
        let filter_files = draft.filter_files();
        config = Some((draft.config, draft.tls_files, filter_files));
    }
    let found = Diagnostics::new(file, text, report);
    match config.filter(|_| found.errors() == 0) {
        Some((config, tls_files, filter_files)) => Ok(Loaded {
            config,
            warnings: found,
            tls_files,
            filter_files,
        }),
        None => Err(found),
    }
}

/// The admin server of the weir that runs with the file at `path`, also when the file is wrong by now, just when somebody needs to
/// ask. `None` when the file does not tell.
pub fn admin_of(path: impl AsRef<Path>) -> Option<Admin> {
    let text = String::from_utf8(read(path.as_ref()).ok()?).ok()?;
    let mended = syntax::mend(&text);
    let (tree, _) = DeTable::parse_recoverable(&mended.text);
    lower::admin_alone(tree.get_ref(), !mended.problems.is_empty())
}

/// The admin server of a file that does not mention it.
pub fn default_admin() -> Admin {
    lower::default_admin()
}

/// A duration as the file writes it: `250ms`, `2s`, `5m` or `1h`.
///
/// # Errors
/// What is wrong with it and how to mend it, in words.
pub fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text, Duration::ZERO).map_err(|flaw| format!("{}; {}", flaw.label, flaw.help))
}

/// The address of a backend, as the file writes it.
///
/// # Errors
/// What is wrong with it, in words.
pub fn backend_address(text: &str) -> Result<SocketAddr, String> {
    values::addresses::backend(text).map_err(|flaw| in_words(text, &flaw))
}

/// The name or route of a backend, as the file writes it.
///
/// # Errors
/// What is wrong with it, in words.
pub fn backend_name(text: &str) -> Result<String, String> {
    values::names::backend_name(text).map_err(|flaw| in_words(text, &flaw))
}

fn in_words(text: &str, flaw: &values::Flaw) -> String {
    format!("\"{}\" {}; {}", values::brief(text), flaw.says, flaw.help)
}

/// Reads at most one byte more than a file may have.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> Diagnostic {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "give the path of the file with -c FILE",
        io::ErrorKind::PermissionDenied => {
            "let the user that runs weir read the file and enter its directories"
        }
        io::ErrorKind::IsADirectory => {
            "give the path of a file, such as weir.toml in that directory"
        }
        _ => "see that the file can be read",
    };
    Diagnostic::of_file(
        Code::Unreadable,
        format!("the file cannot be read: {error}"),
    )
    .help(help)
}

fn not_text(name: &str, error: &std::string::FromUtf8Error) -> Diagnostics {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let problem = Diagnostic::at(
        Code::NotText,
        at..at + char::REPLACEMENT_CHARACTER.len_utf8(),
        "the file is not UTF-8 text",
        "no UTF-8 character begins with this byte",
    )
    .help("save the file as UTF-8");
    Diagnostics::new(name, &text, vec![problem])
}
