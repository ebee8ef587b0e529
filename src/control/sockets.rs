//! Every listening socket of the process: bound by it, passed by a service manager, or taken over from the process before.
//! A socket has a worker that serves it as long as it is open: the kernel queues clients wherever somebody listens, served or not.
//! The walk goes on in `apply.rs`, which opens them, and in `upgrade/`, which passes them on.

use std::collections::{BTreeMap, HashSet};
use std::io;

use super::bind_failure::explain;
use super::drains::Drains;
use crate::config::model::Config;
use crate::net::inherited::Inherited;
use crate::net::listener::{self, Bound};
use crate::net::udp;
use crate::state::diff;
use crate::state::snapshot::{ListenerKey, ProtocolKey, Snapshot};

/// What control holds of listening sockets. Workers have descriptors of their own.
#[derive(Debug, Default)]
pub struct Sockets {
    open: BTreeMap<ListenerKey, Vec<Bound>>,
    /// Those that somebody else opened and no listener has yet.
    given: BTreeMap<ListenerKey, Vec<Bound>>,
}

/// What a generation needs beyond what is open.
#[derive(Debug, Default)]
pub struct Opened {
    /// For control, by what they are bound to.
    own: Vec<(ListenerKey, Vec<Bound>)>,
    /// For each worker.
    handed: Vec<Handed>,
}

/// The sockets that one worker gets.
pub type Handed = Vec<(ListenerKey, Bound)>;

impl Sockets {
    /// Those that this process was given. Of each address all are taken or none.
    pub fn given(inherited: impl IntoIterator<Item = Inherited>) -> Sockets {
        let mut sockets = Sockets::default();
        for socket in inherited {
            let Inherited::Bound(address, bound) = socket else {
                continue;
            };
            let protocol = match &bound {
                Bound::Stream(_) => ProtocolKey::Stream,
                Bound::Datagram(_) => ProtocolKey::Datagram,
            };
            let key = ListenerKey { protocol, address };
            sockets.given.entry(key).or_default().push(bound);
        }
        sockets
    }

    /// Takes or binds what the configuration needs and is not open yet, for so many workers; a listener that drains needs nothing. What
    /// fails changes nothing.
    ///
    /// # Errors
    /// Every socket that cannot be bound, a line each.
    pub fn open(&self, config: &Config, drains: &Drains, workers: usize) -> Result<Opened, String> {
        let (mut opened, mut complaints) = (Opened::new(workers), Vec::new());
        for (key, name) in self.missing(config, drains) {
            let added = self
                .obtain(key, workers)
                .and_then(|sockets| opened.add(key, sockets));
            if added.is_ok() && !listener::is_here(key.address.ip()) {
                let ip = key.address.ip();
                log::info!(
                    "listener {name}: {ip} is no address of this machine now: nobody comes to {} until it is",
                    key.address
                );
            }
            if let Err(error) = added {
                complaints.push(explain(&format!("listener {name}"), key.address, &error));
            }
        }
        if complaints.is_empty() {
            return Ok(opened);
        }
        Err(complaints.join("\n"))
    }

    /// What the configuration needs and is not open, each with the name of its listener.
    pub fn missing<'a>(
        &'a self,
        config: &'a Config,
        drains: &'a Drains,
    ) -> impl Iterator<Item = (ListenerKey, &'a str)> {
        diff::sockets(config)
            .filter(|(key, name)| !self.open.contains_key(key) && !drains.includes(name))
    }

    fn obtain(&self, key: ListenerKey, workers: usize) -> io::Result<Vec<Bound>> {
        if let Some(given) = self.given.get(&key) {
            return given.iter().map(Bound::try_clone).collect();
        }
        let mut held = self.open.keys().chain(self.given.keys());
        bind(key, workers, held.any(|held| overlap(*held, key)))
    }

    /// Holds what was opened for the generation, and lets go of what it does not have.
    pub fn commit(&mut self, snapshot: &Snapshot, opened: Vec<(ListenerKey, Vec<Bound>)>) {
        let keys = snapshot
            .listeners
            .iter()
            .flat_map(|listener| &listener.keys);
        let keys: HashSet<&ListenerKey> = keys.collect();
        self.open.retain(|key, _| keys.contains(key));
        self.open.extend(opened);
    }

    /// Lets go of what was given and no listener has: what they are bound to.
    pub fn dismiss(&mut self) -> Vec<ListenerKey> {
        let given = std::mem::take(&mut self.given).into_keys();
        given.filter(|key| !self.open.contains_key(key)).collect()
    }

    /// Every open socket.
    pub fn iter(&self) -> impl Iterator<Item = (ListenerKey, &Bound)> {
        let open = self.open.iter();
        open.flat_map(|(key, sockets)| sockets.iter().map(|socket| (*key, socket)))
    }
}

