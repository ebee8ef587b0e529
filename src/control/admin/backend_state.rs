//! `POST /api/v1/pools/{pool}/backends/{backend}/{drain|ready|maint}`: what the operator wants of a backend.
//! It takes effect at once and lasts whether or not the disk takes it; a name that is not served changes nothing.
//! The walk goes on in `control/overrides.rs`.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, Problem, json};
use crate::clock;
use crate::config::closest;
use crate::config::model::AdminState;
use crate::control::effective::Effective;
use crate::control::shared::Shared;
use crate::policy::balance::BackendIndex;
use crate::state::backend::Backend;
use crate::state::snapshot::{Pool, Snapshot};

/// Names that are told one by one when another was asked for.
const SHOWN: usize = 20;

/// A backend as the path names it, and the state that it shall have.
pub(super) struct BackendState<'a> {
    pool: &'a str,
    backend: &'a str,
    state: AdminState,
}

#[derive(Serialize)]
struct Outcome<'a> {
    pool: &'a str,
    backend: &'a str,
    state: &'static str,
    /// Whether it was in another state, or in this one because of the file alone.
    changed: bool,
    /// Whether a restart will find it.
    kept: bool,
    in_flight: u32,
    upgraded: u32,
    /// Live sessions that would be lost with it.
    sessions_held: u32,
    /// Backends of the pool that take new clients now.
    takes_new: usize,
}

impl<'a> BackendState<'a> {
    /// What the path asks for, if it is one of these.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let (pool, rest) = path.strip_prefix("/api/v1/pools/")?.split_once('/')?;
        let (backend, state) = rest.strip_prefix("backends/")?.split_once('/')?;
        Some(BackendState {
            pool,
            backend,
            state: AdminState::from_word(state)?,
        })
    }

    /// Sets it, and tells what is still in flight there.
    pub(super) async fn set(
        self,
        shared: &Shared,
        from: Option<IpAddr>,
    ) -> Result<Answer, Problem> {
        // No reload can come between here and the await: both run on control's one thread.
        let snapshot: Arc<Snapshot> = shared.current.borrow().clone();
        let (pool, index) = self.find(&snapshot)?;
        if shared.overrides.is_frozen() {
            let detail = "an upgrade is under way: ask again in a moment";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        let backend = &pool.backends[index.index()];
        let overrides = &shared.overrides;
        let changed = overrides.set(&pool.name, backend, self.state, clock::wall_millis());
        if changed {
            log::info!(
                "admin: {}/{} set to {} by api ({})",
                pool.name,
                backend.name,
                self.state.as_str(),
                from.map_or("unix socket".to_owned(), |from| from.to_string())
            );
        }
        let kept = overrides.keep().await;
        let outcome = Outcome {
            pool: &pool.name,
            backend: &backend.name,
            state: self.state.as_str(),
            changed,
            kept,
            in_flight: backend.live.in_flight(),
            upgraded: backend.live.upgraded(),
            sessions_held: (pool.sessions.as_ref()).map_or(0, |sessions| sessions.held(index)),
            takes_new: pool.backends.iter().filter(takes_new).count(),
        };
        Ok(json(StatusCode::OK, &outcome))
    }

    fn find<'s>(&self, snapshot: &'s Snapshot) -> Result<(&'s Pool, BackendIndex), Problem> {
        let named = decoded(self.pool)?;
        let pools = &snapshot.pools;
        let pool = (pools.iter().find(|pool| *pool.name == *named)).ok_or_else(|| {
            let names = pools.iter().map(|pool| &*pool.name);
            missing(&format!("no pool {named:?}"), &named, names)
        })?;
        let named = decoded(self.backend)?;
        let backends = &pool.backends;
        let mut named_so = (0..=u16::MAX)
            .zip(backends)
            .filter(|(_, own)| *own.name == *named);
        let (index, _) = named_so.next().ok_or_else(|| {
            let names = backends.iter().map(|backend| &*backend.name);
            let what = format!("no backend {named:?} in pool {}", pool.name);
            missing(&what, &named, names)
        })?;
        Ok((pool, BackendIndex(index)))
    }
}

fn takes_new(backend: &&Backend) -> bool {
    let effective = Effective::of(backend);
    matches!(effective, Effective::Up | Effective::Unknown)
}

/// A problem that names what is meant, and what there is.
fn missing<'n>(what: &str, asked: &str, names: impl Iterator<Item = &'n str> + Clone) -> Problem {
    let meant = closest(asked, names.clone());
    let meant = meant.map_or(String::new(), |name| format!("did you mean {name}? "));
    let mut known: Vec<&str> = names.clone().take(SHOWN).collect();
    let left = names.count() - known.len();
    let more = format!("{left} more");
    if left > 0 {
        known.push(&more);
    }
    let detail = format!("there is {what}; {meant}there are: {}", known.join(", "));
    Problem::new(StatusCode::NOT_FOUND, detail)
}

/// A part of a request target without its percent-encoding (RFC 3986 section 2.1).
pub(super) fn decoded(segment: &str) -> Result<String, Problem> {
    let bad = || Problem::new(StatusCode::BAD_REQUEST, "there is a bad % in the address");
    let mut bytes = Vec::with_capacity(segment.len());
    let mut parts = segment.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let (code, rest) = part.split_at_checked(2).ok_or_else(bad)?;
        // The parser would take a sign.
        let is_hex = code.bytes().all(|byte| byte.is_ascii_hexdigit());
        let byte = u8::from_str_radix(code, 16).ok().filter(|_| is_hex);
        bytes.push(byte.ok_or_else(bad)?);
        bytes.extend(rest.bytes());
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::AdminState;

    #[test]
    fn a_path_names_a_backend_and_a_state() {
        let of = |path| BackendState::of(path).map(|it| (it.pool, it.backend, it.state));
        assert_eq!(
            of("/api/v1/pools/was/backends/10.0.0.1:80/drain"),
            Some(("was", "10.0.0.1:80", AdminState::Drain))
        );
        for path in [
            "/api/v1/pools/was/backends/a/up",
            "/api/v1/pools/was/backends/a/drain/",
            "/api/v1/pools/was/backends/a/b/drain",
            "/api/v1/pools/was/backends/a",
            "/api/v1/pools/was/backend/a/drain",
            "/api/v1/pools/was",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn percent_encoding_is_undone_once() {
        let decode = |text| decoded(text).ok();
        assert_eq!(decode("a%3a1%25").as_deref(), Some("a:1%"));
        assert_eq!(decode("%253a").as_deref(), Some("%3a"));
        for bad in ["%", "%4", "%zz", "%+1", "%e4", "a%€"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_problem_names_what_there_is() {
        let text = format!(
            "{:?}",
            missing("no pool \"wsa\"", "wsa", ["was", "api"].into_iter())
        );
        let wanted = "there is no pool \\\"wsa\\\"; did you mean was? there are: was, api";
        assert!(text.contains(wanted), "{text}");
        let names: Vec<String> = (0..30).map(|number| format!("b{number}x")).collect();
        let text = format!("{:?}", missing("x", "y", names.iter().map(|name| &**name)));
        assert!(text.ends_with("b19x, 10 more\", header: None }"), "{text}");
    }
}
