//! `header`: a client is known by the value of a request header, such as a user's or a tenant's id.
//! It keeps and sends nothing, and believes what the client sends: the header places a client, it does not admit one.
//! Here the walk ends.

use super::{Home, Persistence, Recall, Remembered};
use crate::policy::facts::Facts;
use crate::policy::rendezvous::{self, Rendezvous};

/// The sticky mode `header`. The home is the rendezvous choice for the value; without one a request goes where the balancer says.
#[derive(Clone, Debug)]
pub struct Header {
    name: Box<str>,
}

impl Header {
    /// Takes the header's name.
    pub fn new(name: &str) -> Header {
        Header { name: name.into() }
    }
}

impl Persistence for Header {
    fn recall(&self, facts: &Facts<'_>, ring: &Rendezvous, _: &mut Option<Remembered>) -> Recall {
        let value = facts
            .request
            .as_ref()
            .and_then(|request| request.head.values(&self.name).find(|v| !v.is_empty()));
        let Some(key) = value.map(rendezvous::key) else {
            return Recall::New;
        };
        match ring.first(key, |_| true) {
            Some(backend) => Recall::Keep(Home::of_key(key, Some(backend))),
            None => Recall::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Sample;
    use crate::policy::balance::facts;
    use crate::policy::facts::RequestFacts;

    #[test]
    fn the_value_places_and_its_absence_does_not() {
        let ring = Rendezvous::new([("a", 1), ("b", 1), ("c", 1)]);
        let recall = |fields: &[(&str, &str)]| {
            let sample = Sample::new("GET / HTTP/1.1", fields);
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
            Header::new("x-user").recall(&facts, &ring, &mut None)
        };
        assert_eq!(recall(&[]), Recall::New);
        assert_eq!(recall(&[("X-User", "")]), Recall::New);
        let key = rendezvous::key(b"ada");
        let home = Home::of_key(key, ring.first(key, |_| true));
        assert_eq!(recall(&[("X-User", "ada")]), Recall::Keep(home));
    }
}
