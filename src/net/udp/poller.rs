//! Waiting for many sockets at once: an epoll of its own, which a task waits for as for one socket.
//! So a socket costs an entry in the kernel, and neither a task nor a registration with the runtime; closing it is enough to forget it.
//! The walk goes on in `l4/udp.rs`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sockets that one look finds.
const MAX_EVENTS: usize = 64;

/// Sockets to be read from, each under a number.
#[derive(Debug)]
pub struct Poller {
    epoll: AsyncFd<OwnedFd>,
}

impl Poller {
    /// One without sockets.
    ///
    /// # Errors
    /// The system's error.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new() -> io::Result<Poller> {
        // SAFETY: the call takes no pointer.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so it is an open descriptor that nobody else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        // SAFETY: the descriptor is owned, so that it stays open and the same for as long as the poller lives.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Poller { epoll })
    }

    /// Waits for a socket, too, until it is closed; it must not be there yet.
    ///
    /// # Errors
    /// The system's error.
    pub fn add(&self, socket: &impl AsRawFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: number,
        };
        let (epoll, socket) = (self.epoll.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: both descriptors are borrowed and so open, and the pointer is to a live event.
        match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Puts the numbers of sockets that can be read from, or failed, into `numbers`, in place of what is there; at least one. All but those
    /// of a full look must then be read until nothing is left, or [`look_again`](Self::look_again) be asked.
    ///
    /// # Errors
    /// The system's error.
    pub fn poll(&self, cx: &mut Context<'_>, numbers: &mut Vec<u64>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = std::task::ready!(self.epoll.poll_read_ready(cx))?;
            look(self.epoll.get_ref(), numbers)?;
            if numbers.len() < MAX_EVENTS {
                guard.clear_ready();
            }
            if !numbers.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Like [`poll`](Self::poll), whether or not anything has happened since.
    ///
    /// # Errors
    /// The system's error.
    pub fn look_again(&self, numbers: &mut Vec<u64>) -> io::Result<()> {
        look(self.epoll.get_ref(), numbers)
    }
}

fn look(epoll: &OwnedFd, numbers: &mut Vec<u64>) -> io::Result<()> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; MAX_EVENTS];
    numbers.clear();
    let (fd, most) = (epoll.as_raw_fd(), MAX_EVENTS as libc::c_int);
    loop {
        // SAFETY: the descriptor is borrowed and so open; the pointer is to as many live events as are told of.
        let count = unsafe { libc::epoll_wait(fd, events.as_mut_ptr(), most, 0) };
        if let Ok(count) = usize::try_from(count) {
            numbers.extend(events[..count].iter().map(|event| event.u64));
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
