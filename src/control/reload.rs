//! Reads the file again and, when it is fine and says something new, puts the next generation in place of the served one.
//! A file that is refused changes nothing but what is said about it; two reloads never run at once, since they need `&mut`.
//! The walk goes on in `apply.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;

use super::apply::{self, Running};
use super::certificates::Material;
use super::discovery;
use super::drains::{Mark, Subject};
use super::overrides::Overrides;
use super::secrets::SecretSource;
use super::shared::{Refusal, ReloadStatus, Reloaded, Stood};
use super::{admin, filter_files, systemd};
use crate::clock;
use crate::config::diagnostic::{Diagnostic, Diagnostics};
use crate::config::model::Config;
use crate::config::{self, Loaded};
use crate::policy::persist::token::Secrets;
use crate::state::diff::{Diff, SettingsDiff};
use crate::state::report::Report;
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
    /// The configuration file.
    pub path: PathBuf,
    /// What the process was started with; a few keys of it hold until it ends.
    pub started: Arc<Config>,
    /// Where secrets come from.
    pub source: SecretSource,
    /// What `source` gave for the served generation.
    pub secrets: Option<Secrets>,
    /// What the files behind TLS held when the served generation was made.
    pub material: Material,
    /// The administrative states that were set over the file's.
    pub overrides: Arc<Overrides>,
    /// What the served generation's file makes weir warn about, without advice.
    pub warnings: Diagnostics,
    /// Where backends come from that the file does not name.
    pub discovery: discovery::Sources,
    /// What the served generation acts on.
    pub running: Running,
    /// The admin server.
    pub admin: admin::Server,
    /// Where the served generation is published.
    pub current: watch::Sender<Arc<Snapshot>>,
    /// Where it is published how reloads went.
    pub status: watch::Sender<ReloadStatus>,
}

/// Why a file is not served: as text for people, and as lines for the log.
struct Problem {
    text: String,
    lines: Vec<String>,
}

impl Reloader {
    /// The served configuration.
    pub fn config(&self) -> Arc<Config> {
        self.current.borrow().config.clone()
    }

    /// Reads the file and serves what it says.
    ///
    /// # Errors
    /// Why the file, or what it asks for, was refused; the served generation goes on.
    pub async fn reload(&mut self, cause: Cause) -> Result<Reloaded, Refusal> {
        systemd::reloading();
        let path = self.path.clone();
        // A slow disk must not stop the probes.
        let last = self.material.clone();
        let load = move || filter_files::load(config::load(path)?, Some(&last));
        let loaded = tokio::task::spawn_blocking(load).await;
        let outcome = match loaded {
            Ok(Ok((loaded, material))) => self.replace(loaded, material, cause).await,
            Ok(Err(diagnostics)) => Err(Problem::from(&diagnostics)),
            Err(error) => Err(Problem::from(format!("the file was not read: {error}"))),
        };
        let outcome = outcome.map_err(|problem| self.refuse(problem));
        // Those of a file that was refused end.
        self.discovery.settle(&self.config());
        systemd::ready();
        outcome
    }

