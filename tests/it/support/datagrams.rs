//! Servers and clients of datagrams.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::DEADLINE;

/// A server that answers every datagram; its socket closes with it.
pub struct Answerer {
    pub address: SocketAddr,
    heard: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answerer {
    /// Answers each with what `answers` makes of its bytes and its sender.
    pub fn start(answers: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static) -> Answerer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (heard, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, over) = (heard.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            let mut memory = vec![0; 70_000];
            loop {
                let (length, from) = socket.recv_from(&mut memory).unwrap();
                if over.load(Ordering::SeqCst) {
                    return;
                }
                counted.fetch_add(1, Ordering::SeqCst);
                for answer in answers(&memory[..length], from) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Answerer {
            address,
            heard,
            stopped,
            thread: Some(thread),
        }
    }

    /// Sends everything back.
    pub fn echo() -> Answerer {
        Answerer::start(|bytes, _| vec![bytes.to_vec()])
    }

    /// Says its name and the port that it was asked from, which tells flows apart.
    pub fn named(name: &'static str) -> Answerer {
        Answerer::start(move |_, from| vec![format!("{name} {}", from.port()).into_bytes()])
    }

    /// Datagrams that came.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = UdpSocket::bind("127.0.0.1:0").map(|socket| socket.send_to(b"", self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client that takes answers from the asked address alone.
pub struct Caller(pub UdpSocket);

impl Caller {
    #[track_caller]
    pub fn new(to: SocketAddr) -> Caller {
        Caller::from_address([127, 0, 0, 1], to)
    }

    #[track_caller]
    pub fn from_address(address: impl Into<IpAddr>, to: SocketAddr) -> Caller {
        let socket = UdpSocket::bind((address.into(), 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Caller(socket)
    }

    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes.as_ref()).unwrap();
    }

    #[track_caller]
    pub fn answer(&self) -> Vec<u8> {
        let mut memory = vec![0; 70_000];
        let length = self.0.recv(&mut memory).expect("an answer in time");
        memory.truncate(length);
        memory
    }

    #[track_caller]
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(bytes);
        self.answer()
    }

    /// Asks until there is an answer: a datagram may be lost while a backend goes. The answer, and how many it took.
    #[track_caller]
    pub fn insist(&self, bytes: impl AsRef<[u8]>) -> (Vec<u8>, usize) {
        self.0
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut memory = vec![0; 70_000];
        for tries in 1..100 {
            self.send(bytes.as_ref());
            if let Ok(length) = self.0.recv(&mut memory) {
                self.0.set_read_timeout(Some(DEADLINE)).unwrap();
                return (memory[..length].to_vec(), tries);
            }
        }
        panic!("no answer to a hundred datagrams");
    }

    /// Which backend answers, and on which flow.
    #[track_caller]
    pub fn flow(&self) -> (String, u16) {
        parted(&self.ask("who"))
    }
}

/// The name and the port that [`Answerer::named`] says.
#[track_caller]
pub fn parted(answer: &[u8]) -> (String, u16) {
    let text = std::str::from_utf8(answer).unwrap();
    let (name, port) = text.split_once(' ').unwrap();
    (name.to_owned(), port.parse().unwrap())
}
