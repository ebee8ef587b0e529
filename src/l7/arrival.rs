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
use crate::state::snapshot::{Route, Snapshot};

/// A new client under way.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    _counted: Option<backend::Arrival<'a>>,
    flight: Option<(&'a Flights, Box<Flight>)>,
}

impl<'a> Arrival<'a> {
    /// The arrival that a plan speaks of; `None` when its client has a home, or needs none.
    pub(super) fn of(snapshot: &'a Snapshot, plan: &mut Plan) -> Option<Arrival<'a>> {
        let pool = &snapshot.pools[plan.pool];
        let arrival = || pool.backends[plan.backend.index()].live.arrival();
        let counted = plan.counts.then(arrival);
        let flight = pool.flights.as_deref().zip(plan.flight.take());
        (counted.is_some() || flight.is_some()).then_some(Arrival {
            _counted: counted,
            flight,
        })
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if let Some((flights, flight)) = &self.flight {
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
        self.flights.destination(self.key, facts.now)
    }

    /// Joins the flight that goes where this request goes, or opens one; whether it did the latter. `None`: others left for somewhere else
    /// while this one was being chosen for. It is for clients without a home.
    pub(super) fn take(
        &self,
        choice: &Choice,
        facts: &Facts<'_>,
        client: &Client,
    ) -> Option<(Flight, bool)> {
        let join = || self.flights.join(self.key, choice.backend, facts.now);
        let open = || {
            let salt = client.local.rng.borrow_mut().next_u64();
            self.flights.open(self.key, choice.backend, salt, facts.now)
        };
        let joined = join().map(|flight| (flight, false));
        let opened = joined.or_else(|| Some((open()?, true)));
        // Who was faster may have left for the same place.
        opened.or_else(|| Some((join()?, false)))
    }
}
