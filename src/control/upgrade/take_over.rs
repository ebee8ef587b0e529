//! The new process's side of an upgrade, and of socket activation: what it was given at its start, and when it may serve.
//! It must not accept before it is told to, nor end quietly: whoever started it waits for a word.
//! The walk goes on in `run.rs`, which starts everything else between the words.

use std::os::fd::OwnedFd;
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::time::Duration;

use super::VARIABLE;
use super::words::{Last, Offer, Talk, VERSION, Word};
use crate::clock;
use crate::config::model::AdminBind;
use crate::control::admin::Given;
use crate::control::shared::Lifecycle;
use crate::net::handover::Channel;
use crate::net::inherited::{self, Inherited};
use crate::net::listener::Bound;
use crate::policy::health::Health;
use crate::state::backend::Live;
use crate::state::snapshot::{ListenerKey, Snapshot};

/// How long the old process may be silent where it must answer at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// What this process was given at its start.
#[derive(Debug, Default)]
pub struct Inheritance {
    sockets: Vec<Inherited>,
    /// What was wrong with others, a line each.
    problems: Vec<String>,
    /// Who it takes the place of.
    predecessor: Option<Predecessor>,
}

/// The process that serves until this one does.
#[derive(Debug)]
struct Predecessor {
    talk: Arc<Talk>,
    offer: Offer,
}

impl Inheritance {
    /// Takes what was given: by the weir that started this process to take its place, else by a service manager. It must be called before
    /// anything is opened.
    ///
    /// # Errors
    /// Why this process cannot take the place of the one that started it.
    pub fn find() -> Result<Inheritance, String> {
        let starter = std::env::var(VARIABLE).ok();
        let is_successor = starter.and_then(|id| id.parse().ok()) == Some(parent_id());
        let mut own = Inheritance::default();
        if !is_successor {
            for (descriptor, name) in inherited::from_service_manager() {
                own.add(descriptor, &name);
            }
            return Ok(own);
        }
        let channel = Channel::of_standard_input().map_err(|error| error.to_string())?;
        let talk = Talk(channel);
        let (offer, descriptors) = match talk.hear(PATIENCE)? {
            Some((Word::Offer(offer), descriptors)) => (offer, descriptors),
            _ => return Err("the running weir offered nothing".to_owned()),
        };
        for descriptor in descriptors {
            own.add(descriptor, "");
        }
        let version = offer.version;
        let predecessor = own.predecessor.insert(Predecessor {
            talk: Arc::new(talk),
            offer,
        });
        if version != VERSION {
            let why = format!(
                "the running weir hands over in another way (version {version}, here {VERSION}): restart it"
            );
            predecessor.fail(&why);
            return Err(why);
        }
        Ok(own)
    }

    fn add(&mut self, descriptor: OwnedFd, name: &str) {
        let number = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
        match Inherited::of(descriptor) {
            Ok(socket) => self.sockets.push(socket),
            Err(error) => self.problems.push(format!(
                "the socket {name:?} (descriptor {number}) is of no use: {error}"
            )),
        }
    }

    /// Tells who waits for this process that it will not serve.
    pub fn fail(&self, why: &str) {
        if let Some(predecessor) = &self.predecessor {
            predecessor.fail(why);
        }
    }

    /// Says what of it is of no use.
    pub fn tell_of(&self, unused: &[ListenerKey]) {
        for problem in &self.problems {
            log::warn!("start: {problem}");
        }
        for key in unused {
            let address = key.address;
            match self.predecessor() {
                Some(_) => log::info!("upgrade: {address} is no listener's any more"),
                None => log::warn!(
                    "start: the service manager passed a socket of {address}, which no listener binds: \
                     its clients wait in vain"
                ),
            }
        }
    }

    /// Whose place this process takes.
    pub fn predecessor(&self) -> Option<u32> {
        self.predecessor.as_ref().map(|known| known.offer.pid)
    }

    /// Where this process stands at its beginning: where the one before stood, or the virtual IP would flap.
    pub fn lifecycle(&self) -> Lifecycle {
        match &self.predecessor {
            Some(known) if known.offer.is_ready => Lifecycle::Ready,
            _ => Lifecycle::Starting,
        }
    }

    /// The secret of the one before, if that is in no file.
    pub fn secret(&self) -> Option<&str> {
        self.predecessor.as_ref()?.offer.secret.as_deref()
    }

    /// The socket of the admin server, if it was given.
    pub fn admin(&mut self, bind: &AdminBind) -> Option<Given> {
        let owns_file = self.predecessor.is_some();
        let socket = self.take_admin(bind)?;
        Some(Given { socket, owns_file })
    }

