//! One generation after another, in two steps: `prepare` does all that can fail and changes nothing, `commit` cannot fail.
//! A prepared generation that is dropped leaves no trace: its sockets close without ever having accepted.
//! The walk goes on in `supervisor.rs`, which tells the workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::access_log_writer::{Place, Writer};
use super::certificates::{self, Material};
use super::drains::Drains;
use super::sockets::{Opened, Sockets};
use super::supervisor::{Adoption, Supervisor};
use super::{filter_files, probes, process_log, store};
use crate::clock;
use crate::config::model::{AccessTarget, Config};
use crate::metrics::rows::Budget;
use crate::net::transparent;
use crate::policy::persist::token::Secrets;
use crate::state::compile::compile;
use crate::state::snapshot::{ListenerKey, ProtocolKey, Snapshot};

/// How long sockets of datagrams that were let go of are waited for: a second for the answers, and a little.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// A generation that only has to be published.
#[derive(Debug)]
pub struct Prepared {
    /// The generation.
    pub snapshot: Arc<Snapshot>,
    opened: Opened,
    access_log: Option<Place>,
}

/// What of the process a generation acts on.
#[derive(Debug)]
pub struct Running {
    /// The workers.
    pub workers: Supervisor,
    /// What they listen on.
    pub sockets: Sockets,
    /// The active checks.
    pub probes: probes::Supervisor,
    /// The access log.
    pub access_log: Writer,
    /// How many metric rows may exist.
    pub budget: Arc<Budget>,
}

/// Compiles the configuration as the next generation after `previous` and opens what that one has not open. Only a configuration
/// with sticky routes or TLS needs secrets.
///
/// # Errors
/// Every socket that cannot be bound, else the right to bear clients' addresses where a pool wants that, else the access log that cannot be opened, else what cannot be used for TLS, a line each.
pub fn prepare(
    config: Arc<Config>,
    secrets: Option<&Secrets>,
    material: &Material,
    previous: Option<&Snapshot>,
    (sockets, drains): (&Sockets, &Drains),
    workers: usize,
) -> Result<Prepared, String> {
    let before = previous.map(|snapshot| &*snapshot.config);
    let opened = sockets.open(&config, drains, workers)?;
    permit(&config)?;
    let generation = previous.map_or(1, |snapshot| snapshot.generation + 1);
    let access_log = place(before, &config)?;
    let files = filter_files::read(&config)?;
    let mut snapshot = compile(config, secrets, previous, generation, workers, clock::now());
    certificates::attach(&mut snapshot, material, secrets, previous)?;
    store::attach(&mut snapshot, previous);
    filter_files::attach(&mut snapshot, previous, files);
    drains.attach(&mut snapshot);
    Ok(Prepared {
        snapshot: Arc::new(snapshot),
        opened,
        access_log,
    })
}

impl Running {
    /// Where the configuration needs sockets of datagrams that are not open, waits until those that were let go of are closed, a moment at
    /// most: the last answers may still leave from the same address, and what clients send would be shared with who reads no more.
    pub async fn make_room(&self, config: &Config, drains: &Drains) {
        let is_datagrams = |key: ListenerKey| key.protocol == ProtocolKey::Datagram;
        let mut missing = self.sockets.missing(config, drains);
        if missing.any(|(key, _)| is_datagrams(key)) {
            let open = self.sockets.iter().filter(|(key, _)| is_datagrams(*key));
            let closed = self.workers.drivers_down_to(open.count());
            let _ = timeout(LAST_ANSWERS, closed).await;
        }
    }

    /// Puts the generation in place of the one before. From here on probes of removed backends are gone and those of new
    /// ones run; what is open on the old generation ends by itself.
    pub fn commit(&mut self, prepared: Prepared) -> Adoption {
        let config = &prepared.snapshot.config;
        process_log::set_level(config.log.level);
        self.budget.limit(config.metrics.max_series);
        if let Some(place) = prepared.access_log {
            self.access_log.switch(place);
        }
        let (own, handed) = prepared.opened.split();
        self.sockets.commit(&prepared.snapshot, own);
        let adoption = self.workers.switch(&prepared.snapshot, handed);
        self.probes.apply(&prepared.snapshot);
        adoption
    }
}

/// Whether the process may do what its transparent pools need.
fn permit(config: &Config) -> Result<(), String> {
    let Some(pool) = config.pools.iter().find(|pool| pool.transparent) else {
        return Ok(());
    };
    transparent::probe().map_err(|error| {
        format!(
            "pool {}: `transparent = true` needs the capability CAP_NET_ADMIN: {error}: \
             under systemd add it to AmbientCapabilities and CapabilityBoundingSet",
            pool.name
        )
    })
}

/// The access log, when it goes elsewhere than before.
fn place(before: Option<&Config>, config: &Config) -> Result<Option<Place>, String> {
    let target = &config.log.access;
    if before.is_some_and(|before| before.log.access == *target) {
        return Ok(None);
    }
    Place::open(target).map(Some).map_err(|error| match target {
        AccessTarget::File(path) => {
            format!("access log {} cannot be opened: {error}", path.display())
        }
        AccessTarget::Off | AccessTarget::Stdout => format!("access log: {error}"),
    })
}
