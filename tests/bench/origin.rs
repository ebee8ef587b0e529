//! The origin of the benchmark: one thread that answers every GET with a fixed body of the size its path names.
//! It must cost as little as it can, since it shares its core with the load generator; it checks nothing.
//! Read `tests/bench/load` for how it is used: `bench-origin ADDRESS...`, until it is killed.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// Paths and the bytes of their bodies; any other path gets the first.
const SIZES: [(&str, usize); 9] = [
    ("/0", 0),
    ("/128", 128),
    ("/4k", 4096),
    ("/16k", 16384),
    ("/24k", 24576),
    ("/32k", 32768),
    ("/64k", 65536),
    ("/256k", 262_144),
    ("/1m", 1_048_576),
];
/// The path of a body as an application's page is: a list of items in HTML, 64 KiB.
const PAGE: &str = "/page";

/// What is answered and then hung up on, for proxies that do not know where an answer ends.
const ONCE: &str = "/once";
const ONCE_ASKED: &[u8] = b"GET /once ";

/// More than any request head of the benchmark.
const BUFFER: usize = 16 * 1024;

/// Request line beginnings and whole answers.
type Answers = Vec<(String, Vec<u8>)>;

fn main() -> io::Result<()> {
    let addresses: Vec<SocketAddr> = std::env::args()
        .skip(1)
        .map(|word| word.parse().map_err(io::Error::other))
        .collect::<io::Result<_>>()?;
    // Lives as long as the process, and so can be shared without counting.
    let answers: &'static Answers = Box::leak(Box::new(answers()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut listeners = Vec::new();
        for address in addresses {
            let listener = TcpListener::bind(address).await?;
            listeners.push(tokio::task::spawn_local(accept(listener, answers)));
        }
        for listener in listeners {
            listener.await??;
        }
        Ok(())
    })
}

fn answers() -> Answers {
    let answer = |&(path, size): &(&str, usize)| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Fri, 20 Nov 2026 20:00:00 GMT\r\n\
             Content-Type: text/plain\r\nContent-Length: {size}\r\n\r\n"
        );
        let mut bytes = head.into_bytes();
        bytes.resize(bytes.len() + size, b'w');
        (format!("GET {path} "), bytes)
    };
    let page = page();
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Fri, 20 Nov 2026 20:00:00 GMT\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    let page = (format!("GET {PAGE} "), [head.into_bytes(), page].concat());
    let once = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 128\r\n\r\n".to_owned()
        + &"w".repeat(128);
    let once = (format!("GET {ONCE} "), once.into_bytes());
    SIZES.iter().map(answer).chain([page, once]).collect()
}

/// Items with words and numbers that a fixed generator draws (Knuth's MMIX), so that it is as compressible as pages are.
fn page() -> Vec<u8> {
    const WORDS: [&str; 24] = [
        "blue", "garden", "chair", "lamp", "wooden", "table", "cotton", "shirt", "summer",
        "winter", "light", "heavy", "small", "large", "kitchen", "outdoor", "classic", "modern",
        "set", "pair", "travel", "bag", "leather", "glass",
    ];
    let mut state = 1u64;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut page =
        String::from("<!doctype html><html><head><title>Shop</title></head><body><ul>\n");
    while page.len() < 65_000 {
        let words: Vec<_> = (0..3 + draw(6)).map(|_| WORDS[draw(24) as usize]).collect();
        let (id, price, stock) = (draw(100_000), draw(50_000), draw(300));
        page += &format!(
            "<li class=\"item\"><a href=\"/item/{id}\">{}</a> <b>{}.{:02}</b> <span>{stock} in stock</span></li>\n",
            words.join(" "),
            price / 100,
            price % 100,
        );
    }
    (page + "</ul></body></html>\n").into_bytes()
}

async fn accept(listener: TcpListener, answers: &'static Answers) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(serve(stream, answers));
    }
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        let known = answers
            .iter()
            .find(|(start, _)| buffer.starts_with(start.as_bytes()));
        let (_, answer) = known.unwrap_or(&answers[0]);
        filled = 0;
        stream.write_all(answer).await?;
        if buffer.starts_with(ONCE_ASKED) {
            return Ok(());
        }
    }
}
