//! Which backends are probed: one task per pool and address of the served generation.
//! A reload leaves alone what did not change, schedule and all; what changed is asked again at once and keeps its health until then.
//! The walk goes on in `task.rs`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::ledger::{Ledger, NO_VERDICT, NOT_CHECKED};
use super::task::{Watched, watch};
use super::{Probe, Target, probe_for};
use crate::clock;
use crate::config::model::{Check, Health as Settings, ProxyVersion};
use crate::control::task::Task;
use crate::policy::health::Health;
use crate::rng::Rng;
use crate::state::backend::Backend;
use crate::state::compile::initial;
use crate::state::snapshot::{Pool, Snapshot};

type Key = (Arc<str>, SocketAddr);

/// Every running probe. All of them end when it is dropped.
#[derive(Debug)]
pub struct Supervisor {
    running: HashMap<Key, Running>,
    ledger: Arc<Ledger>,
    rng: Rng,
    probe_for: fn(&Settings) -> Option<Box<dyn Probe>>,
}

#[derive(Debug)]
struct Running {
    settings: Settings,
    /// Tells other ways to connect from this one.
    way: Way,
    watched: Arc<Watched>,
    /// Held for its end; absent: nothing is asked.
    _task: Option<Task>,
}

impl Supervisor {
    /// Nothing is probed yet.
    pub fn new(rng: Rng) -> Self {
        Supervisor {
            running: HashMap::new(),
            ledger: Arc::default(),
            rng,
            probe_for,
        }
    }

    /// Where probes are counted.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.ledger.clone()
    }

    /// Makes the running probes those of the generation. The first checks of new backends begin within a few milliseconds.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn apply(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.running);
        for (pool, config) in snapshot.pools.iter().zip(&snapshot.config.pools) {
            for backend in &pool.backends {
                let key = (pool.name.clone(), backend.live.address);
                let kept = before.remove(&key);
                let running = self.follow(kept, pool, backend, &config.health);
                self.running.insert(key, running);
            }
        }
        let running = &self.running;
        self.ledger
            .retain(|pool, address| running.contains_key(&(pool.clone(), address)));
    }

    fn follow(
        &mut self,
        kept: Option<Running>,
        pool: &Pool,
        backend: &Backend,
        settings: &Settings,
    ) -> Running {
        let kept = kept.filter(|running| Arc::ptr_eq(&running.watched.live, &backend.live));
        if let Some(running) = &kept {
            running.watched.rename(&backend.name);
        }
        match kept {
            Some(running) if running.settings == *settings && running.way == way_to(pool) => {
                running
            }
            Some(running) => self.start(running.watched.clone(), settings, pool),
            None => {
                let counts = self.ledger.open(&pool.name, backend.live.address);
                // The process before may have known it for long.
                let is_new = backend.live.health() == initial(settings);
                counts.tell(NO_VERDICT, is_new.then(clock::wall_millis));
                let (name, live) = (backend.name.clone(), backend.live.clone());
                let watched = Watched::new(pool.name.clone(), name, live, counts);
                self.start(Arc::new(watched), settings, pool)
            }
        }
    }

    fn start(&mut self, watched: Arc<Watched>, settings: &Settings, pool: &Pool) -> Running {
        let probe = (self.probe_for)(settings);
        if !matches!(&settings.check, Check::Http { drain_on, .. } if !drain_on.is_empty()) {
            watched.ask_to_drain(None);
        }
        match &probe {
            None if watched.live.health() != Health::Up => watched.change(Health::Up, NOT_CHECKED),
            None => watched.counts.tell(NOT_CHECKED, None),
            Some(_) if *watched.counts.verdict().because == *NOT_CHECKED => {
                watched.counts.tell(NO_VERDICT, None);
            }
            Some(_) => {}
        }
        let task = probe.map(|probe| {
            let rng = Rng::from_seed(self.rng.next_u64());
            let target = Target {
                address: watched.live.address,
                tls: pool.tls.clone(),
                proxy_protocol: pool.proxy_protocol,
                live: Some(watched.live.clone()),
            };
            Task::spawn(watch(watched.clone(), probe, settings.clone(), target, rng))
        });
        Running {
            settings: settings.clone(),
            way: way_to(pool),
            watched,
            _task: task,
        }
    }
}

/// The identity of the settings of TLS, and the PROXY header.
type Way = (u64, Option<ProxyVersion>);

