//! Files as a source: a directory of lists that somebody else writes, or one list.
//! A file that is wrong counts as it was when it was last right; one that is gone counts as empty.
//! The walk goes on in `list.rs`, which reads one.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::list::{self, MAX_BYTES};
use super::{Answer, Provider, Sink};
use crate::config::model::Backend;
use crate::control::watch::Identity;

/// Files that a directory may have; one with more is refused.
const MAX_FILES: usize = 1000;
/// Between two looks at what no event told.
const LOOK: Duration = Duration::from_secs(1);
/// Files are read when they were left alone for so long.
const SETTLE: Duration = Duration::from_millis(20);
/// And after so long even if they were not.
const UNSETTLED: usize = 10;

/// The files at one path.
pub(super) struct Files {
    path: PathBuf,
    /// Each as it was last read.
    known: BTreeMap<PathBuf, Known>,
    /// Told by events; they end with the watcher.
    events: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Whether the directory is being watched.
    is_watched: bool,
}

/// One file.
struct Known {
    identity: Identity,
    /// What it said when it was last right; absent: never.
    backends: Option<Vec<Backend>>,
    problem: Option<String>,
}

/// The files that are there, with their states.
type Seen = BTreeMap<PathBuf, Identity>;

impl Provider for Files {
    fn run(self: Box<Self>, sink: Sink) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.follow(sink))
    }
}

impl Files {
    pub(super) fn new(path: PathBuf) -> Self {
        let events = Arc::<Notify>::default();
        let told = events.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            // Reading is an event, too.
            if !event
                .is_ok_and(|event| matches!(event.kind, EventKind::Access(kind) if !is_close(kind)))
            {
                told.notify_one();
            }
        };
        Files {
            path,
            known: BTreeMap::new(),
            events,
            // Without events the looks remain.
            watcher: notify::recommended_watcher(handler).ok(),
            is_watched: false,
        }
    }

    async fn follow(mut self, sink: Sink) {
        let mut told = None;
        let mut is_sound = false;
        loop {
            self.watch();
            match self.settled().await {
                Ok(seen) if Some(&seen) == told.as_ref() => {
                    // What was wrong with them still is.
                    if is_sound {
                        sink.confirm();
                    }
                }
                Ok(seen) => {
                    self = match self.read(seen.clone()).await {
                        Ok(own) => own,
                        Err(()) => return,
                    };
                    let answer = self.answer();
                    is_sound = answer.problem.is_none() && !answer.backends.is_empty();
                    sink.report(answer);
                    told = Some(seen);
                }
                Err(problem) => {
                    told = None;
                    sink.fail(problem);
                }
            }
            let _ = timeout(LOOK, self.events.notified()).await;
        }
    }

    /// Watches the directory, as soon as there is one.
    fn watch(&mut self) {
        let directory = match self.path.is_dir() {
            true => Some(self.path.as_path()),
            false => self.path.parent(),
        };
        let is_there = directory.is_some_and(Path::is_dir);
        if let (Some(watcher), Some(directory), false) =
            (&mut self.watcher, directory, self.is_watched && is_there)
        {
            self.is_watched = watcher
                .watch(directory, RecursiveMode::NonRecursive)
                .is_ok();
        }
    }

    /// The files as they are once nobody is at them.
    async fn settled(&self) -> Result<Seen, String> {
        let mut seen = seen(&self.path)?;
        for _ in 0..UNSETTLED {
            sleep(SETTLE).await;
            let again = self::seen(&self.path)?;
            if again == seen {
                break;
            }
            seen = again;
        }
        Ok(seen)
    }

    /// Reads those that changed, beside the runtime.
    async fn read(mut self, seen: Seen) -> Result<Self, ()> {
        let read = tokio::task::spawn_blocking(move || {
            self.known.retain(|path, _| seen.contains_key(path));
            for (path, identity) in seen {
                let before = self.known.remove(&path);
                let known = match before {
                    Some(known) if known.identity == identity => known,
                    before => Known::read(&path, identity, before),
                };
                self.known.insert(path, known);
            }
            self
        });
        read.await.map_err(|_| ())
    }

    /// All files put together. What two of them name is the first one's.
    fn answer(&self) -> Answer {
        let (mut addresses, mut names) = (HashSet::new(), HashSet::new());
        let mut answer = Answer::default();
        for (path, known) in &self.known {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            answer.is_partial |= known.backends.is_none();
            let mut problem = known.problem.clone();
            for backend in known.backends.iter().flatten() {
                if addresses.insert(backend.address) && names.insert(&backend.name) {
                    answer.backends.push(backend.clone());
                } else {
                    problem = Some(format!("another file has {} too", backend.name));
                }
            }
            if let Some(problem) = problem {
                answer.problem = Some(format!("{file}: {problem}"));
            }
        }
        answer
    }
}

