//! What a connection was told last, for requests that were there before it could be read: pipelined ones belong to the same client.
//! It never speaks for a request that came after the answer: one connection may carry many clients, and those tell themselves apart.
//! Here the walk ends.

use super::Home;
use crate::policy::balance::BackendIndex;

/// Where a new client was sent, and what of the connection had arrived by the time it was told.
///
/// A client that sends requests without waiting for answers cannot show in the second what it is told with the first. They are the same
/// client's: whoever gathers the requests of many on one connection (a CDN, another proxy) waits for each answer before
/// the next request, or it could not tell whose connection is to blame for what. So the bytes that were there before the answer
/// was written are taken for that client's, and not one more. Boxed, so that a waiting connection without one is small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told(Box<Said>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    scope: Scope,
    backend: BackendIndex,
    home: Option<Home>,
    /// Bytes to come that had arrived before the answer.
    early: usize,
}

/// What a telling holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The generation.
    pub generation: u64,
    /// The ordinal of the pool.
    pub pool: usize,
    /// Tells one cookie from another; see [`AnyPersistence::scope`](super::AnyPersistence::scope).
    pub cookie: u64,
}

impl Told {
    /// A client was sent to `backend`, and told of `home` if it was told anything, when `early` bytes of later requests were there.
    /// Nothing to remember when there were none.
    pub fn new(
        scope: Scope,
        backend: BackendIndex,
        home: Option<Home>,
        early: usize,
    ) -> Option<Told> {
        let said = || Said {
            scope,
            backend,
            home,
            early,
        };
        (early > 0).then(|| Told(Box::new(said())))
    }

    /// What holds for a request of this scope.
    pub fn within(told: &Option<Told>, scope: Scope) -> Option<(BackendIndex, Option<Home>)> {
        let Told(said) = told.as_ref()?;
        (said.scope == scope).then_some((said.backend, said.home))
    }

    /// A request of so many bytes begins. What was told holds for it if its first byte was there in time.
    pub fn begin_request(told: &mut Option<Told>, bytes: usize) {
        *told = told.take().filter(|told| told.0.early > 0);
        if let Some(Told(said)) = told {
            said.early = said.early.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_for_the_bytes_that_were_there() {
        let scope = Scope {
            generation: 1,
            pool: 0,
            cookie: 7,
        };
        let at = BackendIndex(3);
        assert_eq!(Told::new(scope, at, None, 0), None);
        let mut told = Told::new(scope, at, None, 50);
        for _ in 0..2 {
            Told::begin_request(&mut told, 49);
            assert_eq!(Told::within(&told, scope), Some((at, None)));
            assert_eq!(Told::within(&told, Scope { pool: 1, ..scope }), None);
        }
        Told::begin_request(&mut told, 49);
        assert_eq!(told, None);
    }
}
