//! Reads the files that filters name: error pages and users. All of them are fine, or none is served.
//! It keeps no descriptor, and shows nothing of what is in them.
//! The walk goes on in `passwords.rs`, and in `apply.rs`, which attaches them to a generation.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificates::{self, Material};
use super::passwords;
use crate::config::Loaded;
use crate::config::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::config::model::{Config, Filter};
use crate::policy::filter::{Files, Users};
use crate::state::snapshot::Snapshot;

/// Bytes of an error page: it must fit into memory as often as there are errors.
const MAX_PAGE: u64 = 64 << 10;

/// Bytes of a file of users.
const MAX_USERS: u64 = 4 << 20;

/// A file that cannot be used.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    file: PathBuf,
    message: String,
    help: &'static str,
}

/// Reads every file that a configuration names, those behind TLS too: see [`certificates::load`].
///
/// # Errors
/// What is wrong with them, at their places in the configuration, besides what was found there already.
pub fn load(loaded: Loaded, last: Option<&Material>) -> Result<(Loaded, Material), Diagnostics> {
    let (_, faults) = read_all(&loaded.config);
    let errors = faults.into_iter().map(|fault| {
        let named = loaded.filter_files.iter();
        let place = named.clone().find(|(file, _)| *file == fault.file);
        let span = place.map_or(0..0, |(_, span)| span.clone());
        Diagnostic::at(
            Code::BadFilterFile,
            span,
            fault.message,
            "named by this filter",
        )
        .help(fault.help)
    });
    let errors: Vec<Diagnostic> = errors.collect();
    match certificates::load(loaded, last) {
        Ok((loaded, _)) if !errors.is_empty() => Err(loaded.warnings.with(errors)),
        Ok(good) => Ok(good),
        Err(problems) => Err(problems.with(errors)),
    }
}

/// Reads every file that a filter names.
///
/// # Errors
/// A line for each that cannot be used.
pub fn read(config: &Config) -> Result<Files, String> {
    let (files, faults) = read_all(config);
    match faults.is_empty() {
        true => Ok(files),
        false => {
            let lines: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            Err(lines.join("\n"))
        }
    }
}

fn read_all(config: &Config) -> (Files, Vec<Fault>) {
    let (mut files, mut faults) = (Files::default(), Vec::new());
    for filter in config.routes.iter().flat_map(|route| &route.filters) {
        match filter {
            Filter::ErrorPages(pages) => {
                for page in pages {
                    match read_file(&page.file, MAX_PAGE) {
                        Ok(bytes) => drop(files.pages.insert(page.file.clone(), bytes.into())),
                        Err(error) => faults.push(unreadable(&page.file, &error)),
                    }
                }
            }
            Filter::BasicAuth(auth) if !files.users.contains_key(&auth.users_file) => {
                match read_users(&auth.users_file) {
                    Ok(users) => drop(files.users.insert(auth.users_file.clone(), users.into())),
                    Err(fault) => faults.push(fault),
                }
            }
            _ => {}
        }
    }
    faults.dedup();
    (files, faults)
}

/// Gives a generation what is in the files.
pub fn attach(snapshot: &mut Snapshot, previous: Option<&Snapshot>, files: Files) {
    for filters in snapshot
        .routes
        .iter_mut()
        .filter_map(|route| route.filters.as_mut())
    {
        filters.attach(&files);
    }
    passwords::attach(snapshot, previous, &files);
    snapshot.files = Arc::new(files);
}

fn unreadable(file: &Path, error: &io::Error) -> Fault {
    Fault {
        message: format!("{} cannot be read: {error}", file.display()),
        help: "see that the path is right; one that does not begin with `/` begins where weir was started",
        file: file.to_owned(),
    }
}

fn read_users(file: &Path) -> Result<Users, Fault> {
    let bytes = read_file(file, MAX_USERS).map_err(|error| unreadable(file, &error))?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned());
    text.and_then(|text| Users::parse(&text))
        .map_err(|why| Fault {
            message: format!("{} has no users that can be asked for: {why}", file.display()),
            help: "write lines of name:hash, as `htpasswd -nB NAME` makes them; or the hash as `argon2 SALT -id -e` does",
            file: file.to_owned(),
        })
}

fn read_file(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let what = format!("it is larger than {} KiB", most >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}
