//! A small Redis: what weir asks of one, a switch that makes it fall silent, and one that makes it talk nonsense.
//! Every command that it got stays readable, so that a test sees what left weir.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::origin::Visit;
use super::{Origin, until};

/// How it behaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    /// As a Redis does.
    Fine,
    /// It accepts and says nothing.
    Silent,
    /// It says this to everything.
    Says(Vec<u8>),
}

/// A running one.
pub struct Redis {
    server: Origin,
    shared: Arc<Shared>,
}

struct Shared {
    mood: Mutex<Mood>,
    values: Mutex<HashMap<String, String>>,
    commands: Mutex<Vec<Vec<String>>>,
}

impl Redis {
    pub fn start() -> Redis {
        let shared = Arc::new(Shared {
            mood: Mutex::new(Mood::Fine),
            values: Mutex::default(),
            commands: Mutex::default(),
        });
        let seen = shared.clone();
        let server = Origin::start(move |visit| seen.serve(visit));
        Redis { server, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub fn behave(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// Every command but for PING.
    pub fn commands(&self) -> Vec<Vec<String>> {
        self.shared.commands.lock().unwrap().clone()
    }

    pub fn values(&self) -> HashMap<String, String> {
        self.shared.values.lock().unwrap().clone()
    }

    /// Waits until it has so many values.
    #[track_caller]
    pub fn holds(&self, count: usize) {
        until("values in the store", || {
            (self.values().len() == count).then_some(())
        });
    }
}

impl Shared {
    fn serve(&self, visit: &mut Visit) {
        loop {
            let Some(words) = command(visit) else {
                return;
            };
            let mood = self.mood.lock().unwrap().clone();
            let reply = match mood {
                Mood::Fine => self.reply(&words),
                Mood::Says(bytes) => bytes,
                Mood::Silent => {
                    while *self.mood.lock().unwrap() == Mood::Silent {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    self.reply(&words)
                }
            };
            if !visit.send(reply) {
                return;
            }
        }
    }

    fn reply(&self, words: &[String]) -> Vec<u8> {
        let mut values = self.values.lock().unwrap();
        if words[0] != "PING" {
            self.commands.lock().unwrap().push(words.to_vec());
        }
        let text = match &*words[0] {
            "PING" => "+PONG\r\n".to_owned(),
            "AUTH" | "SELECT" => "+OK\r\n".to_owned(),
            "MGET" => {
                let found = words[1..].iter().map(|name| match values.get(name) {
                    Some(value) => format!("${}\r\n{value}\r\n", value.len()),
                    None => "$-1\r\n".to_owned(),
                });
                let found: String = found.collect();
                format!("*{}\r\n{found}", words.len() - 1)
            }
            "SET"
                if words.last().is_some_and(|word| word == "NX")
                    && values.contains_key(&words[1]) =>
            {
                "$-1\r\n".to_owned()
            }
            "SET" => {
                values.insert(words[1].clone(), words[2].clone());
                "+OK\r\n".to_owned()
            }
            "EXPIRE" => format!(":{}\r\n", usize::from(values.contains_key(&words[1]))),
            "DEL" => {
                let gone = words[1..]
                    .iter()
                    .filter(|name| values.remove(*name).is_some());
                format!(":{}\r\n", gone.count())
            }
            other => format!("-ERR unknown command '{other}'\r\n"),
        };
        text.into_bytes()
    }
}

/// The words of the next command.
fn command(visit: &mut Visit) -> Option<Vec<String>> {
    let count: usize = line(visit)?.strip_prefix('*')?.parse().ok()?;
    let word = |_| {
        line(visit)?.strip_prefix('$')?;
        line(visit)
    };
    (0..count).map(word).collect()
}

fn line(visit: &mut Visit) -> Option<String> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let buffer = &mut visit.reader.buffer;
        if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..at + 2).take(at).collect();
            return String::from_utf8(line).ok();
        }
        visit.reader.fill(end).ok()?;
    }
}
