//! weir before real servers of Debian: Tomcat 10 with HttpSessions, and a Prometheus that scrapes.
//! It must leave nothing running and nothing on the disk, whatever happens, and call a skipped scenario skipped.
//! Its own runner, because the scenarios share one fleet: read `scenarios.rs`, then `weir.rs` and `tomcat.rs`.

mod client;
mod crowd;
mod load;
mod login;
mod ports;
mod process;
mod prometheus;
mod scenarios;
mod tomcat;
mod weir;

use std::os::unix::process::parent_id;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use prometheus::Prometheus;
use scenarios::Stage;
use tomcat::Tomcat;

/// A claim's name, the scenario that shows it, and why it cannot run here, if so.
type Claim = (&'static str, fn(&mut Stage), Option<String>);

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
    vec![
        ("fleet::spread", scenarios::spread, tomcat.clone()),
        ("fleet::scrape", scenarios::scrape, scraper),
        ("fleet::rewrites", scenarios::rewrites, tomcat.clone()),
        ("fleet::login", login::login, tomcat.clone()),
        ("fleet::grow", scenarios::grow, tomcat.clone()),
        ("fleet::kill", scenarios::kill, tomcat),
    ]
}

fn run(claims: Vec<Claim>) -> ExitCode {
    println!("\nrunning {} tests", claims.len());
    let started = Instant::now();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    // A fleet that does not start fails the whole run at once, not every claim in turn.
    let runs = claims.iter().any(|(.., missing)| missing.is_none());
    let mut stage = runs.then(set_stage);
    for (name, scenario, missing) in claims {
        let (Some(stage), None) = (&mut stage, &missing) else {
            println!("test {name} ... ignored, {}", missing.unwrap_or_default());
            ignored += 1;
            continue;
        };
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| scenario(stage)));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1?})", began.elapsed());
        match outcome {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
    }
    if let Some(stage) = stage {
        let Stage {
            fleet, directory, ..
        } = stage;
        drop(fleet);
        let _ = std::fs::remove_dir_all(directory);
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; \
         0 measured; 0 filtered out; finished in {:.2}s\n",
        started.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

fn set_stage() -> Stage {
    let began = Instant::now();
    let directory = scenarios::directory();
    let start = |name| Tomcat::start_with(name, &directory, ports::free(), &login::extras());
    let mut fleet: Vec<Tomcat> = ["was1", "was2", "was3", "was4"].map(start).into();
    fleet.iter_mut().for_each(Tomcat::wait_ready);
    println!("  four Tomcats ready after {:.1?}", began.elapsed());
    let full = std::env::var_os("WEIR_FULL").is_some();
    Stage {
        fleet,
        directory,
        full,
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
