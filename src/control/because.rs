//! Why a backend is what it is, and since when: the words of its checks, of its traffic, or of who set it.
//! It shows what others found out and decides nothing.
//! The walk goes on in `admin/status.rs` and `admin/explain.rs`, which tell it.

use std::time::Instant;

use super::drains::Mark;
use super::effective::Effective;
use super::overrides::Overrides;
use super::probes::{Ledger, Verdict};
use super::shared::Shared;
use crate::clock;
use crate::state::backend::Backend;
use crate::state::snapshot::Pool;

/// Why a backend's effective state is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Because {
    /// Since when, in milliseconds since the epoch; `None`: longer than this process knows.
    pub since_wall_millis: Option<u64>,
    /// Why, on one line.
    pub text: String,
}

/// Who gave a backend its administrative state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// The file.
    File,
    /// An operator, by the API.
    Api(Mark),
    /// The backend itself, by the status that answers its check.
    Check,
    /// The scaling of its pool.
    Scale,
}

impl SetBy {
    /// Who that was for a backend of the pool.
    pub fn of(pool: &str, backend: &Backend, overrides: &Overrides) -> SetBy {
        match overrides.of(pool, &backend.name) {
            _ if backend.set() != backend.admin() => SetBy::Check,
            None if backend.set() != backend.written => SetBy::Scale,
            None => SetBy::File,
            Some(over) => SetBy::Api(over.mark),
        }
    }
}

impl Because {
    /// Why a backend of the pool is what it is.
    pub fn of(pool: &Pool, backend: &Backend, shared: &Shared) -> Because {
        match Effective::of(backend) {
            Effective::Maint | Effective::Drain => set(pool, backend, shared),
            Effective::Ejected => ejected(pool, backend),
            Effective::Up | Effective::Down | Effective::Unknown => {
                checked(pool, backend, &shared.checks)
            }
        }
    }
}

fn set(pool: &Pool, backend: &Backend, shared: &Shared) -> Because {
    let (since_wall_millis, text) = match SetBy::of(&pool.name, backend, &shared.overrides) {
        SetBy::Api(mark) if mark.who.is_empty() => {
            (Some(mark.set_wall_millis), "set by api".to_owned())
        }
        SetBy::Api(mark) => (
            Some(mark.set_wall_millis),
            format!("set by api ({})", mark.who),
        ),
        SetBy::File => (
            None,
            format!("the file says state = {:?}", backend.admin().as_str()),
        ),
        SetBy::Scale => (None, "the pool's `scale` gives it up".to_owned()),
        SetBy::Check => match of_checks(pool, backend, &shared.checks).leaving {
            Some((status, since)) => (
                Some(since),
                format!("it asks to be drained: status {status}"),
            ),
            None => (None, "it asks to be drained".to_owned()),
        },
    };
    Because {
        since_wall_millis,
        text,
    }
}

fn ejected(pool: &Pool, backend: &Backend) -> Because {
    let rules = pool.passive.as_ref().map(|passive| &passive.rules);
    let ejection = backend.live.record().ejection().zip(rules);
    let told = ejection.map(|((cause, last, at), rules)| Because {
        since_wall_millis: Some(wall(at)),
        text: format!("{}, the last failure: {}", cause.told(rules), last.as_str()),
    });
    told.unwrap_or_else(|| Because {
        since_wall_millis: None,
        // It ended within this very moment.
        text: "it failed".to_owned(),
    })
}

fn checked(pool: &Pool, backend: &Backend, checks: &Ledger) -> Because {
    let Verdict {
        since_wall_millis,
        because,
        ..
    } = of_checks(pool, backend, checks);
    Because {
        since_wall_millis,
        text: because.into(),
    }
}

/// What the checks of a backend say.
fn of_checks(pool: &Pool, backend: &Backend, checks: &Ledger) -> Verdict {
    let counts = checks.counts(&pool.name, backend.live.address);
    let known = counts.map(|counts| counts.verdict());
    known.unwrap_or_else(Verdict::none)
}

/// The wall time of a moment that is not long ago, in milliseconds since the epoch.
fn wall(at: Instant) -> u64 {
    let ago = clock::now().saturating_duration_since(at).as_millis();
    clock::wall_millis().saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::AdminState;
    use crate::control::sample::shared;
    use crate::policy::health::Health;
    use crate::state::sample::loopback;

    #[test]
    fn a_setting_tells_who_and_a_check_tells_what() {
        let (shared, _ends) = shared(&[("was", &[loopback(1)])]);
        let snapshot = shared.current.borrow().clone();
        let (pool, backend) = (&snapshot.pools[0], &snapshot.pools[0].backends[0]);
        let told = || Because::of(pool, backend, &shared);
        backend.live.set_health(Health::Unknown, clock::now());
        assert_eq!(told().text, "no check has ended yet");
        backend.set_over(Some(AdminState::Drain));
        assert_eq!(told().text, "the pool's `scale` gives it up");
        backend.set_over(None);
        let counts = shared.checks.open(&pool.name, backend.live.address);
        backend.live.set_health(Health::Down, clock::now());
        counts.tell("status 404", Some(7));
        let down = Because {
            since_wall_millis: Some(7),
            text: "status 404".to_owned(),
        };
        assert_eq!(told(), down);
        backend.live.set_health(Health::Up, clock::now());
        backend.live.set_leaving(true);
        counts.tell_leaving(Some((410, 9)));
        assert_eq!(told().text, "it asks to be drained: status 410");
        assert_eq!(told().since_wall_millis, Some(9));
    }
}