    fn take_admin(&mut self, bind: &AdminBind) -> Option<OwnedFd> {
        let is_admin = |socket: &Inherited| match (socket, bind) {
            (Inherited::Bound(address, Bound::Stream(_)), AdminBind::Tcp(wanted)) => {
                address == wanted
            }
            (Inherited::Unix(path, _), AdminBind::Unix(wanted)) => path == wanted,
            _ => false,
        };
        let place = self.sockets.iter().position(is_admin)?;
        match self.sockets.swap_remove(place) {
            Inherited::Bound(_, Bound::Stream(socket)) => Some(socket.into()),
            Inherited::Bound(_, Bound::Datagram(socket)) => Some(socket.into()),
            Inherited::Unix(_, socket) => Some(socket),
        }
    }

    /// Every other socket.
    pub fn take_sockets(&mut self) -> Vec<Inherited> {
        std::mem::take(&mut self.sockets)
    }

    /// Writes what the one before knows of backends into the first generation, before anything is asked anew.
    pub fn inform(&self, snapshot: &Snapshot) {
        let offer = self.predecessor.as_ref().map(|known| &known.offer);
        for known in offer.into_iter().flat_map(|offer| &offer.backends) {
            let mut pools = snapshot.pools.iter();
            let pool = pools.find(|pool| *pool.name == *known.pool);
            let backends = pool.map_or(&[][..], |pool| &pool.backends);
            let mut lives = backends.iter().map(|backend| &*backend.live);
            if let Some(live) = lives.find(|live| live.address == known.address) {
                learn(live, &known.health, known.warm_millis);
            }
        }
    }

    /// Says that everything is there, and waits until this process may serve; at once where it takes nobody's place.
    ///
    /// # Errors
    /// When it may not.
    pub async fn turn(&self) -> Result<Option<Last>, String> {
        let Some(predecessor) = &self.predecessor else {
            return Ok(None);
        };
        let talk = predecessor.talk.clone();
        let waited = tokio::task::spawn_blocking(move || {
            talk.say(&Word::Ready, &[], PATIENCE)?;
            match talk.hear(PATIENCE)? {
                Some((Word::Go(last), _)) => Ok(Some(last)),
                Some(_) => Err("the weir before speaks out of turn".to_owned()),
                None => Err("the weir before ended without handing over".to_owned()),
            }
        });
        waited.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Says that this process serves. Whether it took somebody's place.
    pub fn serves(&self) -> bool {
        let Some(predecessor) = &self.predecessor else {
            return false;
        };
        // Whoever is gone by now has handed over all the same.
        if let Err(why) = predecessor.talk.say(&Word::Serving, &[], PATIENCE) {
            log::warn!("upgrade: process {} is gone: {why}", predecessor.offer.pid);
        }
        true
    }
}

impl Predecessor {
    fn fail(&self, why: &str) {
        let why = why.to_owned();
        // It finds out by itself when this process ends.
        let _ = self.talk.say(&Word::Failed { why }, &[], PATIENCE);
    }
}

/// A verdict of the process before is as good as one of a check, until there is one.
fn learn(live: &Live, health: &str, warm_millis: u64) {
    let healths = [Health::Up, Health::Down];
    let told = healths.into_iter().find(|known| known.as_str() == health);
    if let Some(health) = told
        && live.health() != health
    {
        live.set_health(health, clock::now());
    }
    live.set_warm(Duration::from_millis(warm_millis));
}

#[cfg(test)]
mod tests {
    use super::super::words::Known;
    use super::*;
    use crate::control::sample::snapshot;
    use crate::state::sample::{config, loopback};

    #[test]
    fn what_was_known_of_backends_is_known_again() {
        let snapshot = snapshot(
            config(
                &[("web", &[loopback(80)])],
                &[("was", &[loopback(1), loopback(2), loopback(3)])],
            ),
            None,
        );
        let lives: Vec<_> = (snapshot.pools[0].backends.iter())
            .map(|backend| &backend.live)
            .collect();
        lives
            .iter()
            .for_each(|live| live.set_health(Health::Unknown, clock::now()));
        let known = |port, health: &str| Known {
            pool: "was".to_owned(),
            address: loopback(port),
            health: health.to_owned(),
            warm_millis: 5,
        };
        let backends = vec![known(1, "up"), known(2, "down"), known(9, "up")];
        let (channel, _other) = Channel::pair().unwrap();
        let own = Inheritance {
            predecessor: Some(Predecessor {
                talk: Arc::new(Talk(channel)),
                offer: Offer {
                    backends,
                    ..Offer::default()
                },
            }),
            ..Inheritance::default()
        };
        own.inform(&snapshot);
        let healths: Vec<_> = lives.iter().map(|live| live.health()).collect();
        assert_eq!(healths, [Health::Up, Health::Down, Health::Unknown]);
        assert_eq!(lives[0].warm(), Duration::from_millis(5));
    }
}
