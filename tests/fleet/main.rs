//! weir before real servers of Debian: Tomcat 10 with HttpSessions, and a Prometheus that scrapes.
//! It must leave nothing running and nothing on the disk, whatever happens, and call a skipped scenario skipped.
//! Its own runner, because the scenarios share one fleet: read `scenarios.rs`, then `weir.rs` and `tomcat.rs`; `sessions.rs` has
//! fleets that keep their sessions in other ways, each with servers of its own.

mod client;
mod crowd;
mod learning;
mod load;
mod login;
mod ports;
mod process;
mod prometheus;
mod redis;
mod scenarios;
mod sessions;
#[path = "../../examples/sessions/table.rs"]
mod table;
mod tomcat;
mod weir;

use std::os::unix::process::parent_id;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use prometheus::Prometheus;
use redis::Redis;
use scenarios::Stage;
use sessions::Table;
use table::Plan;
use tomcat::Tomcat;

/// A claim's name, what shows it, and why it cannot run here, if so.
type Claim = (String, Show, Option<String>);

/// A function of `scenarios.rs`.
type Scenario = fn(&mut Stage);

/// What shows a claim.
enum Show {
    /// With the fleet that they share.
    OnStage(Scenario),
    /// With a fleet of its own.
    Sessions(Plan),
    /// With the figures of the fleets before.
    Compare,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| {
        let mut filters = words
            .iter()
            .filter(|word| !word.starts_with('-'))
            .peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    };
    let mut claims = claims();
    claims.retain(|(name, ..)| wanted(name));
    if words.iter().any(|word| word == "--list") {
        claims
            .iter()
            .for_each(|(name, ..)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    end_with_parent();
    run(claims)
}

fn claims() -> Vec<Claim> {
    let tomcat = Tomcat::missing();
    let scraper = tomcat.clone().or_else(Prometheus::missing);
    let stage: [(&str, Scenario, Option<String>); 7] = [
        ("spread", scenarios::spread, tomcat.clone()),
        ("scrape", scenarios::scrape, scraper),
        (
            "learn",
            learning::learn,
            tomcat.clone().or_else(Redis::missing),
        ),
        ("rewrites", scenarios::rewrites, tomcat.clone()),
        ("login", login::login, tomcat.clone()),
        ("grow", scenarios::grow, tomcat.clone()),
        ("kill", scenarios::kill, tomcat),
    ];
    let on_stage = |(name, scenario, missing)| {
        let show = Show::OnStage(scenario);
        (format!("fleet::{name}"), show, missing)
    };
    let sessions = |plan: Plan| {
        let name = format!("sessions::{}", plan.name);
        (name, Show::Sessions(plan), plan.keeping.missing())
    };
    let mut claims: Vec<Claim> = stage.map(on_stage).into();
    claims.extend(sessions::plans(is_full()).into_iter().map(sessions));
    claims.push(("sessions::compare".to_owned(), Show::Compare, None));
    claims
}

/// Whether this is the long form.
fn is_full() -> bool {
    std::env::var_os("WEIR_FULL").is_some()
}

fn run(claims: Vec<Claim>) -> ExitCode {
    println!("\nrunning {} tests", claims.len());
    let started = Instant::now();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let directory = scenarios::directory();
    // A fleet that does not start fails the whole run at once, not every claim in turn.
    let needs_stage =
        |(_, show, missing): &Claim| matches!(show, Show::OnStage(_)) && missing.is_none();
    let mut stage = claims
        .iter()
        .any(needs_stage)
        .then(|| set_stage(&directory));
    let mut table = Table::new(&directory, is_full());
    for (name, show, missing) in claims {
        if let Some(missing) = missing {
            println!("test {name} ... ignored, {missing}");
            ignored += 1;
            continue;
        }
        if !matches!(show, Show::OnStage(_)) {
            // The others need the room.
            stage = None;
        }
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| match show {
            Show::OnStage(scenario) => scenario(stage.as_mut().expect("the stage is set")),
            Show::Sessions(plan) => table.fleet(&plan),
            Show::Compare => table.compare(),
        }));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1?})", began.elapsed());
        match outcome {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
    }
    drop(stage);
    let _ = std::fs::remove_dir_all(directory);
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; \
         0 measured; 0 filtered out; finished in {:.2}s\n",
        started.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

fn set_stage(directory: &Path) -> Stage {
    let began = Instant::now();
    let start = |name| Tomcat::start_with(name, directory, ports::free(), &login::extras());
    let mut fleet: Vec<Tomcat> = ["was1", "was2", "was3", "was4"].map(start).into();
    fleet.iter_mut().for_each(Tomcat::wait_ready);
    println!("  four Tomcats ready after {:.1?}", began.elapsed());
    Stage {
        fleet,
        directory: directory.to_path_buf(),
        full: is_full(),
    }
}

/// Ends this process, and with it all that it started, when the one that started it has gone.
fn end_with_parent() {
    let parent = parent_id();
    std::thread::spawn(move || {
        while parent_id() == parent {
            std::thread::sleep(Duration::from_millis(200));
        }
        eprintln!("the process that ran this test has gone");
        std::process::exit(1);
    });
}
