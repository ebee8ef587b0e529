//! All that there is in a story: the file and what weir made of it, two workers, servers, clients, and the shadow model.
//! What weir decides is decided by weir's own code; what stands here carries it out, as the workers and control do.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use weir::config;
use weir::config::model::{AdminState, Config, Sessions};
use weir::control::overrides::Overrides;
use weir::policy::balance::BackendIndex;
use weir::policy::persist::token::Secrets;
use weir::rng::Rng;
use weir::state::compile::compile;
use weir::state::diff::Diff;
use weir::state::snapshot::{Pool, Snapshot};
use weir::upstream::generation::{Generation, IdleStacks};

use crate::chance::Chance;
use crate::events;
use crate::file::{ADDRESSES, File, address};
use crate::request::Client;
use crate::server::Server;
use crate::shadow::Shadow;
use crate::tally::Tally;
use crate::timeline::Timeline;

/// How long a story lasts before it comes to its end.
pub const STORY: Duration = Duration::from_secs(36);
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
const WORKERS: usize = 2;

pub struct World {
    pub time: Rc<Timeline>,
    pub chance: Chance,
    pub file: RefCell<File>,
    pub snapshot: RefCell<Arc<Snapshot>>,
    pub workers: Vec<Worker>,
    pub servers: RefCell<BTreeMap<SocketAddr, Server>>,
    pub overrides: Overrides,
    pub shadow: RefCell<Shadow>,
    pub tally: RefCell<Tally>,
    /// Sessions that the servers of a pool remember together, by pool.
    pub shared_sessions: RefCell<HashSet<(String, String)>>,
    pub next_session: Cell<u64>,
    secrets: Secrets,
    is_told: bool,
    generations: RefCell<Vec<Weak<Generation>>>,
}

/// A thread of the data plane, as far as it decides.
pub struct Worker {
    pub generation: RefCell<Rc<Generation>>,
    pub rng: RefCell<Rng>,
    stacks: RefCell<IdleStacks>,
}

impl World {
    pub fn new(seed: u64, is_told: bool) -> Rc<World> {
        let chance = Chance::new(seed);
        let time = Timeline::new();
        let file = File::new(&chance);
        let config = read(&file);
        let secrets =
            Secrets::parse(&Secrets::new_file(|secret| secret.fill(7))).expect("a secret");
        let snapshot = compile(config, Some(&secrets), None, 1, WORKERS, time.now());
        let snapshot = Arc::new(snapshot);
        let overrides = Overrides::load(Path::new("/nonexistent"));
        let mut shadow = Shadow::default();
        shadow.follow(&file, None, &snapshot, time.now());
        let workers = (0..WORKERS).map(|index| {
            let mut stacks = IdleStacks::new();
            let generation = Generation::new(snapshot.clone(), &mut stacks, index, WORKERS);
            Worker {
                generation: RefCell::new(Rc::new(generation)),
                rng: RefCell::new(chance.fork()),
                stacks: RefCell::new(stacks),
            }
        });
        let workers: Vec<Worker> = workers.collect();
        let servers = (0..ADDRESSES).map(|number| (address(number), Server::new(&chance)));
        let servers = servers.collect();
        Rc::new(World {
            file: RefCell::new(file),
            snapshot: RefCell::new(snapshot),
            workers,
            servers: RefCell::new(servers),
            overrides,
            shadow: RefCell::new(shadow),
            tally: RefCell::default(),
            shared_sessions: RefCell::default(),
            next_session: Cell::default(),
            secrets,
            is_told,
            generations: RefCell::default(),
            chance,
            time,
        })
    }

    /// Tells the story to its end.
    pub fn run(self: Rc<Self>) -> Tally {
        let mut tasks = events::all(&self);
        for number in 0..self.chance.within(6..20) {
            let (world, client) = (self.clone(), Client::new(number));
            tasks.push(Box::pin(async move { client.live(&world).await }));
        }
        self.time.run(tasks);
        self.shadow.borrow().expect_nothing_in_flight();
        let generations = self.generations.borrow();
        let alive = generations
            .iter()
            .filter(|generation| generation.strong_count() > 0);
        let served = self.workers.len();
        assert!(
            alive.count() <= served,
            "an old generation outlives its last request"
        );
        drop(generations);
        self.tally.take()
    }

