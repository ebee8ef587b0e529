//! Facts and members for the tests of decisions.
//! It must never be part of a build that ships.
//! The walk goes on in the tests beside it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use super::{BackendIndex, Loads, Member};
use crate::config::model::AdminState;
use crate::policy::facts::Facts;
use crate::policy::health::Health;

/// Facts without a request.
pub fn facts() -> Facts<'static> {
    Facts {
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: 0,
        request: None,
        hello: None,
        session: None,
        now: Instant::now(),
        wall_millis: 0,
    }
}

/// Ready backends that are up, with these weights.
pub fn up(weights: &[u16]) -> impl Iterator<Item = Member> {
    weights.iter().map(|&weight| Member {
        weight,
        share: 1,
        admin: AdminState::Ready,
        health: Health::Up,
        since: None,
        ejected: false,
        backup: false,
    })
}

impl Loads for Vec<u32> {
    fn in_flight(&self, backend: BackendIndex) -> u32 {
        self[backend.index()]
    }

    fn sessions(&self, backend: BackendIndex) -> u32 {
        self[backend.index()]
    }
}

/// Backends with so many requests in flight and so many live sessions.
#[derive(Clone, Debug)]
pub struct Busy {
    pub in_flight: Vec<u32>,
    pub sessions: Vec<u32>,
}

impl Loads for Busy {
    fn in_flight(&self, backend: BackendIndex) -> u32 {
        self.in_flight[backend.index()]
    }

    fn sessions(&self, backend: BackendIndex) -> u32 {
        self.sessions[backend.index()]
    }
}
