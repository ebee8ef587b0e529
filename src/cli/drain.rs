//! `weir drain`: lets a backend finish what it has, and with `--wait` tells when it has.
//! It gives up at the deadline and never undoes the drain: whoever waits longer asks again.
//! The walk goes on in `control/admin/status.rs`, which it looks at.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::admin_client::Client;
use super::backend_state::{Place, Target};
use super::print;
use crate::clock;
use crate::config::model::AdminState;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Looks in a row that must find nothing left: a worker may just have chosen the backend when it was drained.
const QUIET: u32 = 2;
/// What a backend must have none of to be drained: key of the status, and what it is called.
const KINDS: [(&str, &str); 2] = [("in_flight", "in flight"), ("upgraded", "upgraded")];

/// Drains, and waits if asked to.
pub fn drain(place: &Place, wait: bool, deadline: Option<Duration>) -> ExitCode {
    let end = deadline.map(|deadline| clock::now() + deadline);
    let asked = place.client().and_then(|client| {
        let outcome = place.ask(&client, AdminState::Drain)?;
        Ok((client, outcome))
    });
    let done = asked.and_then(|(client, outcome)| {
        let told = place.told(AdminState::Drain, &outcome);
        if !wait {
            return Ok(told);
        }
        progress(&told);
        await_quiet(&client, &place.target, end)
    });
    print(done)
}

/// Waits until nothing is left.
fn await_quiet(client: &Client, target: &Target, end: Option<Instant>) -> Result<String, String> {
    let (mut quiet, mut last) = (0, None);
    loop {
        let left = look(&client.get("/api/v1/status")?, target)?;
        quiet = if left.is_nothing() { quiet + 1 } else { 0 };
        if quiet == QUIET {
            return Ok(format!("{target} is drained: nothing is in flight\n"));
        }
        if !left.is_nothing() && last.replace(left) != Some(left) {
            progress(&format!("{target} drains, {left}\n"));
        }
        if !left.is_nothing() && end.is_some_and(|end| clock::now() >= end) {
            return Err(format!(
                "{target} is not drained by the deadline: {left}; it goes on draining"
            ));
        }
        sleep(LOOK);
    }
}

/// What is left at the backend, as long as it drains.
fn look(status: &Value, target: &Target) -> Result<Left, String> {
    let backend = named(&status["pools"], &target.pool)
        .and_then(|pool| named(&pool["backends"], &target.backend))
        .ok_or_else(|| {
            format!("{target} was removed from the configuration; what it had in flight goes on")
        })?;
    if backend["state"] == AdminState::Ready.as_str() {
        return Err(format!("{target} was set to ready meanwhile"));
    }
    let mut left = Left::default();
    for (count, (key, kind)) in left.0.iter_mut().zip(KINDS) {
        *count = backend[key]
            .as_u64()
            .ok_or_else(|| format!("the status does not tell what is {kind}"))?;
    }
    Ok(left)
}

/// What a backend still has, in the order of [`KINDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left([u64; KINDS.len()]);

impl Left {
    fn is_nothing(&self) -> bool {
        self.0.iter().all(|&count| count == 0)
    }
}

/// `2 in flight, 1 upgraded`; kinds of which there are none are left out.
impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self.0.iter().zip(KINDS).filter(|(count, _)| **count > 0);
        for (ordinal, (count, (_, kind))) in some.enumerate() {
            let comma = if ordinal == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {kind}")?;
        }
        Ok(())
    }
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
        let target: Target = "was/was2".parse().unwrap();
        let status = |name: &str, state: &str| {
            json!({ "pools": [
                { "name": "other", "backends": [{ "name": "was2", "state": "ready", "in_flight": 9 }] },
                { "name": "was", "backends": [{ "name": name, "state": state, "in_flight": 3, "upgraded": 1 }] },
            ] })
        };
        let left = Ok(Left([3, 1]));
        assert_eq!(look(&status("was2", "drain"), &target), left);
        assert_eq!(look(&status("was2", "maint"), &target), left);
        let ready = look(&status("was2", "ready"), &target).unwrap_err();
        assert_eq!(ready, "was/was2 was set to ready meanwhile");
        let gone = look(&status("was3", "drain"), &target).unwrap_err();
        assert!(gone.starts_with("was/was2 was removed"), "{gone}");
        assert!(look(&json!({}), &target).is_err());
    }

    #[test]
    fn what_is_left_is_told_by_kind() {
        assert_eq!(Left([3, 1]).to_string(), "3 in flight, 1 upgraded");
        assert_eq!(Left([0, 2]).to_string(), "2 upgraded");
        assert!(Left([0, 0]).is_nothing() && !Left([0, 1]).is_nothing());
    }
}
