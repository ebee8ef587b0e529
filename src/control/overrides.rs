//! The administrative states that operators set over those of the file, by pool and backend name, and the file that keeps them.
//! They survive reloads and restarts, and wait for a name that is gone to come back; what cannot be written is kept in memory.
//! The walk goes on in `state/backend.rs`, whose words the workers read, and in `state_dir.rs`, which writes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::drains::{Drains, Mark};
use super::state_dir;
use super::upgrade::words::Last;
use crate::clock::Rfc3339;
use crate::config::model::AdminState;
use crate::state::backend::Backend;
use crate::state::snapshot::Snapshot;

/// The file in `state_dir`.
const FILE: &str = "admin.json";
/// States that are kept; beyond that the one that was set first is forgotten.
const MOST: usize = 10_000;

/// Every state that was set over the file's.
#[derive(Debug)]
pub struct Overrides {
    path: PathBuf,
    table: Mutex<Table>,
    /// What else drains.
    drains: Mutex<Drains>,
    /// Held while the file is written, so that the last one written is the newest.
    writing: Mutex<()>,
    /// Changes of the table since the start; written under its lock.
    changes: AtomicU64,
    /// How many of them the file has.
    kept: AtomicU64,
    /// Whether nothing may be set, because another process takes over what is set.
    frozen: AtomicBool,
}

/// Keeps what is set as it is for as long as it lives.
#[derive(Debug)]
pub struct Frozen(Arc<Overrides>);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.frozen.store(false, Relaxed);
    }
}

type Table = BTreeMap<(String, String), Override>;

/// One state that was set over the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The state.
    pub state: AdminState,
    /// Who set it, and when.
    pub mark: Mark,
}

/// The file as a document.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Document {
    backends: Vec<Entry>,
    #[serde(flatten)]
    drains: Drains,
}

impl Document {
    fn of(table: Table, drains: Drains) -> Document {
        let entries = table.into_iter().map(|((pool, backend), over)| Entry {
            pool,
            backend,
            state: over.state.as_str().to_owned(),
            mark: over.mark,
        });
        Document {
            backends: entries.collect(),
            drains,
        }
    }

    fn table(self) -> Result<Table, String> {
        let mut table = Table::new();
        for entry in self.backends {
            let state = AdminState::from_word(&entry.state)
                .ok_or_else(|| format!("{:?} is no administrative state", entry.state))?;
            let key = (entry.pool, entry.backend);
            insert(&mut table, key, state, entry.mark);
        }
        Ok(table)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    pool: String,
    backend: String,
    state: String,
    #[serde(flatten)]
    mark: Mark,
}

impl Overrides {
    /// What `state_dir` keeps. A file that cannot be used is told and ignored; the next state that is set replaces it.
    pub fn load(state_dir: &Path) -> Overrides {
        let path = state_dir.join(FILE);
        let (table, drains) = read(&path).unwrap_or_else(|problem| {
            log::warn!(
                "admin: {} is ignored, backends are as the configuration says: {problem}",
                path.display()
            );
            (Table::new(), Drains::default())
        });
        Overrides {
            path,
            table: Mutex::new(table),
            drains: Mutex::new(drains),
            writing: Mutex::default(),
            changes: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            frozen: AtomicBool::new(false),
        }
    }

    /// Lets nothing be set for a while.
    pub fn freeze(self: &Arc<Self>) -> Frozen {
        self.frozen.store(true, Relaxed);
        Frozen(self.clone())
    }

    /// Whether nothing may be set now.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Relaxed)
    }

    /// Everything that is set.
    pub fn document(&self) -> Document {
        Document::of(self.table().clone(), self.drains())
    }

