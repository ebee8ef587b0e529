//! The effective state of a backend: what the operator wants of it and what is observed, in one word.
//! It decides nothing; balancers look at both themselves.
//! Nothing follows from here.

use crate::config::model::AdminState;
use crate::policy::health::Health;

/// What a backend is good for right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effective {
    /// It takes new work.
    Up,
    /// Its checks fail.
    Down,
    /// It has no verdict yet.
    Unknown,
    /// It keeps the clients it has.
    Drain,
    /// It takes nothing.
    Maint,
}

impl Effective {
    /// Every state.
    pub const ALL: [Effective; 5] = [
        Effective::Up,
        Effective::Down,
        Effective::Unknown,
        Effective::Drain,
        Effective::Maint,
    ];

    /// A backend that drains and is down is down: it cannot even keep its clients.
    pub fn of(admin: AdminState, health: Health) -> Effective {
        match (admin, health) {
            (AdminState::Maint, _) => Effective::Maint,
            (_, Health::Down) => Effective::Down,
            (AdminState::Drain, _) => Effective::Drain,
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
            Effective::Drain => "drain",
            Effective::Maint => "maint",
        }
    }
}
