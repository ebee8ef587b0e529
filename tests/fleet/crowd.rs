//! A crowd of clients that each have a session: every round, each client asks once for its counter.
//! It never judges: it returns what each client got.
//! Read `scenarios.rs` for the judgement.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::client::{Line, Session};
use crate::tomcat::COUNT;

/// What one request of a client brought.
#[derive(Clone, Debug)]
pub struct Visit {
    /// When the answer was complete.
    pub at: Instant,
    /// The counter page's words, or what went wrong.
    pub outcome: Result<Counted, String>,
}

/// The counter page's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Which server answered.
    pub server: String,
    /// How often this session was counted.
    pub count: u32,
    /// The application's session id.
    pub session: String,
}

/// Clients in groups, one thread and connection a group.
pub struct Crowd {
    groups: Vec<(Line, Vec<Session>)>,
}

impl Crowd {
    /// `clients` new clients over `connections` connections.
    pub fn new(address: SocketAddr, clients: usize, connections: usize) -> Self {
        let mut groups: Vec<_> = (0..connections)
            .map(|_| (Line::new(address), Vec::new()))
            .collect();
        for client in 0..clients {
            groups[client % connections].1.push(Session::default());
        }
        Self { groups }
    }

    /// From now on all clients go to another address.
    pub fn turn_to(&mut self, address: SocketAddr) {
        for (line, _) in &mut self.groups {
            *line = Line::new(address);
        }
    }

    /// One request of every client; the answers in the order of the clients, every failure a panic.
    pub fn round(&mut self) -> Vec<Counted> {
        let visits = self.visit(&AtomicBool::new(true));
        let first = |mut visits: Vec<Visit>| visits.remove(0).outcome;
        let counted = visits.into_iter().map(first).collect::<Result<_, _>>();
        counted.unwrap_or_else(|failure| panic!("a client got {failure}"))
    }

    /// Rounds until `stop` says so, at least one; each client's visits in order.
    pub fn visit(&mut self, stop: &AtomicBool) -> Vec<Vec<Visit>> {
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .groups
                .iter_mut()
                .map(|(line, sessions)| scope.spawn(|| drive(line, sessions, stop)))
                .collect();
            let visited = threads.into_iter().map(|thread| thread.join());
            visited
                .flat_map(|group| group.expect("a client thread ends well"))
                .collect()
        })
    }
}

fn drive(line: &mut Line, sessions: &mut [Session], stop: &AtomicBool) -> Vec<Vec<Visit>> {
    let mut visits = vec![Vec::new(); sessions.len()];
    loop {
        for (session, visits) in sessions.iter_mut().zip(&mut visits) {
            let outcome = ask(session, line);
            let at = Instant::now();
            visits.push(Visit { at, outcome });
        }
        if stop.load(Ordering::Relaxed) {
            return visits;
        }
    }
}

fn ask(session: &mut Session, line: &mut Line) -> Result<Counted, String> {
    let answer = session
        .get(line, COUNT)
        .map_err(|error| error.to_string())?;
    let word = |key| answer.word(key).map(str::to_owned);
    let count = answer.word("count").and_then(|count| count.parse().ok());
    match (answer.status, word("server"), count, word("session")) {
        (200, Some(server), Some(count), Some(session)) => Ok(Counted {
            server,
            count,
            session,
        }),
        (status, ..) => Err(format!("{status} {}", answer.body)),
    }
}
