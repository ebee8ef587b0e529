//! Reads the files that filters name: error pages and users. All of them are fine, or none is served.
//! It keeps no descriptor, and shows nothing of what is in them.
//! The walk goes on in `passwords.rs`, and in `apply.rs`, which attaches them to a generation.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::passwords;
use crate::config::model::{Config, Filter};
use crate::policy::filter::{Files, Users};
use crate::state::snapshot::Snapshot;

/// Bytes of an error page: it must fit into memory as often as there are errors.
const MAX_PAGE: u64 = 64 << 10;

/// Bytes of a file of users.
const MAX_USERS: u64 = 4 << 20;

/// Reads every file that a filter names.
///
/// # Errors
/// A line for each that cannot be used.
pub fn read(config: &Config) -> Result<Files, String> {
    let (mut files, mut complaints) = (Files::default(), Vec::new());
    for filter in config.routes.iter().flat_map(|route| &route.filters) {
        match filter {
            Filter::ErrorPages(pages) => {
                for page in pages {
                    let read = read_file(&page.file, MAX_PAGE);
                    match read.map_err(|error| error.to_string()) {
                        Ok(bytes) => drop(files.pages.insert(page.file.clone(), bytes.into())),
                        Err(what) => complaints.push(complaint("error page", &page.file, &what)),
                    }
                }
            }
            Filter::BasicAuth(auth) if !files.users.contains_key(&auth.users_file) => {
                match read_users(&auth.users_file) {
                    Ok(users) => drop(files.users.insert(auth.users_file.clone(), users.into())),
                    Err(what) => complaints.push(complaint("users_file", &auth.users_file, &what)),
                }
            }
            _ => {}
        }
    }
    complaints.dedup();
    match complaints.is_empty() {
        true => Ok(files),
        false => Err(complaints.join("\n")),
    }
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

fn complaint(what: &str, file: &Path, why: &str) -> String {
    format!("{what} {}: {why}", file.display())
}

fn read_users(file: &Path) -> Result<Users, String> {
    let bytes = read_file(file, MAX_USERS).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    Users::parse(&text)
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
