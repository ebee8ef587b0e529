//! What the shadow model thinks of each choice: who might be chosen at all, and where a client's home is.
//! Its rules are the sentences of the documentation, one after another; none looks at how weir came to its choice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weir::config::model::AdminState;
use weir::policy::balance::{BackendIndex, Loads};
use weir::policy::choose::{Choice, Nowhere};
use weir::policy::health::Health;
use weir::policy::persist::{Chosen, Stickiness};
use weir::state::snapshot::Pool;
use weir::upstream::generation::{Generation, PoolLoads};

use crate::file;
use crate::shadow::{Home, Shadow};

/// One question to weir.
pub struct Asked<'a> {
    pub generation: &'a Generation,
    pub pool: &'a Pool,
    pub client: usize,
    pub is_current: bool,
    pub tried: &'a [BackendIndex],
    pub anew: bool,
    pub patient: bool,
    pub session: Option<String>,
    pub has_token: bool,
    pub now: Instant,
    pub wall_millis: u64,
}

/// What an answer told a client of a sticky route.
pub struct Told<'a> {
    pub client: usize,
    pub generation: u64,
    pub pool: &'a Pool,
    pub chosen: &'a Chosen,
    pub backend: BackendIndex,
    pub opened: Option<&'a str>,
    pub shown: Option<&'a str>,
    pub is_told: bool,
    pub now: Instant,
    pub wall_millis: u64,
}

/// What is true of a backend.
#[derive(Clone, Copy, Debug)]
struct State {
    admin: AdminState,
    health: Health,
    since: Instant,
}

/// Who may be chosen, as the words of the documentation have it.
#[derive(Debug)]
struct Able {
    states: Vec<State>,
    /// Who takes new clients.
    fresh: Vec<BackendIndex>,
    /// Who serves the clients that it has.
    kept: Vec<BackendIndex>,
}

impl Able {
    fn new(states: Vec<State>) -> Able {
        let all = || (0..).map(BackendIndex).zip(&states);
        let those = |admin: AdminState, health: Health| -> Vec<BackendIndex> {
            let matching = all().filter(|(_, own)| own.admin == admin && own.health == health);
            matching.map(|(backend, _)| backend).collect()
        };
        let mut fresh = those(AdminState::Ready, Health::Up);
        let mut leaving = those(AdminState::Drain, Health::Up);
        if fresh.is_empty() {
            if leaving.is_empty() {
                leaving = those(AdminState::Drain, Health::Unknown);
            }
            fresh = those(AdminState::Ready, Health::Unknown);
        }
        let mut kept = [fresh.clone(), leaving].concat();
        kept.sort();
        Able {
            states,
            fresh,
            kept,
        }
    }

    fn without(mut self, tried: &[BackendIndex]) -> Able {
        self.fresh.retain(|own| !tried.contains(own));
        self.kept.retain(|own| !tried.contains(own));
        self
    }
}

impl Asked<'_> {
    /// What came of it, in a line.
    pub fn text(&self, choice: &Result<Choice, Nowhere>) -> String {
        match choice {
            Ok(choice) => {
                let name = &self.pool.backends[choice.backend.index()].name;
                format!("{name} {:?}", choice.sticky.map(|chosen| chosen.stickiness))
            }
            Err(nowhere) => format!("{nowhere:?}"),
        }
    }

    fn index(&self, name: &str) -> Option<BackendIndex> {
        let place = self
            .pool
            .backends
            .iter()
            .position(|own| *own.name == *name)?;
        Some(BackendIndex(place as u16))
    }

    fn key(&self) -> (usize, String) {
        (self.client, self.pool.name.to_string())
    }
}

impl Shadow {
    /// Judges a choice.
    pub fn judge(&self, asked: &Asked<'_>, choice: &Result<Choice, Nowhere>) {
        let able = Able::new(self.states(asked)).without(asked.tried);
        self.judge_eligible(asked, &able, choice);
        let sticky = self.sticky(asked);
        if let Some(sticky) =
            sticky.filter(|_| asked.is_current && asked.tried.is_empty() && !asked.anew)
        {
            if let Some(home) = self.home(asked, sticky) {
                self.judge_home(asked, sticky, &home, &able, choice);
            }
            self.judge_placement(asked, sticky, &able, choice);
        }
    }