    async fn replace(
        &mut self,
        loaded: Loaded,
        material: Material,
        cause: Cause,
    ) -> Result<Reloaded, Problem> {
        self.discovery.follow(&loaded.config).await;
        let config = Arc::new(self.discovery.board().merged(loaded.config));
        let secrets = self.source.load(&config)?;
        // Its token may have changed although the file did not.
        let admin = admin::Prepared::new(&config.admin, Some(&self.admin), None)
            .map_err(|error| error.to_string())?;
        let previous = self.current.borrow().clone();
        let mut summary = summary(&Diff::between(&previous.config, &config), &previous.config);
        if other(&self.secrets, &secrets) {
            add(&mut summary, "secrets");
        }
        if material.differs(&self.material) {
            add(&mut summary, "certificates");
        }
        if *previous.files != filter_files::read(&config)? {
            let separator = if summary.is_empty() { "" } else { "; " };
            summary = format!("{summary}{separator}files of filters");
        }
        let prepared = if summary.is_empty() {
            None
        } else {
            let workers = self.running.workers.count();
            let (config, secrets) = (config.clone(), secrets.as_ref());
            let (previous, drains) = (Some(&*previous), self.overrides.drains());
            self.running.make_room(&config, &drains).await;
            let sockets = (&self.running.sockets, &drains);
            Some(apply::prepare(
                config, secrets, &material, previous, sockets, workers,
            )?)
        };
        let cost = Report::of(&previous, &config);
        // Nothing fails from here on.
        self.admin.switch(admin);
        self.secrets = secrets;
        self.adopt_material(material);
        let mut overruled = Vec::new();
        if let Some(prepared) = prepared {
            let snapshot = prepared.snapshot.clone();
            self.serve(prepared).await;
            // Not before every worker knows what the file says now.
            if self.overrides.settle(&snapshot) {
                self.overrides.keep().await;
            }
            overruled = self.overrides.overruled(&snapshot, Some(&previous));
        }
        self.report(cause, &summary);
        let level = match cost.sessions_lost {
            0 => log::Level::Info,
            _ => log::Level::Warn,
        };
        for line in cost.lines() {
            log::log!(level, "reload:   {line}");
        }
        let mut warnings = self.warn(loaded.warnings.without_advice(), &config, &previous.config);
        for line in overruled {
            log::warn!("reload: {line}");
            warnings.push(line);
        }
        warnings.extend(self.material.problems());
        warnings.extend(self.source.warning().map(str::to_owned));
        Ok(self.succeed(summary, warnings, cost))
    }

    /// Reads the files behind TLS again, and serves what they hold now under the configuration that is served already. One that
    /// cannot be used stays as it was.
    pub async fn renew_certificates(&mut self) {
        let (config, last) = (self.config(), self.material.clone());
        let read = move || Material::renewed(&config, &last);
        let Ok(material) = tokio::task::spawn_blocking(read).await else {
            return;
        };
        if !material.differs(&self.material) {
            return self.adopt_material(material);
        }
        let previous = self.current.borrow().clone();
        let (config, secrets) = (previous.config.clone(), self.secrets.as_ref());
        let workers = self.running.workers.count();
        let (before, drains) = (Some(&*previous), self.overrides.drains());
        let sockets = (&self.running.sockets, &drains);
        match apply::prepare(config, secrets, &material, before, sockets, workers) {
            Ok(prepared) => {
                self.adopt_material(material);
                self.serve(prepared).await;
                let generation = self.current.borrow().generation;
                log::info!("reload: generation {generation}: certificates");
                self.tell_of_material();
            }
            Err(why) => log::error!("reload: the certificates stay as they were: {why}"),
        }
    }

    /// Lets a listener or the process drain, or serve again: a generation more, under the configuration that is served already. What
    /// came of it.
    ///
    /// # Errors
    /// Why a listener cannot serve again; everything is as it was then.
    pub async fn stand(&mut self, subject: &Subject, drain: Option<Mark>) -> Result<Stood, String> {
        let (previous, mut drains) = (self.current.borrow().clone(), self.overrides.drains());
        let (is_drain, who) = (drain.is_some(), drain.as_ref().map(|mark| mark.who.clone()));
        let changed = drains.set(subject, drain);
        if changed {
            let (config, secrets) = (previous.config.clone(), self.secrets.as_ref());
            let workers = self.running.workers.count();
            self.running.make_room(&config, &drains).await;
            let sockets = (&self.running.sockets, &drains);
            let prepared = apply::prepare(
                config,
                secrets,
                &self.material,
                Some(&previous),
                sockets,
                workers,
            )?;
            self.overrides.stand(drains);
            self.serve(prepared).await;
            let generation = self.current.borrow().generation;
            let word = if is_drain { "drains" } else { "is ready" };
            let by = who.map_or_else(String::new, |who| format!(", set by api ({who})"));
            log::info!("admin: generation {generation}: {subject} {word}{by}");
        }
        let kept = self.overrides.keep().await;
        let listeners = self.current.borrow();
        let of_subject = |name: &str| match subject {
            Subject::Listener(wanted) => name == wanted,
            Subject::Process => true,
        };
        let meant = listeners.listeners.iter().filter(|it| of_subject(&it.name));
        Ok(Stood {
            state: if is_drain { "drain" } else { "ready" },
            changed,
            kept,
            connections: meant.map(|it| it.connections.load(Relaxed)).sum(),
        })
    }

