//! Steady load beside a scenario: threads with a kept connection each, half of their clients known and half new.
//! It counts every failure, an answer other than 200 included, and forgives none.
//! Read `scenarios.rs` for when it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::client::{Line, Session};
use crate::many::Many;
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
pub struct Load(Many<Seen>);

impl Load {
    /// Starts the threads.
    pub fn start(address: SocketAddr) -> Self {
        Self(Many::start(CONNECTIONS, move |stop| drive(address, stop)))
    }

    /// Ends the load; what all threads saw.
    pub fn stop(self) -> Seen {
        let mut all = Seen::default();
        (self.0.stop().into_iter()).for_each(|seen| all.merge(seen));
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
