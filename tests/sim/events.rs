//! What befalls the fleet: checks, servers that die and come back, operators, edits of the file, storms of discovery, clocks that jump,
//! and now and then a census of how the balancers spread.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir::config::model::AdminState;
use weir::control::drains::Mark;
use weir::policy::balance::{AnyBalancer, Balancer, Eligible};
use weir::policy::health::{Health, Machine, Outcome};
use weir::state::backend::Live;
use weir::state::warmth::warm;
use weir::upstream::generation::PoolLoads;

use crate::file::Check;
use crate::server::{Condition, latency};
use crate::world::World;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Between two looks of the tasks that control runs.
const LOOK: Duration = Duration::from_millis(200);

/// Every task but the clients.
pub fn all(world: &Rc<World>) -> Vec<Task> {
    let own = || world.clone();
    let (checks, warmth, sweeps) = (own(), own(), own());
    let (servers, operator, edits, clocks, census) = (own(), own(), own(), own(), own());
    vec![
        Box::pin(async move { check(&checks).await }),
        Box::pin(async move { warm_up(&warmth).await }),
        Box::pin(async move { sweep(&sweeps).await }),
        Box::pin(async move { trouble(&servers).await }),
        Box::pin(async move { operate(&operator).await }),
        Box::pin(async move { edit(&edits).await }),
        Box::pin(async move { jump(&clocks).await }),
        Box::pin(async move { count(&census).await }),
    ]
}

/// A server under watch, as the supervisor of checks keeps it.
struct Watch {
    live: Arc<Live>,
    check: Option<Check>,
    machine: Machine,
    proven: bool,
    next: Duration,
}

/// The checks: who is asked follows the served generation, and what comes of it is the machine's to say.
async fn check(world: &World) {
    let mut watches: BTreeMap<(String, SocketAddr), Watch> = BTreeMap::new();
    while !world.is_over() {
        let snapshot = world.snapshot.borrow().clone();
        let mut before = std::mem::take(&mut watches);
        for (pool, from) in snapshot.pools.iter().zip(&world.file.borrow().pools) {
            for backend in &pool.backends {
                let key = (from.name.clone(), backend.live.address);
                let kept = before
                    .remove(&key)
                    .filter(|kept| Arc::ptr_eq(&kept.live, &backend.live));
                let watch = follow(world, kept, &backend.live, &from.check);
                watches.insert(key, watch);
            }
        }
        for ((pool, address), watch) in &mut watches {
            ask(world, pool, *address, watch);
        }
        world.time.wait(LOOK).await;
    }
}

fn follow(world: &World, kept: Option<Watch>, live: &Arc<Live>, check: &Option<Check>) -> Watch {
    match kept {
        Some(kept) if kept.check == *check => kept,
        kept => {
            if check.is_none() && live.health() != Health::Up {
                live.set_health(Health::Up, world.time.now());
            }
            let (rise, fall) = check
                .as_ref()
                .map_or((1, 1), |check| (check.rise, check.fall));
            let proven = kept.is_some_and(|kept| kept.proven);
            Watch {
                live: live.clone(),
                check: check.clone(),
                machine: Machine::new(rise, fall, live.health(), proven),
                proven,
                next: world.time.elapsed(),
            }
        }
    }
}

fn ask(world: &World, pool: &str, address: SocketAddr, watch: &mut Watch) {
    let Some(check) = watch
        .check
        .as_ref()
        .filter(|_| watch.next <= world.time.elapsed())
    else {
        return;
    };
    let interval = Duration::from_millis(check.interval_millis as u64);
    watch.next = world.time.elapsed() + interval;
    let passes = world.servers.borrow()[&address].passes();
    watch.proven |= passes;
    let outcome = if passes { Outcome::Pass } else { Outcome::Fail };
    let now = world.time.now();
    if let Some(health) = watch.machine.observe(outcome) {
        world.tell(|| format!("{pool}/{address} is {}", health.as_str()));
        watch.live.set_health(health, now);
    }
    let shadow = &mut world.shadow.borrow_mut();
    let watched = shadow
        .health
        .get_mut(&(pool.to_owned(), address))
        .expect("a served address");
    watched.observe(passes, now);
    assert_eq!(
        watch.live.health(),
        watched.health,
        "the health of {pool}/{address}"
    );
}

async fn warm_up(world: &World) {
    let mut last = world.time.elapsed();
    while !world.is_over() {
        world.time.wait(LOOK).await;
        let now = world.time.elapsed();
        let snapshot = world.snapshot.borrow().clone();
        snapshot
            .pools
            .iter()
            .for_each(|pool| warm(pool, now - last));
        last = now;
    }
}

async fn sweep(world: &World) {
    while !world.is_over() {
        world.time.wait(Duration::from_secs(4)).await;
        let snapshot = world.snapshot.borrow().clone();
        let sessions = snapshot
            .pools
            .iter()
            .filter_map(|pool| pool.sessions.as_ref());
        for sessions in sessions {
            // All of the table: where in it a session lies hangs on a hash that no seed decides.
            (0..16).for_each(|_| sessions.sweep(world.time.now()));
        }
    }
}

