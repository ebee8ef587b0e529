//! `route`: the application's own session id says which server made it, in the `.jvmRoute` suffix that Tomcat, JBoss and Jetty write.
//! It keeps and sends nothing: after a failover the application renames the session, or the client goes home again.
//! Here the walk ends.

use std::collections::HashMap;

use super::{Home, Persistence, Recall, Remembered};
use crate::http::cookie;
use crate::http::head::RequestHead;
use crate::policy::balance::BackendIndex;
use crate::policy::facts::Facts;
use crate::policy::rendezvous::{self, Rendezvous};

/// The sticky mode `route`.
///
/// The session id stands in a cookie, or else as a path parameter of that name (`;jsessionid=`, without case). What follows
/// its first dot is the name of a route. The id alone is the key to the successors, so that a renamed session stays there.
#[derive(Clone, Debug)]
pub struct Route {
    session_cookie: cookie::Name,
    routes: HashMap<Box<[u8]>, BackendIndex>,
}

impl Route {
    /// Takes the name of the cookie, and the route names of the pool's backends in pool order.
    pub fn new<'a>(session_cookie: &str, routes: impl IntoIterator<Item = &'a str>) -> Route {
        let routes = routes.into_iter().zip(0..=u16::MAX);
        Route {
            session_cookie: session_cookie.into(),
            routes: routes
                .map(|(route, index)| (route.as_bytes().into(), BackendIndex(index)))
                .collect(),
        }
    }

    fn home(&self, session: &[u8]) -> Option<Home> {
        let dot = session.iter().position(|&byte| byte == b'.')?;
        let (id, route) = (&session[..dot], &session[dot + 1..]);
        if id.is_empty() || route.is_empty() {
            return None;
        }
        let backend = self.routes.get(route).copied();
        Some(Home::of_key(rendezvous::key(id), backend))
    }

    /// The home that a session id of the request names. One that the pool has counts before one that it has not.
    fn home_of(&self, head: &RequestHead<'_>) -> Option<Home> {
        let name = &self.session_cookie;
        let mut gone = None;
        for session in cookie::values(head, name).chain(parameters(head.path, name.as_bytes())) {
            match self.home(session) {
                Some(home) if home.backend.is_some() => return Some(home),
                home => gone = gone.or(home),
            }
        }
        gone
    }
}

impl Persistence for Route {
    fn recall(&self, facts: &Facts<'_>, _: &Rendezvous, _: &mut Option<Remembered>) -> Recall {
        let home = facts.request.and_then(|request| self.home_of(request.head));
        home.map_or(Recall::New, Recall::Keep)
    }
}

/// The values of the path parameters of this name (RFC 3986 section 3.3), in order.
pub(super) fn parameters<'a, 'n>(
    path: &'a [u8],
    name: &'n [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    let segments = path.split(|&byte| byte == b'/');
    let parameters = segments.flat_map(|segment| segment.split(|&byte| byte == b';').skip(1));
    parameters.filter_map(move |parameter| {
        let (found, value) = parameter.split_at_checked(name.len())?;
        let value = value.strip_prefix(b"=")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Sample;
    use crate::policy::balance::facts;
    use crate::policy::facts::RequestFacts;

    fn recall(target: &str, cookies: &[&str]) -> Recall {
        let fields: Vec<_> = cookies.iter().map(|value| ("Cookie", *value)).collect();
        let sample = Sample::new(&format!("GET {target} HTTP/1.1"), &fields);
        let head = sample.request();
        let request = RequestFacts {
            head: &head,
            path: b"/",
            secure: false,
        };
        let facts = Facts {
            request: Some(request),
            ..facts()
        };
        let ring = Rendezvous::new([("a", 1), ("b", 1)]);
        let mode = Route::new("JSESSIONID", ["jvm1", "10.0.0.2:8080"]);
        mode.recall(&facts, &ring, &mut None)
    }

    fn home(id: &str, backend: Option<u16>) -> Recall {
        let key = rendezvous::key(id.as_bytes());
        Recall::Keep(Home::of_key(key, backend.map(BackendIndex)))
    }

    #[test]
    fn a_suffix_names_a_backend() {
        assert_eq!(
            recall("/", &["a=b; JSESSIONID=12.jvm1"]),
            home("12", Some(0))
        );
        assert_eq!(
            recall("/", &["JSESSIONID=12.10.0.0.2:8080"]),
            home("12", Some(1))
        );
        assert_eq!(
            recall("/a;jsessionid=12.jvm1?x=y", &[]),
            home("12", Some(0))
        );
        assert_eq!(
            recall("/a;x=1;JSESSIONID=12.jvm1/b", &[]),
            home("12", Some(0))
        );
        assert_eq!(recall("/", &["JSESSIONID=12.gone"]), home("12", None));
    }

    #[test]
    fn what_names_none_is_new() {
        for cookies in [
            &[][..],
            &["JSESSIONID=12"],
            &["JSESSIONID=12."],
            &["JSESSIONID=.jvm1"],
            &["jsessionid=1.jvm1"],
        ] {
            assert_eq!(recall("/", cookies), Recall::New, "{cookies:?}");
        }
        for target in [
            "/jsessionid=1.jvm1",
            "/a;jsessionidx=1.jvm1",
            "/?;jsessionid=1.jvm1",
            "/a;jsessionid",
        ] {
            assert_eq!(recall(target, &[]), Recall::New, "{target}");
        }
    }

    #[test]
    fn the_cookie_counts_before_the_path_and_what_exists_before_what_is_gone() {
        assert_eq!(
            recall("/;jsessionid=1.10.0.0.2:8080", &["JSESSIONID=2.jvm1"]),
            home("2", Some(0))
        );
        assert_eq!(
            recall("/;jsessionid=1.jvm1", &["JSESSIONID=2"]),
            home("1", Some(0))
        );
        assert_eq!(
            recall("/;jsessionid=1.jvm1", &["JSESSIONID=2.gone"]),
            home("1", Some(0))
        );
    }
}
