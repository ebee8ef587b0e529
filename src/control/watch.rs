//! Notices that the configuration file changed: file-system events where there are any, a stat every few seconds beside them.
//! It never reads the file and never decides whether what it says is new; it only says when to look.
//! The walk goes on in `run.rs`, which then calls `reload.rs`.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::config::model::Watch;

/// Between two stats of the file.
const STAT: Duration = Duration::from_secs(5);
/// A file that nobody closed or renamed is read when it stayed the same for this long.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two readings of the file, so that a storm of renames is a few reloads.
const GAP: Duration = Duration::from_millis(100);

/// Watches one file: its directory, and that of the file that its symbolic links lead to.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    mode: Watch,
    events: Option<Events>,
    read: Identity,
    seen: Identity,
    last_read: Option<Instant>,
    due: Option<Due>,
    stat: Duration,
    next_stat: Instant,
}

/// When to look, and whether the file is whole by then.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    whole: bool,
}

/// What tells one state of the file from another without reading it; nothing: there is no such file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity(Option<(PathBuf, [i64; 7])>);

/// Where the size stands among an identity's numbers.
const SIZE: usize = 2;

impl FileWatch {
    /// Begins to watch a file that was last read in the state `read`; needs a runtime. Where events cannot be had, the stat
    /// remains and the log says so.
    pub fn new(path: &Path, read: Identity, mode: Watch) -> Self {
        let mut watch = FileWatch {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            mode: Watch::Off,
            events: None,
            seen: read.clone(),
            read,
            last_read: None,
            due: None,
            stat: STAT,
            next_stat: Instant::now() + STAT,
        };
        watch.set_mode(mode);
        if mode != Watch::Off && Identity::of(&watch.path) != watch.read {
            watch.note(HINTS[0]);
        }
        watch
    }

    /// Changes how the file is watched.
    pub fn set_mode(&mut self, mode: Watch) {
        if mode == self.mode {
            return;
        }
        self.mode = mode;
        self.events = (mode == Watch::Auto)
            .then(|| Events::new(&self.path))
            .flatten();
        self.follow();
    }

    /// Says that the file is about to be read, for whatever reason: changes up to now are no news any more.
    pub fn reading(&mut self) {
        self.read = Identity::of(&self.path);
        self.seen = self.read.clone();
        self.last_read = Some(Instant::now());
        self.due = None;
    }

    /// Waits until the file should be read. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            let wake = match (self.due, self.mode) {
                (Some(due), _) => due.at.min(self.next_stat),
                (None, Watch::Off) => std::future::pending().await,
                (None, _) => self.next_stat,
            };
            let event = async {
                match &mut self.events {
                    Some(events) => events.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                hint = event => self.note(hint),
                () = sleep_until(wake) => if self.look() { return },
            }
        }
    }

    fn note(&mut self, hint: Hint) {
        let identity = Identity::of(&self.path);
        if !hint.named && identity == self.seen {
            return;
        }
        let now = Instant::now();
        let earliest = self.last_read.map_or(now, |last| (last + GAP).max(now));
        let at = if hint.whole {
            earliest
        } else {
            earliest.max(now + SETTLE)
        };
        self.due = Some(Due {
            at,
            whole: hint.whole,
        });
        self.seen = identity;
    }

    /// Whether now is the time to read.
    fn look(&mut self) -> bool {
        let now = Instant::now();
        let identity = Identity::of(&self.path);
        let mut news = false;
        if now >= self.next_stat {
            self.next_stat = now + self.stat;
            self.follow();
            news = self.due.is_none() && identity != self.read;
        }
        let due = self.due.filter(|due| due.at <= now);
        let unsettled = match due {
            // The event was that of an earlier write: someone has just begun the next one.
            Some(due) if due.whole => identity.is_empty(),
            Some(_) => identity != self.seen,
            None => news,
        };
        if unsettled {
            self.due = Some(Due {
                at: now + SETTLE,
                whole: false,
            });
            self.seen = identity;
            return false;
        }
        if due.is_some() {
            self.follow();
        }
        due.is_some()
    }

    /// Watches the directories that matter now: links may have been swapped, directories made anew.
    fn follow(&mut self) {
        if let Some(events) = &mut self.events {
            events.follow(&self.path);
        }
    }
}

impl Identity {
    /// The state that the file is in now.
    pub fn of(path: &Path) -> Self {
        let identity = || {
            let resolved = path.canonicalize().ok()?;
            let meta = resolved.metadata().ok()?;
            Some((
                resolved,
                [
                    meta.dev().cast_signed(),
                    meta.ino().cast_signed(),
                    meta.size().cast_signed(),
                    meta.mtime(),
                    meta.mtime_nsec(),
                    meta.ctime(),
                    meta.ctime_nsec(),
                ],
            ))
        };
        Identity(identity())
    }

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|(_, numbers)| numbers[SIZE] == 0)
    }
}

