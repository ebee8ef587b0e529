//! Where the secrets of cookies come from: the operator's file, else one that weir made and keeps, else memory.
//! It must never replace a secret that exists, because every client would lose its place.
//! The walk goes on in `policy/persist/token.rs`, which derives keys from them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::state_dir;
use crate::config::model::Config;
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

    /// The secrets of the configured file, read again; without one, weir's own, which are made for the first sticky route and stay
    /// the same as long as the process lives. `None` while nothing needs a secret.
    ///
    /// # Errors
    /// When a file exists and cannot be used, in words.
    pub fn load(&mut self, config: &Config) -> Result<Option<Secrets>, String> {
        if let Some(file) = &config.secrets_file {
            let name = format!("secrets_file {}", file.display());
            let text = fs::read_to_string(file)
                .map_err(|error| format!("{name} cannot be read: {error}"))?;
            let secrets = Secrets::parse(&text).map_err(|faults| list(&name, &faults))?;
            return Ok(Some(secrets));
        }
        if self.own.is_none() && config.routes.iter().any(|route| route.sticky.is_some()) {
            self.own = Some(kept(&self.state_dir)?);
        }
        Ok(self.own.clone())
    }
}

/// The secret kept in `directory`, made when there is none.
fn kept(directory: &Path) -> Result<Secrets, String> {
    let path = directory.join("secret");
    let new = || Secrets::new_file(rng::fill_secure);
    let text = fs::read_to_string(&path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => keep(&path, new()),
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
fn keep(path: &Path, text: String) -> io::Result<String> {
    match state_dir::write(path, &text, |draft| fs::hard_link(draft, path)) {
        Ok(()) => {
            log::debug!("secrets: made {}", path.display());
            Ok(text)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::control::sample::TestDir;

    /// A configuration with such a line in front, sticky or not.
    fn config(line: &str, sticky: bool) -> Config {
        let sticky = match sticky {
            true => "sticky = { mode = \"cookie-hash\" }\n",
            false => "",
        };
        let text = format!(
            "{line}\n[listeners.web]\nbind = [\"127.0.0.1:1\"]\n[[routes]]\npool = \"was\"\n{sticky}\
             [pools.was]\nbackends = [\"127.0.0.1:2\"]\n"
        );
        let loaded = crate::config::parse("weir.toml", &text);
        loaded.expect("a good configuration").config
    }

    #[test]
    fn a_secret_is_made_once_when_it_is_needed_and_kept_private() {
        let dir = TestDir::new();
        let state = dir.path().join("state");
        let mut source = SecretSource::new(&state);
        assert_eq!(source.load(&config("", false)), Ok(None));
        assert!(!state.exists());
        let first = source.load(&config("", true));
        assert!(matches!(first, Ok(Some(_))));
        assert_eq!(source.load(&config("", false)), first);
        assert_eq!(SecretSource::new(&state).load(&config("", true)), first);
        let mode = fs::metadata(state.join("secret")).map(|meta| meta.permissions().mode());
        assert_eq!(mode.ok().map(|mode| mode & 0o777), Some(0o600));
        assert_eq!(fs::read_dir(&state).map(Iterator::count).ok(), Some(1));
    }

    #[test]
    fn where_nothing_can_be_kept_the_secret_stays_the_same_in_memory() {
        let mut source = SecretSource::new(Path::new("/proc/nowhere"));
        let first = source.load(&config("", true));
        assert!(matches!(first, Ok(Some(_))));
        assert_eq!(source.load(&config("", true)), first);
    }

    #[test]
    fn a_secrets_file_is_read_again_and_must_be_fine() {
        let dir = TestDir::new();
        let file = dir.path().join("secrets");
        let mut source = SecretSource::new(dir.path());
        let config = config(&format!("secrets_file = {file:?}"), false);
        let error = source.load(&config).expect_err("there is none");
        assert!(error.contains("cannot be read"), "{error}");
        for _ in 0..2 {
            let text = Secrets::new_file(rng::fill_secure);
            fs::write(&file, &text).expect("a writable directory");
            let expected = Secrets::parse(&text).expect("good secrets");
            assert_eq!(source.load(&config), Ok(Some(expected)));
        }
        fs::write(&file, "short").expect("a writable directory");
        assert!(source.load(&config).is_err());
    }
}
