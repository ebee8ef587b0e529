//! Who else is on the stage: a backend that says its name and whom it sees, and a client with many sessions that never gives up.
//! They run as processes of their own, because a namespace is a process's; each ends with the test.
//! Here the walk ends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::exit;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};

/// A client that hears nothing for so long tries again.
const PATIENCE: Duration = Duration::from_millis(300);
/// Between two requests of the client.
const PACE: Duration = Duration::from_millis(5);

/// Between two questions of a quiet client, when it has asked twice.
const REST: Duration = Duration::from_secs(2);

/// How many addresses a flood comes from, and the second byte of the first of them, which are those of 10.64.0.0/15.
pub const STRANGERS: u32 = 100_000;
const STRANGE: u8 = 64;

/// Where a session comes from.
pub fn source(session: usize) -> String {
    format!("10.98.0.{}:0", 100 + session)
}

/// Plays the role that the words name, to the end of the process.
pub fn play(words: &[String]) -> ! {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse().expect("an address");
    match words[..] {
        ["backend", name, at] => backend(name, address(at)),
        ["question", from, to] => question(address(from), address(to)),
        ["holder"] => holder(),
        ["flood", to, pause] => flood(address(to), pause.parse().expect("a number")),
        ["quiet", to, clients] => quiet(address(to), clients.parse().expect("a number")),
        ["client", to, sessions] => client(address(to), sessions.parse().expect("a number")),
        _ => exit(2),
    }
}

/// Answers every request with its name and the address that the connection comes from, and every datagram likewise.
fn backend(name: &str, at: SocketAddr) -> ! {
    let socket = UdpSocket::bind(at).expect("the address is free");
    let own = name.to_owned();
    thread::spawn(move || {
        loop {
            if let Ok((_, client)) = socket.recv_from(&mut [0; 64]) {
                let _ = socket.send_to(format!("{own} {client}").as_bytes(), client);
            }
        }
    });
    let listener = TcpListener::bind(at).expect("the address is free");
    loop {
        let Ok((stream, client)) = listener.accept() else {
            continue;
        };
        let body = format!("{name} {client}");
        thread::spawn(move || answer(stream, &body));
    }
}

fn answer(mut stream: TcpStream, body: &str) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        received.extend_from_slice(&buffer[..length]);
        if received.ends_with(b"\r\n\r\n") {
            stream.write_all(answer.as_bytes())?;
            let head = String::from_utf8_lossy(&received).to_ascii_lowercase();
            if head.contains("connection: close") {
                return Ok(());
            }
            received.clear();
        }
    }
}

/// Sends a datagram and prints what comes back.
fn question(from: SocketAddr, to: SocketAddr) -> ! {
    let socket = UdpSocket::bind(from).expect("the address is here");
    let limit = socket.set_read_timeout(Some(Duration::from_secs(5)));
    limit.expect("a time can be set");
    let mut answer = [0; 64];
    let asked = socket.send_to(b"?", to);
    match asked.and_then(|_| socket.recv(&mut answer)) {
        Ok(length) => println!("{}", String::from_utf8_lossy(&answer[..length])),
        Err(error) => println!("{error}"),
    }
    exit(0)
}

/// Takes every port that the host gives to sockets of datagrams, says how many, and keeps them.
fn holder() -> ! {
    let socket = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).ok()?;
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        socket.connect(&to.into()).is_ok().then_some(socket)
    };
    let held: Vec<Socket> = std::iter::from_fn(socket).collect();
    println!("{} ports", held.len());
    loop {
        thread::park();
    }
}

/// A datagram from each of [`STRANGERS`] addresses, again and again; after a hundred of them it rests for so many microseconds.
fn flood(to: SocketAddr, pause: u64) -> ! {
    for number in (0..STRANGERS).cycle() {
        let [_, high, middle, low] = number.to_be_bytes();
        let from = SocketAddr::from(([10, STRANGE + high, middle, low], 4000));
        let socket = UdpSocket::bind(from).expect("every address of the network is here");
        // What the system does not take is one datagram less.
        let _ = socket.send_to(b"?", to);
        if number % 100 == 0 {
            thread::sleep(Duration::from_micros(pause));
        }
    }
    exit(0)
}

/// Clients that each ask now and then, from one socket each: a line for each answer, with the client and what was answered.
fn quiet(to: SocketAddr, clients: usize) -> ! {
    let socket = || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("there are ports");
        let limit = socket.set_read_timeout(Some(PATIENCE));
        limit.and_then(|()| socket.connect(to)).expect("a route");
        socket
    };
    let sockets: Vec<UdpSocket> = (0..clients).map(|_| socket()).collect();
    for round in 0.. {
        for (client, socket) in sockets.iter().enumerate() {
            // The one before may come late, and says the same.
            let mut answer = [0; 64];
            let asked = socket.send(b"?").and_then(|_| socket.recv(&mut answer));
            if let Ok(length) = asked {
                println!("{client} {}", String::from_utf8_lossy(&answer[..length]));
            }
            if round > 1 {
                thread::sleep(REST / clients as u32);
            }
        }
    }
    exit(0)
}

/// One request of each session in turn, each on a new connection: a line for each, with the time in milliseconds, the session, and
/// what was answered or `-`.
fn client(to: SocketAddr, sessions: usize) -> ! {
    let mut cookies = vec![String::new(); sessions];
    let start = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is later")
    };
    loop {
        for (session, cookie) in cookies.iter_mut().enumerate() {
            let answer = ask(session, to, cookie).unwrap_or_else(|_| "-".to_owned());
            println!("{} {session} {answer}", start().as_millis());
            thread::sleep(PACE);
        }
    }
}

/// Each session has an address of its own.
fn ask(session: usize, to: SocketAddr, cookie: &mut String) -> io::Result<String> {
    let from: SocketAddr = source(session).parse().expect("an address");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let shown = if cookie.is_empty() {
        String::new()
    } else {
        format!("Cookie: {cookie}\r\n")
    };
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{shown}\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let set = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("set-cookie")
            .then(|| value.trim().split(';').next())?
    });
    if let Some(set) = set {
        set.clone_into(cookie);
    }
    Ok(body.to_owned())
}
