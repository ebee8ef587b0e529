//! Both ends of a measurement with datagrams, so that they cost little: `bench-datagrams echo ADDRESS...` sends everything back, and
//! `bench-datagrams load ADDRESS SECONDS CLIENTS WINDOW SIZE [fresh]` asks and counts answers. Each client has so many datagrams on their
//! way at once; with `fresh` it takes another port for every one. The last line is `answers lost seconds`.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, UdpSocket as Plain};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// What has not come back by then is lost.
const PATIENCE: Duration = Duration::from_millis(500);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        ["echo", ref addresses @ ..] if !addresses.is_empty() => echo(addresses),
        ["load", to, seconds, clients, window, size, ref rest @ ..] => load(&Load {
            to: to.parse().expect("an address"),
            seconds: seconds.parse().expect("seconds"),
            clients: clients.parse().expect("clients"),
            window: window.parse().expect("a window"),
            size: size.parse().expect("a size"),
            fresh: rest.contains(&"fresh"),
        }),
        _ => panic!("see the head of tests/bench/datagrams.rs"),
    }
}

fn echo(addresses: &[&str]) {
    let serve = |address: &&str| {
        let socket = Plain::bind(address).expect("a free address");
        std::thread::spawn(move || {
            let mut memory = vec![0; 65_536];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut memory) {
                    let _ = socket.send_to(&memory[..length], from);
                }
            }
        })
    };
    let threads: Vec<_> = addresses.iter().map(serve).collect();
    println!("ready");
    for thread in threads {
        let _ = thread.join();
    }
}

struct Load {
    to: SocketAddr,
    seconds: f64,
    clients: usize,
    window: usize,
    size: usize,
    fresh: bool,
}

#[derive(Default)]
struct Counts {
    answers: Cell<u64>,
    lost: Cell<u64>,
}

fn load(load: &Load) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let counts = Rc::<Counts>::default();
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(load.seconds);
    let tasks = LocalSet::new();
    for _ in 0..load.clients {
        let (to, window, size, fresh) = (load.to, load.window, load.size, load.fresh);
        let counts = counts.clone();
        tasks.spawn_local(async move {
            match fresh {
                true => ask_afresh(to, size, until, &counts).await,
                false => ask(to, window, size, until, &counts).await,
            }
            .expect("a socket");
        });
    }
    runtime.block_on(tasks);
    let took = began.elapsed().as_secs_f64();
    println!("{} {} {took:.3}", counts.answers.get(), counts.lost.get());
}

async fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Keeps `window` datagrams on their way.
async fn ask(
    to: SocketAddr,
    window: usize,
    size: usize,
    until: Instant,
    counts: &Counts,
) -> io::Result<()> {
    let socket = connect(to).await?;
    let (asked, mut memory) = (vec![b'w'; size], vec![0; 65_536]);
    let mut on_way = 0;
    while Instant::now() < until {
        while on_way < window {
            let _ = socket.send(&asked).await;
            on_way += 1;
        }
        match timeout(PATIENCE, socket.recv(&mut memory)).await {
            Ok(Ok(_)) => {
                on_way -= 1;
                counts.answers.set(counts.answers.get() + 1);
            }
            _ => counts
                .lost
                .set(counts.lost.get() + std::mem::take(&mut on_way) as u64),
        }
    }
    Ok(())
}

/// Asks from another port each time.
async fn ask_afresh(
    to: SocketAddr,
    size: usize,
    until: Instant,
    counts: &Counts,
) -> io::Result<()> {
    let (asked, mut memory) = (vec![b'w'; size], vec![0; 65_536]);
    while Instant::now() < until {
        let socket = connect(to).await?;
        let _ = socket.send(&asked).await;
        match timeout(PATIENCE, socket.recv(&mut memory)).await {
            Ok(Ok(_)) => counts.answers.set(counts.answers.get() + 1),
            _ => counts.lost.set(counts.lost.get() + 1),
        }
    }
    Ok(())
}
