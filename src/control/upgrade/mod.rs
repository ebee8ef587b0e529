//! The change of the program under a running weir: the old process starts the new one, gives it its sockets and what it knows, and
//! drains when the new one serves.
//! Until then the old one serves as if nothing were; a new one that fails in any way leaves no trace but a line in the log.
//! Read `words.rs` (what they say to each other), then `attempt.rs` and `hand_over.rs` (the old one's side) and `take_over.rs` (the new one's).

pub mod attempt;
pub mod hand_over;
pub mod take_over;
pub mod words;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// In the environment of a process that is to take over: the id of the one that started it, whose end of the channel is its
/// standard input.
const VARIABLE: &str = "WEIR_UPGRADE";

/// What this process was started as, which is what an upgrade starts anew.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Looks at the command of this process. It must be asked at the start: later the file may be another one, and its old name gone.
    ///
    /// # Errors
    /// When the system does not say which file is executed.
    pub fn of_this_process() -> std::io::Result<Program> {
        let mut arguments = env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        Ok(Program {
            path: locate(&name, env::var_os("PATH"))?,
            arguments: arguments.collect(),
        })
    }

    /// Where its file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The path that a command stands for, without following symbolic links: one that leads to the newest version is followed when the
/// upgrade comes.
fn locate(name: &Path, search: Option<OsString>) -> std::io::Result<PathBuf> {
    if name.components().count() > 1 {
        return std::path::absolute(name);
    }
    let own = env::current_exe()?;
    let search = search.unwrap_or_default();
    let mut places = env::split_paths(&search).map(|place| place.join(name));
    let is_own = |place: &PathBuf| place.canonicalize().is_ok_and(|place| place == own);
    match places.find(is_own) {
        Some(place) => std::path::absolute(place),
        None => Ok(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample::TestDir;

    #[test]
    fn a_command_leads_to_a_name_and_not_to_what_it_links_to() {
        let own = env::current_exe().unwrap();
        assert_eq!(locate(&own, None).unwrap(), own);
        assert_eq!(locate(Path::new("weir"), None).unwrap(), own);
        let dir = TestDir::new();
        let link = dir.path().join("weir");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        let search = env::join_paths([Path::new("/nowhere"), dir.path()]).unwrap();
        assert_eq!(locate(Path::new("weir"), Some(search)).unwrap(), link);
        assert_eq!(locate(&link, None).unwrap(), link);
        assert!(locate(Path::new("./weir"), None).unwrap().is_absolute());
    }
}