impl Opened {
    fn new(workers: usize) -> Opened {
        Opened {
            own: Vec::new(),
            handed: (0..workers).map(|_| Handed::new()).collect(),
        }
    }

    /// Gives each socket a worker. Where there are more workers than sockets, several accept from one; datagrams of one client must come
    /// to one worker, so that then some have none.
    fn add(&mut self, key: ListenerKey, sockets: Vec<Bound>) -> io::Result<()> {
        let workers = self.handed.len();
        let served = match key.protocol {
            ProtocolKey::Stream => sockets.len().max(workers),
            ProtocolKey::Datagram => sockets.len(),
        };
        for place in 0..served {
            let socket = sockets[place % sockets.len()].try_clone()?;
            self.handed[place % workers].push((key, socket));
        }
        self.own.push((key, sockets));
        Ok(())
    }

    /// Control's part and the workers'.
    pub fn split(self) -> (Vec<(ListenerKey, Vec<Bound>)>, Vec<Handed>) {
        (self.own, self.handed)
    }
}

fn bind(key: ListenerKey, workers: usize, beside_own: bool) -> io::Result<Vec<Bound>> {
    let bind_streams = match beside_own {
        true => listener::bind_beside_own,
        false => listener::bind,
    };
    let bind_datagrams = match beside_own {
        true => udp::bind_beside_own,
        false => udp::bind,
    };
    match key.protocol {
        ProtocolKey::Stream => {
            let bound = bind_streams(key.address, workers)?;
            Ok(bound.into_iter().map(Bound::Stream).collect())
        }
        ProtocolKey::Datagram => {
            let bound = bind_datagrams(key.address, workers)?;
            Ok(bound.into_iter().map(Bound::Datagram).collect())
        }
    }
}

/// Whether one takes connections of the other: the same port, and one of them any address of the family.
fn overlap(a: ListenerKey, b: ListenerKey) -> bool {
    a.protocol == b.protocol
        && a.address.port() == b.address.port()
        && a.address.is_ipv4() == b.address.is_ipv4()
        && (a.address.ip().is_unspecified() || b.address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::state::sample::config;

    fn streams(count: usize) -> Vec<Inherited> {
        let bound = listener::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = bound[0].local_addr().unwrap();
        let more = listener::bind_beside_own(address, count - 1).unwrap();
        let all = bound.into_iter().chain(more);
        all.map(|socket| Inherited::of(socket.into()).unwrap())
            .collect()
    }

    fn handed(inherited: Vec<Inherited>, workers: usize) -> Vec<usize> {
        let Inherited::Bound(address, _) = &inherited[0] else {
            unreachable!()
        };
        let config = config(&[("web", &[*address])], &[]);
        let sockets = Sockets::given(inherited);
        let (own, handed) = sockets
            .open(&config, &Drains::default(), workers)
            .unwrap()
            .split();
        assert_eq!(own.len(), 1);
        handed.iter().map(Vec::len).collect()
    }

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        assert_eq!(handed(streams(2), 2), [1, 1]);
        assert_eq!(handed(streams(5), 2), [3, 2]);
        assert_eq!(handed(streams(2), 3), [1, 1, 1]);
    }

    #[test]
    fn datagrams_of_one_socket_come_to_one_worker() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let key = ListenerKey {
            protocol: ProtocolKey::Datagram,
            address: socket.local_addr().unwrap(),
        };
        let mut opened = Opened::new(3);
        opened.add(key, vec![Bound::Datagram(socket)]).unwrap();
        let counts: Vec<_> = opened.split().1.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 0, 0]);
    }

    #[test]
    fn what_was_given_and_is_not_wanted_is_told() {
        let mut sockets = Sockets::given(streams(2));
        let none = config(&[], &[]);
        assert!(
            sockets
                .open(&none, &Drains::default(), 1)
                .unwrap()
                .split()
                .0
                .is_empty()
        );
        assert_eq!(sockets.dismiss().len(), 1);
        assert_eq!(sockets.dismiss(), []);
    }

    #[test]
    fn an_address_in_use_is_told_and_nothing_stays_open() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let config = config(&[("web", &[address])], &[]);
        let complaint = Sockets::default()
            .open(&config, &Drains::default(), 2)
            .unwrap_err();
        assert!(
            complaint.starts_with("listener web cannot bind"),
            "{complaint}"
        );
    }
}
