//! weir before real servers of Debian: Tomcat 10 with HttpSessions, and a Prometheus that scrapes.
//! It must leave nothing running and nothing on the disk, whatever happens, and call a skipped scenario skipped.
//! Its own runner, because the scenarios share one fleet: read `scenarios.rs`, then `weir.rs` and `tomcat.rs`; `sessions.rs` has
//! fleets that keep their sessions in other ways, each with servers of its own.

#[allow(dead_code)]
mod claims;
mod client;
mod crowd;
mod learning;
mod load;
mod login;
mod many;
mod ports;
#[allow(dead_code)]
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
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use claims::Verdicts;
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
    let mut claims = claims();
    if !claims::select(&mut claims, |(name, ..)| name) {
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
    let mut verdicts = Verdicts::begin(claims.len());
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
        if missing.is_none() && !matches!(show, Show::OnStage(_)) {
            // The others need the room.
            stage = None;
        }
        verdicts.judge(&name, missing, || match show {
            Show::OnStage(scenario) => scenario(stage.as_mut().expect("the stage is set")),
            Show::Sessions(plan) => table.fleet(&plan),
            Show::Compare => table.compare(),
        });
    }
    drop(stage);
    let _ = std::fs::remove_dir_all(directory);
    verdicts.end()
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
