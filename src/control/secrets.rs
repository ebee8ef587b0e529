//! Where the secrets of cookies come from: the operator's file, else one that weir made and keeps, else memory.
//! It must never replace a secret that exists, because every client would lose its place.
//! The walk goes on in `policy/persist/token.rs`, which derives keys from them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::state_dir;
use crate::config::model::Config;
use crate::policy::persist::token::{Secrets, SecretsFault};
use crate::rng;

/// The secrets of this process.
#[derive(Debug)]
pub struct SecretSource {
    state_dir: PathBuf,
    own: Option<Own>,
    /// What the process had whose place this one takes, and no file holds.
    inherited: Option<String>,
    /// Why what is served now would not outlive the process.
    warning: Option<String>,
}

/// The secret that weir made.
#[derive(Debug)]
struct Own {
    secrets: Secrets,
    unkept: Option<Unkept>,
}

/// What could not be written to `state_dir`, and why.
#[derive(Debug)]
struct Unkept {
    text: String,
    why: String,
}

impl SecretSource {
    /// Nothing is read yet. The directory is the one that the process was started with.
    pub fn new(state_dir: &Path) -> Self {
        SecretSource {
            state_dir: state_dir.to_owned(),
            own: None,
            inherited: None,
            warning: None,
        }
    }

    /// The same, going on with the secret of the process before if no file has one.
    pub fn after(state_dir: &Path, inherited: Option<&str>) -> Self {
        SecretSource {
            inherited: inherited.map(str::to_owned),
            ..SecretSource::new(state_dir)
        }
    }

    /// The secret that lives in this process only.
    pub fn unkept(&self) -> Option<&str> {
        let unkept = self.own.as_ref()?.unkept.as_ref()?;
        Some(&unkept.text)
    }

    /// The secrets of the configured file, read again; without one, weir's own, which are made for the first sticky route or TLS listener and stay
    /// the same as long as the process lives. `None` while nothing needs a secret.
    ///
    /// # Errors
    /// When a file exists and cannot be used, in words.
    pub fn load(&mut self, config: &Config) -> Result<Option<Secrets>, String> {
        let told = self.warning.take();
        if let Some(file) = &config.secrets_file {
            let name = format!("secrets_file {}", file.display());
            let text = fs::read_to_string(file)
                .map_err(|error| format!("{name} cannot be read: {error}"))?;
            let secrets = Secrets::parse(&text).map_err(|faults| list(&name, &faults))?;
            return Ok(Some(secrets));
        }
        let path = self.state_dir.join("secret");
        match &mut self.own {
            Some(own) => own.keep_again(&path),
            None if needs_secret(config) => {
                self.own = Some(Own::kept(&path, self.inherited.take())?);
            }
            None => return Ok(None),
        }
        let unkept = self.own.as_ref().and_then(|own| own.unkept.as_ref());
        self.warning = unkept.map(|unkept| {
            format!(
                "secrets: nothing can be kept in {} ({}): cookies are valid until this process ends; \
                 set state_dir to a writable directory, or secrets_file",
                self.state_dir.display(),
                unkept.why
            )
        });
        match (&told, &self.warning) {
            (None, Some(warning)) => log::warn!("{warning}"),
            (Some(_), None) => log::info!("secrets: kept in {} now", path.display()),
            _ => {}
        }
        Ok(self.own.as_ref().map(|own| own.secrets.clone()))
    }

    /// What to tell the operator when what was loaded last lives in memory only: no cookie will outlive the process.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

/// Sticky routes seal cookies, and TLS seals tickets.
fn needs_secret(config: &Config) -> bool {
    let is_sticky = config.routes.iter().any(|route| route.sticky.is_some());
    is_sticky || config.listeners.iter().any(|own| own.tls.is_some())
}

impl Own {
    /// The kept secret; when there is none the inherited one, or else a new one.
    fn kept(path: &Path, inherited: Option<String>) -> Result<Own, String> {
        let made = inherited.unwrap_or_else(|| Secrets::new_file(rng::fill_secure));
        let read = read_private(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => keep(path, made.clone()),
            _ => Err(error),
        });
        let (text, why) = match read {
            Ok(text) => (text, None),
            Err(error) => (made, Some(error.to_string())),
        };
        let secrets = Secrets::parse(&text).map_err(|faults| {
            let name = format!(
                "{} (without it weir makes another, and sticky clients are new once)",
                path.display()
            );
            list(&name, &faults)
        })?;
        let unkept = why.map(|why| Unkept { text, why });
        Ok(Own { secrets, unkept })
    }

    /// Tries once more to write down what could not be kept before, unless somebody else wrote another one.
    fn keep_again(&mut self, path: &Path) {
        let Some(unkept) = &mut self.unkept else {
            return;
        };
        match keep(path, unkept.text.clone()) {
            Ok(text) if text == unkept.text => self.unkept = None,
            Ok(_) => unkept.why = format!("{} holds another secret", path.display()),
            Err(error) => unkept.why = error.to_string(),
        }
    }
}

/// Reads a secret that nobody else may read; what others could read is made private and told.
fn read_private(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        log::warn!(
            "secrets: others could read {}; it is private now. If somebody did, delete it: sticky clients are then new once",
            path.display()
        );
    }
    Ok(text)
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
        assert_eq!(source.load(&config("", false)), Ok(None));
        assert_eq!(source.warning(), None, "nothing to keep");
        let first = source.load(&config("", true));
        assert!(matches!(first, Ok(Some(_))));
        assert_eq!(source.load(&config("", true)), first);
        let told = source.warning().unwrap_or_default();
        assert!(told.contains("/proc/nowhere"), "{told}");
    }

    #[test]
    fn what_could_not_be_kept_at_first_is_kept_later() {
        let dir = TestDir::new();
        let state = dir.path().join("state");
        // A file where the directory should be.
        fs::write(&state, "").expect("a writable directory");
        let mut source = SecretSource::new(&state);
        let first = source.load(&config("", true));
        assert!(source.warning().is_some());
        fs::remove_file(&state).expect("a writable directory");
        assert_eq!(source.load(&config("", true)), first);
        assert_eq!(source.warning(), None);
        assert_eq!(SecretSource::new(&state).load(&config("", true)), first);
    }

    #[test]
    fn a_secret_that_somebody_else_kept_meanwhile_is_left_alone() {
        let dir = TestDir::new();
        let state = dir.path().join("state");
        fs::write(&state, "").expect("a writable directory");
        let mut source = SecretSource::new(&state);
        let first = source.load(&config("", true));
        fs::remove_file(&state).expect("a writable directory");
        let theirs = SecretSource::new(&state).load(&config("", true));
        assert_ne!(theirs, first);
        assert_eq!(source.load(&config("", true)), first);
        assert!(source.warning().is_some());
        assert_eq!(SecretSource::new(&state).load(&config("", true)), theirs);
    }

    #[test]
    fn a_kept_secret_that_others_may_read_is_made_private() {
        let dir = TestDir::new();
        let first = SecretSource::new(dir.path()).load(&config("", true));
        let path = dir.path().join("secret");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("our own file");
        let again = SecretSource::new(dir.path()).load(&config("", true));
        assert_eq!(again, first);
        let mode = fs::metadata(&path).map(|meta| meta.permissions().mode());
        assert_eq!(mode.ok().map(|mode| mode & 0o777), Some(0o600));
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