/// What an event says about the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hint {
    /// It bears the file's name; else something beside it changed, perhaps a link on the way to it.
    named: bool,
    /// Something was closed after writing or renamed to where it is; else more may come.
    whole: bool,
}

/// Every hint, the weightiest first.
const HINTS: [Hint; 4] = [
    Hint {
        named: true,
        whole: true,
    },
    Hint {
        named: true,
        whole: false,
    },
    Hint {
        named: false,
        whole: true,
    },
    Hint {
        named: false,
        whole: false,
    },
];

/// How often each of [`HINTS`] came.
type Counts = [u64; HINTS.len()];

/// The system's events about a few directories, as counts of hints: a storm needs no more memory than one event.
#[derive(Debug)]
struct Events {
    watcher: RecommendedWatcher,
    hints: watch::Receiver<Counts>,
    counted: Counts,
    directories: Vec<(PathBuf, u64)>,
    warned: bool,
}

impl Events {
    fn new(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_owned();
        let (sender, hints) = watch::channel(Counts::default());
        let handler = move |event: notify::Result<notify::Event>| {
            // An error may hide an event.
            let hint = event.map_or(Some(HINTS[3]), |event| hint(&event, &name));
            if let Some(place) = HINTS.iter().position(|known| Some(*known) == hint) {
                sender.send_modify(|counts| counts[place] += 1);
            }
        };
        match notify::recommended_watcher(handler) {
            Ok(watcher) => Some(Events {
                watcher,
                hints,
                counted: Counts::default(),
                directories: Vec::new(),
                warned: false,
            }),
            Err(error) => {
                log::warn!(
                    "watch: no file-system events ({error}); the file is looked at every {STAT:?}"
                );
                None
            }
        }
    }

    /// The weightiest of the new hints. Safe to cancel.
    async fn next(&mut self) -> Hint {
        loop {
            if self.hints.changed().await.is_err() {
                return std::future::pending().await;
            }
            let counts = *self.hints.borrow_and_update();
            let before = std::mem::replace(&mut self.counted, counts);
            let new = (0..HINTS.len()).find(|place| counts[*place] != before[*place]);
            if let Some(place) = new {
                return HINTS[place];
            }
        }
    }

    fn follow(&mut self, path: &Path) {
        let resolved = path.canonicalize().ok();
        let mut wanted: Vec<(PathBuf, u64)> = [Some(path), resolved.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(|path| {
                let directory = path.parent()?;
                Some((directory.to_owned(), directory.metadata().ok()?.ino()))
            })
            .collect();
        wanted.dedup();
        if wanted == self.directories {
            return;
        }
        for (directory, _) in self.directories.drain(..) {
            // It fails when the directory is gone, and with it the watch.
            let _ = self.watcher.unwatch(&directory);
        }
        for (directory, inode) in wanted {
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => self.directories.push((directory, inode)),
                Err(error) if !std::mem::replace(&mut self.warned, true) => log::warn!(
                    "watch: no file-system events from {} ({error}); the file is looked at every {STAT:?}",
                    directory.display()
                ),
                Err(_) => {}
            }
        }
    }
}

