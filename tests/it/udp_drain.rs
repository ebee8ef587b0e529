//! The end of a udp listener: nobody closes a flow, so that clients and backends may go on for as long as they like.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::datagrams::{Answerer, Caller};
use crate::support::{Weir, until, within};

/// More than the second that a listener takes to close, on a busy machine, and much less than `drain_timeout`.
const SOON: Duration = Duration::from_secs(8);

fn config(backend: SocketAddr) -> String {
    "workers = 2\nwatch = \"off\"\n".to_owned() + &listener("dns") + &route(backend)
}

fn listener(name: &str) -> String {
    format!("[listeners.{name}]\nbind = [\"${name}\"]\nprotocol = \"udp\"\n")
}

fn route(backend: SocketAddr) -> String {
    format!("[[routes]]\npool = \"ns\"\n[pools.ns]\nbackends = [\"{backend}\"]\n")
}

/// A thread that does something again and again until it is dropped.
struct Restless {
    done: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Restless {
    /// `act` says how often it did what counts.
    fn start(mut act: impl FnMut() -> usize + Send + 'static) -> Restless {
        let (done, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, over) = (done.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                counted.fetch_add(act(), Ordering::SeqCst);
            }
        });
        Restless {
            done,
            stopped,
            thread: Some(thread),
        }
    }

    /// A client that asks without a rest; it counts answers.
    fn client(weir: &Weir) -> Restless {
        let client = Caller::new(weir.address("dns"));
        let rest = Some(Duration::from_millis(5));
        client.0.set_read_timeout(rest).unwrap();
        Restless::start(move || {
            // Where nobody listens any more, the socket says so.
            let _ = client.0.send(b"again");
            client.0.recv(&mut [0; 100]).is_ok().into()
        })
    }

    /// A backend that sends to whoever sent once, without a rest; it counts whom it heard. Its address comes first.
    fn stream() -> (SocketAddr, Restless) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let rest = Some(Duration::from_millis(5));
        socket.set_read_timeout(rest).unwrap();
        let mut clients = Vec::new();
        let stream = Restless::start(move || {
            let heard = socket.recv_from(&mut [0; 100]);
            let is_new = heard.is_ok_and(|(_, from)| {
                let is_new = !clients.contains(&from);
                clients.extend(is_new.then_some(from));
                is_new
            });
            for client in &clients {
                let _ = socket.send_to(b"on and on", client);
            }
            is_new.into()
        });
        (address, stream)
    }

    fn count(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn goes_on(&self) {
        let before = self.count();
        until("more of it", || (self.count() > before + 3).then_some(()));
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[track_caller]
fn stand(weir: &Weir, word: &str) {
    let answer = weir.post(&format!("/api/v1/listeners/dns/{word}"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

#[track_caller]
fn reload(weir: &Weir, text: &str) {
    weir.write(text);
    let answer = weir.post("/api/v1/reload");
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// Whoever binds without SO_REUSEPORT finds every other socket.
#[track_caller]
fn is_closed_soon(weir: &Weir) {
    let bound = within(SOON, || UdpSocket::bind(weir.address("dns")).ok());
    assert!(bound.is_some(), "its address is held on");
    drop(bound);
    weir.settles("weir_listener_connections", &[("listener", "dns")], 0.0);
}

#[test]
fn a_drained_listener_is_closed_although_clients_go_on() {
    let echo = Answerer::echo();
    let weir = Weir::start(&config(echo.address));
    let client = Restless::client(&weir);
    client.goes_on();
    stand(&weir, "drain");
    is_closed_soon(&weir);
    let line = weir.access(|line| line["protocol"] == "udp");
    assert_eq!(line["end"], "closed");
    assert!(line["datagrams_in"].as_u64() > Some(3), "{line}");
}

#[test]
fn a_drained_listener_is_closed_although_backends_go_on() {
    let (address, stream) = Restless::stream();
    let weir = Weir::start(&config(address));
    let clients: Vec<Restless> = (0..4).map(|_| Restless::client(&weir)).collect();
    clients.iter().for_each(Restless::goes_on);
    stand(&weir, "drain");
    is_closed_soon(&weir);
    assert_eq!(stream.count(), 4, "flows");
    let closed = weir.metric("weir_udp_flows_total", &[("end", "closed")]);
    assert_eq!(closed, 4.0);
}

/// The answers of the last second may still leave from the address that is wanted again.
#[test]
fn a_listener_comes_back_at_once_although_clients_go_on() {
    let echo = Answerer::echo();
    let text = config(echo.address);
    let weir = Weir::start(&text);
    let clients: Vec<Restless> = (0..8).map(|_| Restless::client(&weir)).collect();
    clients.iter().for_each(Restless::goes_on);
    for _ in 0..2 {
        stand(&weir, "drain");
        stand(&weir, "ready");
        clients.iter().for_each(Restless::goes_on);
        reload(&weir, &text.replace(&listener("dns"), &listener("other")));
        reload(&weir, &text);
        clients.iter().for_each(Restless::goes_on);
    }
}

#[test]
fn weir_ends_soon_although_clients_and_backends_go_on() {
    let (address, _stream) = Restless::stream();
    let weir = Weir::start(&config(address));
    let client = Restless::client(&weir);
    client.goes_on();
    let began = Instant::now();
    weir.signal(libc::SIGTERM);
    weir.await_exit();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(
        weir.access(|line| line["protocol"] == "udp")["end"],
        "closed"
    );
}

#[test]
fn an_answer_that_is_under_way_arrives_and_what_is_asked_later_does_not() {
    let backend = Answerer::start(|bytes, _| {
        std::thread::sleep(Duration::from_millis(300));
        vec![bytes.to_vec()]
    });
    let weir = Weir::start(&config(backend.address));
    let client = Caller::new(weir.address("dns"));
    client.send("before");
    until("the backend to be asked", || {
        (backend.heard() == 1).then_some(())
    });
    stand(&weir, "drain");
    client.send("after");
    assert_eq!(client.answer(), b"before");
    is_closed_soon(&weir);
    assert_eq!(backend.heard(), 1);
}
