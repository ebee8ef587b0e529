//! What weir must show before real servers, one function a claim; each prints the figures that it measured.
//! A scenario has its own weir and must leave every server as it found it, but for the last, which kills one.
//! Read `main.rs` for the order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::crowd::{Counted, Crowd, Visit};
use crate::load::{Load, Seen};
use crate::ports;
use crate::process::wait;
use crate::prometheus::{self, Prometheus};
use crate::tomcat::Tomcat;
use crate::weir::{FALL, INTERVAL, Manner, Setup, TIMEOUT, Weir, sum};

/// Longest wait for something that happens by itself.
pub const SOON: Duration = Duration::from_secs(20);

/// The servers, and where a scenario may write.
pub struct Stage {
    /// Three in service and a fourth that waits.
    pub fleet: Vec<Tomcat>,
    /// A directory of the run.
    pub directory: PathBuf,
    /// Whether this is the long form.
    pub full: bool,
}

impl Stage {
    /// A weir of its own for a scenario of this name.
    pub fn weir(&self, name: &str, setup: &Setup) -> Weir {
        Weir::start(&self.directory.join(name), setup)
    }

    /// The servers in service.
    pub fn three(&self) -> &[Tomcat] {
        &self.fleet[..3]
    }
}

/// New clients spread evenly, and every client's counter grows by one each time.
pub fn spread(stage: &mut Stage) {
    let weir = stage.weir("spread", &Setup::new(stage.three()));
    // So many that a fifth more or less than a third is beyond chance.
    let clients = 1200;
    let shares = shares(&Crowd::new(weir.web, clients, 8).round());
    println!("  {clients} new clients: {shares:?}");
    let mean = clients / 3;
    for tomcat in stage.three() {
        let share = shares.get(&tomcat.name).copied().unwrap_or(0);
        let even = (mean * 8 / 10..=mean * 12 / 10).contains(&share);
        assert!(even, "{} has {share} clients of {clients}", tomcat.name);
    }

    let mut crowd = Crowd::new(weir.web, 50, 5);
    let mut before = crowd.round();
    for _ in 1..20 {
        let now = crowd.round();
        assert_grown(&before, &now);
        before = now;
    }
    assert!(before.iter().all(|client| client.count == 20));
    println!("  50 clients, 1,000 requests: every counter grew by one each time");
    weir.stop();
}

/// A real Prometheus scrapes weir, and promtool has nothing to say.
pub fn scrape(stage: &mut Stage) {
    let weir = stage.weir("scrape", &Setup::new(stage.three()));
    let mut crowd = Crowd::new(weir.web, 30, 3);
    crowd.round();
    let mut scraper = Prometheus::start(&stage.directory.join("prometheus"), weir.admin());
    wait("Prometheus scrapes weir", Duration::from_secs(60), || {
        if let Some(status) = scraper.process.ended() {
            panic!("prometheus ended, {status}:\n{}", scraper.process.tail(20));
        }
        let up = scraper.query("up") == [1.0];
        let requests = scraper.query("sum(weir_http_requests_total)");
        (up && requests.first() == Some(&30.0)).then_some(())
    });
    let series = scraper.query("count({job=\"weir\"})".replace('"', "%22").as_str());
    println!("  Prometheus: up, 30 requests counted, {series:?} series");
    let (said, content) = prometheus::check(&weir.metrics());
    assert!(
        content && said.is_empty(),
        "promtool check metrics:\n{said}"
    );
    println!("  promtool check metrics: nothing to say");
    weir.stop();
}

