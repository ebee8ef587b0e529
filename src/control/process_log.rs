//! The process log: one line per event on standard error, `2026-11-20T23:50:00.123Z INFO  reload: generation 3: …`.
//! A worker that logs must not wait for whoever reads standard error: lines go through a bounded queue to a thread of their own.
//! Nothing follows from here; whoever logs uses the macros of the `log` crate.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};

use crate::clock;
use crate::config::model::Level;

/// Lines that may wait to be written; later ones are dropped and counted.
const QUEUE: usize = 4096;
/// How long the end of the process waits for the queue to empty.
const FLUSH: Duration = Duration::from_secs(1);

static LOG: OnceLock<ProcessLog> = OnceLock::new();

struct ProcessLog {
    lines: SyncSender<Entry>,
    dropped: AtomicUsize,
}

enum Entry {
    Line(String),
    Flush(SyncSender<()>),
}

/// Starts the log, once in the life of a process.
///
/// # Errors
/// When the system refuses a thread.
pub fn start(level: Level) -> std::io::Result<()> {
    let (lines, queue) = sync_channel(QUEUE);
    std::thread::Builder::new()
        .name("weir-log".into())
        .spawn(move || write_lines(&queue))?;
    let dropped = AtomicUsize::new(0);
    let process_log = LOG.get_or_init(|| ProcessLog { lines, dropped });
    // It fails only when a program that embeds the library brought a logger of its own, which then gets the lines.
    let _ = log::set_logger(process_log);
    set_level(level);
    Ok(())
}

/// Sets the least important line that is written.
pub fn set_level(level: Level) {
    log::set_max_level(match level {
        Level::Error => LevelFilter::Error,
        Level::Warn => LevelFilter::Warn,
        Level::Info => LevelFilter::Info,
        Level::Debug => LevelFilter::Debug,
    });
}

/// Waits a moment until what was logged is written.
pub fn flush() {
    log::logger().flush();
}

impl Log for ProcessLog {
    /// Libraries are heard when something is wrong; their debugging is not weir's.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn || metadata.target().starts_with("weir")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format_line(clock::wall_millis(), record);
        if self.lines.try_send(Entry::Line(line)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    fn flush(&self) {
        let (written, wait) = sync_channel(1);
        if self.lines.try_send(Entry::Flush(written)).is_ok() {
            let _ = wait.recv_timeout(FLUSH);
        }
    }
}

fn write_lines(queue: &Receiver<Entry>) {
    for entry in queue {
        match entry {
            Entry::Line(line) => write(&line),
            Entry::Flush(written) => {
                let _ = written.try_send(());
            }
        }
        let dropped = LOG.get().map_or(0, |log| log.dropped.swap(0, Relaxed));
        if dropped > 0 {
            let now = clock::Rfc3339(clock::wall_millis());
            write(&format!(
                "{now} WARN  log: {dropped} lines were dropped, standard error is slow\n"
            ));
        }
    }
}

/// Nobody can be told when standard error itself is gone.
fn write(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// One line whatever the message holds: what comes from outside must not be able to forge another.
fn format_line(wall_millis: u64, record: &Record<'_>) -> String {
    let (now, level) = (clock::Rfc3339(wall_millis), record.level());
    let mut line = format!("{now} {level:<5} ");
    for character in record.args().to_string().chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_time_and_level() {
        let line = format_line(
            1_795_218_600_123,
            &Record::builder()
                .level(log::Level::Info)
                .args(format_args!("reload: a\nb\x1b"))
                .build(),
        );
        let expected = "2026-11-20T23:50:00.123Z INFO  reload: a\\nb\\u{1b}\n";
        assert_eq!(line, expected);
    }
}