    /// Serves what discovery says by now, under the configuration that is served already.
    pub async fn rediscover(&mut self) {
        let began = clock::now();
        self.discovery.serving();
        let previous = self.current.borrow().clone();
        let config = (self.discovery.board()).merged(Config::clone(&previous.config));
        let summary = summary(&Diff::between(&previous.config, &config), &previous.config);
        if summary.is_empty() {
            return;
        }
        let (config, secrets) = (Arc::new(config), self.secrets.as_ref());
        let workers = self.running.workers.count();
        let (before, drains) = (Some(&*previous), self.overrides.drains());
        let sockets = (&self.running.sockets, &drains);
        match apply::prepare(config, secrets, &self.material, before, sockets, workers) {
            Ok(prepared) => {
                let snapshot = prepared.snapshot.clone();
                self.serve(prepared).await;
                if self.overrides.settle(&snapshot) {
                    self.overrides.keep().await;
                }
                let generation = snapshot.generation;
                log::info!("discovery: generation {generation}: {summary}");
                self.status
                    .send_modify(|status| status.generation = generation);
                self.discovery.served(clock::now() - began);
            }
            Err(why) => {
                log::error!("discovery: the backends stay as they were: {why}");
                self.discovery.retry();
            }
        }
    }

    async fn serve(&mut self, prepared: apply::Prepared) {
        let snapshot = prepared.snapshot.clone();
        self.overrides.adopt(&snapshot);
        let adoption = self.running.commit(prepared);
        self.current.send_replace(snapshot);
        adoption.wait().await;
    }

    /// Says what is wrong with files that was not before.
    fn adopt_material(&mut self, material: Material) {
        let known = self.material.problems();
        for problem in material.problems() {
            if !known.contains(&problem) {
                log::error!("reload: {problem}; what it held before is served on");
            }
        }
        self.material = material;
    }

    /// The status is that of the last reload, but for what it says of files behind TLS.
    fn tell_of_material(&self) {
        let generation = self.current.borrow().generation;
        let problems = self.material.problems();
        self.status.send_modify(|status| {
            status.generation = generation;
            status
                .warnings
                .retain(|known| !status.tls_problems.contains(known));
            status.warnings.extend(problems.iter().cloned());
            status.tls_problems = problems;
        });
    }

    /// All that the file makes weir warn about. What the one before did not is logged.
    fn warn(&mut self, found: Diagnostics, config: &Config, previous: &Config) -> Vec<String> {
        let told: Vec<String> = restart_warnings(&self.started, previous).collect();
        let restart: Vec<String> = restart_warnings(&self.started, config).collect();
        let new = found.only(|warning| !self.warnings.says(warning));
        let new_restart = restart.iter().filter(|line| !told.contains(line));
        for line in new.lines().chain(new_restart.cloned()) {
            log::warn!("reload: {line}");
        }
        let warnings = found.lines().chain(restart).collect();
        self.warnings = found;
        warnings
    }

    /// Says what the file changed.
    fn report(&self, cause: Cause, summary: &str) {
        let generation = self.current.borrow().generation;
        let was_refused = self.status.borrow().refusal.is_some();
        match (summary, cause) {
            ("", _) if was_refused => {
                log::info!("reload: the file is again as generation {generation} serves it");
            }
            // A file that was written again as it was is no news, unless someone asked.
            ("", Cause::File) => log::debug!("reload: nothing changed"),
            ("", Cause::Signal | Cause::Request) => log::info!("reload: nothing changed"),
            _ => log::info!("reload: generation {generation}: {summary}"),
        }
    }

