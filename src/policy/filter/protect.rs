//! Steps that turn clients away: who may not come in, and who asks too often.
//! They keep no count: buckets are shared by all workers, and lie with whoever runs the filters.
//! Here the walk ends; `state/rate_limit.rs` has the buckets.

use std::fmt;
use std::time::Duration;

use super::{Flow, Refusal, Request};
use crate::config::model;
use crate::policy::cidr;

/// The rate limits of a route, by the places of their filters.
pub trait Limits: fmt::Debug {
    /// Takes a token for a request; if there is none, how long until there is.
    fn take(&self, place: usize, request: &Request<'_>) -> Option<Duration>;
}

/// A filter that asks a rate limit.
#[derive(Debug)]
pub(super) struct RateLimit {
    place: usize,
}

/// A filter that asks who it is.
#[derive(Debug)]
pub(super) struct Access(cidr::Access);

impl RateLimit {
    pub(super) fn new(place: usize) -> RateLimit {
        RateLimit { place }
    }

    /// A request that passed before, and is only tried again, has its token.
    pub(super) fn request(&self, request: &Request<'_>, limits: &dyn Limits) -> Flow {
        if request.again {
            return Flow::Continue;
        }
        match limits.take(self.place, request) {
            None => Flow::Continue,
            Some(wait) => Flow::Refuse(Refusal::Limited {
                place: self.place,
                wait,
            }),
        }
    }
}

impl Access {
    pub(super) fn new(rule: &model::Access) -> Option<Access> {
        cidr::Access::new(rule).map(Access)
    }

    pub(super) fn request(&self, request: &Request<'_>) -> Flow {
        match self.0.permits(request.view.client) {
            true => Flow::Continue,
            false => Flow::Refuse(Refusal::Denied),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Instant;

    use super::*;
    use crate::config;
    use crate::config::model::PathChecks;
    use crate::http::Sample;
    use crate::http::edits::Edits;
    use crate::policy::facts::Facts;
    use crate::policy::filter::{Filters, Memory, View};

    const WAIT: Duration = Duration::from_secs(7);

    /// Who was asked, and at which place nobody passes.
    #[derive(Debug, Default)]
    struct Asked {
        places: RefCell<Vec<usize>>,
        full: Option<usize>,
    }

    impl Limits for Asked {
        fn take(&self, place: usize, _: &Request<'_>) -> Option<Duration> {
            self.places.borrow_mut().push(place);
            (self.full == Some(place)).then_some(WAIT)
        }
    }

    fn run(list: &str, client: &str, limits: &Asked, memory: &mut Memory) -> Flow {
        let text = format!(
            "[listeners.web]\nbind = [\"127.0.0.1:1\"]\n[[routes]]\npool = \"was\"\nfilters = [\n{list}\n]\n[pools.was]\nbackends = [\"127.0.0.1:2\"]\n"
        );
        let loaded = config::parse("weir.toml", &text).unwrap_or_else(|bad| panic!("{bad}"));
        let filters = Filters::new(&loaded.config.routes[0].filters).unwrap();
        let sample = Sample::new("GET / HTTP/1.1", &[]);
        let head = sample.request();
        let client = client.parse().unwrap();
        let view = View {
            client,
            port: None,
            trusted: false,
            secure: false,
            id: 1,
            method: b"GET",
            authority: b"",
            target: b"/",
            sni: "",
            listener: "web",
            route: "all",
            pool: "was",
            backend: "",
        };
        let facts = Facts {
            client,
            listener: 0,
            request: None,
            hello: None,
            session: None,
            now: Instant::now(),
            wall_millis: 0,
        };
        let request = Request {
            view: &view,
            facts: &facts,
            head: &head,
            checks: PathChecks::Strict,
            again: false,
        };
        filters.request(request, limits, memory, &mut Edits::default())
    }

    const LIST: &str = "{ type = \"access\", allow = [\"192.0.2.0/24\"], deny = [\"192.0.2.9\"] }, \
        { type = \"rate-limit\", rate = \"1/s\" }, { type = \"request-headers\", remove = [\"x\"] }, \
        { type = \"rate-limit\", rate = \"9/h\", key = \"route\" }";

    #[test]
    fn the_order_written_decides_who_is_asked() {
        let asked = Asked::default();
        for client in ["198.51.100.1", "192.0.2.9"] {
            let flow = run(LIST, client, &asked, &mut Memory::default());
            assert!(matches!(flow, Flow::Refuse(Refusal::Denied)), "{client}");
        }
        assert!(asked.places.take().is_empty());
        let flow = run(LIST, "192.0.2.1", &asked, &mut Memory::default());
        assert!(matches!(flow, Flow::Continue));
        assert_eq!(asked.places.take(), [1, 3]);
    }

    #[test]
    fn a_request_that_is_tried_again_has_its_tokens() {
        let mut memory = Memory::default();
        let asked = Asked {
            full: Some(3),
            ..Asked::default()
        };
        let flow = run(LIST, "192.0.2.1", &asked, &mut memory);
        let Flow::Refuse(Refusal::Limited {
            place: 3,
            wait: WAIT,
        }) = flow
        else {
            panic!("{flow:?}");
        };
        let generous = Asked::default();
        assert!(matches!(
            run(LIST, "192.0.2.1", &generous, &mut memory),
            Flow::Continue
        ));
        assert_eq!(
            generous.places.take(),
            [3],
            "the first one let it pass before"
        );
        assert!(matches!(
            run(LIST, "192.0.2.1", &generous, &mut memory),
            Flow::Continue
        ));
        assert!(generous.places.take().is_empty());
    }
}