impl Known {
    fn read(path: &Path, identity: Identity, before: Option<Known>) -> Known {
        match read(path) {
            Ok(backends) => Known {
                identity,
                backends: Some(backends),
                problem: None,
            },
            Err(problem) => Known {
                identity,
                backends: before.and_then(|before| before.backends),
                problem: Some(problem),
            },
        }
    }
}

fn is_close(kind: notify::event::AccessKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    kind == AccessKind::Close(AccessMode::Write)
}

/// The lists at a path: itself, or those in a directory. A directory that cannot be read is a failure, one without a list is none.
fn seen(path: &Path) -> Result<Seen, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let meta = path.metadata().map_err(unreadable)?;
    if !meta.is_dir() {
        return Ok(Seen::from([(path.to_owned(), Identity::of(path))]));
    }
    let mut seen = Seen::new();
    for entry in path.read_dir().map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if is_list(&path) {
            let identity = Identity::of(&path);
            seen.insert(path, identity);
        }
        if seen.len() > MAX_FILES {
            return Err(format!("more than {MAX_FILES} files"));
        }
    }
    Ok(seen)
}

/// What editors leave beside a file begins with a dot or ends otherwise.
fn is_list(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    !name.starts_with(b".") && (name.ends_with(b".json") || name.ends_with(b".toml"))
}

fn read(path: &Path) -> Result<Vec<Backend>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut part = file.take(MAX_BYTES as u64 + 1);
    part.read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > MAX_BYTES {
        return Err("larger than 1 MiB".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
    if text.trim().is_empty() {
        // As a file is that is only half written; a list without an entry says so.
        return Err("empty".to_owned());
    }
    match path.extension().is_some_and(|end| end == "json") {
        true => list::from_json(&text),
        false => list::from_toml(&text),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::control::sample::TestDir;

    async fn answer(files: &mut Option<Files>) -> (Vec<String>, Option<String>, bool) {
        let own = files.take().expect("a source");
        let seen = own.settled().await.expect("a directory");
        let own = own.read(seen).await.expect("no panic");
        let answer = own.answer();
        *files = Some(own);
        let names = answer.backends.iter().map(|own| own.name.clone());
        (names.collect(), answer.problem, answer.is_partial)
    }

    #[tokio::test]
    async fn a_file_that_is_wrong_counts_as_it_was() {
        let dir = TestDir::new();
        let write =
            |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a write");
        let mut files = Some(Files::new(dir.path().to_owned()));
        assert_eq!(answer(&mut files).await, (vec![], None, false));

        write("one.json", "[\"10.0.0.1:80\"]");
        write("two.toml", "backends = [\"10.0.0.2:80\"]");
        write(".three.json", "[\"10.0.0.3:80\"]");
        write("four.json~", "[\"10.0.0.4:80\"]");
        let both = vec!["10.0.0.1:80".to_owned(), "10.0.0.2:80".to_owned()];
        assert_eq!(answer(&mut files).await, (both.clone(), None, false));

        write("one.json", "[\"10.0.0.1:80\", \"10.");
        let (names, problem, is_partial) = answer(&mut files).await;
        assert_eq!((names, is_partial), (both.clone(), false));
        assert!(
            problem
                .expect("a problem")
                .starts_with("one.json: not JSON")
        );

        write("five.json", "");
        let (names, problem, is_partial) = answer(&mut files).await;
        assert_eq!((names, is_partial), (both, true));
        assert_eq!(
            problem.as_deref(),
            Some("one.json: not JSON: EOF while parsing a string at line 1 column 20")
        );

        fs::remove_file(dir.path().join("one.json")).expect("a file");
        fs::remove_file(dir.path().join("five.json")).expect("a file");
        write("two.toml", "backends = [\"10.0.0.2:80\", \"10.0.0.5:80\"]");
        let (names, problem, _) = answer(&mut files).await;
        assert_eq!(
            (names.join(" ").as_str(), problem),
            ("10.0.0.2:80 10.0.0.5:80", None)
        );
    }

    #[tokio::test]
    async fn what_two_files_name_is_the_first_ones() {
        let dir = TestDir::new();
        for name in ["a.json", "b.json"] {
            fs::write(dir.path().join(name), "[\"10.0.0.1:80\"]").expect("a write");
        }
        let mut files = Some(Files::new(dir.path().to_owned()));
        let (names, problem, _) = answer(&mut files).await;
        assert_eq!(names, ["10.0.0.1:80"]);
        assert_eq!(
            problem.as_deref(),
            Some("b.json: another file has 10.0.0.1:80 too")
        );
    }

    #[test]
    fn a_path_may_be_one_list() {
        let dir = TestDir::new();
        let path = dir.path().join("was.list");
        assert!(seen(&path).is_err());
        fs::write(&path, "backends = []").expect("a write");
        assert_eq!(seen(&path).expect("a file").len(), 1);
    }
}
