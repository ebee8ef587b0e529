//! The other end of a store: one task a store, which speaks to a Redis server for all workers and knows whether it answers in time.
//! It never makes a request wait for a server that is slow or down, and shows no password.
//! The walk goes on in `connection.rs` and `resp.rs`; the questions come from `state/store.rs`.

mod connection;
mod resp;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

use self::connection::{Connection, Trouble};
use self::resp::Reply;
use crate::config::model::{self, StickyMode};
use crate::state::snapshot::Snapshot;
use crate::state::store::{Found, Health, Outcome, Request, Standing, StoreEnd};

/// A server that answers within this time is as good as memory; workers wait no longer for it.
const PROMPT: Duration = Duration::from_millis(50);
/// After so many late batches of answers in a row, or one that takes so many times longer, the server counts as down.
const STRIKES: u32 = 3;
/// Between two looks whether a server that is down is up again, or one that nobody asks still is.
const LOOK: Duration = Duration::from_secs(1);
/// The same for a server that refuses what it is asked: it is there, and wants an operator.
const LOOK_AT_REFUSING: Duration = Duration::from_secs(10);
/// How long it may take to connect.
const CONNECT: Duration = Duration::from_millis(500);
/// Requests that are sent at once.
const BATCH: usize = 128;

/// Gives each route that shares what it learns its end of the store: the one that it had before, else a new one.
pub fn attach(snapshot: &mut Snapshot, previous: Option<&Snapshot>) {
    let ends = previous.map_or(&[][..], |previous| &previous.routes);
    let mut known: Vec<Arc<StoreEnd>> = ends
        .iter()
        .filter_map(|route| route.store.clone())
        .collect();
    let config = snapshot.config.clone();
    for route in &mut snapshot.routes {
        let from = &config.routes[route.file];
        let mode = from.sticky.as_ref().map(|sticky| &sticky.mode);
        let Some(StickyMode::Learn {
            store: Some(store), ..
        }) = mode
        else {
            continue;
        };
        let end = known.iter().find(|end| end.store == *store).cloned();
        route.store = Some(end.unwrap_or_else(|| {
            let end = start(store.clone());
            known.push(end.clone());
            end
        }));
    }
}

/// The stores of a generation, each once.
pub fn stores(snapshot: &Snapshot) -> Vec<&Arc<StoreEnd>> {
    let mut stores: Vec<&Arc<StoreEnd>> = Vec::new();
    for store in snapshot
        .routes
        .iter()
        .filter_map(|route| route.store.as_ref())
    {
        if !stores.iter().any(|known| Arc::ptr_eq(known, store)) {
            stores.push(store);
        }
    }
    stores
}

/// Whether it is known of every store how it does.
pub fn all_judged(snapshot: &Snapshot) -> bool {
    let standings = stores(snapshot)
        .into_iter()
        .map(|store| store.health.standing());
    standings
        .into_iter()
        .all(|standing| standing != Standing::Unknown)
}

fn start(store: model::Store) -> Arc<StoreEnd> {
    let (end, requests) = StoreEnd::new(store.clone());
    let server = Server {
        label: store.label(),
        store,
        health: end.health.clone(),
        requests,
    };
    tokio::spawn(server.serve());
    Arc::new(end)
}

/// One server, until no generation uses it any more.
struct Server {
    label: String,
    store: model::Store,
    health: Arc<Health>,
    requests: Receiver<Request>,
}

impl Server {
    async fn serve(mut self) {
        loop {
            let opened = timeout(CONNECT, Connection::open(&self.store)).await;
            let trouble = match opened.unwrap_or(Err(Trouble::Silent)) {
                Ok(connection) => match self.relay(connection).await {
                    Some(trouble) => trouble,
                    None => return,
                },
                Err(trouble) => trouble,
            };
            if self.health.set(Standing::Down) != Standing::Down {
                log::warn!(
                    "store {}: down: {trouble}; each weir goes on by what it knows itself",
                    self.label
                );
            }
            let pause = match trouble {
                Trouble::Refuses(_) => LOOK_AT_REFUSING,
                _ => LOOK,
            };
            if self.pause(pause).await.is_none() {
                return;
            }
        }
    }