/// The file changes again and again under load: no request fails, no descriptor stays.
pub fn rewrites(stage: &mut Stage) {
    let changes = if stage.full { 200 } else { 100 };
    let base = Setup::new(stage.three());
    let extra = ports::free();
    let weir = stage.weir("rewrites", &base);
    let generation = weir.generation();
    let (descriptors, resident) = (weir.descriptors().len(), weir.resident());
    let load = Load::start(weir.web);
    for change in 1..=changes {
        let mut setup = base.clone();
        setup.response += change;
        match change % 4 {
            0 => setup.add(&stage.fleet[3]),
            1 => setup.extra = Some(extra),
            2 => setup.backends[0].2 = 2,
            _ => {}
        }
        let manner = [Manner::Rename, Manner::InPlace][change as usize % 2];
        weir.write(&setup, manner);
        let expected = generation + u64::from(change);
        wait(&format!("generation {expected}"), SOON, || {
            (weir.generation() >= expected).then_some(())
        });
    }
    let seen = load.stop();
    assert_flawless(&seen);
    assert_eq!(weir.generation(), generation + u64::from(changes));
    // What weir opens once at first need is not growth; a leak would show with every change.
    let left = wait_settled(&weir, descriptors + 3);
    println!(
        "  {changes} rewrites: generation {generation} -> {}, {} requests, 0 failed, \
         descriptors {descriptors} -> {left}, resident {resident} -> {} KiB",
        weir.generation(),
        seen.good,
        weir.resident()
    );
    weir.stop();
}

/// The file gains a fourth server under load: it takes traffic at once, and few clients move.
pub fn grow(stage: &mut Stage) {
    let mut setup = Setup::new(stage.three());
    let weir = stage.weir("grow", &setup);
    // So many that 30 % instead of 25 % is beyond chance.
    let clients = if stage.full { 4000 } else { 2000 };
    let mut crowd = Crowd::new(weir.web, clients, 8);
    let before = crowd.round();
    let load = Load::start(weir.web);
    let grown = crowd.round();
    assert_grown(&before, &grown);

    let fourth = &stage.fleet[3];
    setup.add(fourth);
    let written = weir.write(&setup, Manner::Rename);
    wait("the fourth server takes traffic", SOON, || {
        let metrics = weir.metrics();
        let label = format!("backend=\"{}\"", fourth.name);
        let requests = sum(&metrics, "weir_http_requests_total", &label)?;
        (requests > 0.0).then_some(())
    });
    let after = crowd.round();
    let last = crowd.round();
    assert_grown(&after, &last);
    let seen = load.stop();
    assert_flawless(&seen);
    assert_prompt(fourth, written, &seen);

    let (moved, stayed): (Vec<_>, Vec<_>) = grown
        .iter()
        .zip(&after)
        .partition(|(was, is)| was.server != is.server);
    let share = moved.len() as f64 / clients as f64;
    println!(
        "  {} of {clients} clients moved ({:.1} %), {} requests beside, 0 failed",
        moved.len(),
        share * 100.0,
        seen.good
    );
    assert!(stayed.iter().all(|(was, is)| is.count == was.count + 1));
    assert!(moved.iter().all(|(_, is)| is.server == fourth.name));
    assert!(
        (0.10..=0.30).contains(&share),
        "{share} of the clients moved"
    );
    weir.stop();
}

/// A server is killed: the others answer, and nobody waits longer than the probes need.
pub fn kill(stage: &mut Stage) {
    let weir = stage.weir("kill", &Setup::new(stage.three()));
    let mut crowd = Crowd::new(weir.web, 90, 6);
    let homes = crowd.round();
    let fall = INTERVAL * FALL + TIMEOUT + Duration::from_secs(1);
    let victim = &mut stage.fleet[1];
    let stop = AtomicBool::new(false);
    let (killed, visits) = thread::scope(|scope| {
        let running = scope.spawn(|| crowd.visit(&stop));
        let killed = Instant::now();
        victim.process.kill();
        let label = format!("backend=\"{}\"", victim.name);
        wait("weir sees that the server is gone", fall, || {
            let up = sum(&weir.metrics(), "weir_backend_up", &label)?;
            (up == 0.0).then_some(())
        });
        let seen = killed.elapsed();
        println!(
            "  {} down {seen:?} after SIGKILL (at most {fall:?})",
            victim.name
        );
        // The clients go on for a while, so that late failures are seen as well.
        thread::sleep(fall);
        stop.store(true, Ordering::Relaxed);
        (killed, running.join().expect("the clients end well"))
    });

    let mut failed = 0;
    let mut orphans = 0;
    let mut longest = Duration::ZERO;
    for (home, visits) in homes.iter().zip(&visits) {
        let failures: Vec<&Visit> = visits
            .iter()
            .filter(|visit| visit.outcome.is_err())
            .collect();
        if home.server != victim.name {
            assert!(failures.is_empty(), "of {}: {failures:?}", home.server);
            assert_counted(home, visits);
            continue;
        }
        orphans += 1;
        failed += failures.len();
        // Not all can be spared: an answer whose beginning was passed on cannot be had from another server.
        failures
            .iter()
            .for_each(|failure| println!("  {:?}", failure.outcome));
        if let Some(last) = failures.last() {
            longest = longest.max(last.at.saturating_duration_since(killed));
        }
        assert_resettled(&victim.name, visits, killed + fall);
    }
    println!(
        "  {orphans} clients of {}: {failed} failures, the last {longest:?} after the kill; \
         {} clients of the others: none",
        victim.name,
        homes.len() - orphans
    );
    assert!(orphans > 0 && longest <= fall);
    weir.stop();
}

