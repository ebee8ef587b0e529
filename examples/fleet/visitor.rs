//! A visitor of the fleet: it keeps its cookies, views the page, and notices when its counter does not grow by one.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// One browser, more or less.
pub struct Visitor {
    weir: SocketAddr,
    cookies: BTreeMap<String, String>,
    /// The server that has the session; empty before the first visit.
    pub server: String,
    hits: u64,
}

struct Answer {
    status: String,
    server: String,
    hits: Option<u64>,
}

impl Visitor {
    pub fn new(weir: SocketAddr) -> Self {
        Visitor {
            weir,
            cookies: BTreeMap::new(),
            server: String::new(),
            hits: 0,
        }
    }

    /// Views the page; logs in first where the visitor is not known. Tells which server had the session, if it was another
    /// one until now.
    ///
    /// # Errors
    /// In words, when a request fails or a session does not go on as it should.
    pub fn view(&mut self) -> Result<Option<String>, String> {
        let mut answer = self.ask("GET", "/", "200")?;
        if answer.hits.is_none() {
            self.ask("POST", "/login", "303")?;
            answer = self.ask("GET", "/", "200")?;
        }
        let before = std::mem::replace(&mut self.server, answer.server);
        let moved = before != self.server;
        self.hits = if moved { 1 } else { self.hits + 1 };
        match answer.hits {
            Some(hits) if hits == self.hits => Ok((moved && !before.is_empty()).then_some(before)),
            hits => Err(format!(
                "view {} of the session on {}: it says {hits:?}",
                self.hits, self.server
            )),
        }
    }

    fn ask(&mut self, method: &str, path: &str, status: &str) -> Result<Answer, String> {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let cookies = match cookies.is_empty() {
            true => String::new(),
            false => format!("Cookie: {}\r\n", cookies.join("; ")),
        };
        let text =
            exchange(self.weir, method, path, &cookies).map_err(|error| error.to_string())?;
        let answer = self.take_in(&text);
        match answer.status == status {
            true => Ok(answer),
            false => Err(format!(
                "{method} {path}: {}",
                text.lines().next().unwrap_or("no answer")
            )),
        }
    }

    /// Reads the head of an answer and keeps its cookies.
    fn take_in(&mut self, text: &str) -> Answer {
        let mut answer = Answer {
            status: text.split(' ').nth(1).unwrap_or_default().to_owned(),
            server: String::new(),
            hits: None,
        };
        for line in text.lines().take_while(|line| !line.is_empty()) {
            match line.split_once(": ").unwrap_or_default() {
                ("Served-By", name) => answer.server = name.to_owned(),
                ("Session-Hits", hits) => answer.hits = hits.parse().ok(),
                (name, cookie) if name.eq_ignore_ascii_case("set-cookie") => {
                    let pair = cookie.split(';').next().unwrap_or_default();
                    let (name, value) = pair.split_once('=').unwrap_or_default();
                    self.cookies.insert(name.to_owned(), value.to_owned());
                }
                _ => {}
            }
        }
        answer
    }
}

/// One request on a connection of its own; the whole answer as text.
pub fn exchange(server: SocketAddr, method: &str, path: &str, fields: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Length: 0\r\n{fields}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
