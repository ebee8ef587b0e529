//! `learn`: the application's own session cookie, whose server weir saw when it was set, and remembers.
//! It keeps nothing itself and sends nothing: what is known of a session is a fact, and what became of it is for others to write down.
//! The walk goes on in `state/live_sessions.rs`, which remembers, by way of `l7/session.rs`.

use std::time::Duration;

use aws_lc_rs::hmac;

use super::token::Secrets;
use super::{Chosen, Home, Persistence, Recall, Remembered, Stickiness};
use crate::config::model::Sessions;
use crate::http::cookie::{self, Given};
use crate::policy::facts::{Facts, SessionFacts};
use crate::policy::rendezvous::{self, Rendezvous};

/// The sticky mode `learn`.
///
/// The session id is the key to the successors, so that every weir agrees on them.
#[derive(Clone, Debug)]
pub struct Learn {
    session_cookie: cookie::Name,
    idle: Duration,
    absolute: Option<Duration>,
    sessions: Sessions,
    store: Option<StoreKeys>,
}

/// How sessions are called in a store, which must not learn their ids: by a keyed hash, which every weir with the same secrets finds.
#[derive(Clone, Debug)]
pub struct StoreKeys {
    /// The first names, all find. Never empty.
    keys: Vec<hmac::Key>,
    prefix: Box<str>,
}

impl StoreKeys {
    /// For the sessions of a pool.
    pub fn new(secrets: &Secrets, pool: &str) -> StoreKeys {
        StoreKeys {
            keys: secrets.mac_keys("learn"),
            prefix: format!("weir:{pool}:").into(),
        }
    }

    /// What a session may be called: first what it is called from now on.
    pub fn of(&self, session: &[u8]) -> Vec<String> {
        let names = self.keys.iter().map(|key| {
            let mut name = String::from(&*self.prefix);
            for byte in hmac::sign(key, session).as_ref() {
                name.push_str(&format!("{byte:02x}"));
            }
            name
        });
        names.collect()
    }
}

/// What is to be written down of a session when its answer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson<'a> {
    /// Nothing.
    Nothing,
    /// The backend opened the session of this id.
    Opened(&'a [u8]),
    /// The session that the request showed was used, and stays where it belongs.
    Used,
    /// The backend took over the session that the request showed.
    Taken,
    /// The session that the request showed is over.
    Ended,
}

impl Learn {
    /// Takes the name of the cookie, when a session is over that was not used or since it was opened, where sessions live, and
    /// what they are called in a store, if there is one.
    pub fn new(
        session_cookie: &str,
        idle: Duration,
        absolute: Option<Duration>,
        sessions: Sessions,
        store: Option<StoreKeys>,
    ) -> Learn {
        Learn {
            session_cookie: session_cookie.into(),
            idle,
            absolute,
            sessions,
            store,
        }
    }

    /// What sessions are called in the store, if there is one.
    pub fn store(&self) -> Option<&StoreKeys> {
        self.store.as_ref()
    }

    /// What an answer teaches. `shown` is the session of the request, if it showed one, and `true` if it was known; `given` is what
    /// the answer does to the cookie.
    ///
    /// A session stays with its home while its client is away for a while, unless another one is opened where the client is. An id
    /// that changes does not end the old one: requests that are under way still show it, and another application under the same name may own it.
    /// An unknown id teaches nothing where a session is in the memory of one server: that the server answers does not say that it knows the session.
    pub fn lesson<'a>(&self, shown: Option<bool>, chosen: &Chosen, given: Given<'a>) -> Lesson<'a> {
        match (given, shown) {
            (Given::Value(id), _) => Lesson::Opened(id),
            (_, None) => Lesson::Nothing,
            (Given::Deleted, Some(_)) => Lesson::Ended,
            (Given::Nothing, Some(is_known)) => match chosen.stickiness {
                Stickiness::Expired | Stickiness::New if self.sessions != Sessions::Local => {
                    Lesson::Taken
                }
                Stickiness::Expired => Lesson::Ended,
                _ if !is_known => Lesson::Nothing,
                _ if chosen.for_good => Lesson::Taken,
                _ => Lesson::Used,
            },
        }
    }

    fn is_over(&self, idle: Duration, age: Duration) -> bool {
        idle > self.idle || self.absolute.is_some_and(|most| age > most)
    }
}