/// Servers die, slow down, lie, and come back.
async fn trouble(world: &World) {
    let chance = &world.chance;
    while !world.is_over() {
        world.time.wait(chance.millis(50..1500)).await;
        let served: Vec<SocketAddr> = {
            let file = world.file.borrow();
            let backends = file.pools.iter().flat_map(|pool| &pool.backends);
            backends.map(|backend| backend.address).collect()
        };
        let address = chance.one_of(&served);
        let mut servers = world.servers.borrow_mut();
        let server = servers.get_mut(&address).expect("a server");
        if chance.one_in(3) {
            server.latency = latency(chance);
            continue;
        }
        let before = server.condition;
        server.condition = match before {
            Condition::Well => chance.one_of(&[
                Condition::Dead,
                Condition::Dead,
                Condition::Dark,
                Condition::Lies,
                Condition::Sulks,
            ]),
            _ => Condition::Well,
        };
        match (before, server.condition) {
            (_, Condition::Dead) => world.count("server died"),
            (_, Condition::Lies) => world.count("server lies"),
            (Condition::Dead, Condition::Well) => {
                server.restart();
                world.count("server restarted");
            }
            _ => {}
        }
        world.tell(|| format!("{address} is {:?}, before {before:?}", server.condition));
    }
}

/// Somebody drains, maintains and readies backends.
async fn operate(world: &World) {
    let chance = &world.chance;
    while !world.is_over() {
        world.time.wait(chance.millis(500..6000)).await;
        let snapshot = world.snapshot.borrow().clone();
        let pool = &snapshot.pools[chance.below(snapshot.pools.len())];
        let backend = &pool.backends[chance.below(pool.backends.len())];
        let state = chance.one_of(&[
            AdminState::Ready,
            AdminState::Ready,
            AdminState::Drain,
            AdminState::Maint,
        ]);
        world.count(state.as_str());
        world.tell(|| {
            format!(
                "{}/{} is set to {}",
                pool.name,
                backend.name,
                state.as_str()
            )
        });
        let mark = Mark {
            who: "the simulation".to_owned(),
            set_wall_millis: world.time.wall_millis(),
        };
        world.overrides.set(&pool.name, backend, state, mark);
        let key = (pool.name.to_string(), backend.name.to_string());
        let shadow = &mut world.shadow.borrow_mut().set;
        // `ready` lets the file count again, if that says so too.
        match state == AdminState::Ready && backend.written == AdminState::Ready {
            true => drop(shadow.remove(&key)),
            false => drop(shadow.insert(key, state)),
        }
        assert_eq!(backend.admin(), state);
    }
}

/// The file is edited, now and then by a discovery that cannot make up its mind.
async fn edit(world: &World) {
    let chance = &world.chance;
    while !world.is_over() {
        world.time.wait(chance.millis(200..8000)).await;
        if !chance.one_in(5) {
            let mut file = world.file.borrow().clone();
            file.edit(chance);
            world.reload(file);
            continue;
        }
        world.count("storm");
        let calm = world.file.borrow().clone();
        for _ in 0..chance.within(3..12) {
            let mut file = world.file.borrow().clone();
            let count = file.pools.len();
            let pool = chance.below(count);
            file.pools[pool].discover(chance);
            world.discover(file, pool);
            world.time.wait(chance.millis(1..60)).await;
        }
        if chance.one_in(2) {
            world.reload(calm);
        }
    }
}

/// The wall clock is put, and the machine sleeps.
async fn jump(world: &World) {
    let chance = &world.chance;
    while !world.is_over() {
        world.time.wait(chance.seconds(10..40)).await;
        let by = chance.seconds(1..300);
        match chance.below(3) {
            0 => {
                world.count("clock put forward");
                world.time.put_wall(by.as_millis() as i64);
            }
            1 => {
                world.count("clock put back");
                world.time.put_wall(-(by.as_millis() as i64));
            }
            _ => {
                world.count("slept");
                world.time.sleep_through(by / 10);
            }
        }
        world.tell(|| format!("a clock jumps by {by:?}"));
    }
}

/// How a balancer spreads many picks of the same moment: as its weights say, and to nobody else.
async fn count(world: &World) {
    while !world.is_over() {
        world.time.wait(world.chance.seconds(5..15)).await;
        world.count("census");
        let worker = &world.workers[world.chance.below(world.workers.len())];
        let generation = worker.generation.borrow().clone();
        for (ordinal, pool) in generation.snapshot.pools.iter().enumerate() {
            let view = generation.pool(ordinal);
            let sets = view.eligible(pool);
            let (fresh, loads) = (sets.fresh(), PoolLoads { pool, view: None });
            for own in fresh.list() {
                let weight = pool.backends[own.index()].weight;
                let most = u32::from(weight) * 250;
                assert!(
                    (1..=most).contains(&u32::from(fresh.weight(*own))),
                    "a weight within bounds"
                );
            }
            let picks = 400;
            let mut counts = vec![0_u32; pool.backends.len()];
            let rng = &mut worker.rng.borrow_mut();
            for _ in 0..picks {
                let eligible = Eligible::new(fresh, &[], &loads);
                match view
                    .balancer
                    .pick(&eligible, &crate::request::nobody(world), rng)
                {
                    Some(picked) => counts[picked.index()] += 1,
                    None => assert!(fresh.list().is_empty(), "nobody of {:?}", fresh.list()),
                }
            }
            let total = f64::from(fresh.total_weight());
            for (&own, &weight) in fresh.list().iter().zip(fresh.weights()) {
                let due = f64::from(picks) * f64::from(weight) / total;
                let count = f64::from(counts[own.index()]);
                let is_due = match view.balancer {
                    AnyBalancer::RoundRobin(_) => {
                        (count - due).abs()
                            <= 2.0 + fresh.list().len() as f64 * due / f64::from(picks)
                    }
                    _ => true,
                };
                assert!(
                    is_due,
                    "{count} of {picks} picks where {due} were due: {counts:?} {:?}",
                    fresh.weights()
                );
            }
        }
    }
}
