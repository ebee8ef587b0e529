//! How many backends a pool should have, and who sees to it.
//! It says what is wanted of the answer; what the answer is is for `policy/scale.rs` to say.
//! The walk goes on in control's `scale/`.

use std::time::Duration;

use super::HttpPlace;

/// The settings of `[pools.NAME.scale]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Backends that there are at least.
    pub min: usize,
    /// And at most, whatever their state.
    pub max: usize,
    /// What each backend should have of what is measured.
    pub target: Target,
    /// What is measured is averaged over so long; then it is decided.
    pub interval: Duration,
    /// After a change the next server is asked for so much later at the earliest.
    pub cool_down: Duration,
    /// Fewer backends must have been enough for so long before one is given up.
    pub hold: Duration,
    /// Sessions in the memory of a server that is given up may last so long.
    pub drain_deadline: Duration,
    /// Who starts and stops servers; absent: nobody, the number is only told.
    pub actor: Option<Actor>,
    /// The actor has so much time.
    pub timeout: Duration,
}

/// What is measured, and how much of it each backend should have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Requests and connections at the backends.
    InFlight(f64),
    /// Live sessions.
    Sessions(f64),
    /// The mean time of requests, in seconds.
    Latency(f64),
    /// What backends say of their load when they are checked, in a unit of theirs.
    Load(f64),
}

/// Who starts and stops servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A program and its arguments; no shell is asked.
    Command(Vec<String>),
    /// A server that gets a POST.
    Webhook(HttpPlace),
}

impl Target {
    /// How much of it each backend should have, in its own unit.
    pub fn value(self) -> f64 {
        match self {
            Target::InFlight(value)
            | Target::Sessions(value)
            | Target::Latency(value)
            | Target::Load(value) => value,
        }
    }

    /// The key that gives it, without `target_`.
    pub fn as_str(self) -> &'static str {
        match self {
            Target::InFlight(_) => "in_flight",
            Target::Sessions(_) => "sessions",
            Target::Latency(_) => "latency",
            Target::Load(_) => "load",
        }
    }
}
