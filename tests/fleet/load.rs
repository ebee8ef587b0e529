//! Steady load beside a scenario: threads with a kept connection each, half of their clients known and half new.
//! It counts every failure, an answer other than 200 included, and forgives none.
//! Read `scenarios.rs` for when it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crate::client::{Line, Session};
use crate::tomcat::NAME;

/// Connections at once.
const CONNECTIONS: usize = 32;
/// Between an answer and the next request, so that the machine keeps some room.
const THINK: Duration = Duration::from_millis(2);
/// Failures that are kept word for word.
const KEPT: usize = 5;

/// What the threads saw.
#[derive(Default, Debug)]
pub struct Seen {
    /// Requests that were answered 200.
    pub good: u64,
    /// All others.
    pub failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// When each server was first heard.
    pub first: BTreeMap<String, SystemTime>,
}

/// Running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Load {
    /// Starts the threads.
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..CONNECTIONS)
            .map(|_| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || drive(address, &stop))
            })
            .collect();
        Self { stop, threads }
    }

    /// Ends the load; what all threads saw.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            all.merge(thread.join().expect("a load thread ends well"));
        }
        all
    }
}

impl Seen {
    fn merge(&mut self, other: Self) {
        self.good += other.good;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(KEPT);
        for (server, moment) in other.first {
            let first = self.first.entry(server).or_insert(moment);
            *first = moment.min(*first);
        }
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.failures.len() < KEPT {
            self.failures.push(what);
        }
    }
}

fn drive(address: SocketAddr, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut line = Line::new(address);
    let mut known = Session::default();
    while !stop.load(Ordering::Relaxed) {
        for session in [&mut known, &mut Session::default()] {
            match session.get(&mut line, NAME) {
                Ok(answer) if answer.status == 200 => {
                    seen.good += 1;
                    let server = answer.word("server").unwrap_or("nobody");
                    if !seen.first.contains_key(server) {
                        seen.first.insert(server.to_owned(), SystemTime::now());
                    }
                }
                Ok(answer) => seen.fail(format!("{} {}", answer.status, answer.body)),
                Err(error) => seen.fail(error.to_string()),
            }
            thread::sleep(THINK);
        }
    }
    seen
}
