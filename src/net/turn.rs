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