impl Persistence for Learn {
    fn recall(&self, facts: &Facts<'_>, _: &Rendezvous, _: &mut Option<Remembered>) -> Recall {
        let (Some(SessionFacts { known, .. }), Some(request)) = (facts.session, facts.request)
        else {
            return Recall::New;
        };
        let Some(known) = known else {
            return self.store.as_ref().map_or(Recall::New, |_| Recall::Ask);
        };
        if self.is_over(known.idle, known.age) {
            return Recall::Expired;
        }
        let mut ids = cookie::values(request.head, &self.session_cookie);
        let id = ids.find(|id| !id.is_empty());
        let key = rendezvous::key(id.unwrap_or_default());
        Recall::Keep(Home::of_key(key, known.backend))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Sample;
    use crate::policy::balance::{BackendIndex, facts};
    use crate::policy::facts::{KnownSession, RequestFacts};

    const SECOND: Duration = Duration::from_secs(1);

    fn mode(sessions: Sessions) -> Learn {
        Learn::new("SID", 60 * SECOND, Some(600 * SECOND), sessions, None)
    }

    fn store_keys() -> StoreKeys {
        let secret = |fill: u8| Secrets::new_file(|secret| secret.fill(fill));
        let secrets = Secrets::parse(&format!("{}{}", secret(1), secret(2))).unwrap();
        StoreKeys::new(&secrets, "was")
    }

    #[test]
    fn a_store_knows_sessions_by_keyed_hashes() {
        let keys = store_keys();
        let names = keys.of(b"12.jvm1");
        assert_eq!(names.len(), 2);
        assert_ne!(names[0], names[1]);
        for name in &names {
            let hex = name.strip_prefix("weir:was:").unwrap();
            assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert_eq!(keys.of(b"12.jvm1"), names);
        assert_ne!(keys.of(b"12.jvm2"), names);
    }

    /// What a request says whose session was idle and is old for so many seconds.
    fn recall(known: Option<(Option<u16>, u32, u32)>) -> Recall {
        recall_by(&mode(Sessions::Local), known)
    }

    fn recall_by(mode: &Learn, known: Option<(Option<u16>, u32, u32)>) -> Recall {
        let sample = Sample::new("GET / HTTP/1.1", &[("Cookie", "a=b; SID=12")]);
        let head = sample.request();
        let request = RequestFacts {
            head: &head,
            path: b"/",
            secure: false,
        };
        let session = SessionFacts {
            key: 7,
            known: known.map(|(backend, idle, age)| KnownSession {
                backend: backend.map(BackendIndex),
                idle: idle * SECOND,
                age: age * SECOND,
            }),
        };
        let facts = Facts {
            request: Some(request),
            session: Some(session),
            ..facts()
        };
        let ring = Rendezvous::new([("a", 1), ("b", 1)]);
        mode.recall(&facts, &ring, &mut None)
    }

    #[test]
    fn a_session_is_known_until_it_is_over() {
        let home = |backend: Option<u16>| {
            let key = rendezvous::key(b"12");
            Recall::Keep(Home::of_key(key, backend.map(BackendIndex)))
        };
        assert_eq!(recall(None), Recall::New);
        let sharing = Learn {
            store: Some(store_keys()),
            ..mode(Sessions::Local)
        };
        assert_eq!(recall_by(&sharing, None), Recall::Ask);
        let known = Some((Some(1), 0, 0));
        assert_eq!(recall_by(&sharing, known), home(Some(1)));
        assert_eq!(recall(Some((Some(1), 60, 600))), home(Some(1)));
        assert_eq!(recall(Some((None, 0, 0))), home(None), "it is gone");
        assert_eq!(recall(Some((Some(1), 61, 61))), Recall::Expired);
        assert_eq!(recall(Some((Some(1), 0, 601))), Recall::Expired);
        let (none, ring) = (facts(), Rendezvous::new([("a", 1)]));
        let recall = mode(Sessions::Local).recall(&none, &ring, &mut None);
        assert_eq!(recall, Recall::New);
    }

    fn chosen(stickiness: Stickiness, for_good: bool) -> Chosen {
        Chosen {
            stickiness,
            tell: None,
            only_with_session: false,
            for_good,
            in_passing: false,
            may_leave: false,
            home: None,
            key: None,
        }
    }

    #[test]
    fn what_an_answer_teaches() {
        use Given::{Deleted, Nothing, Value};
        use Stickiness::{Expired, Kept, Lost, Moved, New};
        let (local, shared) = (mode(Sessions::Local), mode(Sessions::Shared));
        for (shown, stickiness, for_good, given, lessons) in [
            (None, New, false, Nothing, [Lesson::Nothing; 2]),
            (None, New, false, Deleted, [Lesson::Nothing; 2]),
            (None, New, false, Value(b"1"), [Lesson::Opened(b"1"); 2]),
            (Some(true), Kept, false, Nothing, [Lesson::Used; 2]),
            (
                Some(true),
                Kept,
                false,
                Value(b"2"),
                [Lesson::Opened(b"2"); 2],
            ),
            (Some(true), Kept, false, Deleted, [Lesson::Ended; 2]),
            // Away for a while, and for good.
            (Some(true), Lost, false, Nothing, [Lesson::Used; 2]),
            (Some(true), Lost, true, Nothing, [Lesson::Taken; 2]),
            (Some(true), Moved, true, Nothing, [Lesson::Taken; 2]),
            // What clients say that weir does not know.
            (
                Some(false),
                New,
                false,
                Nothing,
                [Lesson::Nothing, Lesson::Taken],
            ),
            (
                Some(true),
                Expired,
                false,
                Nothing,
                [Lesson::Ended, Lesson::Taken],
            ),
        ] {
            let chosen = chosen(stickiness, for_good);
            let taught = [&local, &shared].map(|mode| mode.lesson(shown, &chosen, given));
            assert_eq!(
                taught, lessons,
                "{shown:?} {stickiness:?} {for_good} {given:?}"
            );
        }
    }
}
