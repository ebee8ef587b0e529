//! The budget of retries: how many requests of a pool are being tried again by the rules of their routes, over all workers.
//! It is written only when something failed; what may be afforded is for `policy/retry.rs` to say.
//! The walk goes back to `l7/retry.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Requests of one pool that are being tried again.
#[derive(Debug, Default)]
pub struct Retries(AtomicU32);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Retries>);

impl Retries {
    /// A place for one more, if there are fewer than `most`.
    pub fn begin(self: &Arc<Self>, most: u32) -> Option<Place> {
        let one_more = |count: u32| (count < most).then_some(count + 1);
        let begun = self.0.fetch_update(Relaxed, Relaxed, one_more);
        begun.is_ok().then(|| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let retries = Arc::new(Retries::default());
        let held: Vec<_> = (0..5).map_while(|_| retries.begin(3)).collect();
        assert_eq!(held.len(), 3);
        drop(held);
        assert!(retries.begin(1).is_some());
    }
}