    /// Carries requests to the server until it is in trouble; `None` when nobody is left to ask.
    async fn relay(&mut self, mut connection: Connection) -> Option<Trouble> {
        match timeout(PROMPT, connection.ask(&[])).await {
            Ok(Ok(_)) => {}
            Ok(Err(trouble)) => return Some(trouble),
            Err(_) => return Some(Trouble::Slow),
        }
        self.health.set(Standing::Up);
        log::info!("store {}: up", self.label);
        let mut strikes = 0;
        let mut batch = Vec::new();
        loop {
            // A server that nobody asks is asked whether it is there.
            if let Ok(0) = timeout(LOOK, self.requests.recv_many(&mut batch, BATCH)).await {
                return None;
            }
            let began = Instant::now();
            let refusal = match timeout(PROMPT * STRIKES, connection.ask(&batch)).await {
                Ok(Ok(replies)) => settle(&mut batch, replies, &self.health),
                Ok(Err(trouble)) => return Some(self.give_up(&mut batch, trouble)),
                Err(_) => return Some(self.give_up(&mut batch, Trouble::Silent)),
            };
            let is_bad = began.elapsed() > PROMPT || refusal.is_some();
            strikes = if is_bad { strikes + 1 } else { 0 };
            if strikes >= STRIKES {
                return Some(refusal.map_or(Trouble::Slow, Trouble::Refuses));
            }
        }
    }

    fn give_up(&self, batch: &mut Vec<Request>, trouble: Trouble) -> Trouble {
        for request in batch.drain(..) {
            fail(&request, &self.health);
        }
        trouble
    }

    /// Lets a moment pass. What was asked meanwhile gets no answer; `None` when nobody is left to ask.
    async fn pause(&mut self, time: Duration) -> Option<()> {
        let over = Instant::now() + time;
        loop {
            match tokio::time::timeout_at(over, self.requests.recv()).await {
                Ok(Some(request)) => fail(&request, &self.health),
                Ok(None) => return None,
                Err(_) => return Some(()),
            }
        }
    }
}

/// Counts a request that gets no answer. Who waits no longer for one has counted that.
fn fail(request: &Request, health: &Health) {
    if !matches!(request, Request::Find { reply, .. } if reply.is_closed()) {
        health.count(Outcome::Failed);
    }
}

/// Gives every request its answer; what the server refused, if it did.
fn settle(batch: &mut Vec<Request>, replies: Vec<Vec<Reply>>, health: &Health) -> Option<String> {
    let mut refusal = None;
    for (request, replies) in batch.drain(..).zip(replies) {
        let error = replies.iter().find_map(|reply| match reply {
            Reply::Error(error) => Some(error.clone()),
            _ => None,
        });
        let outcome = match (request, error) {
            (_, Some(error)) => {
                refusal = Some(error);
                Outcome::Failed
            }
            (Request::Find { reply, .. }, None) => {
                let found = found(&replies);
                let outcome = match found {
                    Some(_) => Outcome::Found,
                    None => Outcome::Unknown,
                };
                // Who waits no longer has counted that.
                if reply.send(found).is_err() {
                    continue;
                }
                outcome
            }
            (Request::Put { .. } | Request::End { .. }, None) => Outcome::Written,
        };
        health.count(outcome);
    }
    refusal
}

/// The first session that the server knows.
fn found(replies: &[Reply]) -> Option<Found> {
    let Some(Reply::List(values)) = replies.first() else {
        return None;
    };
    values.iter().flatten().find_map(|value| read(value))
}

/// What a session's value says: its version, when the session was opened, and the backend's name.
fn read(value: &[u8]) -> Option<Found> {
    let mut words = std::str::from_utf8(value).ok()?.splitn(3, ' ');
    if words.next()? != VERSION {
        return None;
    }
    let opened = words.next()?.parse().ok()?;
    let backend = words.next()?.to_owned();
    Some(Found { backend, opened })
}

/// The version of a session's value.
const VERSION: &str = "1";

fn written(found: &Found) -> String {
    format!("{VERSION} {} {}", found.opened, found.backend)
}

#[cfg(test)]
mod tests;