    pub fn count(&self, what: &'static str) {
        self.tally.borrow_mut().count(what);
    }

    /// Says what happens, to whoever listens.
    pub fn tell(&self, said: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>10.3} {}", self.time.elapsed().as_secs_f64(), said());
        }
    }

    pub fn is_over(&self) -> bool {
        self.time.elapsed() >= STORY
    }

    /// The application's part: the session that an answer opens, if the server does not know the one that is shown.
    pub fn serve(
        &self,
        pool: &Pool,
        backend: BackendIndex,
        sessions: Sessions,
        shown: Option<&str>,
    ) -> Option<String> {
        let backend = &pool.backends[backend.index()];
        let (mut servers, mut shared) =
            (self.servers.borrow_mut(), self.shared_sessions.borrow_mut());
        let server = servers.get_mut(&backend.live.address).expect("a server");
        let known = match sessions {
            Sessions::Local => &mut server.sessions,
            Sessions::Replicated | Sessions::Shared => &mut *shared,
        };
        let key = |id: &str| (pool.name.to_string(), id.to_owned());
        if shown.is_some_and(|id| known.contains(&key(id))) {
            return None;
        }
        let number = self.next_session.replace(self.next_session.get() + 1);
        let id = format!("{number}.{}", backend.name);
        known.insert(key(&id));
        Some(id)
    }

    /// Puts the file in place of the one before.
    pub fn reload(&self, file: File) {
        self.publish(read(&file), file);
    }

    /// Other backends are found for a pool; nobody reads a file for that.
    pub fn discover(&self, file: File, pool: usize) {
        let mut config = Config::clone(&self.snapshot.borrow().config);
        let backends = &mut config.pools[pool].backends;
        let like = backends[0].clone();
        let found = file.pools[pool].backends.iter().map(|own| {
            let mut backend = like.clone();
            backend.name.clone_from(&own.name);
            backend.route.clone_from(&own.name);
            backend.address = own.address;
            backend.weight = own.weight;
            backend.state = AdminState::from_word(own.state).expect("a state");
            backend
        });
        *backends = found.collect();
        self.publish(Arc::new(config), file);
    }

    /// By way of the diff, compile and a switch of every worker.
    fn publish(&self, config: Arc<Config>, file: File) {
        let before = self.snapshot.borrow().clone();
        expect_diff(&before.config, &config);
        if *config == *before.config {
            return;
        }
        self.count("reload");
        self.tell(|| format!("reload\n{}", file.text()));
        let generation = before.generation + 1;
        let secrets = Some(&self.secrets);
        let now = self.time.now();
        let snapshot = compile(config, secrets, Some(&before), generation, WORKERS, now);
        self.overrides.adopt(&snapshot);
        let snapshot = Arc::new(snapshot);
        self.overrides.settle(&snapshot);
        self.shadow
            .borrow_mut()
            .follow(&file, Some(&before), &snapshot, now);
        self.snapshot.replace(snapshot.clone());
        self.file.replace(file);
        for (index, worker) in self.workers.iter().enumerate() {
            let stacks = &mut worker.stacks.borrow_mut();
            let next = Rc::new(Generation::new(snapshot.clone(), stacks, index, WORKERS));
            self.generations.borrow_mut().push(Rc::downgrade(&next));
            worker.generation.replace(next);
        }
    }
}

/// weir's own reading of the file.
fn read(file: &File) -> Arc<Config> {
    let text = file.text();
    match config::parse("story.toml", &text) {
        Ok(loaded) => Arc::new(loaded.config),
        Err(problems) => panic!("the file is refused: {problems}\n{text}"),
    }
}

/// What differs leads from one to the other and back, and nothing differs from itself.
fn expect_diff(from: &Config, to: &Config) {
    let there = Diff::between(from, to);
    assert_eq!(there.apply(from.clone()), *to, "apply(diff(a, b), a) == b");
    assert_eq!(there.is_empty(), from == to);
    let back = Diff::between(to, from);
    assert_eq!(back.apply(to.clone()), *from, "and back");
    assert!(
        Diff::between(to, to).is_empty(),
        "nothing differs from itself"
    );
}
