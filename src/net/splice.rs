//! Bytes from one socket to another by way of a pipe (splice(2)): the kernel hands pages on, and nothing is copied.
//! A pipe is lent only while it holds something, so that whoever waits has none; one that is not empty at the end is closed.
//! The walk goes on in `backlog.rs`, which fills and empties it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Pipes of one worker: two descriptors each. Whoever finds none left copies.
const MAX_PIPES: usize = 256;

/// What a pipe should hold, in bytes of whole pages. So much for every pipe is what Linux lets a user without privileges have.
const CAPACITY: usize = 256 * 1024;

/// The pipes of one worker.
#[derive(Debug, Default)]
pub struct Pipes {
    free: RefCell<Vec<Pipe>>,
    open: Cell<usize>,
}

/// An empty pipe from [`Pipes`], or one on its way there.
#[derive(Debug)]
pub struct Lent {
    pipe: Option<Pipe>,
    home: Rc<Pipes>,
    held: usize,
}

#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipes {
    /// An empty pipe; `None` when [`MAX_PIPES`] are lent or the system has no more.
    pub fn lend(self: &Rc<Self>) -> Option<Lent> {
        let kept = self.free.borrow_mut().pop();
        let pipe = match kept {
            Some(pipe) => pipe,
            None if self.open.get() == MAX_PIPES => return None,
            None => {
                let pipe = Pipe::open().ok()?;
                self.open.set(self.open.get() + 1);
                pipe
            }
        };
        Some(Lent {
            pipe: Some(pipe),
            home: self.clone(),
            held: 0,
        })
    }
}

impl Lent {
    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes up to `limit` bytes that have arrived at `source`; 0 is the end of the stream. It must be empty, so that what makes
    /// it wait can only be the socket.
    ///
    /// # Errors
    /// The system's error: the source is of no more use.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.held, 0);
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(source.poll_read_ready(cx))?;
            let moved = source.try_io(Interest::READABLE, || splice(source, &pipe.into, limit));
            match moved {
                Err(error) if is_for_later(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    self.held = count;
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }

    /// Gives `target` what it takes now; the number of bytes, which is never 0.
    ///
    /// # Errors
    /// The system's error: the target is of no more use.
    pub fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        target: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(target.poll_write_ready(cx))?;
            let moved = target.try_io(Interest::WRITABLE, || splice(&pipe.out, target, self.held));
            match moved {
                Err(error) if is_for_later(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        match self.pipe.take() {
            Some(pipe) if self.held == 0 => self.home.free.borrow_mut().push(pipe),
            _ => self.home.open.set(self.home.open.get() - 1),
        }
    }
}

impl Pipe {
    fn open() -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: the pointer is to two live, writable descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so both are open descriptors that nobody else owns.
        let [out, into] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        // A user who may not have so much keeps what pipes begin with.
        // SAFETY: the command takes one integer and touches no memory of this process.
        unsafe {
            libc::fcntl(
                into.as_raw_fd(),
                libc::F_SETPIPE_SZ,
                CAPACITY as libc::c_int,
            )
        };
        Ok(Pipe { out, into })
    }
}

/// Writes `first` and then `second` as far as the socket takes them, and says that more follows at once, so that the system may
/// wait for it with the last packet.
pub(super) fn poll_write_with_more(
    cx: &mut Context<'_>,
    target: &TcpStream,
    first: &[u8],
    second: &[u8],
) -> Poll<io::Result<usize>> {
    let bytes = [IoSlice::new(first), IoSlice::new(second)];
    let socket = SockRef::from(target);
    loop {
        ready!(target.poll_write_ready(cx))?;
        let written = target.try_io(Interest::WRITABLE, || {
            socket.send_vectored_with_flags(&bytes, libc::MSG_MORE)
        });
        match written {
            Err(error) if is_for_later(&error) => {}
            written => return Poll::Ready(written),
        }
    }
}

/// Both ends are non-blocking. A target that is closed gives EPIPE: the runtime of Rust has the signal ignored.
fn splice(source: &impl AsRawFd, target: &impl AsRawFd, limit: usize) -> io::Result<usize> {
    let (source, target) = (source.as_raw_fd(), target.as_raw_fd());
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let none = std::ptr::null_mut();
    // SAFETY: both descriptors are borrowed and so open; null stands for no offset, as pipes and sockets have none.
    let count = unsafe { libc::splice(source, none, target, none, limit, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Interrupted calls are made again; that nothing is possible now has been noted with the readiness, so that asking again waits.
fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
