//! The configuration of a story: made by chance, changed by chance, and written as the text that an operator would write.
//! weir reads that text with the reader that it always has.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

use crate::chance::Chance;

/// Addresses that servers of a story may have.
pub const ADDRESSES: usize = 90;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub pools: Vec<Pool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    pub balancer: &'static str,
    pub slow_start: Option<usize>,
    pub check: Option<Check>,
    pub sticky: Option<Sticky>,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub interval_millis: usize,
    pub rise: u32,
    pub fall: u32,
    pub initial: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    pub mode: &'static str,
    pub sessions: &'static str,
    pub on_failure: &'static str,
    pub wait: usize,
    pub idle: usize,
    pub rehome: usize,
    pub rebalance: bool,
    pub factor: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub name: String,
    pub address: SocketAddr,
    pub weight: u16,
    pub state: &'static str,
}

/// A server's address by its number.
pub fn address(number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, number as u8 + 1), 8080))
}

impl File {
    pub fn new(chance: &Chance) -> File {
        let names = ["p0", "p1", "p2"];
        let pools = names[..chance.within(1..4)].iter();
        File {
            pools: pools.map(|name| Pool::new(chance, name)).collect(),
        }
    }

    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The file after somebody's edit.
    pub fn edit(&mut self, chance: &Chance) {
        let count = self.pools.len();
        match chance.below(12) {
            0 if count > 1 => drop(self.pools.remove(chance.below(count))),
            1 if count < 3 => {
                let mut names = ["p2", "p1", "p0"].into_iter();
                let name = names.find(|name| self.pool(name).is_none());
                self.pools.extend(name.map(|name| Pool::new(chance, name)));
            }
            2 => self.pools.rotate_left(1),
            _ => self.pools[chance.below(count)].edit(chance),
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::from("[listeners.web]\nbind = [\"127.0.0.1:8080\"]\n");
        for pool in &self.pools {
            pool.write(&mut text);
        }
        text
    }
}

impl Pool {
    fn new(chance: &Chance, name: &str) -> Pool {
        let count = match chance.below(12) {
            0 if chance.one_in(4) => 70,
            1 => 1,
            _ => chance.within(2..9),
        };
        let balancers = [
            "round-robin",
            "least-connections",
            "least-sessions",
            "random-two",
        ];
        let mut pool = Pool {
            name: name.to_owned(),
            balancer: chance.one_of(&balancers),
            slow_start: chance.one_in(3).then(|| chance.within(2..30)),
            check: (!chance.one_in(8)).then(|| Check::new(chance)),
            sticky: (!chance.one_in(5)).then(|| Sticky::new(chance)),
            backends: Vec::new(),
        };
        for _ in 0..count {
            pool.add(chance);
        }
        pool
    }

    fn edit(&mut self, chance: &Chance) {
        let count = self.backends.len();
        match chance.below(14) {
            0..3 => self.add(chance),
            3..6 if count > 1 => drop(self.backends.remove(chance.below(count))),
            6 => self.backends[chance.below(count)].weight = weight(chance),
            7 => self.backends[chance.below(count)].state = state(chance),
            8 => self.backends.reverse(),
            9 => self.check = Some(Check::new(chance)),
            10 => self.balancer = chance.one_of(&["round-robin", "least-connections"]),
            11 => self.slow_start = chance.one_in(2).then(|| chance.within(2..30)),
            // The name stays and the server is another one.
            12 => {
                let free = self.free_address(chance);
                self.backends[chance.below(count)].address = free;
            }
            _ => {
                let (one, other) = (chance.below(count), chance.below(count));
                let name = self.backends[one].name.clone();
                self.backends[one].name = self.backends[other].name.clone();
                self.backends[other].name = name;
            }
        }
    }

    /// What discovery finds: some of these, some others, never none.
    pub fn discover(&mut self, chance: &Chance) {
        let keeps = chance.within(1..4);
        self.backends.retain(|_| chance.below(4) < keeps);
        for _ in 0..chance.below(4) {
            self.add(chance);
        }
        if self.backends.is_empty() {
            self.add(chance);
        }
    }

    fn add(&mut self, chance: &Chance) {
        let address = self.free_address(chance);
        // Mostly a server keeps its name, so that names come back.
        let number = chance.below(ADDRESSES);
        let own = format!("b{}", address.ip());
        let is_taken = |name: &str| self.backends.iter().any(|known| known.name == name);
        let name = match chance.one_in(4) {
            true => format!("n{number}"),
            false => own.clone(),
        };
        let name = [name, own, format!("x{number}"), format!("y{address}")];
        let name = name.into_iter().find(|name| !is_taken(name));
        if let Some(name) = name {
            self.backends.push(Backend {
                name,
                address,
                weight: weight(chance),
                state: "ready",
            });
        }
    }

