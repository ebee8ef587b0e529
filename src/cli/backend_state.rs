//! `weir ready` and `weir maint`, and what `weir drain` begins with: sets what the operator wants of one backend.
//! Names are judged by the running process, which knows what there is.
//! The walk goes on in `drain.rs` and in `control/admin/backend_state.rs`.

use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use serde_json::{Value, json};

use super::admin_client::{AdminAddress, Client};
use super::print;
use crate::config::diagnostic::counted;
use crate::config::model::AdminState;

/// A backend of a running weir.
#[derive(Args)]
pub struct Place {
    /// The backend, as `weir status` names pool and backend: was/was2.
    #[arg(value_name = "POOL/BACKEND")]
    pub target: Target,
    #[command(flatten)]
    address: AdminAddress,
}

/// A pool's name and a backend's, neither of which has a `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
}

impl Place {
    /// Sets the state and prints what came of it.
    pub fn set(&self, state: AdminState) -> ExitCode {
        let set = self.client().and_then(|client| self.ask(&client, state));
        print(set.map(|outcome| self.told(state, &outcome)))
    }

    /// A way to ask the weir that is meant.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn client(&self) -> Result<Client, String> {
        self.address.client()
    }

    /// Sets the state.
    ///
    /// # Errors
    /// What to tell the user, when there is no answer or no such backend.
    pub fn ask(&self, client: &Client, state: AdminState) -> Result<Value, String> {
        let (pool, backend) = (encoded(&self.target.pool), encoded(&self.target.backend));
        let state = state.as_str();
        client.post(
            &format!("/api/v1/pools/{pool}/backends/{backend}/{state}"),
            &json!({}),
        )
    }

    /// What came of it, a line or two.
    pub fn told(&self, state: AdminState, outcome: &Value) -> String {
        told(&self.target, state, outcome)
    }
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Target, Self::Err> {
        match text.split_once('/') {
            Some((pool, backend)) if !pool.is_empty() && !backend.is_empty() => Ok(Target {
                pool: pool.to_owned(),
                backend: backend.to_owned(),
            }),
            _ => Err("write the pool, a slash and the backend, such as was/was2"),
        }
    }
}

fn told(target: &Target, state: AdminState, outcome: &Value) -> String {
    let is = match state {
        AdminState::Ready => "is ready",
        AdminState::Drain => "drains",
        AdminState::Maint => "is in maintenance",
    };
    let already = match outcome["changed"].as_bool() {
        Some(false) => " already",
        _ => "",
    };
    let held = outcome["sessions_held"].as_u64().unwrap_or(0) as usize;
    let sessions = counted(held, "live session");
    let mut text = format!("{target} {is}{already}, ");
    if held > 0 {
        text += &format!("{sessions}, ");
    }
    text += &format!("{} in flight{}\n", outcome["in_flight"], upgraded(outcome));
    if held > 0 && state == AdminState::Maint {
        text += &format!(
            "note: {sessions} can be reached again when it is ready; `weir drain {target} --wait` lets them end first\n"
        );
    }
    if outcome["takes_new"] == 0 {
        let pool = &target.pool;
        text += &format!("note: no backend of {pool} takes new clients now\n");
    }
    if outcome["kept"] == false {
        text += "note: state_dir cannot be written: it will not survive a restart of weir\n";
    }
    text
}

/// Told only where there are any.
fn upgraded(outcome: &Value) -> String {
    match outcome["upgraded"].as_u64() {
        Some(count @ 1..) => format!(", {count} upgraded"),
        _ => String::new(),
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.backend)
    }
}

/// A path segment (RFC 3986 section 3.3): all but unreserved characters are percent-encoded.
fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_pool_and_a_backend() {
        let target: Target = "was/[::1]:80".parse().unwrap();
        assert_eq!((&*target.pool, &*target.backend), ("was", "[::1]:80"));
        assert_eq!(target.to_string(), "was/[::1]:80");
        for bad in ["was", "was/", "/was2", "", "/"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_held_is_told() {
        let place = |word: &str| {
            let outcome = json!({ "changed": word == "drain", "in_flight": 3, "upgraded": 0, "sessions_held": 8, "takes_new": 2, "kept": true });
            let state = AdminState::from_word(word).unwrap();
            let target = "was/was3".parse().unwrap();
            told(&target, state, &outcome)
        };
        assert_eq!(
            place("drain"),
            "was/was3 drains, 8 live sessions, 3 in flight\n"
        );
        let maint = place("maint");
        assert!(
            maint.starts_with(
                "was/was3 is in maintenance already, 8 live sessions, 3 in flight\nnote: 8 live"
            ),
            "{maint}"
        );
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("was-2_a.b~"), "was-2_a.b~");
        assert_eq!(encoded("[::1]:80%/ü"), "%5B%3A%3A1%5D%3A80%25%2F%C3%BC");
    }
}
