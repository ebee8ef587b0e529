//! A pause for the rest of the worker's turn. Tasks that read and compose first and all write then are cheaper than tasks that do both one by one:
//! code and data of the one phase stay in the caches, and whoever is woken by the first write is still awake at the last.
//! It never waits for anything but tasks that are ready already. The walk goes on where it came from.

use std::future::poll_fn;
use std::task::Poll;

/// As much is kept over a turn; copying more costs more than the turn saves.
pub const GATHERED: usize = 8 * 1024;

/// Lets the worker's other tasks that are ready go first.
pub async fn turn() {
    let mut is_over = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Both compose before either writes, and nobody waits for more than that.
    #[tokio::test]
    async fn the_others_that_are_ready_go_first() {
        let log = Rc::new(RefCell::new(Vec::new()));
        let local = tokio::task::LocalSet::new();
        for name in ["one", "two"] {
            let log = log.clone();
            local.spawn_local(async move {
                log.borrow_mut().push(("composes", name));
                turn().await;
                log.borrow_mut().push(("writes", name));
            });
        }
        local.await;
        let expected = [
            ("composes", "one"),
            ("composes", "two"),
            ("writes", "one"),
            ("writes", "two"),
        ];
        assert_eq!(*log.borrow(), expected);
    }
}
