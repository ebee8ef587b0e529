//! A client without a home on its way to a backend: counted there, and to be found by its own parallel requests, until its first answer.
//! It ends with the request at the latest, whatever becomes of it.
//! The walk goes on in `state/flights.rs`.

use super::client::Client;
use super::exchange::Plan;
use crate::http::head::Field;
use crate::policy::balance::BackendIndex;
use crate::policy::choose::Choice;
use crate::policy::facts::Facts;
use crate::state::backend;
use crate::state::flights::{Flight, Flights};
use crate::state::snapshot::{Pool, Route, Snapshot};

/// A new client under way.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    _counted: backend::Arrival<'a>,
    pool: &'a Pool,
    flight: Option<Flight>,
}

impl<'a> Arrival<'a> {
    /// The arrival that a plan speaks of; `None` when its client has a home, or needs none.
    pub(super) fn of(snapshot: &'a Snapshot, plan: &Plan) -> Option<Arrival<'a>> {
        let pool = &snapshot.pools[plan.pool];
        plan.is_new.then(|| Arrival {
            _counted: pool.backends[plan.backend.index()].live.arrival(),
            pool,
            flight: plan.flight,
        })
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if let Some((flights, flight)) = self.pool.flights.as_ref().zip(self.flight) {
            flights.close(flight);
        }
    }
}

/// The first flight that a request may be part of, on a route that asks for it.
pub(super) struct FirstFlight<'a> {
    flights: &'a Flights,
    key: u64,
}

impl<'a> FirstFlight<'a> {
    pub(super) fn of(
        snapshot: &'a Snapshot,
        route: &Route,
        facts: &Facts<'_>,
    ) -> Option<FirstFlight<'a>> {
        let flights = snapshot.pools[route.pool].flights.as_ref()?;
        let is_wanted = route
            .sticky
            .as_ref()
            .is_some_and(|sticky| sticky.first_flight);
        let head = facts.request.filter(|_| is_wanted)?.head;
        let agent = head.field(Field::UserAgent).next();
        let agent = agent.map_or(&b""[..], |(_, value)| value);
        Some(FirstFlight {
            flights,
            key: flights.key(snapshot.generation, facts.client, agent),
        })
    }

    /// Where others went.
    pub(super) fn destination(&self, facts: &Facts<'_>) -> Option<BackendIndex> {
        let (_, backend) = self.flights.find(self.key, facts.now)?;
        Some(backend)
    }

    /// Joins the flight that goes where this request goes, or opens one.
    pub(super) fn join(&self, choice: &Choice, facts: &Facts<'_>, client: &Client) -> Flight {
        match self.flights.find(self.key, facts.now) {
            Some((flight, backend)) if backend == choice.backend => flight,
            _ => {
                let salt = client.local.rng.borrow_mut().next_u64();
                self.flights.open(self.key, choice.backend, salt, facts.now)
            }
        }
    }
}
