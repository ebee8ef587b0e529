//! Which sources run: one task for each pool of the served file that has one.
//! A reload leaves alone what did not change; a source of a file that is about to be served runs before it, so that its pool need not begin empty.
//! The walk goes on in `board.rs`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::board::{Before, Board, Source, heard_before, of_predecessor};
use super::kept::{self, Keeper};
use super::{Sink, provider_for};
use crate::config::model::Config;
use crate::control::task::Task;

/// How long a start or a reload waits for the first answers of new sources.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);
/// How long a process that starts is not ready for want of a first answer. Longer would take every pool out of service for one of them.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at whether they are there.
const LOOK: Duration = Duration::from_millis(5);
/// Between two generations that discovery makes: a storm of news is a few of them.
const GAP: Duration = Duration::from_millis(100);
/// And so many times as long as the last one took to make.
const PAUSE: u32 = 10;
/// Until a generation that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Every running source. All of them end when it is dropped.
#[derive(Debug)]
pub struct Sources {
    board: Arc<Board>,
    news: Arc<Notify>,
    tasks: Vec<(Arc<Source>, Task)>,
    /// What an earlier process knew, until its pool asks for it.
    before: Before,
    keeper: Keeper,
    /// Something changed that is not served yet.
    is_due: bool,
    earliest: Instant,
}

impl Sources {
    /// None runs yet; `state_dir` may know what an earlier process found.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(state_dir: &Path) -> Self {
        let board = Arc::<Board>::default();
        Sources {
            before: kept::load(state_dir),
            keeper: Keeper::start(state_dir, board.clone()),
            board,
            news: Arc::default(),
            tasks: Vec::new(),
            is_due: false,
            earliest: Instant::now(),
        }
    }

    /// The sources of the first file, and that file with what they said within a moment.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn start(config: Config) -> (Self, Config) {
        let mut own = Sources::new(&config.state_dir);
        own.follow(&config).await;
        own.settle(&config);
        let config = own.board.merged(config);
        (own, config)
    }

    /// What the sources said.
    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Starts the sources of a file that do not run yet, beside those that do, and waits a moment for their first answers.
    pub async fn follow(&mut self, config: &Config) {
        for pool in &config.pools {
            let Some(settings) = &pool.discovery else {
                continue;
            };
            if self.board.find(&pool.name, settings).is_some() {
                continue;
            }
            let before = (self.board.any_of(&pool.name).as_deref())
                .map(of_predecessor)
                .or_else(|| self.of_earlier_process(&pool.name, &settings.to_string()));
            let source = Source::new(&pool.name, settings, before, self.news.clone());
            let source = Arc::new(source);
            self.board.add(source.clone());
            let run = provider_for(settings).run(Sink(source.clone()));
            self.tasks.push((source, Task::spawn(run)));
        }
        let answers = async {
            while !self.board.all_tried() {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(FIRST_ANSWERS, answers).await;
    }

    /// Ends the sources that the served file does not have, and keeps what the others know.
    pub fn settle(&mut self, served: &Config) {
        let is_served = |source: &Source| {
            let mut pools = served.pools.iter();
            pools.any(|pool| {
                pool.name == source.pool && pool.discovery.as_ref() == Some(&source.settings)
            })
        };
        self.tasks.retain(|(source, _)| is_served(source));
        self.board.retain(is_served);
        self.keeper.keep();
    }

    /// Waits until a generation should be made of what the sources say now. Safe to cancel.
    pub async fn changed(&mut self) {
        while !self.is_due {
            self.news.notified().await;
            self.is_due = true;
        }
        sleep_until(self.earliest).await;
    }

    /// What the sources say is about to be served: changes up to now are no news any more.
    pub fn serving(&mut self) {
        self.is_due = false;
    }

    /// It is served since now, after it took so long to make.
    pub fn served(&mut self, took: Duration) {
        self.earliest = Instant::now() + GAP.max(took * PAUSE);
        self.keeper.keep();
    }

    /// It could not be served.
    pub fn retry(&mut self) {
        self.is_due = true;
        self.earliest = Instant::now() + AGAIN;
    }

    fn of_earlier_process(&mut self, pool: &str, source: &str) -> Option<super::board::Heard> {
        let backends = self.before.remove(&(pool.to_owned(), source.to_owned()))?;
        Some(heard_before(backends))
    }
}

/// Waits for the first answer of every source, for a while; then says whose is missing.
pub async fn answered(board: &Board) {
    let answers = async {
        while !board.all_answered() {
            sleep(LOOK).await;
        }
    };
    if timeout(READY_WITHIN, answers).await.is_err() {
        let silent = board.silent().join(", ");
        log::warn!("discovery: no backend was named within {READY_WITHIN:?} for: {silent}");
    }
}
