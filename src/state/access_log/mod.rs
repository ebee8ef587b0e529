//! The access log as the data path sees it: a record becomes bytes in the worker's own buffer, full buffers go to control's writer.
//! It must never block: a buffer that finds no place in the bounded queue is dropped and its lines are counted.
//! The walk goes on in `json.rs`, `combined.rs` and `connection.rs` (how a line looks), `mask.rs` (what it must not show), then in control's access-log writer.

mod combined;
mod connection;
mod date;
mod json;
mod mask;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

pub use self::connection::Connection;
use self::date::DateCache;
use crate::config::model::{AccessFormat, AccessTarget, Log};

/// A buffer this full is sent to the writer.
const BUFFER: usize = 32 * 1024;
/// Buffers that may wait for the writer, over all workers.
const QUEUE: usize = 64;
/// Empty buffers that wait for one worker.
const SPARE: usize = 8;
/// Bytes that a line shows of one field; the rest is cut.
const FIELD_MAX: usize = 4096;

/// One finished request, or one that weir answered itself.
#[derive(Debug)]
pub struct Record<'a> {
    /// Wall time of the request's first byte, in milliseconds since the epoch.
    pub wall_millis: u64,
    /// Unique within the fleet, for all practical purposes.
    pub id: u64,
    /// The id that backend and client were shown; empty: none.
    pub request_id: &'a [u8],
    /// Listener name.
    pub listener: &'a str,
    /// The connection's other end.
    pub remote: SocketAddr,
    /// The client's address, past trusted proxies.
    pub client: IpAddr,
    /// Who it is, where that was asked; empty: nobody.
    pub user: &'a str,
    /// As received; empty when there was no request line.
    pub method: &'a [u8],
    /// Authority as received.
    pub host: &'a [u8],
    /// Path and query as received; session ids in it are masked on the way out.
    pub path: &'a [u8],
    /// `HTTP/1.1` and the like.
    pub version: &'a str,
    /// Status sent to the client; 499 when it went away first.
    pub status: u16,
    /// Bytes read from the client for this request.
    pub bytes_in: u64,
    /// Bytes written to the client for this request.
    pub bytes_out: u64,
    /// Route name; empty: none matched.
    pub route: &'a str,
    /// Pool name; empty: none.
    pub pool: &'a str,
    /// Backend name; empty: none was reached.
    pub backend: &'a str,
    /// Backends tried, 0 when none was.
    pub tries: u8,
    /// Whether the upstream connection came from the pool.
    pub reused: bool,
    /// What persistence did; empty on a route that is not sticky.
    pub sticky: &'static str,
    /// The backend that was the client's home when it came; empty where it had none.
    pub home: &'a str,
    /// First byte to the last.
    pub duration: Duration,
    /// weir's own time.
    pub overhead: Duration,
    /// How long the request was held for its client's home; zero: it was not.
    pub held: Duration,
    /// How long it waited in its pool's queue; zero: it did not.
    pub queued: Duration,
    /// What went wrong, in a few words; empty: nothing.
    pub error: &'a str,
    /// `Referer` and `User-Agent`, for the combined format.
    pub referer: &'a [u8],
    /// See above.
    pub user_agent: &'a [u8],
}

/// Where full buffers wait for the writer. One exists per process; every worker has an end of it.
#[derive(Clone, Debug)]
pub struct Queue {
    full: SyncSender<Batch>,
    dropped: Arc<AtomicU64>,
}

/// Lines on their way to the writer.
#[derive(Debug)]
pub struct Batch {
    /// Whole lines; empty: the batch only wakes the writer.
    pub bytes: Vec<u8>,
    /// How many.
    pub lines: u64,
    home: Option<SyncSender<Vec<u8>>>,
}

/// A worker's end of the access log.
#[derive(Debug)]
pub struct AccessLog {
    format: Cell<Option<AccessFormat>>,
    buffer: RefCell<Buffer>,
    queue: Queue,
    spare: Receiver<Vec<u8>>,
    home: SyncSender<Vec<u8>>,
}

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    date: DateCache,
}