    /// Nobody is chosen who may not be, and nobody is left waiting while somebody may.
    fn judge_eligible(&self, asked: &Asked<'_>, able: &Able, choice: &Result<Choice, Nowhere>) {
        match choice {
            Ok(choice) => {
                let is_kept = choice
                    .sticky
                    .is_some_and(|chosen| !chosen.stickiness.is_new());
                let allowed = match is_kept && !asked.anew {
                    true => &able.kept,
                    false => &able.fresh,
                };
                assert!(
                    allowed.contains(&choice.backend),
                    "an ineligible pick: {} of {able:?}",
                    asked.text(&Ok(*choice)),
                );
            }
            Err(Nowhere::NoBackend) => {
                assert!(able.fresh.is_empty(), "nobody was picked of {able:?}")
            }
            Err(nowhere) => assert!(
                self.sticky(asked).is_some() || !asked.is_current,
                "{nowhere:?} on a route that is not sticky"
            ),
        }
    }

    /// A client goes home while its home is there, and elsewhere only for the reasons that there are.
    fn judge_home(
        &self,
        asked: &Asked<'_>,
        sticky: &file::Sticky,
        home: &Home,
        able: &Able,
        choice: &Result<Choice, Nowhere>,
    ) {
        let hands_over = sticky.sessions != "local" && !able.fresh.is_empty();
        let allowed = if hands_over { &able.fresh } else { &able.kept };
        let own = asked.index(&home.name);
        let refuge = home.refuge.as_deref().and_then(|name| asked.index(name));
        let refuge = refuge.filter(|refuge| allowed.contains(refuge));
        let at_home = own.filter(|own| allowed.contains(own));
        match (at_home, choice) {
            (Some(own), Ok(choice)) if choice.backend == own => {
                let stickiness = choice.sticky.map(|chosen| chosen.stickiness);
                let is_home = matches!(stickiness, Some(Stickiness::Kept | Stickiness::Returned));
                assert!(is_home, "it is at home: {stickiness:?}");
            }
            (Some(own), choice) => {
                let chosen = choice.as_ref().ok();
                let is_excused = chosen
                    .is_some_and(|choice| self.is_excused(asked, sticky, own, refuge, choice));
                assert!(
                    is_excused,
                    "its home {} may serve it, yet {}: {:?}",
                    home.name,
                    asked.text(choice),
                    able.states[own.index()]
                );
            }
            (None, Err(Nowhere::HomeDown)) => {
                assert!(sticky.on_failure == "error" && own.is_some())
            }
            (None, Err(Nowhere::HomeAway)) => {
                let is_awaited = own.is_some_and(|own| self.is_awaited(asked, sticky, able, own));
                assert!(is_awaited && refuge.is_none(), "held for {}", home.name);
            }
            (None, Err(_)) => {}
            (None, Ok(choice)) => {
                let is_held = own.is_some_and(|own| self.is_awaited(asked, sticky, able, own));
                assert!(
                    refuge.is_some() || !is_held,
                    "it was to wait for {}",
                    home.name
                );
                let is_out = own.is_some_and(|own| !able.kept.contains(&own));
                assert!(
                    !is_out || sticky.on_failure != "error",
                    "it was to get an error"
                );
                let is_down = own.is_none_or(|own| able.states[own.index()].health == Health::Down);
                let is_lost =
                    is_down && sticky.sessions == "local" && refuge != Some(choice.backend);
                let is_by_ring = sticky.is_by_key() || sticky.mode == "cookie-hash";
                let stickiness = choice.sticky.map(|chosen| chosen.stickiness);
                match stickiness {
                    Some(Stickiness::Lost) => assert!(is_lost, "not lost: {home:?}"),
                    Some(Stickiness::Moved) => assert!(!is_lost, "lost: {home:?}"),
                    _ => assert!(
                        is_by_ring && own.is_none(),
                        "{stickiness:?} away from {home:?}"
                    ),
                }
            }
        }
    }

    /// Whether a client may leave a home that could serve it.
    fn is_excused(
        &self,
        asked: &Asked<'_>,
        sticky: &file::Sticky,
        own: BackendIndex,
        refuge: Option<BackendIndex>,
        choice: &Choice,
    ) -> bool {
        let Some(chosen) = choice
            .sticky
            .filter(|chosen| chosen.stickiness == Stickiness::Moved)
        else {
            return false;
        };
        let loads = PoolLoads {
            pool: asked.pool,
            view: None,
        };
        // With sessions in a store apart, a busy home is left for once.
        let is_strewn =
            sticky.sessions == "shared" && !chosen.for_good && loads.in_flight(own) >= 8;
        // Idle clients even out.
        let is_evened = sticky.rebalance && chosen.for_good && loads.sessions(own) > 0;
        // Who was away for long stays there.
        let is_settled = chosen.for_good && refuge == Some(choice.backend);
        is_strewn || is_evened || is_settled
    }

