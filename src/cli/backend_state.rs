//! `weir ready` and `weir maint`, and what `weir drain` begins with: sets what the operator wants of a backend, a listener or weir.
//! Names are judged by the running process, which knows what there is.
//! The walk goes on in `drain.rs` and in `control/admin/backend_state.rs` and `stand.rs`.

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
    target: Target,
    #[command(flatten)]
    address: AdminAddress,
}

/// Something of a running weir that may drain.
#[derive(Args)]
pub struct Subject {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    address: AdminAddress,
}

/// What is meant: one of these.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A backend, as `weir status` names pool and backend: was/was2.
    #[arg(value_name = "POOL/BACKEND")]
    target: Option<Target>,
    /// A listener, by its name in the file.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// weir as a whole.
    #[arg(long)]
    process: bool,
}

/// The same, as one of three.
#[derive(Clone, Debug)]
pub enum Meant {
    /// A backend.
    Backend(Target),
    /// A listener.
    Listener(String),
    /// weir as a whole.
    Process,
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
        set(&self.address, &Meant::Backend(self.target.clone()), state)
    }
}

impl Subject {
    /// Sets the state and prints what came of it.
    pub fn set(&self, state: AdminState) -> ExitCode {
        set(&self.address, &self.meant(), state)
    }

    /// A way to ask the weir that is meant.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn client(&self) -> Result<Client, String> {
        self.address.client()
    }

    /// What is meant.
    pub fn meant(&self) -> Meant {
        match (&self.what.target, &self.what.listener) {
            (Some(target), _) => Meant::Backend(target.clone()),
            (_, Some(listener)) => Meant::Listener(listener.clone()),
            (None, None) => Meant::Process,
        }
    }
}

impl Meant {
    /// Sets the state.
    ///
    /// # Errors
    /// What to tell the user, when there is no answer or nothing of that name.
    pub fn ask(&self, client: &Client, state: AdminState) -> Result<Value, String> {
        let subject = match self {
            Meant::Backend(target) => {
                let (pool, backend) = (encoded(&target.pool), encoded(&target.backend));
                format!("pools/{pool}/backends/{backend}")
            }
            Meant::Listener(name) => format!("listeners/{}", encoded(name)),
            Meant::Process => "process".to_owned(),
        };
        let path = format!("/api/v1/{subject}/{}", state.as_str());
        client.post(&path, &json!({ "by": user() }))
    }

    /// What came of it, a line or two.
    pub fn told(&self, state: AdminState, outcome: &Value) -> String {
        if let Meant::Backend(target) = self {
            return told(target, state, outcome);
        }
        let already = match outcome["changed"].as_bool() {
            Some(false) => " already",
            _ => "",
        };
        let is = match state {
            AdminState::Ready => "is ready",
            AdminState::Drain | AdminState::Maint => "drains",
        };
        let open = outcome["connections"].as_u64().unwrap_or(0) as usize;
        let open = counted(open, "connection");
        format!("{self} {is}{already}, {open} open\n{}", unkept(outcome))
    }
}

/// Who is at the terminal, for colleagues who wonder later.
fn user() -> Option<String> {
    let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok());
    names.find(|name| !name.is_empty())
}

fn set(address: &AdminAddress, meant: &Meant, state: AdminState) -> ExitCode {
    let set = address
        .client()
        .and_then(|client| meant.ask(&client, state));
    print(set.map(|outcome| meant.told(state, &outcome)))
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
    text + unkept(outcome)
}

fn unkept(outcome: &Value) -> &'static str {
    match outcome["kept"].as_bool() {
        Some(false) => "note: state_dir cannot be written: it will not survive a restart of weir\n",
        _ => "",
    }
}

/// Told only where there are any.
fn upgraded(outcome: &Value) -> String {
    match outcome["upgraded"].as_u64() {
        Some(count @ 1..) => format!(", {count} upgraded"),
        _ => String::new(),
    }
}

impl std::fmt::Display for Meant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Meant::Backend(target) => target.fmt(f),
            Meant::Listener(name) => write!(f, "listener {name}"),
            Meant::Process => f.write_str("weir"),
        }
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
