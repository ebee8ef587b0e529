//! Reads the file again and, when it is fine and says something new, puts the next generation in place of the served one.
//! A file that is refused changes nothing but what is said about it; two reloads never run at once, since they need `&mut`.
//! The walk goes on in `apply.rs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::access_log_writer::Writer;
use super::apply::{self, Stage};
use super::secrets::SecretSource;
use super::shared::{Refusal, ReloadStatus, Reloaded};
use super::supervisor::Supervisor;
use super::systemd;
use crate::clock;
use crate::config::{self, Loaded, model::Config};
use crate::metrics::rows::Budget;
use crate::state::diff::{Diff, SettingsDiff};
use crate::state::secrets::Secrets;
use crate::state::snapshot::Snapshot;
use crate::state::summary::summary;

/// Why the file is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It changed.
    File,
    /// SIGHUP.
    Signal,
    /// The admin API.
    Request,
}

/// The served generation and everything that the next one needs.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    /// What the process was started with; a few keys of it hold until it ends.
    started: Arc<Config>,
    source: SecretSource,
    secrets: Secrets,
    supervisor: Supervisor,
    access_log: Writer,
    budget: Arc<Budget>,
    current: watch::Sender<Arc<Snapshot>>,
    status: watch::Sender<ReloadStatus>,
}

/// What a reloader is made with.
#[derive(Debug)]
pub struct Parts {
    /// The configuration file.
    pub path: PathBuf,
    /// Where secrets come from.
    pub source: SecretSource,
    /// What `source` gave for the first generation.
    pub secrets: Secrets,
    /// The workers, which serve the first generation.
    pub supervisor: Supervisor,
    /// The access log.
    pub access_log: Writer,
    /// How many metric rows may exist.
    pub budget: Arc<Budget>,
}

impl Reloader {
    /// A reloader that begins with the generation that the workers serve.
    pub fn new(parts: Parts, first: Arc<Snapshot>, warnings: Vec<String>) -> Self {
        let status = ReloadStatus {
            generation: first.generation,
            success_wall_millis: clock::wall_millis(),
            refusal: None,
            warnings,
        };
        Reloader {
            path: parts.path,
            started: first.config.clone(),
            source: parts.source,
            secrets: parts.secrets,
            supervisor: parts.supervisor,
            access_log: parts.access_log,
            budget: parts.budget,
            current: watch::Sender::new(first),
            status: watch::Sender::new(status),
        }
    }

    /// The served generation, now and later.
    pub fn current(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// How reloads went, now and later.
    pub fn status(&self) -> watch::Receiver<ReloadStatus> {
        self.status.subscribe()
    }

    /// The served configuration.
    pub fn config(&self) -> Arc<Config> {
        self.current.borrow().config.clone()
    }

    /// The workers.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The access log.
    pub fn access_log(&self) -> &Writer {
        &self.access_log
    }

    /// What is left to end.
    pub fn into_ends(self) -> (Supervisor, Writer) {
        (self.supervisor, self.access_log)
    }

    /// Reads the file and serves what it says.
    ///
    /// # Errors
    /// Why the file, or what it asks for, was refused; the served generation goes on.
    pub async fn reload(&mut self, cause: Cause) -> Result<Reloaded, Refusal> {
        systemd::reloading();
        let path = self.path.clone();
        // A slow disk must not stop the probes.
        let loaded = tokio::task::spawn_blocking(move || read(&path)).await;
        let loaded =
            loaded.unwrap_or_else(|error| Err(format!("reading the file failed: {error}")));
        let outcome = match loaded {
            Ok((config, warnings)) => self.replace(config, warnings).await,
            Err(text) => Err(text),
        };
        let outcome = outcome.map_err(|text| Refusal {
            text,
            wall_millis: clock::wall_millis(),
        });
        report(cause, &outcome, self.current.borrow().generation);
        if let Err(refusal) = &outcome {
            let refusal = Some(refusal.clone());
            self.status.send_modify(|status| status.refusal = refusal);
        }
        systemd::ready();
        outcome
    }

    async fn replace(
        &mut self,
        config: Arc<Config>,
        mut warnings: Vec<String>,
    ) -> Result<Reloaded, String> {
        warnings.extend(restart_warnings(&self.started, &config));
        let secrets = self.source.load(config.secrets_file.as_deref())?;
        let previous = self.current.borrow().clone();
        let diff = Diff::between(&previous.config, &config);
        let mut summary = summary(&diff, &previous.config);
        if secrets != self.secrets {
            let separator = if summary.is_empty() { "" } else { "; " };
            summary = format!("{summary}{separator}secrets");
        }
        if !summary.is_empty() {
            let workers = self.supervisor.workers();
            let prepared = apply::prepare(config, &secrets, Some(&previous), workers)?;
            let snapshot = prepared.snapshot.clone();
            let adoption = prepared.commit(Stage {
                supervisor: &self.supervisor,
                access_log: &self.access_log,
                budget: &self.budget,
            });
            self.secrets = secrets;
            // From here on probes of removed backends stop and those of new ones begin.
            self.current.send_replace(snapshot);
            adoption.wait().await;
        }
        Ok(self.succeed(summary, warnings))
    }

    fn succeed(&self, summary: String, warnings: Vec<String>) -> Reloaded {
        let generation = self.current.borrow().generation;
        self.status.send_replace(ReloadStatus {
            generation,
            success_wall_millis: clock::wall_millis(),
            refusal: None,
            warnings: warnings.clone(),
        });
        Reloaded {
            generation,
            summary,
            warnings,
        }
    }
}

fn read(path: &Path) -> Result<(Arc<Config>, Vec<String>), String> {
    let Loaded {
        config, warnings, ..
    } = config::load(path).map_err(|diagnostics| diagnostics.to_string())?;
    Ok((Arc::new(config), warnings))
}

/// A line for each key that only a restart applies.
fn restart_warnings(started: &Config, config: &Config) -> impl Iterator<Item = String> {
    SettingsDiff::between(started, config)
        .restart_keys()
        .into_iter()
        .map(|key| format!("`{key}` changed: it takes effect at the next start"))
}

fn report(cause: Cause, outcome: &Result<Reloaded, Refusal>, generation: u64) {
    match outcome {
        Err(refusal) => {
            log::error!("reload: refused, generation {generation} goes on:");
            for line in refusal.text.lines() {
                log::error!("reload:   {line}");
            }
        }
        // A file that was written again as it was is no news, unless someone asked.
        Ok(reloaded) if reloaded.summary.is_empty() => match cause {
            Cause::File => log::debug!("reload: nothing changed"),
            Cause::Signal | Cause::Request => log::info!("reload: nothing changed"),
        },
        Ok(reloaded) => {
            log::info!("reload: generation {generation}: {}", reloaded.summary);
            for warning in &reloaded.warnings {
                log::warn!("reload: {warning}");
            }
        }
    }
}
