//! The token that a connection showed last and that was found good, so that showing it again costs a comparison.
//! It never vouches for another name, pool or secret than those it was opened with: each mode has a scope of its own.
//! Here the walk ends.

use std::rc::Rc;

use super::Home;

/// A token that was found good.
///
/// A connection may keep one for as long as it likes, over other routes and reloads. It is a pointer, so that a waiting
/// connection without one is small, and so that the requests that a connection carries at once can all have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered(Rc<Known>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    scope: u64,
    home: Home,
    token: Vec<u8>,
}

impl Remembered {
    /// What `token` says, if it is the one that was opened under this scope.
    #[inline]
    pub(super) fn home(remembered: &Option<Remembered>, scope: u64, token: &[u8]) -> Option<Home> {
        let Remembered(known) = remembered.as_ref()?;
        (known.scope == scope && known.token == token).then_some(known.home)
    }

    /// Keeps a token in place of the one before.
    pub(super) fn keep(remembered: &mut Option<Remembered>, scope: u64, token: &[u8], home: Home) {
        let token = token.to_vec();
        *remembered = Some(Remembered(Rc::new(Known { scope, home, token })));
    }
}
