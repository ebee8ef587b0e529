//! A small blocking HTTP/1.1 client: one kept connection, Content-Length and chunked bodies, and cookies apart from it.
//! It never retries: a failure that a user would see is a failure of the test.
//! Read `load.rs` for many of them at once.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a connection, a write or a read.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Field names in lower case, in the order of arrival.
    pub fields: Vec<(String, String)>,
    /// The body, framing removed.
    pub body: String,
}

impl Answer {
    /// Every value of the field `name` (lower case).
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The word after `key=` in the body.
    pub fn word(&self, key: &str) -> Option<&str> {
        self.body
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn closes(&self) -> bool {
        self.all("connection")
            .any(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// A connection that is opened when needed and kept while the server keeps it.
pub struct Line {
    address: SocketAddr,
    stream: Option<TcpStream>,
    received: Vec<u8>,
}

impl Line {
    /// A line to `address`, not yet open.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            received: Vec::new(),
        }
    }

    /// One GET; `fields` are whole lines that end in CRLF.
    pub fn get(&mut self, path: &str, fields: &str) -> io::Result<Answer> {
        self.send("GET", path, fields)
    }

    /// One request without a body; `fields` are whole lines that end in CRLF.
    pub fn send(&mut self, method: &str, path: &str, fields: &str) -> io::Result<Answer> {
        self.ask(method, path, fields, "")
    }

    /// POSTs a form, `name=value` pairs in URL encoding.
    pub fn submit(&mut self, path: &str, fields: &str, form: &str) -> io::Result<Answer> {
        let length = form.len();
        let fields = format!(
            "{fields}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n"
        );
        self.ask("POST", path, &fields, form)
    }

    fn ask(&mut self, method: &str, path: &str, fields: &str, body: &str) -> io::Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n{body}",
            self.address
        );
        let outcome = self.exchange(request.as_bytes());
        if outcome.as_ref().map_or(true, Answer::closes) {
            self.stream = None;
        }
        outcome
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            self.received.clear();
            self.stream = Some(stream);
        }
        let mut stream = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(request)?;
        let (status, fields) = self.head()?;
        let body = self.body(status, &fields)?;
        Ok(Answer {
            status,
            fields,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let first = self.line()?;
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| bad(&format!("status line {first:?}")))?;
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, fields));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("field line"))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, status: u16, fields: &[(String, String)]) -> io::Result<Vec<u8>> {
        let field = |name: &str| fields.iter().find(|(field, _)| field == name);
        if status == 204 || status == 304 {
            return Ok(Vec::new());
        }
        if field("transfer-encoding").is_some() {
            return self.chunks();
        }
        let (_, length) = field("content-length").ok_or_else(|| bad("no framing"))?;
        let length = length.parse().map_err(|_| bad("Content-Length"))?;
        self.take(length)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| bad("chunk size"))?;
            body.extend(self.take(size)?);
            let end = self.line()?;
            if !end.is_empty() {
                return Err(bad("chunk end"));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.more()?;
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < length {
            self.more()?;
        }
        Ok(self.received.drain(..length).collect())
    }

    fn more(&mut self) -> io::Result<()> {
        let mut piece = [0; 8192];
        let mut stream = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        match stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.received.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }
}

/// What makes a client the same client: its cookies.
#[derive(Default)]
pub struct Session {
    cookies: BTreeMap<String, String>,
}

impl Session {
    /// One GET over `line` with this client's cookies, keeping the ones that are set.
    pub fn get(&mut self, line: &mut Line, path: &str) -> io::Result<Answer> {
        self.send(line, "GET", path, "")
    }

    /// The same with any method; `more` are further whole lines that end in CRLF.
    pub fn send(
        &mut self,
        line: &mut Line,
        method: &str,
        path: &str,
        more: &str,
    ) -> io::Result<Answer> {
        let answer = line.send(method, path, &format!("{}{more}", self.cookies()))?;
        self.keep(&answer);
        Ok(answer)
    }

    /// POSTs a form with this client's cookies, keeping the ones that are set.
    pub fn submit(&mut self, line: &mut Line, path: &str, form: &str) -> io::Result<Answer> {
        let answer = line.submit(path, &self.cookies(), form)?;
        self.keep(&answer);
        Ok(answer)
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.get(name).map(String::as_str)
    }

    /// A whole line with every cookie, or nothing.
    fn cookies(&self) -> String {
        let pairs = self.cookies.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        match pairs.is_empty() {
            true => String::new(),
            false => format!("Cookie: {}\r\n", pairs.join("; ")),
        }
    }

    fn keep(&mut self, answer: &Answer) {
        for set in answer.all("set-cookie") {
            let pair = set.split(';').next().and_then(|pair| pair.split_once('='));
            if let Some((name, value)) = pair {
                self.cookies
                    .insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
