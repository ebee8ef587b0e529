//! A connection to a Redis server: it introduces itself, sends commands in batches and reads their replies in order.
//! It keeps no time: whoever asks gives up by dropping it, since a reply that comes later would be taken for another's.
//! The walk goes on in `resp.rs`.

use std::{fmt, io};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::resp::{self, Garbage, Reply};
use super::written;
use crate::config::model::Store;
use crate::state::store::Request;

/// Bytes that are read at once.
const READ: usize = 4096;
/// Characters of a refusal that are shown.
const SHOWN: usize = 100;

/// Why a server is of no use.
#[derive(Debug)]
pub enum Trouble {
    /// It was not reached, or went away.
    Gone(io::Error),
    /// It does not answer.
    Silent,
    /// It answers too slowly.
    Slow,
    /// It refuses what it is asked.
    Refuses(String),
    /// What it says is no reply.
    Garbage,
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Gone(error) => write!(out, "{error}"),
            Trouble::Silent => out.write_str("it does not answer"),
            Trouble::Slow => out.write_str("it answers too slowly"),
            Trouble::Refuses(error) => {
                let shown: String = error.chars().take(SHOWN).collect();
                write!(out, "it says \"{}\"", shown.escape_debug())
            }
            Trouble::Garbage => write!(out, "{Garbage}"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Gone(error)
    }
}

impl From<Garbage> for Trouble {
    fn from(_: Garbage) -> Trouble {
        Trouble::Garbage
    }
}

/// A connection that was introduced.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Received and not yet read.
    received: Vec<u8>,
    out: Vec<u8>,
}

impl Connection {
    /// Connects, logs in and chooses the database.
    pub async fn open(store: &Store) -> Result<Connection, Trouble> {
        let stream = TcpStream::connect((&*store.host, store.port)).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection {
            stream,
            received: Vec::new(),
            out: Vec::new(),
        };
        let mut introduction = 0;
        let mut say = |words: &[&str]| {
            resp::command(words, &mut connection.out);
            introduction += 1;
        };
        match (&store.user, &store.password) {
            (Some(user), Some(password)) => say(&["AUTH", user, password]),
            (None, Some(password)) => say(&["AUTH", password]),
            (_, None) => {}
        }
        if store.database != 0 {
            say(&["SELECT", &store.database.to_string()]);
        }
        say(&["PING"]);
        connection.send().await?;
        for _ in 0..introduction {
            match connection.reply().await? {
                Reply::Word(_) => {}
                Reply::Error(error) => return Err(Trouble::Refuses(error)),
                _ => return Err(Trouble::Garbage),
            }
        }
        Ok(connection)
    }

    /// The replies to each request, in order; to none, it is asked whether it is there.
    pub async fn ask(&mut self, batch: &[Request]) -> Result<Vec<Vec<Reply>>, Trouble> {
        if batch.is_empty() {
            resp::command(&["PING"], &mut self.out);
            self.send().await?;
            return match self.reply().await? {
                Reply::Word(_) => Ok(Vec::new()),
                Reply::Error(error) => Err(Trouble::Refuses(error)),
                _ => Err(Trouble::Garbage),
            };
        }
        let counts: Vec<usize> = (batch.iter())
            .map(|request| commands(request, &mut self.out))
            .collect();
        self.send().await?;
        let mut all = Vec::with_capacity(batch.len());
        for count in counts {
            let mut replies = Vec::with_capacity(count);
            for _ in 0..count {
                replies.push(self.reply().await?);
            }
            all.push(replies);
        }
        Ok(all)
    }

    async fn send(&mut self) -> Result<(), Trouble> {
        let sent = self.stream.write_all(&self.out).await;
        self.out.clear();
        Ok(sent?)
    }

    async fn reply(&mut self) -> Result<Reply, Trouble> {
        loop {
            if let Some((reply, length)) = resp::reply(&self.received)? {
                self.received.drain(..length);
                return Ok(reply);
            }
            self.received.reserve(READ);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(Trouble::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// Appends the commands of a request; how many they are.
fn commands(request: &Request, out: &mut Vec<u8>) -> usize {
    let mut list = |word, names: &[String]| {
        let names = names.iter().map(String::as_str);
        let words: Vec<&str> = [word].into_iter().chain(names).collect();
        resp::command(&words, out);
    };
    match request {
        Request::Find { names, .. } => list("MGET", names),
        Request::End { names } => list("DEL", names),
        Request::Put {
            name,
            found,
            changed,
            kept_for,
        } => {
            let (value, seconds) = (written(found), kept_for.as_secs().max(1).to_string());
            let set = ["SET", name, &value, "EX", &seconds, "NX"];
            if *changed {
                resp::command(&set[..5], out);
                return 1;
            }
            // Another weir may know better where it is; but a server that forgot learns it again.
            resp::command(&set, out);
            resp::command(&["EXPIRE", name, &seconds], out);
            return 2;
        }
    }
    1
}
