//! A channel between two processes of one machine that carries messages and, beside them, open descriptors (SCM_RIGHTS, unix(7)).
//! It knows bytes and descriptors, never what they are for; every wait has a deadline, because the other side may be any program.
//! The walk goes on in control's `upgrade/`, which says what the messages mean.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::clock;

/// Descriptors that go with one byte; the kernel takes 253 (SCM_MAX_FD).
const AT_ONCE: usize = 64;
/// Bytes of a message, and descriptors beside it, at most: what is beyond was not sent by a weir.
const MOST_BYTES: usize = 1 << 30;
const MOST_DESCRIPTORS: usize = 1 << 20;
/// Memory for the control message of a batch, aligned as its header must be.
type Control = [u64; 4 + AT_ONCE / 2];

/// One end of a channel.
#[derive(Debug)]
pub struct Channel(UnixStream);

/// A message, and the descriptors that came with it.
#[derive(Debug, Default)]
pub struct Parcel {
    /// The message.
    pub bytes: Vec<u8>,
    /// The descriptors, in the order in which they were sent.
    pub descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// Two ends; the other one may be the standard input of a new process.
    ///
    /// # Errors
    /// The system's error when it has no more descriptors.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (own, other) = UnixStream::pair()?;
        Ok((Channel(own), other.into()))
    }

    /// The end that this process was started with as its standard input, which is empty from then on.
    ///
    /// # Errors
    /// When the standard input is no such socket.
    pub fn of_standard_input() -> io::Result<Channel> {
        let stdin = io::stdin();
        let own = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
        own.peer_addr()?;
        let nothing = std::fs::File::open("/dev/null")?;
        // SAFETY: both descriptors are open, and the standard input stays so: what it stands for is exchanged in one step.
        match unsafe { libc::dup2(nothing.as_raw_fd(), stdin.as_raw_fd()) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Channel(own)),
        }
    }

    /// Sends a message, and copies of the descriptors beside it.
    ///
    /// # Errors
    /// The system's error: `TimedOut` or `WouldBlock` when the other side did not take it within `wait`.
    pub fn send(
        &self,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
        wait: Duration,
    ) -> io::Result<()> {
        self.0.set_write_timeout(Some(at_least(wait)))?;
        let mut head = [0; 16];
        head[..8].copy_from_slice(&(message.len() as u64).to_be_bytes());
        head[8..].copy_from_slice(&(descriptors.len() as u64).to_be_bytes());
        (&self.0).write_all(&head)?;
        for batch in descriptors.chunks(AT_ONCE) {
            send_batch(self.0.as_fd(), batch)?;
        }
        (&self.0).write_all(message)
    }

    /// The next message; `None` when the other side is gone.
    ///
    /// # Errors
    /// `WouldBlock` or `TimedOut` when it did not come within `wait`; else the system's error, or `InvalidData` for what no
    /// [`Channel::send`] sent.
    pub fn receive(&self, wait: Duration) -> io::Result<Option<Parcel>> {
        let until = clock::now() + wait;
        let mut head = [0; 16];
        match self.fill(&mut head, until) {
            Ok(()) => {}
            // The other side's end, which may be one with something unread.
            Err(error) if is_end(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let [bytes, descriptors] = [0, 8].map(|at| number(&head[at..at + 8]));
        if bytes > MOST_BYTES || descriptors > MOST_DESCRIPTORS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut parcel = Parcel::default();
        while parcel.descriptors.len() < descriptors {
            self.wait_until(until)?;
            receive_batch(self.0.as_fd(), &mut parcel.descriptors)?;
        }
        parcel.bytes = vec![0; bytes];
        self.fill(&mut parcel.bytes, until)?;
        Ok(Some(parcel))
    }

    fn fill(&self, mut memory: &mut [u8], until: Instant) -> io::Result<()> {
        while !memory.is_empty() {
            self.wait_until(until)?;
            match (&self.0).read(memory) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => memory = &mut memory[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the next read end by then.
    fn wait_until(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(clock::now());
        self.0.set_read_timeout(Some(at_least(left)))
    }
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | UnexpectedEof)
}

/// No time at all would mean to wait for ever.
fn at_least(wait: Duration) -> Duration {
    wait.max(Duration::from_millis(1))
}

fn number(bytes: &[u8]) -> usize {
    let number = bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Sends one byte, and the descriptors with it.
fn send_batch(socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let (mut byte, mut control): (u8, Control) = (0, [0; 4 + AT_ONCE / 2]);
    let mut part = iov(&mut byte);
    let mut header = empty(&mut part);
    let length = size_of_val(numbers.as_slice());
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes; that of AT_ONCE numbers fits into the memory.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(length as u32) } as _;
    // SAFETY: the control memory is live and large enough for one header, which CMSG_FIRSTHDR therefore finds, and the numbers after it.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(length as u32) as _;
        let data = libc::CMSG_DATA(message);
        std::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), data, length);
    }
    loop {
        // SAFETY: the header and all that it points to live until the call returns.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
        match sent {
            1 => return Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// Receives one byte and the descriptors with it, which programs that are started later do not get.
fn receive_batch(socket: BorrowedFd<'_>, into: &mut Vec<OwnedFd>) -> io::Result<()> {
    let (mut byte, mut control): (u8, Control) = (0, [0; 4 + AT_ONCE / 2]);
    let mut part = iov(&mut byte);
    let mut header = empty(&mut part);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header and all that it points to live until the call returns, and the memory is as long as it says.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    match received {
        1 => {}
        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        _ => return Err(io::Error::last_os_error()),
    }
    let before = into.len();
    // SAFETY: the kernel filled the control memory as far as the header says.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: the header lies whole within the control memory.
        let (level, kind, length) = unsafe {
            (
                (*message).cmsg_level,
                (*message).cmsg_type,
                (*message).cmsg_len,
            )
        };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_LEN only computes.
            let bytes = length - unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the data follow the header and are as long as it says.
            let data = unsafe { libc::CMSG_DATA(message) };
            for place in 0..bytes / size_of::<RawFd>() {
                // SAFETY: each number within the data is a descriptor that this process got just now and nobody else owns.
                into.push(unsafe {
                    OwnedFd::from_raw_fd(data.cast::<RawFd>().add(place).read_unaligned())
                });
            }
        }
        // SAFETY: both pointers are of the same, live control memory.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    let is_cut = header.msg_flags & libc::MSG_CTRUNC != 0;
    if is_cut || into.len() == before {
        // The limit of open descriptors cuts them off.
        return Err(io::Error::other("descriptors did not arrive"));
    }
    Ok(())
}

fn iov(byte: &mut u8) -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::from_mut(byte).cast(),
        iov_len: 1,
    }
}

