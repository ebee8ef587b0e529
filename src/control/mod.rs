//! The control plane: it reads the file, publishes generations, probes backends, and answers for all of it on the admin address.
//! It never carries a client's byte; a lock may be taken here and nowhere below.
//! Read `run.rs` (the whole life of the process), then `reload.rs` and `apply.rs` (one generation after another).

pub mod access_log_writer;
pub mod admin;
pub mod apply;
pub mod because;
pub mod bind_failure;
pub mod certificates;
pub mod collector;
pub mod discovery;
pub mod drain;
pub mod drains;
pub mod effective;
pub mod filter_files;
pub mod outbound;
pub mod overrides;
pub mod passive;
pub mod passwords;
pub mod probes;
pub mod process_log;
pub mod reload;
pub mod run;
pub mod scale;
pub mod secrets;
pub mod sessions;
pub mod shared;
pub mod signals;
pub mod slow_start;
pub mod sockets;
pub mod state_dir;
pub mod store;
pub mod supervisor;
pub mod systemd;
pub mod task;
pub mod upgrade;
pub mod watch;

#[cfg(test)]
mod sample;
