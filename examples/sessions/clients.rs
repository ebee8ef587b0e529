//! Clients that log in and count up: each knows which counts were acknowledged to it, so that what is lost is known exactly.
//! It must never retry: a request that fails is a failed request, and what it did is not acknowledged.
//! Read `course.rs` for what happens to the servers meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Line, Session};

/// Where the shop is, at every server.
pub const SHOP: &str = "/shop";
/// The request that finds out who the client is, and changes nothing.
pub const WHO: &str = "/shop?do=who";

/// Threads over which the clients are spread: at most so many requests are in flight at once.
pub const IN_FLIGHT: usize = 12;
/// Between two requests of a thread, so that the machine keeps some room.
const THINK: Duration = Duration::from_millis(2);
/// Failures of a thread that are kept word for word.
const KEPT: usize = 5;

/// What the clients saw.
#[derive(Default, Debug)]
pub struct Tally {
    /// Requests, failed ones included.
    pub requests: u64,
    /// Requests without a good answer.
    pub failed: u64,
    /// What failures said, each once.
    pub failures: Vec<String>,
    /// Clients that were no longer logged in.
    pub sessions_lost: u64,
    /// Acknowledged counts that the servers no longer knew, those of lost sessions included.
    pub updates_lost: u64,
    /// How long each good answer took.
    pub durations: Vec<Duration>,
    /// How long the first good answers of another server took.
    pub moves: Vec<Duration>,
    /// How long each client with failures had no good answer, from its last good one.
    pub gaps: Vec<Duration>,
}

/// One client, with a connection of its own.
struct Client {
    line: Line,
    cookies: Session,
    user: usize,
    /// Whether it was told that it is logged in.
    is_in: bool,
    acknowledged: u64,
    server: String,
    /// When it had its last good answer.
    good: Instant,
    /// Whether its last request failed.
    failing: bool,
}

/// Many clients.
pub struct Crowd {
    clients: Vec<Client>,
}

impl Crowd {
    /// Logs `count` new clients in, one after another, so that their placement does not depend on chance.
    pub fn log_in(address: SocketAddr, count: usize) -> Self {
        let mut tally = Tally::default();
        let clients = (0..count).map(|user| {
            let mut client = Client {
                line: Line::new(address),
                cookies: Session::default(),
                user,
                is_in: false,
                acknowledged: 0,
                server: String::new(),
                good: Instant::now(),
                failing: false,
            };
            client.log_in(&mut tally);
            client
        });
        let clients = clients.collect();
        assert_eq!(tally.failed, 0, "at the log-in: {:?}", tally.failures);
        Self { clients }
    }

    /// How many clients each server has.
    pub fn homes(&self) -> BTreeMap<String, usize> {
        let mut homes = BTreeMap::new();
        for client in &self.clients {
            *homes.entry(client.server.clone()).or_default() += 1;
        }
        homes
    }

    /// Takes the clients of `server` out of the crowd.
    pub fn split_off(&mut self, server: &str) -> Self {
        let all = std::mem::take(&mut self.clients);
        let (gone, left) = all.into_iter().partition(|client| client.server == server);
        self.clients = left;
        Self { clients: gone }
    }

    /// Every client counts `rounds` times.
    pub fn count(&mut self, rounds: usize) -> Tally {
        self.drive(&|round| round < rounds)
    }

