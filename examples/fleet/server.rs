//! A small web application server (WAS): a button to log in, and sessions in its own memory, so that only the server that
//! made a session can go on with it. It speaks just enough HTTP/1.1 for weir and curl; a real one would be Tomcat.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const PAGE: &str = include_str!("page.html");
const COLOURS: [&str; 4] = ["#0b7285", "#5f3dc4", "#2b8a3e", "#c2410c"];
/// Longer than weir keeps an idle connection, so that weir is the one that closes it.
const IDLE: Duration = Duration::from_secs(30);

/// One server of the fleet.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Page views by session id.
    sessions: Mutex<HashMap<String, u64>>,
    answered: AtomicU64,
}

struct Request {
    what: String,
    session: Option<String>,
}

/// Starts a server for each name. They share nothing but the table at the foot of their pages.
pub fn start(names: &[&'static str]) -> io::Result<Arc<[Server]>> {
    let (mut fleet, mut listeners) = (Vec::new(), Vec::new());
    for &name in names {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        fleet.push(Server {
            name,
            address: listener.local_addr()?,
            sessions: Mutex::default(),
            answered: AtomicU64::new(0),
        });
        listeners.push(listener);
    }
    let fleet: Arc<[Server]> = fleet.into();
    for (own, listener) in listeners.into_iter().enumerate() {
        let fleet = fleet.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fleet = fleet.clone();
                thread::spawn(move || serve(&fleet, own, &stream));
            }
        });
    }
    Ok(fleet)
}

/// Answers the requests of one connection until it closes.
fn serve(fleet: &[Server], own: usize, mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        stream.write_all(answer(fleet, own, &request).as_bytes())?;
    }
    Ok(())
}

/// The next request; nothing when the connection was closed.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let what = line.split(" HTTP/").next().unwrap_or_default().to_owned();
    let (mut session, mut length) = (None, 0);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(io::Error::other)?;
        } else if name.eq_ignore_ascii_case("cookie") {
            let mut cookies = value.split("; ");
            session = cookies.find_map(|cookie| cookie.strip_prefix("session=").map(str::to_owned));
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(Some(Request { what, session }))
}

fn answer(fleet: &[Server], own: usize, request: &Request) -> String {
    let server = &fleet[own];
    let mut sessions = server.lock();
    let back_with = |cookies| {
        respond(
            server,
            "303 See Other",
            &format!("Location: /\r\n{cookies}"),
            "",
        )
    };
    if request.what != "GET /healthz" {
        server.answered.fetch_add(1, Relaxed);
    }
    match request.what.as_str() {
        "GET /healthz" => respond(server, "200 OK", "", "ok\n"),
        "POST /login" => {
            let id = new_id();
            let cookie = format!("Set-Cookie: session={id}; Path=/; HttpOnly; SameSite=Lax\r\n");
            sessions.insert(id, 0);
            back_with(cookie)
        }
        "POST /logout" => {
            request.session.as_ref().and_then(|id| sessions.remove(id));
            // weir's own cookie too, so that the browser comes back as somebody new.
            let gone = ["session", "weir_was"];
            back_with(
                gone.map(|name| format!("Set-Cookie: {name}=; Path=/; Max-Age=0\r\n"))
                    .concat(),
            )
        }
        "GET /" => {
            let id = request.session.as_ref();
            let hits = id.and_then(|id| sessions.get_mut(id)).map(|hits| {
                *hits += 1;
                *hits
            });
            drop(sessions);
            let seen = hits.map(|hits| format!("Session-Hits: {hits}\r\n"));
            respond(
                server,
                "200 OK",
                &seen.unwrap_or_default(),
                &page(fleet, own, request, hits),
            )
        }
        _ => respond(server, "404 Not Found", "", "there is only /\n"),
    }
}

fn respond(server: &Server, status: &str, fields: &str, body: &str) -> String {
    let kind = if body.starts_with('<') {
        "html"
    } else {
        "plain"
    };
    format!(
        "HTTP/1.1 {status}\r\nServed-By: {}\r\n{fields}Cache-Control: no-store\r\n\
         Content-Type: text/{kind}; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        server.name,
        body.len()
    )
}

fn page(fleet: &[Server], own: usize, request: &Request, hits: Option<u64>) -> String {
    let name = fleet[own].name;
    let button = |action, text| {
        format!("<form method=\"post\" action=\"{action}\"><button>{text}</button></form>")
    };
    let (main, forms) = match (hits, &request.session) {
        (Some(hits), _) => (
            format!("<b>{hits}</b>page views in your session on <strong>{name}</strong>"),
            "<form action=\"/\"><button>View again</button></form>".to_owned()
                + &button("/logout", "Log out, come back as somebody new"),
        ),
        (None, Some(_)) => (
            format!(
                "<b>?</b><strong>{name}</strong> does not know your session: another server has it in its memory"
            ),
            button("/login", "Log in again"),
        ),
        (None, None) => (
            format!("<b>{name}</b>does not know you yet"),
            button("/login", "Log in"),
        ),
    };
    let rows = fleet.iter().map(|server| {
        let class = if server.name == name { "here" } else { "" };
        let (sessions, answered) = (server.lock().len(), server.answered());
        let (name, address) = (server.name, server.address);
        format!("<tr class=\"{class}\"><td>{name}<td>{address}<td>{sessions}<td>{answered}</tr>\n")
    });
    PAGE.replace("{name}", name)
        .replace("{colour}", COLOURS[own % COLOURS.len()])
        .replace("{main}", &main)
        .replace("{forms}", &forms)
        .replace("{rows}", &rows.collect::<String>())
}

impl Server {
    /// Requests so far, those of health checks aside.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    weir::rng::fill_secure(&mut bytes);
    format!("{:032x}", u128::from_ne_bytes(bytes))
}
