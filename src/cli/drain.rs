//! `weir drain`: lets a backend, a listener or weir finish what it has, and with `--wait` tells when it has: no live session that would
//! be lost with it, and nothing in flight; or no connection.
//! It gives up at the deadline and never undoes the drain: whoever waits longer asks again.
//! The walk goes on in `control/admin/status.rs`, which it looks at.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::admin_client::Client;
use super::backend_state::{Meant, Subject, Target};
use super::print;
use super::status::time;
use crate::clock;
use crate::config::diagnostic::counted;
use crate::config::model::AdminState;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Looks in a row that must find nothing left: a worker may just have chosen the backend when it was drained.
const QUIET: u32 = 2;

/// Drains, and waits if asked to.
pub fn drain(subject: &Subject, wait: bool, deadline: Option<Duration>) -> ExitCode {
    let end = deadline.map(|deadline| clock::now() + deadline);
    let meant = subject.meant();
    let asked = subject.client().and_then(|client| {
        let outcome = meant.ask(&client, AdminState::Drain)?;
        Ok((client, outcome))
    });
    let done = asked.and_then(|(client, outcome)| {
        let told = meant.told(AdminState::Drain, &outcome);
        if !wait {
            return Ok(told);
        }
        progress(&told);
        await_end(&client, &meant, end)
    });
    print(done)
}

/// Waits until nothing is left.
fn await_end(client: &Client, target: &Meant, end: Option<Instant>) -> Result<String, String> {
    let (mut quiet, mut last) = (0, None);
    loop {
        let left = look(&client.get("/api/v1/status")?, target)?;
        quiet = if left.is_nothing() { quiet + 1 } else { 0 };
        if quiet == QUIET {
            return Ok(format!("{target} is drained: {left}\n"));
        }
        if !left.is_nothing() && last.replace(left) != Some(left) {
            progress(&format!("{target} drains: {left}{}\n", left.expiry()));
        }
        if !left.is_nothing() && end.is_some_and(|end| clock::now() >= end) {
            return Err(format!(
                "{target} is not drained by the deadline: {left}; it goes on draining"
            ));
        }
        sleep(LOOK);
    }
}

/// What is still there.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    sessions: u64,
    expire_seconds: Option<u64>,
    /// For so long sessions may turn up that weir does not know, because it was started since.
    unseen_seconds: Option<u64>,
    in_flight: u64,
    upgraded: u64,
    /// Of a listener or weir as a whole, which are counted by nothing else.
    connections: Option<u64>,
}

/// Time alone is no progress.
impl PartialEq for Left {
    fn eq(&self, other: &Left) -> bool {
        let counts = |left: &Left| {
            let Left {
                sessions,
                in_flight,
                upgraded,
                connections,
                unseen_seconds,
                ..
            } = *left;
            let are_unseen = unseen_seconds.is_some();
            (sessions, in_flight, upgraded, connections, are_unseen)
        };
        counts(self) == counts(other)
    }
}

impl fmt::Display for Left {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(connections) = self.connections {
            return write!(to, "{} open", counted(connections as usize, "connection"));
        }
        let in_flight = Some(self.in_flight).filter(|&count| count > 0);
        let upgraded = counted(self.upgraded as usize, "upgraded connection");
        let parts = [
            (self.sessions > 0).then(|| counted(self.sessions as usize, "live session")),
            in_flight.map(|count| format!("{count} in flight")),
            (self.upgraded > 0).then_some(upgraded),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match (&*parts, self.unseen_seconds) {
            ([], None) => to.write_str("no live session, nothing in flight"),
            ([], Some(seconds)) => write!(
                to,
                "no live session is known, but weir was started since, and clients that rest may have some for {} more",
                time(seconds)
            ),
            (some, _) => to.write_str(&some.join(", ")),
        }
    }
}

impl Left {
    fn is_nothing(self) -> bool {
        let open = self.sessions + self.in_flight + self.upgraded + self.connections.unwrap_or(0);
        open == 0 && self.unseen_seconds.is_none()
    }

    /// When the sessions will have ended by themselves.
    fn expiry(self) -> String {
        let seconds = self.expire_seconds.filter(|_| self.sessions > 0);
        seconds.map_or_else(String::new, |seconds| {
            format!(", the last session expires in {}", time(seconds))
        })
    }
}

/// What is left, as long as it drains.
fn look(status: &Value, meant: &Meant) -> Result<Left, String> {
    let found = match meant {
        Meant::Backend(target) => return look_at_backend(status, target),
        Meant::Listener(name) => named(&status["listeners"], name)
            .ok_or_else(|| format!("{meant} was removed from the configuration"))?,
        Meant::Process => &status["process"],
    };
    if found["state"] == AdminState::Ready.as_str() {
        return Err(format!("{meant} was set to ready meanwhile"));
    }
    let connections = found["connections"].as_u64();
    let connections = connections.ok_or("the status does not tell `connections`")?;
    Ok(Left {
        connections: Some(connections),
        ..Left::default()
    })
}

fn look_at_backend(status: &Value, target: &Target) -> Result<Left, String> {
    let backend = named(&status["pools"], &target.pool)
        .and_then(|pool| named(&pool["backends"], &target.backend))
        .ok_or_else(|| {
            format!("{target} was removed from the configuration; what it had in flight goes on")
        })?;
    if backend["state"] == AdminState::Ready.as_str() {
        return Err(format!("{target} was set to ready meanwhile"));
    }
    let count = |key: &str| {
        let missing = || format!("the status does not tell `{key}`");
        backend[key].as_u64().ok_or_else(missing)
    };
    Ok(Left {
        sessions: count("sessions_held")?,
        expire_seconds: backend["sessions_expire_seconds"].as_u64(),
        unseen_seconds: backend["sessions_unseen_seconds"].as_u64(),
        in_flight: count("in_flight")?,
        upgraded: count("upgraded")?,
        connections: None,
    })
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item["name"] == name)
}

/// A line before the end.
fn progress(line: &str) {
    // A reader that has gone away wanted no more.
    let _ = io::stdout().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_look_finds_the_backend_as_long_as_it_drains() {
        let target = Meant::Backend("was/was2".parse().unwrap());
        let status = |name: &str, state: &str| {
            json!({ "pools": [
                { "name": "other", "backends": [{ "name": "was2", "state": "ready" }] },
                { "name": "was", "backends": [{ "name": name, "state": state, "in_flight": 3, "upgraded": 1,
                    "sessions_held": 2, "sessions_expire_seconds": 61 }] },
            ] })
        };
        for state in ["drain", "maint"] {
            let left = look(&status("was2", state), &target).unwrap();
            assert_eq!(
                left.to_string(),
                "2 live sessions, 3 in flight, 1 upgraded connection"
            );
            assert_eq!(left.expiry(), ", the last session expires in 1m1s");
            assert!(!left.is_nothing());
        }
        let mut later = status("was2", "drain");
        later["pools"][1]["backends"][0] = json!({ "name": "was2", "state": "drain", "in_flight": 0, "upgraded": 0,
            "sessions_held": 0, "sessions_unseen_seconds": 61 });
        let left = look(&later, &target).unwrap();
        assert!(
            !left.is_nothing() && left.to_string().ends_with("for 1m1s more"),
            "{left}"
        );
        let ready = look(&status("was2", "ready"), &target).unwrap_err();
        assert_eq!(ready, "was/was2 was set to ready meanwhile");
        let gone = look(&status("was3", "drain"), &target).unwrap_err();
        assert!(gone.starts_with("was/was2 was removed"), "{gone}");
        assert!(look(&json!({}), &target).is_err());
    }
}