    /// Puts what another process handed over in force for a generation that is about to be served, in place of what the file said.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn take_over(self: &Arc<Self>, last: Option<Last>, snapshot: &Snapshot) {
        let Some(last) = last else {
            return;
        };
        match self.replace(last.overrides, snapshot) {
            Ok(()) => drop(self.keep().await),
            Err(problem) => {
                log::warn!("upgrade: the states of backends are those of the file: {problem}")
            }
        }
    }

    fn replace(&self, document: Document, snapshot: &Snapshot) -> Result<(), String> {
        let theirs = document.table()?;
        {
            let mut table = self.table();
            if *table == theirs {
                return Ok(());
            }
            for (pool, backend) in backends(snapshot) {
                let over = theirs.get(&key(pool, &backend.name));
                backend.set_over(over.map(|over| over.state));
            }
            *table = theirs;
            self.changes.fetch_add(1, Relaxed);
        }
        self.settle(snapshot);
        Ok(())
    }

    /// The same, but what another process had set in place of what is kept, which may be less.
    pub fn after(self, theirs: Option<Document>) -> Overrides {
        let Some(theirs) = theirs else {
            return self;
        };
        let drains = theirs.drains.clone();
        match theirs.table() {
            Ok(table) => {
                *self.table() = table;
                self.stand(drains);
            }
            Err(problem) => log::warn!("upgrade: the states are those that are kept: {problem}"),
        }
        self
    }

    /// Puts the states in force for the first generation before it is served.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn start(self: &Arc<Self>, first: &Snapshot) {
        self.adopt(first);
        self.settle(first);
        self.keep().await;
        for line in self.overruled(first, None) {
            log::info!("start: {line}");
        }
        let drains = self.drains();
        for (name, mark) in &drains.listeners {
            let at = Rfc3339(mark.set_wall_millis);
            log::info!("start: listener {name} drains, set by api at {at}");
        }
        if let Some(mark) = &drains.process {
            let at = Rfc3339(mark.set_wall_millis);
            log::info!("start: the process drains, set by api at {at}");
        }
    }

    /// What drains beside backends.
    pub fn drains(&self) -> Drains {
        self.lock_drains().clone()
    }

    /// Sets what drains beside backends; what follows from it is the caller's to do.
    pub fn stand(&self, drains: Drains) {
        *self.lock_drains() = drains;
        self.changes.fetch_add(1, Relaxed);
    }

    fn lock_drains(&self) -> MutexGuard<'_, Drains> {
        let drains = self.drains.lock();
        drains.unwrap_or_else(PoisonError::into_inner)
    }

    /// What was set for a backend.
    pub fn of(&self, pool: &str, backend: &str) -> Option<Override> {
        self.table().get(&key(pool, backend)).cloned()
    }

    /// Sets the state of a backend that is served; the workers see it at once. `ready` lets go of what was set before when the file
    /// says `ready` too. Whether anything changed.
    pub fn set(&self, pool: &str, backend: &Backend, state: AdminState, mark: Mark) -> bool {
        let mut table = self.table();
        let before = table.get(&key(pool, &backend.name)).map(|over| over.state);
        let over = Some(state).filter(|_| !is_moot(state, backend));
        if before == over {
            // Something else may have changed it, such as the pool's `scale`: who asks stands over that.
            let differs = backend.set() != state;
            backend.set_over(over);
            return differs;
        }
        match over {
            Some(state) => insert(&mut table, key(pool, &backend.name), state, mark),
            None => drop(table.remove(&key(pool, &backend.name))),
        }
        self.changes.fetch_add(1, Relaxed);
        backend.set_over(over);
        true
    }

    /// Sets the words of a generation that is about to be published. It changes nothing for backends of the one before.
    pub fn adopt(&self, snapshot: &Snapshot) {
        let table = self.table();
        for (pool, backend) in backends(snapshot) {
            if let Some(over) = table.get(&key(pool, &backend.name)) {
                backend.set_over(Some(over.state));
            }
        }
    }

    /// Lets go of every `ready` that the file of the served generation says too, so that the file counts again.
    /// Whether there was one.
    pub fn settle(&self, snapshot: &Snapshot) -> bool {
        let mut table = self.table();
        let mut any = false;
        for (pool, backend) in backends(snapshot) {
            let key = key(pool, &backend.name);
            if (table.get(&key)).is_some_and(|over| is_moot(over.state, backend)) {
                table.remove(&key);
                backend.set_over(None);
                self.changes.fetch_add(1, Relaxed);
                any = true;
            }
        }
        any
    }

    /// A line for each backend of the generation whose state is not that of the file, if the generation before did not say the same of
    /// it: then somebody may expect otherwise.
    pub fn overruled(&self, snapshot: &Snapshot, before: Option<&Snapshot>) -> Vec<String> {
        let known: HashMap<(&str, &str), AdminState> = (before.into_iter())
            .flat_map(backends)
            .map(|(pool, backend)| ((pool, &*backend.name), backend.written))
            .collect();
        let table = self.table();
        let overruled = backends(snapshot).filter_map(|(pool, backend)| {
            let (name, written) = (&*backend.name, backend.written);
            let over = table.get(&key(pool, name))?;
            let is_news = known.get(&(pool, name)) != Some(&written);
            let (state, at) = (over.state.as_str(), Rfc3339(over.mark.set_wall_millis));
            (is_news && over.state != written).then(|| {
                let written = written.as_str();
                format!("{pool}/{name} is {state}, set by api at {at}; the file says {written}")
            })
        });
        overruled.collect()
    }

    /// Keeps everything in `state_dir`, beside the runtime. Whether that could be done; when not, it is told.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn keep(self: &Arc<Self>) -> bool {
        if self.kept.load(Relaxed) == self.changes.load(Relaxed) {
            return true;
        }
        let own = self.clone();
        let saved = tokio::task::spawn_blocking(move || own.save()).await;
        let saved = saved.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = &saved {
            log::warn!(
                "admin: {} cannot be written ({error}): what is set for backends holds until this process ends",
                self.path.display()
            );
        }
        saved.is_ok()
    }

    /// It waits for the disk. After an error the file is as it was.
    fn save(&self) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, drains, changes) = {
            let (table, drains) = (self.table(), self.lock_drains());
            (table.clone(), drains.clone(), self.changes.load(Relaxed))
        };
        let text = serde_json::to_string_pretty(&Document::of(table, drains))?;
        state_dir::replace(&self.path, &(text + "\n"))?;
        self.kept.store(changes, Relaxed);
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(pool: &str, backend: &str) -> (String, String) {
    (pool.to_owned(), backend.to_owned())
}