    /// Whether a request is held for its home.
    fn is_awaited(
        &self,
        asked: &Asked<'_>,
        sticky: &file::Sticky,
        able: &Able,
        own: BackendIndex,
    ) -> bool {
        let state = able.states[own.index()];
        let is_wanted = match state.admin {
            AdminState::Ready => true,
            AdminState::Drain => sticky.sessions == "local",
            AdminState::Maint => false,
        };
        let wait = Duration::from_secs(sticky.wait as u64);
        let is_recent = asked.now.saturating_duration_since(state.since) < wait;
        sticky.on_failure == "wait" && asked.patient && is_wanted && is_recent
    }

    /// No new session goes to a backend that has its part of them and more than `balance_factor` allows, while another has room.
    fn judge_placement(
        &self,
        asked: &Asked<'_>,
        sticky: &file::Sticky,
        able: &Able,
        choice: &Result<Choice, Nowhere>,
    ) {
        let Some(choice) = choice.as_ref().ok().filter(|choice| choice.is_new()) else {
            return;
        };
        if sticky.is_by_key() || asked.pool.slow_start.is_some() {
            return;
        }
        let loads = PoolLoads {
            pool: asked.pool,
            view: None,
        };
        let weight = |own: BackendIndex| f64::from(asked.pool.backends[own.index()].weight);
        let sessions = |own: BackendIndex| f64::from(loads.sessions(own));
        let weights: f64 = able.fresh.iter().map(|own| weight(*own)).sum();
        let all: f64 = able.fresh.iter().map(|own| sessions(*own)).sum();
        let factor: f64 = sticky.factor.parse().expect("a number");
        let most = |own| (1.0 + factor) * (all + 1.0) * weight(own) / weights;
        assert!(
            sessions(choice.backend) < most(choice.backend) + 1e-6,
            "a new session at {} of {:?}",
            asked.text(&Ok(*choice)),
            able.fresh
                .iter()
                .map(|own| (sessions(*own), weight(*own)))
                .collect::<Vec<_>>()
        );
    }

    /// What is true of the pool's backends. Of an old generation the words themselves are believed: what was removed since then is
    /// nobody's to say.
    fn states(&self, asked: &Asked<'_>) -> Vec<State> {
        let pool = &*asked.pool.name;
        let states = asked.pool.backends.iter().map(|backend| {
            if !asked.is_current {
                return State {
                    admin: backend.admin(),
                    health: backend.live.health(),
                    since: backend.live.health_since(),
                };
            }
            let written = || {
                let file = self
                    .file
                    .as_ref()
                    .and_then(|file| file.pool(pool))
                    .expect("a pool of the file");
                let mut known = file.backends.iter();
                known
                    .find(|own| *own.name == *backend.name)
                    .expect("a backend of the file")
                    .state
            };
            let set = self
                .set
                .get(&(pool.to_owned(), backend.name.to_string()))
                .copied();
            let watched = &self.health[&(pool.to_owned(), backend.live.address)];
            State {
                admin: set.unwrap_or_else(|| AdminState::from_word(written()).expect("a state")),
                health: watched.health,
                since: watched.since,
            }
        });
        states.collect()
    }

    /// How the route to the pool is sticky.
    fn sticky(&self, asked: &Asked<'_>) -> Option<&file::Sticky> {
        self.file.as_ref()?.pool(&asked.pool.name)?.sticky.as_ref()
    }

