//! The choice of a route: compiled from the configuration, asked once a request.
//! It never allocates while asked, and its answer never depends on the order of a hash table.
//! The walk goes on in `persist/` and `choose.rs`, which pick a backend of the route's pool.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::facts::{Facts, RequestFacts};
use crate::config::model::HeaderMatch;

/// What a route matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteMatch {
    /// Ordinals of the listeners that it serves.
    pub listeners: Vec<usize>,
    /// Exact names and `*.` suffixes of hosts, or of the servers that TLS clients ask for; empty: any.
    pub hosts: Vec<String>,
    /// A prefix in normal form, on segment boundaries: `/cart` is `/cart` and `/cart/…`, `/cart/` is only the latter, `/` is everything.
    pub path: String,
    /// Any of these; empty: any.
    pub methods: Vec<String>,
    /// All must hold.
    pub headers: Vec<HeaderMatch>,
    /// A TLS client offers one of these; empty: any client.
    pub alpn: Vec<String>,
}

/// Routes, compiled.
///
/// Among those whose conditions all hold, an exact host goes before a `*.` suffix, a longer suffix before a shorter one, any
/// suffix before no host; then a longer path goes before a shorter one; then more conditions (the methods count as one, so do the
/// protocols of TLS, each header does) before fewer; then the order of the file decides. Hosts compare without case, port and trailing dot.
#[derive(Debug, Default)]
pub struct Router {
    conditions: Box<[Conditions]>,
    exact: Table<Paths>,
    /// By suffix with its leading dot.
    suffixes: Table<Paths>,
    anywhere: Paths,
}

/// The longest DNS name is 253 bytes; a longer host has no name of its own.
const MAX_HOST: usize = 255;

impl Router {
    /// Compiles routes in file order.
    pub fn compile(routes: &[RouteMatch]) -> Router {
        let mut router = Router {
            conditions: routes.iter().map(Conditions::new).collect(),
            ..Router::default()
        };
        for (route, rule) in routes.iter().enumerate() {
            if rule.hosts.is_empty() {
                router.anywhere.add(&rule.path, route);
            }
            for host in &rule.hosts {
                let host = host.to_ascii_lowercase();
                let table = match host.strip_prefix('*') {
                    Some(suffix) => router.suffixes.entry(suffix.as_bytes().into()),
                    None => router.exact.entry(host.as_bytes().into()),
                };
                table.or_default().add(&rule.path, route);
            }
        }
        let tables = router
            .exact
            .values_mut()
            .chain(router.suffixes.values_mut());
        for paths in tables.chain([&mut router.anywhere]) {
            paths.sort(&router.conditions);
        }
        router
    }

    /// The ordinal of the route to take; `None` when none matches.
    #[inline]
    pub fn route(&self, facts: &Facts<'_>) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return self.within(&self.anywhere, facts);
        }
        self.route_by_host(facts)
            .or_else(|| self.within(&self.anywhere, facts))
    }

    fn route_by_host(&self, facts: &Facts<'_>) -> Option<usize> {
        let received = facts.host()?;
        let mut buffer = [0; MAX_HOST];
        let host = buffer.get_mut(..received.len())?;
        host.copy_from_slice(received);
        host.make_ascii_lowercase();
        let host = &*host;
        let exact = self.exact.get(host);
        if let Some(route) = exact.and_then(|paths| self.within(paths, facts)) {
            return Some(route);
        }
        if self.suffixes.is_empty() {
            return None;
        }
        let dots = (1..host.len()).filter(|&at| host[at] == b'.');
        dots.filter_map(|dot| self.suffixes.get(&host[dot..]))
            .find_map(|paths| self.within(paths, facts))
    }

    /// The best route among those of one host.
    #[inline]
    fn within(&self, paths: &Paths, facts: &Facts<'_>) -> Option<usize> {
        let holds = |route: &&u32| self.conditions[**route as usize].hold(facts);
        if !paths.lengths.is_empty()
            && let Some(request) = &facts.request
        {
            let found = paths
                .prefixes_of(request.path)
                .find_map(|routes| routes.iter().find(holds));
            if let Some(&route) = found {
                return Some(route as usize);
            }
        }
        paths.root.iter().find(holds).map(|&route| route as usize)
    }
}

