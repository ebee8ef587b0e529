//! `/api/v1/diff`: what a reload would change, told without changing anything.
//! It compares the file that a reload would read, or one in the body of a POST; it binds nothing, looks at no secret and asks no source of backends.
//! The walk goes on in `state/diff.rs`, `state/summary.rs` and `state/losses.rs`.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Problem, json};
use crate::config::diagnostic::Diagnostics;
use crate::config::{self, Loaded};
use crate::control::shared::Shared;
use crate::state::diff::Diff;
use crate::state::losses::losses;
use crate::state::report::Report;
use crate::state::summary::summary;

#[derive(Serialize)]
struct Outcome {
    /// The file that was read.
    file: String,
    /// The generation that it was compared with.
    generation: u64,
    /// As the reload would log it; empty: it would change nothing.
    summary: String,
    /// Keys among the changed ones that wait for the next start.
    restart: Vec<String>,
    /// What the change would cost, a line each.
    warnings: Vec<String>,
    /// What it would cost whoever is served at this moment.
    report: Report,
    /// The same as text, a line for each listener and pool.
    costs: Vec<String>,
}

/// A file that is not in place yet.
#[derive(Deserialize)]
struct Candidate {
    file: String,
    text: String,
}

/// What the served process's own file would change, or the problems of that file.
pub(super) async fn diff(shared: &Shared) -> Result<Answer, Problem> {
    let path = shared.file.clone();
    compare(shared, shared.file.display().to_string(), move || {
        config::load(path)
    })
    .await
}

/// What the file in the body would change, or its problems.
pub(super) async fn diff_with(shared: &Shared, body: &[u8]) -> Result<Answer, Problem> {
    let candidate: Candidate = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is not {{\"file\": NAME, \"text\": TEXT}}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    let Candidate { file, text } = candidate;
    let name = file.clone();
    compare(shared, file, move || config::parse(&name, &text)).await
}

async fn compare(
    shared: &Shared,
    file: String,
    load: impl FnOnce() -> Result<Loaded, Diagnostics> + Send + 'static,
) -> Result<Answer, Problem> {
    // Neither a slow disk nor a long file may stop the probes.
    let loaded = tokio::task::spawn_blocking(load).await;
    let refused = |text: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    let loaded = loaded
        .map_err(|error| refused(&format!("the file was not read: {error}")))?
        .map_err(|problems| refused(problems.render(false).trim_end()))?;
    let snapshot = shared.current.borrow().clone();
    // What sources said last holds for both.
    let candidate = shared.discovery.merged(loaded.config);
    let diff = Diff::between(&snapshot.config, &candidate);
    let (served, config) = (snapshot.clone(), candidate.clone());
    // It tries thousands of keys.
    let report = tokio::task::spawn_blocking(move || Report::of(&served, &config)).await;
    let report = report.unwrap_or_default();
    let outcome = Outcome {
        file,
        generation: snapshot.generation,
        summary: summary(&diff, &snapshot.config),
        restart: diff.settings.restart_keys(),
        warnings: losses(&snapshot.config, &candidate),
        costs: report.lines(),
        report,
    };
    Ok(json(StatusCode::OK, &outcome))
}
