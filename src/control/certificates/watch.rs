//! Notices that a file behind TLS changed: by a look each second, which is soon enough for something that is renewed every few weeks.
//! It never reads a file. A certificate and its key are two files, so it waits until both have stayed the same for a look.
//! The walk goes on in `run.rs`, which then calls `reload.rs`.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::files::Material;
use crate::config::model::Watch;
use crate::control::watch::Identity;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Watches the files that were read.
#[derive(Debug)]
pub struct CertificateWatch {
    mode: Watch,
    read: Vec<(PathBuf, Identity)>,
    /// What was seen at the last look, when it was something else.
    seen: Option<Vec<Identity>>,
    next: Instant,
}

impl CertificateWatch {
    /// Begins to watch what was read; needs a runtime.
    pub fn new(material: &Material, mode: Watch) -> Self {
        CertificateWatch {
            mode,
            read: material.identities().to_vec(),
            seen: None,
            next: Instant::now() + LOOK,
        }
    }

    /// Waits until the files should be read again. Safe to cancel.
    pub async fn changed(&mut self) {
        if self.mode == Watch::Off || self.read.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep_until(self.next).await;
            self.next = Instant::now() + LOOK;
            let now: Vec<Identity> = self
                .read
                .iter()
                .map(|(file, _)| Identity::of(file))
                .collect();
            let is_new = self.read.iter().map(|(_, read)| read).ne(&now);
            let is_settled = self.seen.replace(now.clone()) == Some(now);
            if is_new && is_settled {
                return;
            }
        }
    }
}