fn shares(clients: &[Counted]) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for client in clients {
        *shares.entry(client.server.clone()).or_default() += 1;
    }
    shares
}

/// Same server, same session, one more.
pub fn assert_grown(before: &[Counted], now: &[Counted]) {
    for (was, is) in before.iter().zip(now) {
        let next = Counted {
            count: was.count + 1,
            ..was.clone()
        };
        assert_eq!(is, &next);
    }
}

fn assert_counted(home: &Counted, visits: &[Visit]) {
    for (visit, count) in visits.iter().zip(home.count + 1..) {
        let expected = Counted {
            count,
            ..home.clone()
        };
        assert_eq!(visit.outcome.as_ref(), Ok(&expected));
    }
}

/// After `settled`, an orphan stays with one living server and its new counter grows.
fn assert_resettled(victim: &str, visits: &[Visit], settled: Instant) {
    let late = visits.iter().filter(|visit| visit.at > settled);
    let late: Result<Vec<Counted>, String> = late.map(|visit| visit.outcome.clone()).collect();
    let late = late.unwrap_or_else(|failure| panic!("after the fall time: {failure}"));
    assert!(!late.is_empty() && late.iter().all(|visit| visit.server != victim));
    for pair in late.windows(2) {
        assert_grown(&pair[..1], &pair[1..]);
    }
}

fn assert_flawless(seen: &Seen) {
    assert_eq!(seen.failed, 0, "failed requests: {:?}", seen.failures);
    assert!(seen.good > 0, "the load ran");
}

/// Traffic within one second of the file's write and the first good probe, whichever came last.
fn assert_prompt(fourth: &Tomcat, written: SystemTime, seen: &Seen) {
    let unix = |moment: SystemTime| {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        since.expect("the clock is after 1970").as_millis()
    };
    let written = unix(written);
    let probed = fourth.probes().into_iter().find(|probe| *probe >= written);
    let probed = probed.expect("weir probed the fourth server after the file was written");
    let first = seen.first.get(&fourth.name).copied();
    let first = unix(first.expect("the load reached the fourth server"));
    println!(
        "  first good probe {} ms after the write, first traffic {} ms",
        probed - written,
        first as i128 - written as i128
    );
    assert!(first <= probed.max(written) + 1000);
}

/// Waits until weir has at most `most` descriptors open; how many there are then.
fn wait_settled(weir: &Weir, most: usize) -> usize {
    let end = Instant::now() + SOON;
    loop {
        let open = weir.descriptors();
        if open.len() <= most {
            return open.len();
        }
        let names = open.join("\n");
        assert!(
            Instant::now() < end,
            "more than {most} descriptors:\n{names}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// A directory of this run under `target`, empty; those of runs that were killed are removed.
pub fn directory() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("fleet-").map(|id| format!("/proc/{id}"));
        if process.is_some_and(|process| !Path::new(&process).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let directory = root.join(format!("fleet-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    directory
}