    fn succeed(&self, summary: String, warnings: Vec<String>, report: Report) -> Reloaded {
        let generation = self.current.borrow().generation;
        self.status.send_replace(ReloadStatus {
            generation,
            success_wall_millis: clock::wall_millis(),
            refusal: None,
            warnings: warnings.clone(),
            summary: summary.clone(),
            report: report.clone(),
            secret_ephemeral: self.source.warning().is_some(),
            tls_problems: self.material.problems(),
        });
        Reloaded {
            generation,
            summary,
            warnings,
            report,
        }
    }

    fn refuse(&self, problem: Problem) -> Refusal {
        let generation = self.current.borrow().generation;
        log::error!("reload: refused, generation {generation} goes on:");
        for line in &problem.lines {
            log::error!("reload:   {line}");
        }
        let refusal = Refusal {
            text: problem.text,
            wall_millis: clock::wall_millis(),
        };
        self.status
            .send_modify(|status| status.refusal = Some(refusal.clone()));
        refusal
    }
}

impl From<&Diagnostics> for Problem {
    fn from(diagnostics: &Diagnostics) -> Self {
        Problem {
            text: diagnostics.render(false),
            lines: diagnostics.only(Diagnostic::is_error).lines().collect(),
        }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        let lines = text.lines().map(str::to_owned).collect();
        Problem { text, lines }
    }
}

/// A line for each key that only a restart applies.
fn restart_warnings(started: &Config, config: &Config) -> impl Iterator<Item = String> {
    SettingsDiff::between(started, config)
        .restart_keys()
        .into_iter()
        .map(|key| format!("`{key}` changed: it takes effect at the next start"))
}

/// Whether what was sealed before cannot be opened as before. Secrets that were made because they are needed now change nothing.
fn other(before: &Option<Secrets>, now: &Option<Secrets>) -> bool {
    before.is_some() && before != now
}