/// The routes of one host by path.
#[derive(Debug, Default)]
struct Paths {
    by_path: Table<Vec<u32>>,
    /// Lengths of the paths in the table, longest first.
    lengths: Vec<usize>,
    /// Routes of the path `/`, which also serve what is no path, such as `*`.
    root: Vec<u32>,
}

impl Paths {
    fn add(&mut self, path: &str, route: usize) {
        let routes = match path {
            "/" | "" => &mut self.root,
            _ => {
                self.lengths.push(path.len());
                self.by_path.entry(path.as_bytes().into()).or_default()
            }
        };
        routes.push(route as u32);
    }

    fn sort(&mut self, conditions: &[Conditions]) {
        self.lengths.sort_by_key(|&length| Reverse(length));
        self.lengths.dedup();
        for routes in self.by_path.values_mut().chain([&mut self.root]) {
            routes.sort_by_key(|&route| (Reverse(conditions[route as usize].count()), route));
            routes.dedup();
        }
    }

    /// The routes of every configured prefix of the path that ends at a segment boundary, longest first.
    #[inline]
    fn prefixes_of<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a [u32]> {
        let ends_segment = |length: usize| match path.get(length) {
            Some(&next) => next == b'/' || path[length - 1] == b'/',
            None => length == path.len(),
        };
        self.lengths
            .iter()
            .filter(move |&&length| ends_segment(length))
            .filter_map(|&length| self.by_path.get(&path[..length]).map(Vec::as_slice))
    }
}

/// What a route asks beside host and path.
#[derive(Debug)]
struct Conditions {
    /// A bit for each listener.
    listeners: Box<[u64]>,
    methods: Box<[Box<[u8]>]>,
    headers: Box<[HeaderMatch]>,
    alpn: Box<[Box<[u8]>]>,
}

impl Conditions {
    fn new(rule: &RouteMatch) -> Conditions {
        let words = rule.listeners.iter().max().map_or(0, |&last| last / 64 + 1);
        let mut listeners = vec![0; words];
        for &listener in &rule.listeners {
            listeners[listener / 64] |= 1 << (listener % 64);
        }
        let bytes = |words: &[String]| words.iter().map(|word| word.as_bytes().into()).collect();
        Conditions {
            listeners: listeners.into(),
            methods: bytes(&rule.methods),
            headers: rule.headers.as_slice().into(),
            alpn: bytes(&rule.alpn),
        }
    }

    fn count(&self) -> usize {
        let lists = [self.methods.is_empty(), self.alpn.is_empty()];
        lists.iter().filter(|is_empty| !**is_empty).count() + self.headers.len()
    }

    #[inline]
    fn hold(&self, facts: &Facts<'_>) -> bool {
        let word = self.listeners.get(facts.listener / 64);
        if word.is_none_or(|word| word & (1 << (facts.listener % 64)) == 0) {
            return false;
        }
        if !self.alpn.is_empty() && !self.hold_for_hello(facts) {
            return false;
        }
        if self.methods.is_empty() && self.headers.is_empty() {
            return true;
        }
        facts
            .request
            .as_ref()
            .is_some_and(|request| self.hold_for(request))
    }

    fn hold_for_hello(&self, facts: &Facts<'_>) -> bool {
        let hello = facts.hello.as_ref();
        hello.is_some_and(|hello| self.alpn.iter().any(|wanted| hello.offers(wanted)))
    }

    fn hold_for(&self, request: &RequestFacts<'_>) -> bool {
        let head = request.head;
        let method = self.methods.is_empty() || self.methods.iter().any(|m| **m == *head.method);
        method
            && self.headers.iter().all(|wanted| {
                head.values(&wanted.name).any(|value| match &wanted.value {
                    Some(whole) => value == whole.as_bytes(),
                    None => true,
                })
            })
    }
}

/// Keys come from the configuration only, so that nobody can make them collide: a fast hash will do.
type Table<V> = HashMap<Box<[u8]>, V, BuildHasherDefault<WordHasher>>;

/// Folds eight bytes at a time by multiplication.
#[derive(Default)]
struct WordHasher(u64);

