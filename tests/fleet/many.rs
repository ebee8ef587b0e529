//! Threads that all do the same until they are told to stop: clients that never rest.
//! Whoever stops them fails if one of them did.
//! What they do is said where they are started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

/// Running threads, each of which ends with a `T`.
pub struct Many<T> {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<T>>,
}

impl<T: Send + 'static> Many<T> {
    /// Starts so many; each works until what it is given says that it is time to stop.
    pub fn start(count: usize, work: impl Fn(&AtomicBool) -> T + Clone + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let thread = |_| {
            let (stop, work) = (stop.clone(), work.clone());
            thread::spawn(move || work(&stop))
        };
        let threads = (0..count).map(thread).collect();
        Many { stop, threads }
    }

    /// Stops them; what each has come to.
    pub fn stop(self) -> Vec<T> {
        self.stop.store(true, Relaxed);
        let threads = self.threads.into_iter();
        let ended = threads.map(|thread| thread.join().expect("nothing failed in it"));
        ended.collect()
    }
}
