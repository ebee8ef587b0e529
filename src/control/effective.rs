//! The effective state of a backend: what the operator wants of it and what is observed, in one word.
//! It decides nothing; balancers look at both themselves.
//! Nothing follows from here.

use crate::config::model::AdminState;
use crate::policy::health::Health;
use crate::policy::health::passive::Standing;
use crate::state::backend::Backend;

/// What a backend is good for right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effective {
    /// It takes new work.
    Up,
    /// Its checks fail.
    Down,
    /// It has no verdict yet.
    Unknown,
    /// It failed requests or connections, and takes no new clients for a while.
    Ejected,
    /// It keeps the clients it has.
    Drain,
    /// It takes nothing.
    Maint,
}

impl Effective {
    /// Every state.
    pub const ALL: [Effective; 6] = [
        Effective::Up,
        Effective::Down,
        Effective::Unknown,
        Effective::Ejected,
        Effective::Drain,
        Effective::Maint,
    ];

    /// A backend that drains and is down is down: it cannot even keep its clients.
    pub fn of(backend: &Backend) -> Effective {
        let is_ejected = backend.live.record().standing() == Standing::Ejected;
        match (backend.admin(), backend.live.health()) {
            (AdminState::Maint, _) => Effective::Maint,
            (_, Health::Down) => Effective::Down,
            (AdminState::Drain, _) => Effective::Drain,
            (AdminState::Ready, _) if is_ejected => Effective::Ejected,
            (AdminState::Ready, Health::Up) => Effective::Up,
            (AdminState::Ready, Health::Unknown) => Effective::Unknown,
        }
    }

    /// The word for metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Effective::Up => "up",
            Effective::Down => "down",
            Effective::Unknown => "unknown",
            Effective::Ejected => "ejected",
            Effective::Drain => "drain",
            Effective::Maint => "maint",
        }
    }
}
