//! Waits at a door: whether a password fits is looked up at once, and asked of control where nobody knows.
//! It checks nothing itself, and never waits for long: a door with a queue is a 503.
//! The walk goes back to `filter.rs`; the question goes by `state/door.rs` to control.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;

use super::exchange::Exchange;
use super::reject::Failure;
use crate::clock;
use crate::policy::filter::Claim;
use crate::state::snapshot::Route;

/// How long a request waits for a check, with those that wait before it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of a claim.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Whether it is true.
    Known(bool),
    /// It is being found out.
    Awaited(Awaited),
}

/// A claim that is being checked.
#[derive(Debug)]
pub(super) struct Awaited(oneshot::Receiver<bool>);

/// Looks a claim up, or asks.
///
/// # Errors
/// Too many wait at the door.
pub(super) fn judge(route: &Route, claim: Claim) -> Result<Verdict, Failure> {
    let door = route.doors.get(claim.door).ok_or(Failure::DoorBusy)?;
    match door.verdicts.look(&claim, clock::now()) {
        Some(verdict) => Ok(Verdict::Known(verdict)),
        None => match door.ask(claim) {
            Some(answer) => Ok(Verdict::Awaited(Awaited(answer))),
            None => Err(Failure::DoorBusy),
        },
    }
}

/// Waits for a verdict, which the next plan finds with the request.
///
/// # Errors
/// The client went away, or it takes too long.
pub(super) async fn await_verdict(
    exchange: &mut Exchange<'_>,
    mut awaited: Awaited,
) -> Result<(), Failure> {
    let mut is_first = true;
    let verdict = poll_fn(|cx| {
        exchange.watch_client(cx)?;
        if std::mem::take(&mut is_first) {
            exchange.client.timer.set(cx, PATIENCE);
        }
        match Pin::new(&mut awaited.0).poll(cx) {
            Poll::Ready(verdict) => Poll::Ready(verdict.map_err(|_| Failure::DoorBusy)),
            Poll::Pending if exchange.client.timer.has_fired() => {
                Poll::Ready(Err(Failure::DoorBusy))
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await?;
    exchange.note_verdict(verdict);
    Ok(())
}