    fn free_address(&self, chance: &Chance) -> SocketAddr {
        loop {
            let address = address(chance.below(ADDRESSES));
            if self.backends.iter().all(|known| known.address != address) {
                return address;
            }
        }
    }

    fn write(&self, text: &mut String) {
        let name = &self.name;
        let mut line = |said: String| writeln!(text, "{said}").expect("memory");
        line(format!(
            "[[routes]]\nname = {name:?}\npath = \"/{name}\"\npool = {name:?}"
        ));
        if let Some(sticky) = &self.sticky {
            line(format!("sticky = {}", sticky.text()));
        }
        line(format!(
            "[pools.{name}]\nbalancer = {:?}\nmax_sessions = 1000",
            self.balancer
        ));
        if let Some(seconds) = self.slow_start {
            line(format!("slow_start = \"{seconds}s\""));
        }
        line("backends = [".to_owned());
        for backend in &self.backends {
            let Backend {
                name,
                address,
                weight,
                state,
            } = backend;
            line(format!(
                "{{ name = {name:?}, address = \"{address}\", weight = {weight}, state = {state:?} }},"
            ));
        }
        line(format!("]\n[pools.{name}.health]"));
        match &self.check {
            None => line("type = \"none\"".to_owned()),
            Some(check) => line(format!(
                "interval = \"{}ms\"\ntimeout = \"100ms\"\nrise = {}\nfall = {}\ninitial = {:?}",
                check.interval_millis, check.rise, check.fall, check.initial
            )),
        }
    }
}

impl Check {
    fn new(chance: &Chance) -> Check {
        Check {
            interval_millis: chance.within(300..3000),
            rise: chance.within(1..4) as u32,
            fall: chance.within(1..4) as u32,
            initial: chance.one_of(&["probe", "probe", "up", "down"]),
        }
    }
}

impl Sticky {
    fn new(chance: &Chance) -> Sticky {
        let mode = chance.one_of(&[
            "insert",
            "insert",
            "cookie-hash",
            "route",
            "learn",
            "source",
            "header",
        ]);
        let sessions = chance.one_of(&["local", "local", "replicated", "shared"]);
        let on_failure: &[&str] = match (mode, sessions) {
            ("insert" | "cookie-hash" | "learn", _) => &["temporary", "permanent", "error", "wait"],
            _ => &["temporary", "error", "wait"],
        };
        let is_told = matches!(mode, "insert" | "cookie-hash" | "learn");
        let on_failure = chance.one_of(on_failure);
        Sticky {
            mode,
            sessions,
            on_failure,
            wait: chance.within(1..6),
            idle: chance.within(20..120),
            rehome: chance.within(5..40),
            rebalance: sessions != "local" && is_told && chance.one_in(2),
            factor: chance.one_of(&["0", "0.25", "1.5"]),
        }
    }

    /// Whether a client's home follows from its key alone.
    pub fn is_by_key(&self) -> bool {
        matches!(self.mode, "source" | "header")
    }

    fn text(&self) -> String {
        let Sticky {
            mode,
            sessions,
            on_failure,
            ..
        } = self;
        let mut text =
            format!("{{ mode = {mode:?}, sessions = {sessions:?}, on_failure = {on_failure:?}");
        let mut add = |said: String| text.push_str(&format!(", {said}"));
        if *on_failure == "wait" {
            add(format!("wait = \"{}s\"", self.wait));
        }
        if *mode == "insert" && matches!(*on_failure, "temporary" | "wait") {
            add(format!("rehome_after = \"{}s\"", self.rehome));
        }
        if *mode == "header" {
            add("header = \"X-User\"".to_owned());
        }
        if self.rebalance {
            add("rebalance = \"idle\", rebalance_idle = \"2s\"".to_owned());
        }
        if !self.is_by_key() {
            add(format!("balance_factor = {}", self.factor));
        }
        add(format!("idle_timeout = \"{}s\" }}", self.idle));
        text
    }
}

fn weight(chance: &Chance) -> u16 {
    match chance.below(8) {
        0 => 256,
        1..4 => chance.within(1..12) as u16,
        _ => 1,
    }
}

fn state(chance: &Chance) -> &'static str {
    chance.one_of(&["ready", "ready", "drain", "maint"])
}