/// What the event says about the file called `name`; nothing for events of reading, weir's own among them.
fn hint(event: &notify::Event, name: &OsStr) -> Option<Hint> {
    let whole = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => return None,
        EventKind::Modify(ModifyKind::Name(mode)) => mode != RenameMode::From,
        _ => false,
    };
    let named = event
        .paths
        .iter()
        .any(|path| path.file_name() == Some(name));
    Some(Hint { named, whole })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;
    use crate::control::sample::TestDir;

    /// Far above what noticing takes, far below the stat.
    const SOON: Duration = Duration::from_secs(2);
    /// Above every delay but the stat's.
    const WHILE: Duration = Duration::from_millis(250);

    fn file(content: &str) -> (TestDir, PathBuf) {
        let dir = TestDir::new();
        let path = dir.path().join("weir.toml");
        fs::write(&path, content).expect("a writable directory");
        (dir, path)
    }

    async fn noticed(watch: &mut FileWatch, within: Duration) -> bool {
        let noticed = timeout(within, watch.changed()).await.is_ok();
        watch.reading();
        noticed
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_new_file_are_noticed_and_reading_is_not() {
        let (dir, path) = file("a");
        let mut watch = FileWatch::new(&path, Identity::of(&path), Watch::Auto);
        let started = Instant::now();
        fs::write(&path, "b").expect("a writable file");
        assert!(noticed(&mut watch, SOON).await, "written in place");
        assert!(started.elapsed() < SOON / 2);

        let draft = dir.path().join("draft");
        fs::write(&draft, "c").expect("a writable directory");
        fs::rename(&draft, &path).expect("a rename");
        assert!(noticed(&mut watch, SOON).await, "renamed over");

        fs::rename(&path, &draft).expect("a rename");
        fs::write(&path, "d").expect("a writable directory");
        assert!(noticed(&mut watch, SOON).await, "made anew");

        fs::read(&path).expect("a readable file");
        fs::write(&draft, "beside").expect("a writable file");
        assert!(
            !noticed(&mut watch, WHILE).await,
            "read, and something beside it"
        );
    }

    #[tokio::test]
    async fn a_file_left_open_is_read_when_it_has_settled() {
        let (_dir, path) = file("a");
        let mut watch = FileWatch::new(&path, Identity::of(&path), Watch::Auto);
        let mut open = fs::File::options()
            .append(true)
            .open(&path)
            .expect("a file");
        let started = Instant::now();
        open.write_all(b"b").expect("a write");
        assert!(noticed(&mut watch, SOON).await);
        assert!(started.elapsed() >= SETTLE);
    }

    #[tokio::test]
    async fn a_swapped_directory_link_and_a_write_to_its_target_are_noticed() {
        let dir = TestDir::new();
        let (one, two, data) = ("..one", "..two", dir.path().join("..data"));
        for version in [one, two] {
            fs::create_dir(dir.path().join(version)).expect("a directory");
            fs::write(dir.path().join(version).join("weir.toml"), version).expect("a file");
        }
        symlink(one, &data).expect("a link");
        let path = dir.path().join("weir.toml");
        symlink("..data/weir.toml", &path).expect("a link");

        let mut watch = FileWatch::new(&path, Identity::of(&path), Watch::Auto);
        symlink(two, dir.path().join("..new")).expect("a link");
        fs::rename(dir.path().join("..new"), &data).expect("a rename");
        assert!(noticed(&mut watch, SOON).await, "swapped");
        fs::write(dir.path().join(two).join("weir.toml"), "three").expect("a write");
        assert!(noticed(&mut watch, SOON).await, "written behind the link");
    }

    #[tokio::test]
    async fn a_storm_of_renames_is_a_few_readings() {
        let (dir, path) = file("a");
        let mut watch = FileWatch::new(&path, Identity::of(&path), Watch::Auto);
        let writer = std::thread::spawn(move || {
            for number in 0..300 {
                let draft = dir.path().join("draft");
                fs::write(&draft, number.to_string()).expect("a write");
                fs::rename(&draft, dir.path().join("weir.toml")).expect("a rename");
                std::thread::sleep(Duration::from_millis(1));
            }
            dir
        });
        let (started, mut readings) = (Instant::now(), 0);
        while noticed(&mut watch, SOON).await {
            readings += 1;
            if fs::read_to_string(&path).expect("a file") == "299" {
                break;
            }
        }
        let most = started.elapsed().as_millis() / GAP.as_millis() + 2;
        assert!(
            (1..=most).contains(&readings),
            "{readings} of at most {most}"
        );
        writer.join().expect("the writer ends");
    }

    #[tokio::test]
    async fn without_events_the_stat_notices() {
        let (_dir, path) = file("a");
        let mut watch = FileWatch::new(&path, Identity::of(&path), Watch::Poll);
        watch.stat = Duration::from_millis(10);
        watch.next_stat = Instant::now();
        assert!(!noticed(&mut watch, WHILE).await, "nothing happened");
        fs::write(&path, "longer").expect("a write");
        assert!(noticed(&mut watch, SOON).await);
        fs::remove_file(&path).expect("a file");
        assert!(noticed(&mut watch, SOON).await, "removed");
    }

    #[tokio::test]
    async fn a_file_that_was_just_emptied_is_given_time() {
        let (_dir, path) = file("a");
        let mut watch = FileWatch::new(&path, Identity::of(&path), Watch::Poll);
        fs::write(&path, "").expect("a writable file");
        watch.note(HINTS[0]);
        watch.due = watch.due.map(|due| Due {
            at: Instant::now(),
            ..due
        });
        assert!(!watch.look(), "someone will write to it");
        fs::write(&path, "b").expect("a writable file");
        assert!(noticed(&mut watch, SOON).await);
    }

    #[tokio::test]
    async fn a_change_between_reading_and_watching_is_noticed() {
        let (_dir, path) = file("a");
        let read = Identity::of(&path);
        fs::write(&path, "longer").expect("a write");
        let mut watch = FileWatch::new(&path, read, Watch::Auto);
        assert!(noticed(&mut watch, SOON).await);
    }

    #[tokio::test]
    async fn nothing_is_noticed_when_off() {
        let (_dir, path) = file("a");
        let mut watch = FileWatch::new(&path, Identity::of(&path), Watch::Off);
        fs::write(&path, "longer").expect("a write");
        assert!(!noticed(&mut watch, WHILE).await);
    }
}
