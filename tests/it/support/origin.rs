//! Scripted origin servers: one thread a connection, which runs the script it was given with the raw socket in hand.
//! They never do HTTP on their own; the script reads and writes bytes.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{Fault, Kind, Message, Reader};
use super::{process, until};

/// A listening server.
pub struct Origin {
    pub address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
    accepting: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Message>>,
    sockets: Mutex<HashMap<usize, TcpStream>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    stopped: AtomicBool,
}

/// One connection as the script sees it.
pub struct Visit {
    pub reader: Reader,
    /// Ordinal of the connection, from 0.
    pub number: usize,
    resets: bool,
    shared: Arc<Shared>,
}

impl Origin {
    /// Runs `script` for every connection; the connection closes when it returns.
    pub fn start(script: impl Fn(&mut Visit) + Send + Sync + 'static) -> Origin {
        let listener = until("an address for the origin", || {
            TcpListener::bind(process::free_address()).ok()
        });
        Origin::listening(listener, script)
    }

    /// The same at a given address, which may have been used before.
    pub fn at(address: SocketAddr, script: impl Fn(&mut Visit) + Send + Sync + 'static) -> Origin {
        let listener = until("the origin's address", || TcpListener::bind(address).ok());
        Origin::listening(listener, script)
    }

    fn listening(
        listener: TcpListener,
        script: impl Fn(&mut Visit) + Send + Sync + 'static,
    ) -> Origin {
        let address = listener.local_addr().unwrap();
        let clone = listener.try_clone().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = {
            let shared = Arc::clone(&shared);
            let script = Arc::new(script);
            thread::spawn(move || accept(&listener, &shared, &script))
        };
        Origin {
            address,
            listener: clone,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Answers every request with these bytes and keeps the connection.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Origin {
        let answer = answer.into();
        Origin::start(move |visit| {
            while visit.request().is_ok() {
                visit.send(&answer);
            }
        })
    }

    /// Answers every request with 200 and its name as the body.
    pub fn named(name: &str) -> Origin {
        Origin::answering(ok(name))
    }

    /// Answers the first request of every connection with these bytes and closes.
    pub fn answering_once(answer: impl Into<Vec<u8>>) -> Origin {
        let answer = answer.into();
        Origin::start(move |visit| {
            if visit.request().is_ok() {
                visit.send(&answer);
            }
        })
    }

    /// Answers every request with 200 and the request's own head and body as the body.
    pub fn echo() -> Origin {
        Origin::start(|visit| {
            while let Ok(request) = visit.request() {
                visit.send(ok([request.head, request.body].concat()));
            }
        })
    }

    /// Every request that was read whole, in the order of arrival.
    pub fn requests(&self) -> Vec<Message> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn hits(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// The only request that came.
    #[track_caller]
    pub fn request(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the origin");
        requests.remove(0)
    }

    /// Connections that were ever accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections whose script still runs.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    /// Stops listening and cuts every connection.
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        process::stop_listening(&self.listener);
        for socket in self.shared.sockets.lock().unwrap().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept<F: Fn(&mut Visit) + Send + Sync + 'static>(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    script: &Arc<F>,
) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        stream
            .set_write_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        shared.open.fetch_add(1, Ordering::SeqCst);
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let clone = stream.try_clone().unwrap();
        shared.sockets.lock().unwrap().insert(number, clone);
        let visit = Visit {
            reader: Reader::new(stream, Duration::from_secs(60)),
            number,
            resets: false,
            shared: Arc::clone(shared),
        };
        let script = Arc::clone(script);
        thread::spawn(move || serve(visit, &*script));
    }
}

fn serve(mut visit: Visit, script: impl Fn(&mut Visit)) {
    script(&mut visit);
    visit.shared.sockets.lock().unwrap().remove(&visit.number);
    if !visit.resets {
        let _ = visit.reader.stream.shutdown(Shutdown::Both);
    }
    let shared = Arc::clone(&visit.shared);
    drop(visit);
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

impl Visit {
    /// Reads a whole request and records it.
    pub fn request(&mut self) -> Result<Message, Fault> {
        let message = self.reader.message(Kind::Request)?;
        self.record(message.clone());
        Ok(message)
    }

    /// Reads a head only, and records it.
    pub fn head(&mut self) -> Result<Message, Fault> {
        let message = Message {
            head: self.reader.head()?,
            ..Message::default()
        };
        self.record(message.clone());
        Ok(message)
    }

    /// Reads the body of a head that was read before.
    pub fn body(&mut self, message: &mut Message) -> Result<(), Fault> {
        self.reader.body(Kind::Request, message)
    }

    fn record(&self, message: Message) {
        self.shared.requests.lock().unwrap().push(message);
    }

    /// Records that the script came so far, as an empty request.
    pub fn record_end(&self) {
        self.record(Message::default());
    }

    /// Sends; whether the other side was still there.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends byte after byte, each in a segment of its own.
    pub fn drip(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        bytes.as_ref().iter().all(|byte| {
            thread::yield_now();
            self.send([*byte])
        })
    }

    /// Waits until the other side ends the connection; how it did.
    pub fn stall(&mut self) -> Fault {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Err(fault) = self.reader.fill(end) {
                return fault;
            }
        }
    }

    /// Reads nothing more until the origin stops.
    pub fn hold(&self) {
        while !self.shared.stopped.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the connection with a reset when the script returns.
    pub fn reset(&mut self) {
        process::reset_on_close(&self.reader.stream);
        self.resets = true;
    }
}

/// A 200 with this body.
pub fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An address on which nothing listens.
pub fn nobody() -> SocketAddr {
    process::free_address()
}
