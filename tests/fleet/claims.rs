//! The runner of tests that need real programs: what is missing makes a skipped claim, and the lines are those of Rust's own runner.
//! It must run one claim at a time, since the programs of one would disturb the figures of another.
//! Read `process.rs` for the programs that claims start.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// A claim: its name, what it needs that is not here, if anything, and what shows it in a folder of its own.
pub type Claim = (&'static str, fn() -> Option<String>, fn(&Path));

/// Runs the claims that the command line asks for.
pub fn run(claims: &[Claim]) -> ExitCode {
    let mut claims = claims.to_vec();
    if !select(&mut claims, |(name, ..)| name) {
        return ExitCode::SUCCESS;
    }
    let mut verdicts = Verdicts::begin(claims.len());
    for (name, missing, show) in claims {
        verdicts.judge(name, missing(), || show(&Folder::new(name).0));
    }
    verdicts.end()
}

/// Keeps the claims whose names contain a word of the command line; false when it only asks for their names, which are told then.
pub fn select<T>(claims: &mut Vec<T>, name: impl Fn(&T) -> &str) -> bool {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (options, filters): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let is_wanted = |claim: &T| filters.iter().any(|filter| name(claim).contains(*filter));
    claims.retain(|claim| filters.is_empty() || is_wanted(claim));
    let asks = options.iter().any(|option| *option == "--list");
    if asks {
        (claims.iter()).for_each(|claim| println!("{}: test", name(claim)));
    }
    !asks
}

/// What came of the claims so far.
pub struct Verdicts {
    passed: usize,
    failed: usize,
    ignored: usize,
    started: Instant,
}

impl Verdicts {
    /// Before the first of so many claims.
    pub fn begin(count: usize) -> Self {
        println!("\nrunning {count} tests");
        Verdicts {
            passed: 0,
            failed: 0,
            ignored: 0,
            started: Instant::now(),
        }
    }

    /// Runs a claim unless something is missing.
    pub fn judge(&mut self, name: &str, missing: Option<String>, show: impl FnOnce()) {
        if let Some(missing) = missing {
            println!("test {name} ... ignored, {missing}");
            self.ignored += 1;
            return;
        }
        let began = Instant::now();
        let (count, verdict) = match catch_unwind(AssertUnwindSafe(show)) {
            Ok(()) => (&mut self.passed, "ok"),
            Err(_) => (&mut self.failed, "FAILED"),
        };
        *count += 1;
        println!("test {name} ... {verdict} ({:.1?})", began.elapsed());
    }

    /// Says what came of all, which is also how this process ends.
    pub fn end(self) -> ExitCode {
        let Verdicts {
            passed,
            failed,
            ignored,
            started,
        } = self;
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; \
             0 measured; 0 filtered out; finished in {:.2}s\n",
            started.elapsed().as_secs_f64()
        );
        ExitCode::from(u8::from(failed > 0))
    }
}

/// A claim's folder, which goes with it unless it fails.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("{}-{}", name.replace(':', "-"), std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(path.join("state")).expect("a folder can be made");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        match std::thread::panicking() {
            true => println!("  what was written is in {}", self.0.display()),
            false => drop(fs::remove_dir_all(&self.0)),
        }
    }
}
