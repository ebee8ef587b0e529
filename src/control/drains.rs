//! What operators set for listeners and for the process as a whole: whether they drain, since when, and who said so.
//! A listener that drains is closed and its connections end by themselves; a process that drains serves on, is not ready, and sends clients
//! elsewhere after their answers. Both last until `ready`, over reloads, restarts and upgrades.
//! The walk goes on in `apply.rs`, which makes a generation of it, and in `overrides.rs`, which keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::state::snapshot::Snapshot;

/// Who set something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Who, as far as the admin server can tell.
    #[serde(default)]
    pub who: String,
    /// In milliseconds since the epoch.
    pub set_wall_millis: u64,
}

/// Everything that drains but backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drains {
    /// Listeners, by name.
    #[serde(default)]
    pub listeners: BTreeMap<String, Mark>,
    /// The process.
    #[serde(default)]
    pub process: Option<Mark>,
}

/// What may drain beside backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The listener of that name.
    Listener(String),
    /// The process.
    Process,
}

impl Drains {
    /// Whether a listener drains.
    pub fn includes(&self, listener: &str) -> bool {
        self.listeners.contains_key(listener)
    }

    /// Lets something drain, or with `None` serve. Whether that changes anything.
    pub fn set(&mut self, subject: &Subject, drain: Option<Mark>) -> bool {
        let drains = drain.is_some();
        let before = match (subject, drain) {
            // Who was first stays the one who did it.
            (Subject::Listener(name), Some(_)) if self.includes(name) => true,
            (Subject::Process, Some(_)) if self.process.is_some() => true,
            (Subject::Listener(name), Some(mark)) => {
                self.listeners.insert(name.clone(), mark).is_some()
            }
            (Subject::Listener(name), None) => self.listeners.remove(name).is_some(),
            (Subject::Process, mark) => std::mem::replace(&mut self.process, mark).is_some(),
        };
        before != drains
    }

    /// Puts it in force for a generation that is not published yet.
    pub fn attach(&self, snapshot: &mut Snapshot) {
        snapshot.leaving = self.process.is_some();
        for listener in &mut snapshot.listeners {
            if self.includes(&listener.name) {
                listener.drained = std::mem::take(&mut listener.keys);
            }
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Listener(name) => write!(to, "listener {name}"),
            Subject::Process => to.write_str("the process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample::snapshot;
    use crate::state::sample::{config, loopback};

    fn mark(who: &str) -> Mark {
        Mark {
            who: who.to_owned(),
            set_wall_millis: 1,
        }
    }

    #[test]
    fn what_is_set_twice_was_set_by_the_first() {
        let (mut drains, web) = (Drains::default(), Subject::Listener("web".to_owned()));
        for subject in [&web, &Subject::Process] {
            assert!(!drains.set(subject, None));
            assert!(drains.set(subject, Some(mark("a"))));
            assert!(!drains.set(subject, Some(mark("b"))));
        }
        assert_eq!(drains.listeners["web"].who, "a");
        assert_eq!(drains.process, Some(mark("a")));
        assert!(drains.set(&web, None) && drains.set(&Subject::Process, None));
        assert_eq!(drains, Drains::default());
    }

    #[test]
    fn a_listener_that_drains_has_no_sockets() {
        let mut drains = Drains::default();
        drains.set(&Subject::Listener("web".to_owned()), Some(mark("a")));
        let (web, other) = ([loopback(1), loopback(2)], [loopback(3)]);
        let mut snapshot = snapshot(config(&[("web", &web), ("other", &other)], &[]), None);
        drains.attach(&mut snapshot);
        let keys: Vec<_> = (snapshot.listeners.iter())
            .map(|listener| (listener.keys.len(), listener.drained.len()))
            .collect();
        assert_eq!((keys, snapshot.leaving), (vec![(0, 2), (1, 0)], false));
    }
}
