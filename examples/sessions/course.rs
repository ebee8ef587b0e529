//! What happens to a fleet: clients log in and count, one server is killed, one is drained and stopped, one joins.
//! It must let the clients count through all of it, and wait for conditions, never for a time.
//! Read `clients.rs` for what is lost, `row.rs` for the figures.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Plan;
use super::clients::{Crowd, Tally};
use super::fleet::{Fleet, Keeping, Was};
use super::meter::Meter;
use super::row::{Elsewhere, Row};
use crate::process::wait;
use crate::weir::{FALL, INTERVAL, Manner, Setup, TIMEOUT, Weir, sum};

const SOON: Duration = Duration::from_secs(30);
/// `idle_timeout` of weir's route where sessions are local: a drain waits so long for sessions that nobody ends.
const IDLE: Duration = Duration::from_secs(10);

/// Clients that come past weir.
const GUESTS: usize = 16;
/// Bytes of the shopping cart in every session.
const CART: u64 = 1024;

/// How much a course does.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Clients that log in at first.
    pub clients: usize,
    /// How often each counts before anything happens.
    pub rounds: usize,
}

impl Scale {
    /// The issue's: 200 clients.
    pub const WHOLE: Scale = Scale {
        clients: 200,
        rounds: 10,
    };
    /// For a look.
    pub const SHORT: Scale = Scale {
        clients: 60,
        rounds: 6,
    };
}

/// A fleet on its course.
struct Course {
    plan: Plan,
    scale: Scale,
    fleet: Fleet,
    setup: Setup,
    weir: Weir,
    crowd: Crowd,
    row: Row,
}

/// Takes a fleet through its course.
pub fn run(plan: &Plan, scale: Scale, directory: &Path) -> Row {
    let mut course = Course::start(*plan, scale, directory);
    course.all_is_well();
    match plan.keeping {
        Keeping::RedisReplica => course.fail_over(),
        _ => course.kill(),
    }
    course.drain();
    course.join();
    if plan.keeping == Keeping::Memcached {
        course.kill_store();
    }
    course.weir.stop();
    course.row
}

impl Course {
    fn start(plan: Plan, scale: Scale, directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory can be made");
        let fleet = Fleet::start(plan.keeping, plan.servers, directory);
        let mut setup = Setup::new([]);
        setup.sticky = sticky(plan.keeping);
        for was in &fleet.servers {
            setup.add_server(&was.name, was.address);
        }
        let weir = Weir::start(&directory.join("weir"), &setup);
        let crowd = Crowd::log_in(weir.web, scale.clients);
        let row = Row {
            name: plan.name,
            sessions: plan.keeping.sessions(),
            clients: scale.clients,
            busiest: (busiest([&crowd]), 0.0),
            ..Row::default()
        };
        Self {
            plan,
            scale,
            fleet,
            setup,
            weir,
            crowd,
            row,
        }
    }

    /// Traffic and time of a request.
    fn all_is_well(&mut self) {
        // Connections are opened and code is compiled first.
        self.check(self.scale.rounds.div_ceil(4));
        let meter = Meter::start(&self.fleet.ports());
        let tally = self.check(self.scale.rounds);
        let counted = meter.map(|meter| meter.bytes());
        self.elsewhere();
        self.row.bytes = counted.map(|bytes| bytes as f64 / tally.requests as f64);
        self.row.mean = mean(&tally.durations);
    }

    /// What it takes a server of a cluster to answer for a client of another one; the clients are guests, who came to that other one
    /// past weir and are forgotten afterwards. The crowd itself is left alone, because BackupManager is apt to lose a session that
    /// was at another server and came back, when a third one dies.
    fn elsewhere(&mut self) {
        let meter = Meter::start(&self.fleet.ports()).filter(|_| self.fleet.is_cluster());
        let Some(meter) = meter else {
            return;
        };
        let [_, own, other, ..] = &self.fleet.servers[..] else {
            return;
        };
        let mut guests = Crowd::log_in(own.address, GUESTS);
        let asked = guests.ask_at(other.address, || meter.bytes());
        // The whole session was sent once more than for the others.
        let least = asked.iter().min().copied().unwrap_or(0);
        let fetched = asked.iter().filter(|bytes| **bytes > least + CART);
        self.row.elsewhere = Some(Elsewhere {
            bytes: asked.iter().sum::<u64>() as f64 / asked.len().max(1) as f64,
            fetched: fetched.count(),
            asked: asked.len(),
        });
    }

    /// Rounds in which nothing may go wrong.
    fn check(&mut self, rounds: usize) -> Tally {
        let tally = self.crowd.count(rounds);
        let lost = losses(&tally);
        assert_eq!(lost, (0, 0, 0), "while all is well: {:?}", tally.failures);
        tally
    }

    /// The first server is killed while the clients count.
    fn kill(&mut self) {
        let victim = &mut self.fleet.servers[0];
        self.row.orphans = self.crowd.homes().get(&victim.name).copied().unwrap_or(0);
        let before = lost(&self.weir);
        let fall = INTERVAL * FALL + TIMEOUT + SOON;
        let label = format!("backend=\"{}\"", victim.name);
        let ((), mut tally) = self.crowd.count_beside(|| {
            victim.process.kill();
            wait("weir sees that the server is gone", fall, || {
                let up = sum(&self.weir.metrics(), "weir_backend_up", &label)?;
                (up == 0.0).then_some(())
            });
        });
        tally.merge(self.crowd.count(2));
        self.row.weir_lost = lost(&self.weir) - before;
        self.row.first = first(&mut tally.moves);
        self.note_kill(tally);
    }

