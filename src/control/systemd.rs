//! Tells the service manager where the process stands (sd_notify); without one, nothing happens.
//! It must never fail the caller: weir serves just as well when nobody listens.
//! Nothing follows from here.

use sd_notify::NotifyState;

/// weir serves.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// weir reads its file again; [`ready`] must follow.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("sd_notify: no monotonic time: {error}"),
    }
}

/// Another process serves in place of this one, which says no more.
pub fn handed_over(process: u32) {
    send(&[NotifyState::MainPid(process), NotifyState::Ready]);
}

/// weir ends.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("sd_notify: {error}");
    }
}
