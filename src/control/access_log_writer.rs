//! The thread that writes access-log lines to standard output or a file, so that no worker ever waits for a disk.
//! It must survive a full disk and a closed pipe: lines that cannot be written are counted, and said so once a minute.
//! Nothing follows from here; the lines come from `state/access_log`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::model::AccessTarget;
use crate::state::access_log::{Batch, Queue};

/// Between two complaints about the same trouble.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// A place for lines, open and ready; made before a generation is published, since opening may fail.
#[derive(Debug)]
pub struct Place(Output);

#[derive(Debug)]
enum Output {
    Nowhere,
    Stdout,
    File(PathBuf, File),
}

/// The running writer.
#[derive(Debug)]
pub struct Writer {
    orders: Sender<Order>,
    queue: Queue,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

enum Order {
    Switch(Place),
    Reopen,
    Stop,
}

impl Place {
    /// Opens the target for appending; a file that does not exist is made.
    ///
    /// # Errors
    /// The system's, when the file cannot be opened.
    pub fn open(target: &AccessTarget) -> io::Result<Place> {
        Ok(Place(match target {
            AccessTarget::Off => Output::Nowhere,
            AccessTarget::Stdout => Output::Stdout,
            AccessTarget::File(path) => Output::File(path.clone(), append(path)?),
        }))
    }
}

impl Writer {
    /// Starts the thread. `batches` is the other end of `queue`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(queue: Queue, batches: Receiver<Batch>, place: Place) -> io::Result<Writer> {
        let (orders, received) = channel();
        let (end, ended) = channel();
        let mut desk = Desk {
            place,
            queue: queue.clone(),
            torn: false,
            complained: None,
            lost: 0,
        };
        std::thread::Builder::new()
            .name("weir-access-log".into())
            .spawn(move || {
                // Dropped when the thread ends, which is what `stop` waits for.
                let _end: Sender<()> = end;
                desk.run(&batches, &received);
            })?;
        Ok(Writer {
            orders,
            queue,
            ended,
        })
    }

    /// Writes to another place from now on.
    pub fn switch(&self, place: Place) {
        self.order(Order::Switch(place));
    }

    /// Opens the file anew by its name, as a rotation by renaming wants. If that fails the old file goes on.
    pub fn reopen(&self) {
        self.order(Order::Reopen);
    }

    /// Writes what is queued and ends, giving up after `patience`, since a pipe that nobody reads would hold the process.
    pub fn stop(self, patience: Duration) {
        self.order(Order::Stop);
        let _ = self.ended.recv_timeout(patience);
    }

    fn order(&self, order: Order) {
        // The thread ends by order only.
        let _ = self.orders.send(order);
        self.queue.wake();
    }
}

/// What the thread works with.
struct Desk {
    place: Place,
    queue: Queue,
    /// Whether the last write may have ended within a line.
    torn: bool,
    complained: Option<Instant>,
    /// Lines lost since the last complaint.
    lost: u64,
}

impl Desk {
    /// Orders come before the batch that was sent after them.
    fn run(&mut self, batches: &Receiver<Batch>, orders: &Receiver<Order>) {
        for batch in batches {
            let mut stop = false;
            for order in orders.try_iter() {
                match order {
                    Order::Switch(place) => (self.place, self.torn) = (place, false),
                    Order::Reopen => self.reopen(),
                    Order::Stop => stop = true,
                }
            }
            self.write(batch);
            if stop {
                return batches.try_iter().for_each(|batch| self.write(batch));
            }
        }
    }

    fn write(&mut self, batch: Batch) {
        let first: &[u8] = if self.torn { b"\n" } else { b"" };
        let written = [first, &batch.bytes]
            .into_iter()
            .try_for_each(|bytes| self.place.write(bytes));
        self.torn = written.is_err();
        if let Err(error) = written {
            self.queue.count_dropped(batch.lines);
            self.lost += batch.lines;
            self.complain(&error);
        }
        batch.recycle();
    }

    fn complain(&mut self, error: &io::Error) {
        let now = clock::now();
        if self
            .complained
            .is_some_and(|last| now - last < COMPLAIN_EVERY)
        {
            return;
        }
        self.complained = Some(now);
        let (place, lost) = (self.place.name(), std::mem::take(&mut self.lost));
        log::warn!("access log: cannot write to {place}: {error}; {lost} lines are lost");
    }

    fn reopen(&mut self) {
        let Output::File(path, file) = &mut self.place.0 else {
            return;
        };
        match append(path) {
            Ok(new) => (*file, self.torn) = (new, false),
            Err(error) => {
                let path = path.display();
                log::warn!("access log: cannot reopen {path}: {error}; the old file goes on");
            }
        }
    }
}

impl Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Output::Nowhere => Ok(()),
            Output::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Output::File(_, file) => file.write_all(bytes),
        }
    }

    fn name(&self) -> String {
        match &self.0 {
            Output::Nowhere => "nowhere".into(),
            Output::Stdout => "standard output".into(),
            Output::File(path, _) => path.display().to_string(),
        }
    }
}

/// Opens a log for appending. Lines tell who asked for what, which is not for every user of the machine.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let unique = format!("weir-{}-{name}", std::process::id());
            let directory = std::env::temp_dir().join(unique);
            std::fs::create_dir_all(&directory).unwrap();
            Scratch(directory)
        }

        fn place(&self, name: &str) -> Place {
            Place::open(&AccessTarget::File(self.0.join(name))).unwrap()
        }

        fn text(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn batch(line: &str) -> Batch {
        Batch::new(line.as_bytes().to_vec(), 1)
    }

    fn eventually(mut holds: impl FnMut() -> bool) {
        let deadline = clock::now() + Duration::from_secs(10);
        while !holds() {
            assert!(clock::now() < deadline, "it never came true");
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_go_where_the_last_order_says() {
        let scratch = Scratch::new("switch");
        let (queue, batches) = Queue::new();
        let writer = Writer::start(queue.clone(), batches, scratch.place("a")).unwrap();
        queue.send(batch("one\n")).unwrap();
        eventually(|| scratch.text("a") == "one\n");
        writer.switch(scratch.place("b"));
        queue.send(batch("two\n")).unwrap();
        eventually(|| scratch.text("b") == "two\n");
        std::fs::rename(scratch.0.join("b"), scratch.0.join("b.1")).unwrap();
        writer.reopen();
        queue.send(batch("three\n")).unwrap();
        writer.stop(Duration::from_secs(10));
        assert_eq!(scratch.text("b"), "three\n");
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_full_disk_costs_lines_only() {
        let (queue, batches) = Queue::new();
        let full = Place::open(&AccessTarget::File("/dev/full".into())).unwrap();
        let writer = Writer::start(queue.clone(), batches, full).unwrap();
        for _ in 0..5 {
            queue.send(batch("lost\n")).unwrap();
        }
        writer.stop(Duration::from_secs(10));
        assert_eq!(queue.dropped(), 5);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_before_anything_changes() {
        let nowhere = AccessTarget::File("/nonexistent/access.log".into());
        assert!(Place::open(&nowhere).is_err());
    }
}