fn way_to(pool: &Pool) -> Way {
    let tls = pool.tls.as_ref().map_or(0, |tls| tls.identity);
    (tls, pool.proxy_protocol)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::Pin;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::config::model::{AdminState, Config, Initial};
    use crate::control::probes::{Failure, Outcome, RESULTS};
    use crate::control::sample::snapshot;
    use crate::state::sample::{config, loopback};

    thread_local! {
        /// What every backend answers; `None`: nothing, for ever.
        static ANSWER: RefCell<Option<Outcome>> = const { RefCell::new(Some(Ok(()))) };
        /// When which backend was asked.
        static ASKED: RefCell<Vec<(u16, Instant)>> = const { RefCell::new(Vec::new()) };
    }

    struct Scripted;

    impl Probe for Scripted {
        fn probe<'a>(
            &'a self,
            target: &'a Target,
        ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
            ASKED.with_borrow_mut(|asked| asked.push((target.address.port(), Instant::now())));
            let answer = ANSWER.with_borrow(Clone::clone);
            Box::pin(async move {
                match answer {
                    Some(outcome) => outcome,
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn answer(outcome: Option<Outcome>) {
        ANSWER.set(outcome);
    }

    fn refused() -> Option<Outcome> {
        Some(Err(Failure::Connect("connection refused".into())))
    }

    /// When the backend was asked since the last call.
    fn asked(port: u16) -> Vec<Instant> {
        ASKED.with_borrow_mut(|asked| {
            let of_port = asked.extract_if(.., |(asked, _)| *asked == port);
            of_port.map(|(_, when)| when).collect()
        })
    }

    fn supervisor() -> Supervisor {
        Supervisor {
            probe_for: |settings| match settings.check {
                Check::None => None,
                _ => Some(Box::new(Scripted)),
            },
            ..Supervisor::new(Rng::from_seed(7))
        }
    }

    /// One pool with a backend per port; checks every 2 s, 1 s timeout, fall 3, rise 2.
    fn pool(ports: &[u16]) -> Config {
        let addresses: Vec<_> = ports.iter().map(|&port| loopback(port)).collect();
        let mut config = config(&[("web", &[loopback(80)])], &[("was", &addresses)]);
        config.pools[0].health = Settings {
            check: Check::Tcp,
            interval: Duration::from_secs(2),
            fast_interval: None,
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
            initial: Initial::Probe,
        };
        config
    }

    fn health(snapshot: &Snapshot, backend: usize) -> Health {
        snapshot.pools[0].backends[backend].live.health()
    }

    async fn milliseconds(milliseconds: u64) {
        sleep(Duration::from_millis(milliseconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn first_verdicts_come_at_once_and_fall_takes_its_time() {
        let (mut supervisor, snapshot) = (supervisor(), snapshot(pool(&[1, 2, 3]), None));
        assert_eq!(health(&snapshot, 0), Health::Unknown);
        supervisor.apply(&snapshot);
        milliseconds(6).await;
        for backend in 0..3 {
            assert_eq!(health(&snapshot, backend), Health::Up);
        }
        let first = asked(1);
        assert_eq!(first.len(), 1);

        answer(refused());
        milliseconds(5_300).await;
        assert_eq!(
            health(&snapshot, 0),
            Health::Up,
            "two failures are not three"
        );
        milliseconds(1_400).await;
        assert_eq!(health(&snapshot, 0), Health::Down);
        let times = asked(1);
        for pair in [first, times].concat().windows(2) {
            let wait = (pair[1] - pair[0]).as_secs_f64();
            assert!((1.8..=2.2).contains(&wait), "{wait}");
        }

        answer(Some(Ok(())));
        milliseconds(4_500).await;
        assert_eq!(health(&snapshot, 0), Health::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_hangs_has_failed_after_the_timeout() {
        answer(None);
        let (mut supervisor, snapshot) = (supervisor(), snapshot(pool(&[1]), None));
        supervisor.apply(&snapshot);
        milliseconds(990).await;
        assert_eq!(health(&snapshot, 0), Health::Unknown);
        milliseconds(20).await;
        assert_eq!(health(&snapshot, 0), Health::Down);
        let ledger = supervisor.ledger();
        let counts = ledger.counts(&snapshot.pools[0].name, loopback(1)).unwrap();
        let timeouts = RESULTS
            .iter()
            .position(|&result| result == "timeout")
            .unwrap();
        assert_eq!(counts.values()[timeouts], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_still_starting_is_asked_often_and_up_at_its_first_pass() {
        answer(refused());
        let (mut supervisor, snapshot) = (supervisor(), snapshot(pool(&[1]), None));
        supervisor.apply(&snapshot);
        milliseconds(3_000).await;
        assert_eq!(health(&snapshot, 0), Health::Down);
        assert!((6..=7).contains(&asked(1).len()));
        answer(Some(Ok(())));
        milliseconds(560).await;
        assert_eq!(health(&snapshot, 0), Health::Up);
        asked(1);
        milliseconds(10_000).await;
        assert!((4..=6).contains(&asked(1).len()), "the configured interval");

        answer(refused());
        milliseconds(7_000).await;
        assert_eq!(health(&snapshot, 0), Health::Down);
        answer(Some(Ok(())));
        milliseconds(1_700).await;
        assert_eq!(health(&snapshot, 0), Health::Down, "one pass is not two");
        milliseconds(2_800).await;
        assert_eq!(health(&snapshot, 0), Health::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_in_the_air_is_asked_about_more_often() {
        answer(Some(Ok(())));
        let mut config = pool(&[1]);
        config.pools[0].health.fast_interval = Some(Duration::from_millis(100));
        let (mut supervisor, snapshot) = (supervisor(), snapshot(config, None));
        supervisor.apply(&snapshot);
        milliseconds(10).await;
        assert_eq!(health(&snapshot, 0), Health::Up);
        answer(refused());
        // The first failure comes with the interval, the second and the third soon after it.
        milliseconds(2_200 + 240).await;
        assert_eq!(health(&snapshot, 0), Health::Down);
        asked(1);
        milliseconds(4_000).await;
        assert!((1..=3).contains(&asked(1).len()), "the interval again");
        answer(Some(Ok(())));
        milliseconds(2_200 + 120).await;
        assert_eq!(health(&snapshot, 0), Health::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_leaves_the_schedule_of_what_did_not_change() {
        let (mut supervisor, first) = (supervisor(), snapshot(pool(&[1, 2]), None));
        supervisor.apply(&first);
        milliseconds(10).await;
        let started = (asked(1)[0], asked(2)[0]);
        milliseconds(990).await;
        let mut config = pool(&[1, 3]);
        config.pools[0].backends[0].name = "renamed".into();
        config.pools[0].backends[0].state = AdminState::Drain;
        let second = snapshot(config, Some(&first));
        supervisor.apply(&second);
        milliseconds(10).await;
        assert_eq!(asked(1), [], "its schedule goes on");
        assert_eq!(asked(3).len(), 1, "the new one is asked at once");
        milliseconds(1_300).await;
        assert!((1.8..=2.2).contains(&(asked(1)[0] - started.0).as_secs_f64()));
        assert_eq!(asked(2), [], "the removed one is left alone");
        assert!(
            supervisor
                .ledger()
                .counts(&second.pools[0].name, loopback(2))
                .is_none()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn changed_settings_ask_again_at_once_and_keep_the_health() {
        let (mut supervisor, first) = (supervisor(), snapshot(pool(&[1]), None));
        supervisor.apply(&first);
        milliseconds(10).await;
        asked(1);
        answer(refused());
        let mut config = pool(&[1]);
        config.pools[0].health.fall = 2;
        let second = snapshot(config, Some(&first));
        supervisor.apply(&second);
        milliseconds(10).await;
        assert_eq!(asked(1).len(), 1);
        assert_eq!(health(&second, 0), Health::Up, "one failure is not two");
        milliseconds(2_300).await;
        assert_eq!(health(&second, 0), Health::Down);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_checked_is_up() {
        answer(refused());
        let (mut supervisor, first) = (supervisor(), snapshot(pool(&[1]), None));
        supervisor.apply(&first);
        milliseconds(10).await;
        assert_eq!(health(&first, 0), Health::Down);
        let mut config = pool(&[1]);
        config.pools[0].health.check = Check::None;
        let second = snapshot(config, Some(&first));
        asked(1);
        supervisor.apply(&second);
        assert_eq!(health(&second, 0), Health::Up);
        milliseconds(10_000).await;
        assert_eq!(asked(1), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_weir_without_sockets_blames_no_backend() {
        let (mut supervisor, snapshot) = (supervisor(), snapshot(pool(&[1]), None));
        supervisor.apply(&snapshot);
        milliseconds(10).await;
        answer(Some(Err(Failure::Local("too many open files".into()))));
        milliseconds(60_000).await;
        assert_eq!(health(&snapshot, 0), Health::Up);
        drop(supervisor);
        milliseconds(10).await;
        asked(1);
        milliseconds(60_000).await;
        assert_eq!(asked(1), [], "probes end with their supervisor");
    }
}