    /// Where the client belongs, as far as that can be known from outside.
    fn home(&self, asked: &Asked<'_>, sticky: &file::Sticky) -> Option<Home> {
        let pool = &*asked.pool.name;
        let named = |name: &str| Home {
            name: name.to_owned(),
            refuge: None,
            sticky: sticky.clone(),
            ring: Vec::new(),
            answered_millis: 0,
        };
        let told = self
            .homes
            .get(&asked.key())
            .filter(|home| home.sticky == *sticky);
        let idle = Duration::from_secs(sticky.idle as u64);
        match sticky.mode {
            "route" => {
                let (_, suffix) = asked.session.as_ref()?.split_once('.')?;
                asked.index(suffix).map(|_| named(suffix))
            }
            "learn" => {
                let since = self
                    .incarnations
                    .get(&(asked.generation.snapshot.generation, pool.to_owned()))?;
                let key = (pool.to_owned(), *since, asked.session.clone()?);
                let (name, seen) = self.learned.get(&key)?;
                // What is known of a session may be older by a grain, and is cut to whole seconds.
                let idle = idle.saturating_sub(Duration::from_secs(3));
                (asked.now.saturating_duration_since(*seen) < idle).then(|| named(name))
            }
            "insert" => {
                let home = told.filter(|_| asked.has_token)?;
                let age = asked.wall_millis.saturating_sub(home.answered_millis);
                (Duration::from_millis(age) < idle).then(|| home.clone())
            }
            _ => {
                let is_warming = asked.pool.slow_start.is_some() && sticky.is_by_key();
                let is_shown = sticky.is_by_key() || asked.has_token;
                let home = told.filter(|home| is_shown && home.ring == ring(asked.pool))?;
                (!is_warming).then(|| home.clone())
            }
        }
    }

    /// Learns what an answer told.
    pub fn learn(&mut self, told: &Told<'_>) {
        let pool = told.pool.name.to_string();
        let name = told.pool.backends[told.backend.index()].name.to_string();
        let Some(sticky) = self
            .file
            .as_ref()
            .and_then(|file| file.pool(&pool)?.sticky.clone())
        else {
            return;
        };
        if let Some(since) = self.incarnations.get(&(told.generation, pool.clone())) {
            let session = |id: &str| (pool.clone(), *since, id.to_owned());
            match (told.opened, told.shown) {
                (Some(id), _) => drop(self.learned.insert(session(id), (name.clone(), told.now))),
                (None, Some(id)) => {
                    let is_taken = told.chosen.for_good || told.chosen.stickiness.is_new();
                    let idle = Duration::from_secs(sticky.idle as u64 - 3);
                    // One that was idle for too long by the time of the answer is over: that it was asked for in time is not noted.
                    let is_live = |seen| told.now.saturating_duration_since(seen) < idle;
                    let known = self.learned.get_mut(&session(id));
                    if let Some(known) = known.filter(|known| is_taken || is_live(known.1)) {
                        known.1 = told.now;
                        if is_taken {
                            known.0.clone_from(&name);
                        }
                    }
                }
                (None, None) => {}
            }
        }
        let key = (told.client, pool);
        let known = self.homes.get(&key).cloned();
        let follows = Follows {
            told,
            name,
            sticky,
            known,
        };
        match follows.home() {
            Some(home) => drop(self.homes.insert(key, home)),
            None => drop(self.homes.remove(&key)),
        }
    }
}

/// What the next home of a client follows from.
struct Follows<'a> {
    told: &'a Told<'a>,
    name: String,
    sticky: file::Sticky,
    known: Option<Home>,
}

impl Follows<'_> {
    fn home(self) -> Option<Home> {
        let stickiness = self.told.chosen.stickiness;
        let here = Home {
            name: self.name.clone(),
            refuge: None,
            ring: ring(self.told.pool),
            sticky: self.sticky.clone(),
            answered_millis: self.told.wall_millis,
        };
        if stickiness.is_new() {
            return Some(here).filter(|_| self.told.is_told);
        }
        if self.sticky.mode != "insert" {
            // Who was kept is at home; who was told has an id whose place is here.
            if self.sticky.is_by_key() && self.told.pool.slow_start.is_some() {
                // Somebody else's place may be kept warm here.
                return None;
            }
            let is_here = self.told.is_told || stickiness == Stickiness::Kept;
            return if is_here { Some(here) } else { self.known };
        }
        let is_told = self.told.is_told;
        let is_at_home = self.told.chosen.for_good || self.told.opened.is_some();
        match stickiness {
            Stickiness::Kept | Stickiness::Returned => Some(here),
            // With sessions in a store apart a home may be too busy for a request: the client was told of that one, and went elsewhere. Its next
            // request will say which.
            _ if is_told && is_at_home => Some(here).filter(|_| self.sticky.sessions != "shared"),
            _ => self.known.map(|known| Home {
                refuge: match is_told {
                    true => Some(self.name),
                    false => known.refuge,
                },
                answered_millis: self.told.wall_millis,
                ..known
            }),
        }
    }
}

/// What the rendezvous of clients follows from.
fn ring(pool: &Pool) -> Vec<(String, u16)> {
    let ring: BTreeMap<String, u16> = pool
        .backends
        .iter()
        .map(|own| (own.name.to_string(), own.weight))
        .collect();
    ring.into_iter().collect()
}
