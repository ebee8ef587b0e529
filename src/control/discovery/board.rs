//! What every source said last, and how it fares; from here it gets into a configuration.
//! It must never lose the last good list, and an endpoint never takes the place of a backend that the file names.
//! The walk goes on in control's `reload.rs`, which serves the configuration.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Answer, MOST};
use crate::clock;
use crate::config::diagnostic::counted;
use crate::config::model::{Backend, Config, Discovery, Pool};

/// Every source of the served file, and of one that is about to be served.
#[derive(Debug, Default)]
pub struct Board {
    sources: Mutex<Vec<Arc<Source>>>,
}

/// How a source fares, for people.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its type and whom it asks.
    pub source: String,
    /// Endpoints of the last good list.
    pub endpoints: usize,
    /// When it last gave a list that was good as a whole, in milliseconds since the epoch; absent: never.
    pub success_wall_millis: Option<u64>,
    /// Answers that failed so far.
    pub failures: u64,
    /// What is wrong with it now.
    pub problem: Option<String>,
}

/// One source and what it said.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) pool: String,
    pub(super) settings: Discovery,
    heard: Mutex<Heard>,
    /// Told when the endpoints changed.
    news: Arc<Notify>,
}

/// What is known from a source.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// By address, each once.
    pub(super) backends: Vec<Backend>,
    /// Whether it answered or failed at all.
    is_tried: bool,
    /// Whether it said something of its own, be it that there is nothing.
    is_answered: bool,
    success_wall_millis: Option<u64>,
    failures: u64,
    problem: Option<String>,
}

impl Board {
    /// The configuration of a file with what the sources of its pools said last. What it already has of such is replaced.
    pub fn merged(&self, mut config: Config) -> Config {
        for pool in &mut config.pools {
            pool.backends.retain(|backend| !backend.discovered);
            let source = (pool.discovery.as_ref()).and_then(|own| self.find(&pool.name, own));
            if let Some(source) = source {
                let found = source.heard().backends.clone();
                add(pool, found);
            }
        }
        config
    }

    /// How the source of a pool fares; absent for a pool without one.
    pub fn of(&self, pool: &Pool) -> Option<Standing> {
        let source = self.find(&pool.name, pool.discovery.as_ref()?)?;
        let heard = source.heard();
        Some(Standing {
            source: source.settings.to_string(),
            endpoints: heard.backends.len(),
            success_wall_millis: heard.success_wall_millis,
            failures: heard.failures,
            problem: heard.problem.clone(),
        })
    }

    /// Whether every source has endpoints, or said that there are none.
    pub fn all_answered(&self) -> bool {
        let sources = self.sources();
        sources.iter().all(|source| source.heard().is_known())
    }

    /// Whether every source was heard of, or failed, or has endpoints from before.
    pub(super) fn all_tried(&self) -> bool {
        let sources = self.sources();
        let is_tried = |heard: &Heard| heard.is_tried || heard.is_known();
        sources.iter().all(|source| is_tried(&source.heard()))
    }

    /// Pools whose source gave nothing yet.
    pub(super) fn silent(&self) -> Vec<String> {
        let sources = self.sources();
        let silent = sources.iter().filter(|source| !source.heard().is_known());
        silent.map(|source| source.pool.clone()).collect()
    }

    pub(super) fn find(&self, pool: &str, settings: &Discovery) -> Option<Arc<Source>> {
        let sources = self.sources();
        let mut found = sources.iter();
        let found = found.find(|source| source.pool == pool && source.settings == *settings);
        found.cloned()
    }

    /// A source that the pool has already, whatever it asks.
    pub(super) fn any_of(&self, pool: &str) -> Option<Arc<Source>> {
        let sources = self.sources();
        sources.iter().find(|source| source.pool == pool).cloned()
    }

    pub(super) fn add(&self, source: Arc<Source>) {
        self.sources().push(source);
    }

    pub(super) fn retain(&self, keep: impl Fn(&Source) -> bool) {
        self.sources().retain(|source| keep(source));
    }

    pub(super) fn all(&self) -> Vec<Arc<Source>> {
        self.sources().clone()
    }

