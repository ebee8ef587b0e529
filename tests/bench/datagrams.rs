//! Both ends of a measurement with datagrams, so that they cost little: `bench-datagrams echo ADDRESS...` sends everything back, and
//! `bench-datagrams load ADDRESS SECONDS CLIENTS WINDOW SIZE [fresh]` asks and counts answers. Each client has so many datagrams on their
//! way at once; with `fresh` every one comes from another. The last line is `answers lost seconds`.
//! Clients are addresses within 127.0.0.0/8 that share one socket, so that one call asks for many of them: what is to be measured is the
//! proxy between the two, not who asks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use weir::net::udp;
use weir::net::udp::batch::{Batch, MAX_DATAGRAMS};
use weir::net::udp::parcels::{Outbox, Parcel};

/// What has not come back by then is lost.
const PATIENCE: Duration = Duration::from_millis(500);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        ["echo", ref addresses @ ..] if !addresses.is_empty() => echo(addresses),
        ["load", to, seconds, clients, window, size, ref rest @ ..] => {
            let load = Load {
                to: to.parse().expect("an address"),
                seconds: seconds.parse().expect("seconds"),
                clients: clients.parse().expect("clients"),
                window: window.parse().expect("a window"),
                size: size.parse().expect("a size"),
                fresh: rest.contains(&"fresh"),
            };
            let (answers, lost, took) = load.run();
            println!("{answers} {lost} {took:.3}");
        }
        _ => panic!("see the head of tests/bench/datagrams.rs"),
    }
}

fn echo(addresses: &[&str]) {
    let serve = |address: &&str| {
        let address = address.parse().expect("an address");
        std::thread::spawn(move || {
            let mut end = End::new(address);
            loop {
                if end.receive() {
                    end.answer(|from, _| (from, None));
                }
            }
        })
    };
    let threads: Vec<_> = addresses.iter().map(serve).collect();
    for thread in threads {
        let _ = thread.join();
    }
}

/// One socket, read from and sent to in batches.
struct End {
    socket: UdpSocket,
    batch: Batch,
    parcels: Vec<Parcel>,
    outbox: Outbox,
}

impl End {
    fn new(address: SocketAddr) -> End {
        let socket = udp::bind(address, 1).expect("a free address").remove(0);
        socket.set_nonblocking(false).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        End {
            socket,
            batch: Batch::default(),
            parcels: Vec::new(),
            // Each datagram is sent by itself, as clients and small answers are.
            outbox: Outbox::new(false),
        }
    }

    /// Waits for datagrams; false when none came in time.
    fn receive(&mut self) -> bool {
        self.batch.clear();
        let (socket, batch) = (&self.socket, &mut self.batch);
        // What has come is taken without waiting for it first.
        batch.receive(socket, MAX_DATAGRAMS).is_ok()
            || socket.peek(&mut [0]).is_ok() && batch.receive(socket, MAX_DATAGRAMS).is_ok()
    }

    /// Sends what was received on, to and from where `whither` says for each.
    fn answer(
        &mut self,
        mut whither: impl FnMut(SocketAddr, Option<IpAddr>) -> (SocketAddr, Option<IpAddr>),
    ) {
        self.parcels.clear();
        for (place, one) in self.batch.received().iter().enumerate() {
            if let Some(from) = one.from {
                let (to, local) = whither(from, one.local);
                self.parcels.push(Parcel {
                    place,
                    to: Some(to),
                    local,
                });
            }
        }
        (self.outbox).send(&self.socket, &self.batch, &self.parcels, b"");
    }
}

struct Load {
    to: SocketAddr,
    seconds: f64,
    clients: u32,
    window: u32,
    size: usize,
    fresh: bool,
}

impl Load {
    /// Every answer is asked again at once. What is on its way is always as much, but for what was lost: that is what is missing at the end.
    fn run(&self) -> (u64, u64, f64) {
        let mut end = End::new((Ipv4Addr::UNSPECIFIED, 0).into());
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(self.seconds);
        let (mut answers, mut lost, mut newest) = (0, 0, self.clients);
        let all = u64::from(self.clients * self.window);
        let mut begun = 0;
        while Instant::now() < until {
            if begun < self.clients {
                self.begin(&end, begun);
                begun += 1;
            }
            if !end.receive() {
                lost += all;
                begun = 0;
                continue;
            }
            answers += self.answers(&end);
            end.answer(|_, local| {
                newest += u32::from(self.fresh);
                let again = if self.fresh {
                    Some(client(newest))
                } else {
                    local
                };
                (self.to, again)
            });
        }
        let took = began.elapsed().as_secs_f64();
        let mut missing = all;
        while end.receive() {
            missing = missing.saturating_sub(self.answers(&end));
        }
        (answers, lost + missing, took)
    }

    /// Sends a client's first datagrams to itself: what is received is sent on.
    fn begin(&self, end: &End, number: u32) {
        let port = end.socket.local_addr().expect("an address").port();
        let (own, first) = (SocketAddr::new(client(number), port), vec![b'w'; self.size]);
        for _ in 0..self.window {
            end.socket.send_to(&first, own).expect("a datagram");
        }
    }

    /// How many of the datagrams that were received are answers.
    fn answers(&self, end: &End) -> u64 {
        let received = end.batch.received().iter();
        let answers = received.filter(|one| one.from == Some(self.to));
        answers.map(|one| u64::from(one.datagrams())).sum()
    }
}

/// An address of its own for each of 16 million.
fn client(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number % (250 << 16)).into()
}
