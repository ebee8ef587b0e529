//! Where the secrets of cookies come from: the operator's file, else one that weir made and keeps, else memory.
//! It must never replace a secret that exists, because every client would lose its place.
//! The walk goes on in `policy/persist/token.rs`, which derives keys from them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::policy::persist::token::{Secrets, SecretsFault};
use crate::rng;

/// The secrets of this process.
#[derive(Debug)]
pub struct SecretSource {
    state_dir: PathBuf,
    own: Option<Secrets>,
}

impl SecretSource {
    /// Nothing is read yet. The directory is the one that the process was started with.
    pub fn new(state_dir: &Path) -> Self {
        SecretSource {
            state_dir: state_dir.to_owned(),
            own: None,
        }
    }

    /// The secrets of `file`, read again; without one, weir's own, which stay the same as long as the process lives.
    ///
    /// # Errors
    /// When a file exists and cannot be used, in words.
    pub fn load(&mut self, file: Option<&Path>) -> Result<Secrets, String> {
        if let Some(file) = file {
            let name = format!("secrets_file {}", file.display());
            let text = fs::read_to_string(file)
                .map_err(|error| format!("{name} cannot be read: {error}"))?;
            return Secrets::parse(&text).map_err(|faults| list(&name, &faults));
        }
        let own = match self.own.take() {
            Some(own) => own,
            None => kept(&self.state_dir)?,
        };
        self.own = Some(own.clone());
        Ok(own)
    }
}

/// The secret kept in `directory`, made when there is none.
fn kept(directory: &Path) -> Result<Secrets, String> {
    let path = directory.join("secret");
    let new = || Secrets::new_file(rng::fill_secure);
    let text = fs::read_to_string(&path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => keep(directory, &path, new()),
        _ => Err(error),
    });
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            log::warn!(
                "secrets: nothing can be kept in {} ({error}): cookies are valid until this process ends; \
                 set state_dir to a writable directory, or secrets_file",
                directory.display()
            );
            new()
        }
    };
    Secrets::parse(&text).map_err(|faults| {
        let name = format!(
            "{} (without it weir makes another, and sticky clients are new once)",
            path.display()
        );
        list(&name, &faults)
    })
}

fn list(name: &str, faults: &[SecretsFault]) -> String {
    let lines = faults.iter().map(|fault| format!("{name}: {fault}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Writes the secret as a whole file or not at all. Of two processes that start at once, both use the first one's.
fn keep(directory: &Path, path: &Path, text: String) -> io::Result<String> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let draft = directory.join(format!("secret.{}.tmp", std::process::id()));
    let written = write_private(&draft, &text).and_then(|()| fs::hard_link(&draft, path));
    // The draft is of no use either way; what matters is whether the link was made.
    let _ = fs::remove_file(&draft);
    match written {
        Ok(()) => {
            log::debug!("secrets: made {}", path.display());
            Ok(text)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path),
        Err(error) => Err(error),
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::control::sample::TestDir;

    #[test]
    fn a_secret_is_made_once_and_kept_private() {
        let dir = TestDir::new();
        let state = dir.path().join("state");
        let first = SecretSource::new(&state).load(None);
        assert!(first.is_ok());
        assert_eq!(SecretSource::new(&state).load(None), first);
        let mode = fs::metadata(state.join("secret")).map(|meta| meta.permissions().mode());
        assert_eq!(mode.ok().map(|mode| mode & 0o777), Some(0o600));
        assert_eq!(fs::read_dir(&state).map(Iterator::count).ok(), Some(1));
    }

    #[test]
    fn where_nothing_can_be_kept_the_secret_stays_the_same_in_memory() {
        let mut source = SecretSource::new(Path::new("/proc/nowhere"));
        let first = source.load(None);
        assert!(first.is_ok());
        assert_eq!(source.load(None), first);
    }

    #[test]
    fn a_secrets_file_is_read_again_and_must_be_fine() {
        let dir = TestDir::new();
        let file = dir.path().join("secrets");
        let mut source = SecretSource::new(dir.path());
        let error = source.load(Some(&file)).expect_err("there is none");
        assert!(error.contains("cannot be read"), "{error}");
        for _ in 0..2 {
            let text = Secrets::new_file(rng::fill_secure);
            fs::write(&file, &text).expect("a writable directory");
            let expected = Secrets::parse(&text).map_err(|faults| list("", &faults));
            assert_eq!(source.load(Some(&file)), expected);
        }
        fs::write(&file, "short").expect("a writable directory");
        assert!(source.load(Some(&file)).is_err());
    }
}
