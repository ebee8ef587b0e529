//! The table: fleets that keep their sessions in different ways, and what each loses and costs when a server is killed, one is
//! drained and one is added, measured with real servers behind weir.
//! It must report what it saw and judge nothing. Read `course.rs` for the order of events, `fleet.rs` for the fleets.

mod clients;
mod cluster;
mod course;
mod fleet;
mod meter;
mod row;
mod store;

use std::path::Path;

#[allow(unused_imports)] // The tests judge by it.
pub use clients::IN_FLIGHT;
pub use course::Scale;
pub use fleet::Keeping;
pub use row::{Row, print};

/// A fleet of the table.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What the table calls it.
    pub name: &'static str,
    /// How it keeps its sessions.
    pub keeping: Keeping,
    /// How many servers it has at first.
    pub servers: usize,
}

const fn plan(name: &'static str, keeping: Keeping, servers: usize) -> Plan {
    Plan {
        name,
        keeping,
        servers,
    }
}

/// Every fleet, in the order of the table.
pub const PLANS: [Plan; 11] = [
    plan("local-3", Keeping::Local, 3),
    plan("delta-3", Keeping::Delta, 3),
    plan("delta-listed-3", Keeping::DeltaListed, 3),
    plan("delta-5", Keeping::Delta, 5),
    plan("delta-8", Keeping::Delta, 8),
    plan("backup-3", Keeping::Backup, 3),
    plan("backup-5", Keeping::Backup, 5),
    plan("redis-3", Keeping::Redis, 3),
    plan("redis-replica-3", Keeping::RedisReplica, 3),
    plan("memcached-3", Keeping::Memcached, 3),
    plan("postgres-3", Keeping::Postgres, 3),
];

impl Plan {
    /// Runs the fleet in `directory`, which is made.
    pub fn run(&self, scale: Scale, directory: &Path) -> Row {
        course::run(self, scale, &directory.join(self.name))
    }
}