/// A header of one part and no control message. What `part` points to must outlive its use.
fn empty(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: a msghdr of zeros is one without address, parts and control message.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    fn ends() -> (Channel, Channel) {
        let (one, two) = Channel::pair().unwrap();
        (one, Channel(two.into()))
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (one, two) = ends();
        let large: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        let sent = large.clone();
        let sender = std::thread::spawn(move || {
            one.send(b"first", &[], WAIT).unwrap();
            one.send(&sent, &[], WAIT).unwrap();
        });
        assert_eq!(two.receive(WAIT).unwrap().unwrap().bytes, b"first");
        assert!(two.receive(WAIT).unwrap().unwrap().bytes == large);
        sender.join().unwrap();
        assert!(two.receive(WAIT).unwrap().is_none());
    }

    #[test]
    fn descriptors_arrive_with_their_message_and_in_order() {
        let (one, two) = ends();
        let listeners: Vec<_> = (0..150)
            .map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap())
            .collect();
        let borrowed: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        one.send(b"sockets", &borrowed, WAIT).unwrap();
        one.send(b"later", &borrowed[..1], WAIT).unwrap();
        let parcel = two.receive(WAIT).unwrap().unwrap();
        assert_eq!(parcel.bytes, b"sockets");
        let addresses = |listener: &TcpListener| listener.local_addr().unwrap();
        let wanted: Vec<_> = listeners.iter().map(addresses).collect();
        let received: Vec<_> = parcel
            .descriptors
            .into_iter()
            .map(TcpListener::from)
            .collect();
        assert_eq!(received.iter().map(addresses).collect::<Vec<_>>(), wanted);
        // Whoever was queued at the one is accepted by the other.
        let client = TcpStream::connect(wanted[7]).unwrap();
        drop(listeners);
        let (_, from) = received[7].accept().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        assert_eq!(two.receive(WAIT).unwrap().unwrap().descriptors.len(), 1);
    }

    #[test]
    fn a_silent_and_a_foreign_other_side_are_errors() {
        let (one, two) = ends();
        let short = Duration::from_millis(20);
        let error = two.receive(short).unwrap_err();
        let is_late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        assert!(is_late.contains(&error.kind()), "{error}");
        (&one.0).write_all(&[255; 16]).unwrap();
        let error = two.receive(WAIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