    fn sources(&self) -> MutexGuard<'_, Vec<Arc<Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds what was found beside what the file names. An address, name or route that is taken is left to who has it.
fn add(pool: &mut Pool, found: Vec<Backend>) {
    let mut addresses: HashSet<SocketAddr> = pool.backends.iter().map(|own| own.address).collect();
    let mut names: HashSet<String> = pool.backends.iter().map(|own| own.name.clone()).collect();
    let mut routes: HashSet<String> = pool.backends.iter().map(|own| own.route.clone()).collect();
    for backend in found {
        if addresses.contains(&backend.address)
            || names.contains(&backend.name)
            || routes.contains(&backend.route)
        {
            continue;
        }
        addresses.insert(backend.address);
        names.insert(backend.name.clone());
        routes.insert(backend.route.clone());
        pool.backends.push(Backend {
            discovered: true,
            ..backend
        });
    }
}

impl Heard {
    fn is_known(&self) -> bool {
        self.is_answered || !self.backends.is_empty()
    }
}

impl Source {
    /// A source that was not asked yet, with what is known from before.
    pub(super) fn new(
        pool: &str,
        settings: &Discovery,
        before: Option<Heard>,
        news: Arc<Notify>,
    ) -> Self {
        let before = before.unwrap_or_default();
        Source {
            pool: pool.to_owned(),
            settings: settings.clone(),
            heard: Mutex::new(Heard {
                backends: before.backends,
                failures: before.failures,
                ..Heard::default()
            }),
            news,
        }
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hear(&self, answer: Answer) {
        let mut backends = answer.backends;
        let mut heard = self.heard();
        if answer.is_partial {
            let named: HashSet<_> = backends.iter().map(|backend| backend.address).collect();
            let before = heard.backends.iter().cloned();
            backends.extend(before.filter(|backend| !named.contains(&backend.address)));
        }
        backends.sort_by_key(|backend| backend.address);
        backends.dedup_by_key(|backend| backend.address);
        if backends.len() > MOST {
            let problem = format!("{} are more than {MOST}", backends.len());
            return self.failed(&mut heard, problem);
        }
        if backends.is_empty() {
            heard.is_answered = answer.problem.is_none();
            let problem = answer.problem.unwrap_or("it names no backend".to_owned());
            return self.failed(&mut heard, problem);
        }
        heard.is_answered = true;
        if heard.backends != backends {
            heard.backends = backends;
            self.news.notify_one();
        }
        match answer.problem {
            Some(problem) => self.failed(&mut heard, problem),
            None => self.succeeded(&mut heard),
        }
    }

    pub(super) fn confirm(&self) {
        self.succeeded(&mut self.heard());
    }

    pub(super) fn fail(&self, problem: String) {
        self.failed(&mut self.heard(), problem);
    }

    fn succeeded(&self, heard: &mut Heard) {
        heard.is_tried = true;
        heard.success_wall_millis = Some(clock::wall_millis());
        if heard.problem.take().is_some() {
            let endpoints = counted(heard.backends.len(), "backend");
            log::info!(
                "discovery: pool {}: {} is fine again: {endpoints}",
                self.pool,
                self.settings
            );
        }
    }

    /// Said once, until it is fine again.
    fn failed(&self, heard: &mut Heard, problem: String) {
        heard.is_tried = true;
        heard.failures += 1;
        if heard.problem.is_none() {
            let rest = match heard.backends.len() {
                0 => "it has given no backend yet".to_owned(),
                some => format!("the last list stays: {}", counted(some, "backend")),
            };
            let (pool, settings) = (&self.pool, &self.settings);
            log::warn!("discovery: pool {pool}: {settings}: {problem}; {rest}");
        }
        heard.problem = Some(problem);
    }
}

/// What was known of each pool's source, by the source's words.
pub(super) type Before = BTreeMap<(String, String), Vec<Backend>>;

/// What is known from before, as if it had been heard.
pub(super) fn heard_before(backends: Vec<Backend>) -> Heard {
    Heard {
        backends,
        ..Heard::default()
    }
}

/// What a source that gives way to another one knows.
pub(super) fn of_predecessor(source: &Source) -> Heard {
    source.heard().clone()
}
