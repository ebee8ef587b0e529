//! What sources said last, kept in `state_dir` over a restart: a source that cannot be reached then has still said something.
//! It is only a memory: what cannot be read or written is told once and costs nothing else.
//! The walk goes on in `state_dir.rs`, which writes.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::MOST;
use super::board::{Before, Board};
use crate::config::model::{AdminState, Backend};
use crate::control::state_dir;
use crate::control::task::Task;

/// The file in `state_dir`.
const FILE: &str = "discovery.json";
/// Between two times that it is written.
const GAP: Duration = Duration::from_secs(1);
/// A larger file is none of weir's.
const MAX_FILE: u64 = 64 << 20;

/// Writes the file when there is something new. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    wake: Arc<Notify>,
    _task: Task,
}

/// The file as a document.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Document {
    pools: Vec<Entry>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Entry {
    pool: String,
    source: String,
    backends: Vec<Endpoint>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Endpoint {
    name: String,
    address: SocketAddr,
    route: String,
    weight: u16,
    state: String,
}

impl Keeper {
    pub(super) fn start(state_dir: &Path, board: Arc<Board>) -> Keeper {
        let wake = Arc::<Notify>::default();
        let path = state_dir.join(FILE);
        Keeper {
            wake: wake.clone(),
            _task: Task::spawn(keep(path, board, wake)),
        }
    }

    /// There may be something new.
    pub(super) fn keep(&self) {
        self.wake.notify_one();
    }
}

async fn keep(path: PathBuf, board: Arc<Board>, wake: Arc<Notify>) {
    let mut written = Document::default();
    let mut is_told = false;
    loop {
        wake.notified().await;
        let document = document(&board);
        if document == written {
            continue;
        }
        let to = path.clone();
        let write = move || (save(&to, &document), document);
        let Ok((saved, document)) = tokio::task::spawn_blocking(write).await else {
            return;
        };
        match saved {
            Ok(()) => (written, is_told) = (document, false),
            Err(error) if !is_told => {
                is_told = true;
                let path = path.display();
                log::warn!(
                    "discovery: {path} cannot be written ({error}): what was found is forgotten at the end"
                );
            }
            Err(_) => {}
        }
        sleep(GAP).await;
    }
}

fn save(path: &Path, document: &Document) -> io::Result<()> {
    state_dir::replace(path, &(serde_json::to_string_pretty(document)? + "\n"))
}

fn document(board: &Board) -> Document {
    let entries = board.all().into_iter().map(|source| {
        let backends = source.heard().backends.clone();
        let endpoints = backends.into_iter().map(|backend| Endpoint {
            name: backend.name,
            address: backend.address,
            route: backend.route,
            weight: backend.weight,
            state: backend.state.as_str().to_owned(),
        });
        Entry {
            pool: source.pool.clone(),
            source: source.settings.to_string(),
            backends: endpoints.collect(),
        }
    });
    let mut pools: Vec<Entry> = entries.filter(|entry| !entry.backends.is_empty()).collect();
    pools.sort_by(|a, b| a.pool.cmp(&b.pool));
    Document { pools }
}

/// What an earlier process kept; nothing when that cannot be used.
pub(super) fn load(state_dir: &Path) -> Before {
    let path = state_dir.join(FILE);
    read(&path).unwrap_or_else(|problem| {
        log::warn!("discovery: {} is ignored: {problem}", path.display());
        Before::new()
    })
}

fn read(path: &Path) -> Result<Before, String> {
    match path.metadata() {
        Ok(meta) if meta.len() > MAX_FILE => return Err("it is too large".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Before::new()),
        Err(error) => return Err(error.to_string()),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let document: Document = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let pools = document.pools.into_iter().map(|entry| {
        let backends = entry
            .backends
            .into_iter()
            .take(MOST)
            .map(|endpoint| Backend {
                name: endpoint.name,
                address: endpoint.address,
                route: endpoint.route,
                weight: endpoint.weight.clamp(1, 256),
                state: AdminState::from_word(&endpoint.state).unwrap_or(AdminState::Ready),
                discovered: true,
            });
        ((entry.pool, entry.source), backends.collect())
    });
    Ok(pools.collect())
}
