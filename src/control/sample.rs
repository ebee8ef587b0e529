//! Things that control's tests need: a directory of their own, workers that only answer.
//! It is compiled for tests only.
//! Nothing follows from here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc;

use crate::metrics::worker::WorkerCounts;
use crate::worker::{Command, Handle};

/// A directory that is gone with the value.
pub struct TestDir(PathBuf);

impl TestDir {
    /// A new, empty one.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("weir-control-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a writable temporary directory");
        TestDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A worker that keeps what it is told in a channel.
pub fn worker() -> (Handle, mpsc::UnboundedReceiver<Command>) {
    let (commands, told) = mpsc::unbounded_channel();
    let thread = std::thread::spawn(|| ());
    let handle = Handle {
        commands,
        counts: Arc::new(WorkerCounts::default()),
        thread,
    };
    (handle, told)
}