impl Queue {
    /// A queue, and the end that the writer reads.
    pub fn new() -> (Queue, Receiver<Batch>) {
        let (full, batches) = sync_channel(QUEUE);
        let queue = Queue {
            full,
            dropped: Arc::default(),
        };
        (queue, batches)
    }

    /// A new worker's end; it is off until it is configured.
    pub fn worker_end(&self) -> AccessLog {
        let (home, spare) = sync_channel(SPARE);
        AccessLog {
            format: Cell::new(None),
            buffer: RefCell::new(Buffer {
                bytes: Vec::new(),
                lines: 0,
                date: DateCache::default(),
            }),
            queue: self.clone(),
            spare,
            home,
        }
    }

    /// Queues a batch.
    ///
    /// # Errors
    /// The batch, when the queue is full or the writer is gone.
    pub fn send(&self, batch: Batch) -> Result<(), Batch> {
        self.full.try_send(batch).map_err(|refused| match refused {
            TrySendError::Full(batch) | TrySendError::Disconnected(batch) => batch,
        })
    }

    /// Makes the writer look at its orders. A full queue needs no such push.
    pub fn wake(&self) {
        let _ = self.send(Batch::new(Vec::new(), 0));
    }

    /// Lines that were never written, for want of room in the queue or of a place to write them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Counts lines that are never written.
    pub fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
    }
}

impl Batch {
    /// Lines that no worker wants back.
    pub fn new(bytes: Vec<u8>, lines: u64) -> Self {
        Batch {
            bytes,
            lines,
            home: None,
        }
    }

    /// Gives the written buffer back to its worker, or to the allocator when a few monstrous lines made it grow.
    pub fn recycle(self) {
        let Some(home) = self.home else { return };
        let mut bytes = self.bytes;
        if bytes.capacity() <= 2 * BUFFER {
            bytes.clear();
            let _ = home.try_send(bytes);
        }
    }
}

impl AccessLog {
    /// Takes over the format, or stops writing lines, as the generation says.
    pub fn configure(&self, log: &Log) {
        let format = (log.access != AccessTarget::Off).then_some(log.access_format);
        if format != self.format.replace(format) {
            self.flush();
        }
    }

