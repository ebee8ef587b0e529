//! `weir drain`: lets a backend finish what it has, and with `--wait` tells when it has.
//! It gives up at the deadline and never undoes the drain: whoever waits longer asks again.
//! The walk goes on in `control/admin/status.rs`, which it looks at.

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
/// Looks in a row that must find nothing in flight: a worker may just have chosen the backend when it was drained.
const QUIET: u32 = 2;

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

/// Waits until nothing is in flight.
fn await_quiet(client: &Client, target: &Target, end: Option<Instant>) -> Result<String, String> {
    let (mut quiet, mut last) = (0, None);
    loop {
        let in_flight = look(&client.get("/api/v1/status")?, target)?;
        quiet = if in_flight == 0 { quiet + 1 } else { 0 };
        if quiet == QUIET {
            return Ok(format!("{target} is drained: nothing is in flight\n"));
        }
        if in_flight > 0 && last.replace(in_flight) != Some(in_flight) {
            progress(&format!("{target} drains, {in_flight} in flight\n"));
        }
        if in_flight > 0 && end.is_some_and(|end| clock::now() >= end) {
            return Err(format!(
                "{target} is not drained by the deadline: {in_flight} in flight; it goes on draining"
            ));
        }
        sleep(LOOK);
    }
}

/// Requests in flight at the backend, as long as it drains.
fn look(status: &Value, target: &Target) -> Result<u64, String> {
    let backend = named(&status["pools"], &target.pool)
        .and_then(|pool| named(&pool["backends"], &target.backend))
        .ok_or_else(|| {
            format!("{target} was removed from the configuration; what it had in flight goes on")
        })?;
    if backend["state"] == AdminState::Ready.as_str() {
        return Err(format!("{target} was set to ready meanwhile"));
    }
    backend["in_flight"]
        .as_u64()
        .ok_or_else(|| "the status does not tell what is in flight".to_owned())
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
                { "name": "was", "backends": [{ "name": name, "state": state, "in_flight": 3 }] },
            ] })
        };
        assert_eq!(look(&status("was2", "drain"), &target), Ok(3));
        assert_eq!(look(&status("was2", "maint"), &target), Ok(3));
        let ready = look(&status("was2", "ready"), &target).unwrap_err();
        assert_eq!(ready, "was/was2 was set to ready meanwhile");
        let gone = look(&status("was3", "drain"), &target).unwrap_err();
        assert!(gone.starts_with("was/was2 was removed"), "{gone}");
        assert!(look(&json!({}), &target).is_err());
    }
}
