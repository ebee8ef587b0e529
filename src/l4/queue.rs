//! A connection in its pool's queue: every backend that may take it has all that it may have.
//! It reads nothing from the client, who may not have to say anything first.
//! The walk goes back to `connection.rs`; the queue is in `upstream/queue.rs`.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::choice::choose_backend;
use super::connection::Connection;
use super::failure::Failure;
use crate::clock;
use crate::config::model::Sessions;
use crate::policy::balance::BackendIndex;
use crate::policy::choose::{Choice, Nowhere};
use crate::state::backend::ConnectionLease;
use crate::state::snapshot::Route;
use crate::state::waiting::Shed;
use crate::upstream::generation::Generation;
use crate::upstream::queue::{Place, Want};

/// How often a client that waits is looked after.
const LOOK: Duration = Duration::from_secs(1);

/// What a connection has waited so far.
#[derive(Debug, Default)]
pub(super) struct Patience {
    place: Option<Place>,
    until: Option<Instant>,
    /// Whether it has waited in vain for its client's own backend.
    gives_up: bool,
}

impl Patience {
    /// Whether others wait already, who were here first.
    fn must_queue(&self, generation: &Generation, pool: usize) -> bool {
        generation.snapshot.pools[pool].is_limited
            && self.place.is_none()
            && !generation.pool(pool).queue.is_empty()
    }
}

impl Connection {
    /// Chooses a backend that is not in `tried`, and takes one of its seats; waits for one where there is none.
    pub(super) async fn seat(
        &mut self,
        generation: &Rc<Generation>,
        (listener, route): (usize, &Route),
        tried: &[BackendIndex],
        patience: &mut Patience,
    ) -> Result<(Choice, ConnectionLease), Failure> {
        let pool = &generation.snapshot.pools[route.pool];
        loop {
            let (facts, gives_up) = (self.story.facts(listener), patience.gives_up);
            let choice = choose_backend(&self.local, generation, route, &facts, tried, gives_up);
            let want = match choice {
                Ok(choice) if !patience.must_queue(generation, route.pool) => {
                    if let Some(lease) = pool.backends[choice.backend.index()].lease_connection() {
                        patience.place = None;
                        return Ok((choice, lease));
                    }
                    Want::of(choice)
                }
                Ok(choice) => Want::of(choice),
                Err(Nowhere::Full(own)) => own.map_or(Want::Any, Want::Backend),
                Err(nowhere) => return Err(self.story.failure.unwrap_or(nowhere.into())),
            };
            self.await_room(generation, route, want, patience).await?;
        }
    }

    /// Waits until the connection is called, at most until the pool's wait is over.
    async fn await_room(
        &mut self,
        generation: &Rc<Generation>,
        route: &Route,
        want: Want,
        patience: &mut Patience,
    ) -> Result<(), Failure> {
        let pool = &generation.snapshot.pools[route.pool];
        let began = clock::now();
        let place = match patience.place.take() {
            Some(place) => {
                place.stay(want, began);
                place
            }
            None => Place::take(&self.local, generation, route.pool, want, began)
                .ok_or(Failure::QueueFull)?,
        };
        let until = *(patience.until).get_or_insert(began + pool.queue.timeout);
        let called = self.await_call(&place, until).await;
        self.story.queued += clock::now() - began;
        let called = called?;
        let sessions = route.sticky.as_ref().map(|sticky| sticky.sessions);
        let may_leave = want != Want::Any && sessions.is_some_and(|own| own != Sessions::Local);
        if called || may_leave && !patience.gives_up {
            patience.gives_up |= !called;
            patience.place = Some(place);
            return Ok(());
        }
        pool.waiting.shed(Shed::Timeout);
        Err(Failure::QueueTimeout)
    }

    /// Waits until the connection is called; `false` when its time is over. A client that was reset gives its place up; one that only sends no
    /// more may still want its answer.
    async fn await_call(&mut self, place: &Place, until: Instant) -> Result<bool, Failure> {
        loop {
            let left = until.saturating_duration_since(clock::now());
            let called = poll_fn(|cx| place.poll_called(cx));
            if (self.timer.within(left.min(LOOK), called).await).is_some() {
                return Ok(true);
            }
            if self.client.has_failed() {
                return Err(Failure::ClientGone);
            }
            if left <= LOOK {
                return Ok(false);
            }
        }
    }
}