/// One more thing that changed.
fn add(summary: &mut String, what: &str) {
    if !summary.is_empty() {
        summary.push_str("; ");
    }
    summary.push_str(what);
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::control::sample::{Stage, free_port};
    use crate::policy::health::Health;

    #[tokio::test]
    async fn a_new_backend_is_a_new_generation_and_the_known_one_stays_as_it_is() {
        let (web, one, two) = (free_port(), free_port(), free_port());
        let mut stage = Stage::new(&[web], &[one], "").await;
        let before = stage.reloader.current.borrow().clone();
        before.pools[0].backends[0]
            .live
            .set_health(Health::Up, crate::clock::now());

        stage.write(&[web], &[one, two], "");
        let reloaded = stage.reload().await.expect("a good file");
        assert_eq!(reloaded.generation, 2);
        assert_eq!(reloaded.summary, format!("pool was: +127.0.0.1:{two}"));
        assert_eq!(stage.told(), [(2, vec![])]);
        let after = stage.reloader.current.borrow().clone();
        assert_eq!(after.generation, 2);
        let (old, new) = (&before.pools[0], &after.pools[0]);
        assert!(Arc::ptr_eq(&old.epoch, &new.epoch));
        assert!(Arc::ptr_eq(&old.backends[0].live, &new.backends[0].live));
        assert!(Arc::ptr_eq(
            &before.listeners[0].connections,
            &after.listeners[0].connections
        ));
    }

    #[tokio::test]
    async fn nothing_is_observable_when_prepare_fails() {
        let (web, other, was) = (free_port(), free_port(), free_port());
        let mut stage = Stage::new(&[web], &[was], "").await;
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = taken.local_addr().expect("a bound socket").port();
        let log = stage.dir.path().join("access.log");
        let more = format!("[log]\naccess = {log:?}\n");

        stage.write(&[web, other, port], &[was, free_port()], &more);
        let refusal = stage.reload().await.expect_err("a port in use");
        let words = format!("listener web cannot bind 127.0.0.1:{port}: ");
        assert!(refusal.text.starts_with(&words), "{}", refusal.text);
        assert!(refusal.text.contains("another process listens there"));
        assert_eq!(stage.told(), []);
        assert_eq!(stage.reloader.current.borrow().generation, 1);
        assert!(!log.exists());
        assert!(
            TcpListener::bind(("127.0.0.1", other)).is_ok(),
            "closed again"
        );
        let status = stage.reloader.status.borrow().clone();
        assert_eq!((status.generation, status.successful()), (1, false));
        assert_eq!(status.refusal, Some(refusal));

        drop(taken);
        let reloaded = stage.reload().await.expect("the port is free now");
        assert_eq!(reloaded.generation, 2);
        assert_eq!(stage.told(), [(2, vec![other, port])]);
        assert!(stage.reloader.status.borrow().successful());
        assert!(log.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_refused_is_told_and_the_old_one_again_is_fine() {
        let (web, was) = (free_port(), free_port());
        let mut stage = Stage::new(&[web], &[was], "").await;
        for text in ["", "[listeners.web", "unheard_of = 1\n"] {
            std::fs::write(&stage.reloader.path, text).expect("a writable file");
            let refusal = stage.reload().await.expect_err("no good file");
            assert!(refusal.text.contains("error["), "{}", refusal.text);
        }
        stage.write(&[web], &[was], "# the same\n");
        let reloaded = stage.reload().await.expect("a good file");
        assert_eq!((reloaded.generation, &*reloaded.summary), (1, ""));
        assert!(stage.reloader.status.borrow().successful());
        assert_eq!(stage.told(), []);
    }

    #[tokio::test]
    async fn what_needs_a_restart_is_told_each_time_and_the_rest_is_applied() {
        let (web, was) = (free_port(), free_port());
        let mut stage = Stage::new(&[web], &[was], "").await;
        for (backends, generation) in [(vec![was], 2), (vec![was, free_port()], 3)] {
            stage.write(&[web], &backends, "workers = 9\n");
            let reloaded = stage.reload().await.expect("a good file");
            assert_eq!(reloaded.generation, generation);
            let warning = reloaded.warnings.last().map(String::as_str);
            let expected = "`workers` changed: it takes effect at the next start";
            assert_eq!(warning, Some(expected));
        }
    }

    #[tokio::test]
    async fn a_listener_may_widen_to_every_address_while_it_serves() {
        let (web, was) = (free_port(), free_port());
        let mut stage = Stage::new(&[web], &[was], "").await;
        let text = stage
            .text(&[web], &[was], "")
            .replace("127.0.0.1:", "0.0.0.0:");
        let text = text.replacen("backends = [\"0.0.0.0", "backends = [\"127.0.0.1", 1);
        std::fs::write(&stage.reloader.path, text).expect("a writable file");
        let reloaded = stage.reload().await.expect("its own port");
        assert_eq!(reloaded.generation, 2);
        assert_eq!(stage.told(), [(2, vec![web])]);
    }

    #[tokio::test]
    async fn other_secrets_are_a_new_generation() {
        let (web, was) = (free_port(), free_port());
        let mut stage = Stage::new(&[web], &[was], "").await;
        let file = stage.dir.path().join("secrets");
        let more = format!("secrets_file = {file:?}\n");
        stage.write(&[web], &[was], &more);
        let refusal = stage.reload().await.expect_err("no such file");
        assert!(refusal.text.contains("cannot be read"), "{}", refusal.text);
        for (generation, ends) in [(2, "secrets_file"), (3, "secrets")] {
            let text = Secrets::new_file(crate::rng::fill_secure);
            std::fs::write(&file, text).expect("a writable directory");
            let reloaded = stage.reload().await.expect("a good file");
            assert_eq!(reloaded.generation, generation);
            assert!(reloaded.summary.ends_with(ends), "{}", reloaded.summary);
        }
    }
}
