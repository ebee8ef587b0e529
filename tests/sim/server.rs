//! The servers behind weir: what they remember, and what can be wrong with them.
//! A server of local sessions forgets them when it dies; the others of a pool remember together.

use std::collections::HashSet;
use std::time::Duration;

use weir::policy::retry::Failure;

use crate::chance::Chance;
use crate::timeline::Timeline;
use crate::world::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT};

#[derive(Debug)]
pub struct Server {
    pub condition: Condition,
    pub latency: Duration,
    /// How often it was started.
    pub life: u64,
    /// Pool and id of the sessions in its memory.
    pub sessions: HashSet<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Well,
    /// Its process is gone: nobody listens.
    Dead,
    /// Its machine is gone: nobody even refuses.
    Dark,
    /// It passes checks and closes every connection.
    Lies,
    /// It fails checks and answers everything.
    Sulks,
}

/// How a try at a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    Failed { failure: Failure, sent: bool },
}

impl Server {
    pub fn new(chance: &Chance) -> Server {
        Server {
            condition: Condition::Well,
            latency: latency(chance),
            life: 0,
            sessions: HashSet::new(),
        }
    }

    /// Whether a check of it passes.
    pub fn passes(&self) -> bool {
        matches!(self.condition, Condition::Well | Condition::Lies)
    }

    pub fn restart(&mut self) {
        self.life += 1;
        self.sessions.clear();
    }
}

pub fn latency(chance: &Chance) -> Duration {
    match chance.below(20) {
        0 => chance.seconds(1..15),
        1..4 => chance.millis(100..900),
        _ => chance.millis(1..60),
    }
}

/// One try over a connection that is pooled or new. `arrived` is called when the server has all of the request.
pub async fn attempt(
    time: &Timeline,
    chance: &Chance,
    server: impl Fn() -> (Condition, Duration, u64),
    wants_fresh: bool,
    arrived: impl FnOnce(),
) -> Outcome {
    let failed = |failure, sent| Outcome::Failed { failure, sent };
    let is_reused = !wants_fresh && chance.below(3) > 0;
    if is_reused && chance.one_in(40) {
        // It had closed the connection while that was idle.
        time.wait(Duration::from_millis(1)).await;
        return failed(Failure::ReusedClosed, !chance.one_in(4));
    }
    time.wait(Duration::from_millis(1)).await;
    let (condition, latency, life) = server();
    match condition {
        Condition::Dead => return failed(Failure::Connect, false),
        Condition::Dark => {
            time.wait(CONNECT_TIMEOUT).await;
            return failed(Failure::Connect, false);
        }
        _ => arrived(),
    }
    let closed = match is_reused {
        true => failed(Failure::ReusedClosed, true),
        false => failed(Failure::NewClosed, true),
    };
    if condition == Condition::Lies {
        return closed;
    }
    time.wait(latency.min(RESPONSE_TIMEOUT)).await;
    match server() {
        (Condition::Dead | Condition::Lies, ..) => closed,
        (_, _, now) if now != life => closed,
        (Condition::Dark, ..) => failed(Failure::Other, true),
        _ if latency >= RESPONSE_TIMEOUT => failed(Failure::Other, true),
        _ => Outcome::Answered,
    }
}