fn backends(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Backend)> {
    (snapshot.pools.iter()).flat_map(|pool| pool.backends.iter().map(|own| (&*pool.name, own)))
}

/// Whether the file says so anyway. A `drain` or `maint` that was set stays, for the file may stop saying so.
fn is_moot(state: AdminState, backend: &Backend) -> bool {
    state == AdminState::Ready && backend.written == AdminState::Ready
}

fn insert(table: &mut Table, key: (String, String), state: AdminState, mark: Mark) {
    table.insert(key, Override { state, mark });
    if table.len() > MOST {
        let oldest = table
            .iter()
            .min_by_key(|(_, over)| over.mark.set_wall_millis);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            table.remove(&key);
        }
    }
}

fn read(path: &Path) -> Result<(Table, Drains), String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Table::new(), Drains::default()));
        }
        Err(error) => return Err(error.to_string()),
    };
    let document: Document = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let drains = document.drains.clone();
    Ok((document.table()?, drains))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::model::Config;
    use crate::control::sample::{TestDir, snapshot};
    use crate::state::sample::{config, loopback};
    use AdminState::{Drain, Maint, Ready};

    fn file() -> Config {
        config(&[("web", &[])], &[("was", &[loopback(1), loopback(2)])])
    }

    fn mark(set_wall_millis: u64) -> Mark {
        Mark {
            who: "anna".to_owned(),
            set_wall_millis,
        }
    }

    fn set(overrides: &Overrides, snapshot: &Snapshot, state: AdminState) -> bool {
        let pool = &snapshot.pools[0];
        overrides.set(&pool.name, &pool.backends[0], state, mark(7))
    }

    fn admin(snapshot: &Snapshot) -> AdminState {
        snapshot.pools[0].backends[0].admin()
    }

    #[test]
    fn what_is_set_holds_until_ready() {
        let dir = TestDir::new();
        let (overrides, one) = (Overrides::load(dir.path()), snapshot(file(), None));
        assert!(!set(&overrides, &one, Ready), "it is");
        for state in [Drain, Maint] {
            assert!(set(&overrides, &one, state));
            assert!(!set(&overrides, &one, state));
            assert_eq!(admin(&one), state);
        }
        assert_eq!(overrides.overruled(&one, None).len(), 1);
        assert_eq!(overrides.overruled(&one, Some(&one)), [""; 0], "no news");
        let over = overrides.of("was", "127.0.0.1:1").expect("it was set");
        assert_eq!((over.state, over.mark.set_wall_millis), (Maint, 7));
        assert_eq!(overrides.of("was", "127.0.0.1:2"), None);
        assert!(set(&overrides, &one, Ready));
        assert_eq!(admin(&one), Ready);
        assert_eq!(overrides.of("was", "127.0.0.1:1"), None);
        assert_eq!(overrides.overruled(&one, None), [""; 0]);
    }

    #[test]
    fn a_name_that_comes_back_is_as_it_was() {
        let overrides = Overrides::load(Path::new("/proc/nowhere"));
        let one = snapshot(file(), None);
        set(&overrides, &one, Drain);
        let mut less = file();
        less.pools[0].backends.remove(0);
        let two = snapshot(less, Some(&one));
        overrides.adopt(&two);
        assert_eq!(admin(&two), Ready);
        let three = snapshot(file(), Some(&two));
        overrides.adopt(&three);
        assert_eq!(admin(&three), Drain);
    }

    #[test]
    fn ready_over_a_file_that_drains_ends_when_the_file_says_ready() {
        let overrides = Overrides::load(Path::new("/proc/nowhere"));
        let mut drains = file();
        drains.pools[0].backends[0].state = Drain;
        let one = snapshot(drains.clone(), None);
        assert!(set(&overrides, &one, Ready));
        assert_eq!(admin(&one), Ready);
        assert!(!overrides.settle(&one), "the file says otherwise");
        let two = snapshot(file(), Some(&one));
        overrides.adopt(&two);
        assert!(overrides.settle(&two));
        let three = snapshot(drains, Some(&two));
        overrides.adopt(&three);
        assert_eq!(admin(&three), Drain, "the file counts again");
    }

    #[tokio::test]
    async fn it_is_kept_private_and_found_again() {
        let dir = TestDir::new();
        let state = dir.path().join("state");
        let (overrides, one) = (Arc::new(Overrides::load(&state)), snapshot(file(), None));
        assert!(overrides.keep().await);
        assert!(!state.exists(), "nothing was set");
        set(&overrides, &one, Maint);
        assert!(overrides.keep().await);
        let mode = std::fs::metadata(state.join(FILE)).map(|meta| meta.permissions().mode());
        assert_eq!(mode.ok().map(|mode| mode & 0o777), Some(0o600));
        assert_eq!(std::fs::read_dir(&state).map(Iterator::count).ok(), Some(1));

        let two = snapshot(file(), None);
        Overrides::load(&state).adopt(&two);
        assert_eq!(admin(&two), Maint);
        for damaged in [
            "",
            "{\"backends\": [",
            "{\"backends\":[{\"pool\":\"was\",\"backend\":\"a\",\"state\":\"up\",\"set_wall_millis\":1}]}",
        ] {
            std::fs::write(state.join(FILE), damaged).expect("a writable file");
            assert!(Overrides::load(&state).table().is_empty());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_holds_in_memory() {
        let overrides = Arc::new(Overrides::load(Path::new("/proc/nowhere")));
        let one = snapshot(file(), None);
        set(&overrides, &one, Drain);
        assert!(!overrides.keep().await);
        assert!(!overrides.keep().await, "still not");
        assert_eq!(admin(&one), Drain);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Table::new();
        for number in 0..MOST + 5 {
            insert(
                &mut table,
                key("was", &number.to_string()),
                Drain,
                mark(number as u64),
            );
        }
        assert_eq!(table.len(), MOST);
        assert!(!table.contains_key(&key("was", "4")));
        assert!(table.contains_key(&key("was", "5")));
    }
}