    /// The store's primary is killed while the clients count, and its replica promoted.
    fn fail_over(&mut self) {
        let store = &mut self.fleet.store;
        let ((), mut tally) = self.crowd.count_beside(|| store.fail_over());
        self.recover(&mut tally);
        self.row.first = first(&mut tally.gaps);
        self.note_kill(tally);
    }

    /// The store is killed and started again, with nothing in it.
    fn kill_store(&mut self) {
        self.fleet.store.restart();
        let mut tally = Tally::default();
        self.recover(&mut tally);
        self.row.store_death = Some((tally.sessions_lost, tally.updates_lost));
    }

    /// Rounds until one is without a failure.
    fn recover(&mut self, tally: &mut Tally) {
        wait("everybody is served again", SOON, || {
            let round = self.crowd.count(1);
            let failed = round.failed;
            tally.merge(round);
            (failed == 0).then_some(())
        });
    }

    fn note_kill(&mut self, tally: Tally) {
        self.row.sessions_lost = tally.sessions_lost;
        self.row.updates_lost = tally.updates_lost;
        self.row.failed = tally.failed;
        self.row.failures = tally.failures;
    }

    /// The second server is drained while the clients count, then stopped. Where a session lives on its server alone, the clients of
    /// that server leave when the drain begins: what is measured is how long their sessions keep it.
    fn drain(&mut self) {
        let victim = self.fleet.servers[1].name.clone();
        let leaving = (self.plan.keeping == Keeping::Local).then(|| self.crowd.split_off(&victim));
        let target = format!("was/{victim}");
        let (time, mut tally) = self.crowd.count_beside(|| {
            let began = Instant::now();
            self.weir
                .command(&["drain", &target, "--wait", "--deadline", "120s"]);
            began.elapsed()
        });
        self.row.drained = time;
        let stopped = self.fleet.servers[1].process.terminate(SOON);
        assert!(stopped.is_some(), "{victim} does not end after SIGTERM");
        tally.merge(self.crowd.count(2));
        self.row.drain_lost = losses(&tally);
        self.row.failures.extend(tally.failures);
        drop(leaving);
    }

    /// A server joins: it is started, and weir's file names it. New clients come.
    fn join(&mut self) {
        let mut newcomer = self.fleet.newcomer();
        self.fleet.wait_ready(&mut newcomer);
        self.setup.add_server(&newcomer.name, newcomer.address);
        let (clients, half) = (self.scale.clients, self.scale.clients / 2);
        let label = format!("backend=\"{}\"", newcomer.name);
        let (mut more, mut tally) = self.crowd.count_beside(|| {
            self.weir.write(&self.setup, Manner::Rename);
            wait("weir uses the new server", SOON, || {
                let up = sum(&self.weir.metrics(), "weir_backend_up", &label)?;
                (up == 1.0).then_some(())
            });
            Crowd::log_in(self.weir.web, half.min(clients))
        });
        tally.merge(more.count(2));
        tally.merge(self.crowd.count(1));
        self.row.join_lost = losses(&tally);
        self.row.failures.extend(tally.failures);
        self.row.busiest.1 = busiest([&self.crowd, &more]);
        self.row.edited = match self.is_member(&newcomer, &mut more) {
            true => 0,
            false => self.fleet.servers.len(),
        };
    }

    /// Whether the servers that run know what was counted at the newcomer, and it knows what was counted at them, although their files do
    /// not name it. Local sessions need no such thing.
    fn is_member(&mut self, newcomer: &Was, more: &mut Crowd) -> bool {
        let others = &self.fleet.servers[2..];
        self.plan.keeping == Keeping::Local
            || others.iter().all(|was| {
                more.are_known_at(&newcomer.name, was.address)
                    && self.crowd.are_known_at(&was.name, newcomer.address)
            })
    }
}

fn sticky(keeping: Keeping) -> String {
    let idle = match keeping {
        Keeping::Local => format!(", idle_timeout = \"{}s\"", IDLE.as_secs()),
        _ => String::new(),
    };
    format!(
        r#"{{ mode = "insert", sessions = "{}", session_cookie = "{}"{idle} }}"#,
        keeping.sessions(),
        keeping.cookie()
    )
}

fn lost(weir: &Weir) -> u64 {
    let lost = sum(&weir.metrics(), "weir_sticky_total", "result=\"lost\"");
    lost.unwrap_or(0.0) as u64
}

fn losses(tally: &Tally) -> (u64, u64, u64) {
    (tally.sessions_lost, tally.updates_lost, tally.failed)
}

fn busiest<'a>(crowds: impl IntoIterator<Item = &'a Crowd>) -> f64 {
    let mut homes = std::collections::BTreeMap::<String, usize>::new();
    for (server, clients) in crowds.into_iter().flat_map(Crowd::homes) {
        *homes.entry(server).or_default() += clients;
    }
    let most = homes.values().max().copied().unwrap_or(0);
    most as f64 / homes.values().sum::<usize>().max(1) as f64
}

fn mean(durations: &[Duration]) -> Duration {
    durations.iter().sum::<Duration>() / durations.len().max(1) as u32
}

/// Median and longest.
fn first(moves: &mut [Duration]) -> Option<(Duration, Duration)> {
    moves.sort();
    Some((*moves.get(moves.len() / 2)?, *moves.last()?))
}
