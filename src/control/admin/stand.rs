//! `POST /api/v1/listeners/{listener}/{drain|ready}` and `POST /api/v1/process/{drain|ready}`: what an operator wants of them.
//! It asks the loop of the process, which makes a generation of it; nothing is changed here.
//! The walk goes on in `control/drains.rs`.

use std::net::IpAddr;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::answer::{Answer, Problem, json};
use super::backend_state::{decoded, mark, missing};
use crate::control::drains::Subject;
use crate::control::shared::{Order, Shared};

/// How long whoever asked waits.
const WAIT: Duration = Duration::from_secs(20);
/// Characters of a name that are kept.
const NAME: usize = 64;

/// What the path asks for.
pub(super) struct Stand<'a> {
    listener: Option<&'a str>,
    drains: bool,
}

/// What a client says of itself.
#[derive(Default, Deserialize)]
struct Body {
    /// Who is asking: a word for colleagues, which proves nothing.
    by: Option<String>,
}

/// Who asks, for the log and for colleagues: an address, and the name that the client gives itself.
pub(super) fn who(from: Option<IpAddr>, body: &[u8]) -> String {
    let from = from.map_or("unix socket".to_owned(), |from| from.to_string());
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let name: Option<String> = body.by.map(|name| {
        let printable = name.chars().filter(|it| !it.is_control());
        printable.take(NAME).collect()
    });
    match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("{name}, {from}"),
        None => from,
    }
}

impl<'a> Stand<'a> {
    /// What the path asks for, if it is one of these.
    pub(super) fn of(path: &'a str) -> Option<Stand<'a>> {
        let rest = path.strip_prefix("/api/v1/")?;
        let (listener, word) = match rest.strip_prefix("process/") {
            Some(word) => (None, word),
            None => {
                let (name, word) = rest.strip_prefix("listeners/")?.split_once('/')?;
                (Some(name), word)
            }
        };
        let drains = match word {
            "drain" => true,
            "ready" => false,
            _ => return None,
        };
        Some(Stand { listener, drains })
    }

    /// Has it done.
    pub(super) async fn set(self, shared: &Shared, who: String) -> Result<Answer, Problem> {
        let subject = match self.listener {
            None => Subject::Process,
            Some(name) => Subject::Listener(known(shared, &decoded(name)?)?),
        };
        let (reply, outcome) = oneshot::channel();
        let order = Order::Stand {
            subject,
            drain: self.drains.then(|| mark(who)),
            reply,
        };
        let asked = async {
            shared.orders.send(order).await.ok()?;
            outcome.await.ok()
        };
        let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        match timeout(WAIT, asked).await {
            Ok(Some(Ok(stood))) => Ok(json(StatusCode::OK, &stood)),
            Ok(Some(Err(why))) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)),
            Ok(None) => Err(unavailable("weir is ending")),
            Err(_) => Err(unavailable("weir is busy; it will be done")),
        }
    }
}

fn known(shared: &Shared, name: &str) -> Result<String, Problem> {
    let snapshot = shared.current.borrow();
    let names = snapshot.listeners.iter().map(|listener| &*listener.name);
    match names.clone().any(|known| known == name) {
        true => Ok(name.to_owned()),
        false => Err(missing(
            &format!("no listener {name:?}"),
            name,
            names.clone(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_is_meant() {
        let of = |path| Stand::of(path).map(|it| (it.listener, it.drains));
        assert_eq!(of("/api/v1/process/drain"), Some((None, true)));
        assert_eq!(
            of("/api/v1/listeners/web/ready"),
            Some((Some("web"), false))
        );
        for path in [
            "/api/v1/process",
            "/api/v1/process/maint",
            "/api/v1/listeners/web",
            "/api/v1/listeners/web/drain/",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn whoever_asks_may_have_a_name() {
        let from = "127.0.0.1".parse().ok();
        assert_eq!(who(from, b"{}"), "127.0.0.1");
        assert_eq!(who(from, b""), "127.0.0.1");
        assert_eq!(who(from, br#"{"by":"an\nna"}"#), "anna, 127.0.0.1");
        let long = format!(r#"{{"by":"{}"}}"#, "x".repeat(999));
        assert_eq!(who(None, long.as_bytes()).len(), 64 + ", unix socket".len());
    }
}