impl WordHasher {
    #[inline]
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for WordHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.fold(u64::from_le_bytes(last));
    }

    #[inline]
    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::reference::reference;
    use super::*;
    use crate::http::Sample;
    use crate::policy::balance::facts;
    use crate::policy::facts::HelloFacts;
    use crate::policy::judge::judge;

    struct Asked<'a> {
        listener: usize,
        host: &'a str,
        path: &'a str,
        method: &'a str,
        fields: &'a [(&'a str, &'a str)],
    }

    const ASKED: Asked<'static> = Asked {
        listener: 0,
        host: "a.example.com",
        path: "/",
        method: "GET",
        fields: &[],
    };

    fn ask(asked: &Asked<'_>, answer: impl Fn(&Facts<'_>) -> Option<usize>) -> Option<usize> {
        let mut fields = vec![("Host", asked.host)];
        fields.extend(asked.fields);
        let sample = Sample::new(
            &format!("{} {} HTTP/1.1", asked.method, asked.path),
            &fields,
        );
        let head = sample.request();
        answer(&Facts {
            listener: asked.listener,
            request: Some(RequestFacts {
                head: &head,
                path: head.path,
                secure: false,
            }),
            ..facts()
        })
    }

    fn rule(hosts: &[&str], path: &str) -> RouteMatch {
        RouteMatch {
            listeners: vec![0],
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            path: path.to_owned(),
            ..RouteMatch::default()
        }
    }

    fn chosen(routes: &[RouteMatch], asked: Asked<'_>) -> Option<usize> {
        let router = Router::compile(routes);
        ask(&asked, |facts| router.route(facts))
    }

    #[test]
    fn a_catch_all_takes_everything() {
        let routes = [rule(&[], "/")];
        for path in ["/", "/a/b", "*"] {
            assert_eq!(chosen(&routes, Asked { path, ..ASKED }), Some(0));
        }
        let router = Router::compile(&routes);
        assert_eq!(router.route(&facts()), Some(0), "without a request");
        assert_eq!(
            chosen(
                &routes,
                Asked {
                    listener: 1,
                    ..ASKED
                }
            ),
            None
        );
        assert_eq!(chosen(&[], ASKED), None);
    }

    #[test]
    fn hosts_from_exact_to_none() {
        let routes = [
            rule(&[], "/"),
            rule(&["*.com"], "/"),
            rule(&["*.example.com"], "/"),
            rule(&["A.example.com"], "/"),
            rule(&["[::1]"], "/"),
        ];
        for (host, route) in [
            ("a.example.com", 3),
            ("A.EXAMPLE.com.:8080", 3),
            ("b.example.com", 2),
            ("b.a.example.com", 2),
            ("example.com", 1),
            ("com", 0),
            (".com", 0),
            ("", 0),
            ("[::1]:80", 4),
            (".example.com", 1),
        ] {
            assert_eq!(
                chosen(&routes, Asked { host, ..ASKED }),
                Some(route),
                "{host}"
            );
        }
        let long = "x".repeat(400);
        assert_eq!(
            chosen(
                &routes,
                Asked {
                    host: &long,
                    ..ASKED
                }
            ),
            Some(0)
        );
    }

    #[test]
    fn paths_end_at_segments() {
        let routes = [
            rule(&[], "/"),
            rule(&[], "/cart"),
            rule(&[], "/cart/"),
            rule(&[], "/cart/items/new"),
        ];
        for (path, route) in [
            ("/", 0),
            ("/cart", 1),
            ("/cart/", 2),
            ("/cart/items", 2),
            ("/cart/items/new", 3),
            ("/cart/items/new/x", 3),
            ("/cart/items/newer", 2),
            ("/carts", 0),
            ("*", 0),
        ] {
            assert_eq!(
                chosen(&routes, Asked { path, ..ASKED }),
                Some(route),
                "{path}"
            );
        }
    }

    #[test]
    fn a_host_without_a_match_falls_through() {
        let mut post = rule(&["a.example.com"], "/cart");
        post.methods = vec!["POST".to_owned()];
        let routes = [
            post,
            rule(&["*.example.com"], "/other"),
            rule(&["*.com"], "/cart"),
            rule(&[], "/"),
        ];
        let path = "/cart";
        assert_eq!(chosen(&routes, Asked { path, ..ASKED }), Some(2));
        let method = "POST";
        assert_eq!(
            chosen(
                &routes,
                Asked {
                    path,
                    method,
                    ..ASKED
                }
            ),
            Some(0)
        );
        assert_eq!(chosen(&routes, ASKED), Some(3));
    }

    #[test]
    fn a_connection_goes_by_what_its_client_asks_for() {
        let with_alpn = |hosts, alpn: &[&str]| RouteMatch {
            alpn: alpn.iter().map(|&word| word.to_owned()).collect(),
            ..rule(hosts, "/")
        };
        let routes = [
            rule(&[], "/"),
            rule(&["*.example.com"], "/"),
            rule(&["a.example.com"], "/"),
            with_alpn(&["a.example.com"], &["h2", "h3"]),
            with_alpn(&[], &["postgresql"]),
        ];
        let router = Router::compile(&routes);
        let chosen = |server_name, protocols| {
            router.route(&Facts {
                hello: Some(HelloFacts {
                    server_name,
                    protocols,
                }),
                ..facts()
            })
        };
        assert_eq!(chosen(b"A.Example.com", b"\x02h2"), Some(3));
        assert_eq!(chosen(b"a.example.com", b"\x08http/1.1"), Some(2));
        assert_eq!(chosen(b"b.c.example.com", b"\x0apostgresql"), Some(1));
        assert_eq!(chosen(b"other.org", b"\x02h2\x0apostgresql"), Some(4));
        assert_eq!(chosen(b"", b""), Some(0), "who asks for nothing");
        assert_eq!(router.route(&facts()), Some(0), "who speaks no TLS");
    }

    fn rules() -> impl Strategy<Value = RouteMatch> {
        let header = ("x-[ab]", proptest::option::of("[12]"))
            .prop_map(|(name, value)| HeaderMatch { name, value });
        (
            proptest::collection::vec(0..70_usize, 1..40),
            proptest::collection::vec(r"(\*\.)?([ab]\.){0,2}[ab]", 0..3),
            "(/[ab]{1,2}){0,3}/?",
            proptest::collection::vec("GET|POST", 0..2),
            proptest::collection::vec(header, 0..3),
        )
            .prop_map(|(listeners, hosts, path, methods, headers)| RouteMatch {
                listeners,
                hosts,
                path: if path.is_empty() {
                    "/".to_owned()
                } else {
                    path
                },
                methods,
                headers,
                alpn: Vec::new(),
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn connections_are_told_as_they_are(
            routes in proptest::collection::vec(rules(), 0..20),
            words in proptest::collection::vec(proptest::collection::vec("h[123]", 0..3), 20),
            listener in 0..72_usize,
            name in r"([abAB]\.){0,3}[abAB]?",
            offered in proptest::collection::vec("h[1234]", 0..3),
            speaks: bool,
        ) {
            let routes: Vec<RouteMatch> = routes.into_iter().zip(words).map(|(rule, alpn)| RouteMatch {
                path: "/".to_owned(),
                methods: Vec::new(),
                headers: Vec::new(),
                alpn,
                ..rule
            }).collect();
            let protocols: String = offered.iter().map(|word| format!("\x02{word}")).collect();
            let hello = HelloFacts { server_name: name.as_bytes(), protocols: protocols.as_bytes() };
            let facts = Facts { listener, hello: speaks.then_some(hello), ..facts() };
            let ranks = routes.iter().zip(0..).filter_map(|(rule, route)| {
                judge(rule, &facts).ok().map(|rank| (rank, Reverse(route)))
            });
            let best = ranks.max().map(|(_, Reverse(route))| route);
            prop_assert_eq!(Router::compile(&routes).route(&facts), best);
        }

        #[test]
        fn as_the_plain_reference(
            routes in proptest::collection::vec(rules(), 0..20),
            listener in 0..72_usize,
            host in r"([abAB]\.){0,3}[abAB]\.?(:80)?",
            path in "(/[ab]{1,2}){0,4}/?",
            method in "GET|POST|PUT",
            fields in proptest::collection::vec(("[xX]-[ab]", "[12]"), 0..3),
        ) {
            let path = if path.is_empty() { "/" } else { &path };
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let asked = Asked { listener, host: &host, path, method: &method, fields: &fields };
            let router = Router::compile(&routes);
            ask(&asked, |facts| {
                assert_eq!(router.route(facts), reference(&routes, facts));
                let ranks = routes.iter().zip(0..).filter_map(|(rule, route)| {
                    judge(rule, facts).ok().map(|rank| (rank, Reverse(route)))
                });
                let best = ranks.max().map(|(_, Reverse(route))| route);
                assert_eq!(router.route(facts), best, "told as it is");
                None
            });
        }
    }
}