    /// Whether anyone wants records; when not, the caller saves itself the work.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.format.get().is_some()
    }

    /// Whether records need `Referer` and `User-Agent`, which cost the caller a second look at the head.
    pub fn wants_client_fields(&self) -> bool {
        self.format.get() == Some(AccessFormat::Combined)
    }

    /// Formats the record into the worker's buffer, and sends the buffer off when it is full.
    pub fn write(&self, record: &Record<'_>) {
        self.line(|format, date, out| match format {
            AccessFormat::Json => json::line(record, date, out),
            AccessFormat::Combined => combined::line(record, date, out),
        });
    }

    /// The same, of a connection that was relayed.
    pub fn write_connection(&self, record: &Connection<'_>) {
        self.line(|format, date, out| match format {
            AccessFormat::Json => connection::json(record, date, out),
            AccessFormat::Combined => connection::combined(record, date, out),
        });
    }

    fn line(&self, write: impl FnOnce(AccessFormat, &mut DateCache, &mut Vec<u8>)) {
        let Some(format) = self.format.get() else {
            return;
        };
        let buffer = &mut *self.buffer.borrow_mut();
        if buffer.bytes.capacity() == 0 {
            buffer.bytes = self.empty();
        }
        write(format, &mut buffer.date, &mut buffer.bytes);
        buffer.lines += 1;
        if buffer.bytes.len() >= BUFFER {
            self.send(buffer);
        }
    }

    /// Sends off what is buffered; a worker calls it a few times a second.
    pub fn flush(&self) {
        let buffer = &mut *self.buffer.borrow_mut();
        if buffer.lines > 0 {
            self.send(buffer);
        }
    }

    fn send(&self, buffer: &mut Buffer) {
        let batch = Batch {
            bytes: std::mem::take(&mut buffer.bytes),
            lines: std::mem::take(&mut buffer.lines),
            home: Some(self.home.clone()),
        };
        if let Err(batch) = self.queue.send(batch) {
            self.queue.count_dropped(batch.lines);
            buffer.bytes = batch.bytes;
            buffer.bytes.clear();
        }
    }

    /// A buffer that the writer has given back, or a new one with room for the line that overfills it.
    fn empty(&self) -> Vec<u8> {
        self.spare
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(BUFFER + BUFFER / 4))
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The part of a field that a line shows.
fn cut(field: &[u8]) -> &[u8] {
    &field[..field.len().min(FIELD_MAX)]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::model::Level;

    pub(super) fn record() -> Record<'static> {
        Record {
            wall_millis: 1_795_219_199_042,
            id: 0xdead_beef,
            request_id: b"",
            listener: "web",
            user: "",
            remote: SocketAddr::from(([198, 51, 100, 1], 40_000)),
            client: IpAddr::from([192, 0, 2, 7]),
            method: b"GET",
            host: b"shop.example.com",
            path: b"/cart;jsessionid=A1B2.was1?q=1",
            version: "HTTP/1.1",
            status: 200,
            bytes_in: 120,
            bytes_out: 4096,
            route: "cart",
            pool: "was",
            backend: "was1",
            tries: 1,
            reused: true,
            sticky: "kept",
            home: "was1",
            duration: Duration::from_micros(1500),
            overhead: Duration::from_micros(20),
            held: Duration::ZERO,
            queued: Duration::ZERO,
            error: "",
            referer: b"https://shop.example.com/?sid=77",
            user_agent: b"Mozilla/5.0 (X11)",
        }
    }

    fn log(access: AccessTarget, access_format: AccessFormat) -> Log {
        Log {
            level: Level::Info,
            access,
            access_format,
        }
    }

    fn file() -> AccessTarget {
        AccessTarget::File(PathBuf::from("access.log"))
    }

    #[test]
    fn lines_arrive_in_order_and_buffers_come_home() {
        let (queue, batches) = Queue::new();
        let log_end = queue.worker_end();
        log_end.write(&record());
        assert!(!log_end.is_on(), "off until configured");
        log_end.configure(&log(file(), AccessFormat::Json));
        for _ in 0..3 {
            log_end.write(&record());
        }
        log_end.flush();
        let batch = batches.try_recv().unwrap();
        assert_eq!(batch.lines, 3);
        assert_eq!(batch.bytes.iter().filter(|&&byte| byte == b'\n').count(), 3);
        let address = batch.bytes.as_ptr();
        batch.recycle();
        log_end.write(&record());
        log_end.flush();
        assert_eq!(batches.try_recv().unwrap().bytes.as_ptr(), address);
        log_end.flush();
        assert!(batches.try_recv().is_err(), "nothing to flush");
    }

    #[test]
    fn a_change_of_format_flushes_the_old_lines_first() {
        let (queue, batches) = Queue::new();
        let log_end = queue.worker_end();
        log_end.configure(&log(file(), AccessFormat::Json));
        log_end.write(&record());
        log_end.configure(&log(file(), AccessFormat::Combined));
        log_end.write(&record());
        log_end.configure(&log(AccessTarget::Off, AccessFormat::Combined));
        log_end.write(&record());
        drop(log_end);
        let first: Vec<_> = batches.try_iter().map(|batch| batch.bytes[0]).collect();
        assert_eq!(first, [b'{', b'1']);
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_never_time() {
        let (queue, batches) = Queue::new();
        let log_end = queue.worker_end();
        log_end.configure(&log(file(), AccessFormat::Json));
        let mut written = 0;
        while queue.dropped() == 0 {
            log_end.write(&record());
            written += 1;
        }
        log_end.flush();
        let waiting: u64 = batches.try_iter().map(|batch| batch.lines).sum();
        assert_eq!(waiting + queue.dropped(), written);
        assert!(waiting as usize * 300 > QUEUE * BUFFER / 2);
    }
}