    /// The clients count as long as `beside` runs, each at least once.
    pub fn count_beside<T>(&mut self, beside: impl FnOnce() -> T) -> (T, Tally) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let running =
                scope.spawn(|| self.drive(&|round| round == 0 || !stop.load(Ordering::Relaxed)));
            // Also when `beside` panics.
            let stopping = Stop(&stop);
            let result = beside();
            drop(stopping);
            (result, running.join().expect("the clients end well"))
        })
    }

    /// Asks the server at `address` itself about each client of `server`: whether it knows all of them, and what they counted last.
    pub fn are_known_at(&mut self, server: &str, address: SocketAddr) -> bool {
        let mut line = Line::new(address);
        let mut own = self.clients.iter_mut().filter(|it| it.server == server);
        own.all(|client| {
            let answer = client.cookies.get(&mut line, WHO);
            let own = [client.user.to_string(), client.acknowledged.to_string()];
            answer.is_ok_and(|it| {
                [it.word("user"), it.word("count")] == own.each_ref().map(|own| Some(own.as_str()))
            })
        })
    }

    /// Asks the server at `address` itself about one client after another; what `measure` counted for each.
    pub fn ask_at(&mut self, address: SocketAddr, measure: impl Fn() -> u64) -> Vec<u64> {
        let mut line = Line::new(address);
        let ask = |client: &mut Client| {
            let before = measure();
            let answer = client.cookies.get(&mut line, WHO);
            let is_known = answer.is_ok_and(|answer| answer.status == 200);
            assert!(is_known, "client {} is not known at {address}", client.user);
            measure() - before
        };
        self.clients.iter_mut().map(ask).collect()
    }

    fn drive(&mut self, goes_on: &(impl Fn(usize) -> bool + Sync)) -> Tally {
        let share = self.clients.len().div_ceil(IN_FLIGHT).max(1);
        let mut all = Tally::default();
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .clients
                .chunks_mut(share)
                .map(|clients| scope.spawn(|| drive(clients, goes_on)))
                .collect();
            for thread in threads {
                all.merge(thread.join().expect("a client thread ends well"));
            }
        });
        all
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn drive(clients: &mut [Client], goes_on: &impl Fn(usize) -> bool) -> Tally {
    let mut tally = Tally::default();
    let mut round = 0;
    while goes_on(round) {
        for client in &mut *clients {
            client.count(&mut tally);
            thread::sleep(THINK);
        }
        round += 1;
    }
    tally
}

impl Client {
    /// Counts once; a client that is not known any more logs in anew.
    fn count(&mut self, tally: &mut Tally) {
        if !self.is_in {
            self.log_in(tally);
            return;
        }
        let Some((status, count)) = self.ask("/shop?do=count", tally) else {
            return;
        };
        if status == 401 {
            tally.sessions_lost += 1;
            tally.updates_lost += std::mem::take(&mut self.acknowledged);
            self.is_in = false;
            self.log_in(tally);
            return;
        }
        // A request that failed may have been counted: more than expected is no loss.
        tally.updates_lost += (self.acknowledged + 1).saturating_sub(count);
        self.acknowledged = count;
    }

    fn log_in(&mut self, tally: &mut Tally) {
        let path = format!("/shop?do=login&user={}", self.user);
        self.is_in = self
            .ask(&path, tally)
            .is_some_and(|(status, _)| status == 200);
    }

    /// One POST: its status, 200 or 401, and the count; anything else is a failure.
    fn ask(&mut self, path: &str, tally: &mut Tally) -> Option<(u16, u64)> {
        let began = Instant::now();
        let answer = self
            .cookies
            .send(&mut self.line, "POST", path, "Content-Length: 0\r\n");
        tally.requests += 1;
        let said = match answer {
            Ok(answer) if matches!(answer.status, 200 | 401) => answer,
            Ok(answer) => {
                self.failing = true;
                tally.fail(format!("{} {}", answer.status, answer.body));
                return None;
            }
            Err(error) => {
                self.failing = true;
                tally.fail(error.to_string());
                return None;
            }
        };
        let now = Instant::now();
        if std::mem::take(&mut self.failing) {
            tally.gaps.push(now - self.good);
        }
        self.good = now;
        tally.durations.push(now - began);
        let server = said.word("server").unwrap_or("nobody").to_owned();
        if server != self.server && !self.server.is_empty() {
            tally.moves.push(now - began);
        }
        self.server = server;
        let own = self.user.to_string();
        let user = said.word("user");
        assert!(
            said.status == 401 || user == Some(&own),
            "client {own} was taken for {user:?}"
        );
        let count = said.word("count").and_then(|count| count.parse().ok());
        Some((said.status, count.unwrap_or(0)))
    }
}

impl Tally {
    /// Adds what others saw.
    pub fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.sort();
        self.failures.dedup();
        self.sessions_lost += other.sessions_lost;
        self.updates_lost += other.updates_lost;
        self.durations.extend(other.durations);
        self.moves.extend(other.moves);
        self.gaps.extend(other.gaps);
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        // Many fail alike.
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.failures.len() < KEPT && !self.failures.contains(&what) {
            self.failures.push(what);
        }
    }
}
