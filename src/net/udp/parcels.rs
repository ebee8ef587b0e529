//! Sending many datagrams with one call (sendmmsg(2)), those of one size to one place as one message that is cut late (UDP_SEGMENT).
//! It never waits: what the system does not take is lost, as datagrams are, and told. Where cutting late is refused they go one by one for a while.
//! The walk goes on in `l4/udp.rs`, which composes parcels.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd;

use socket2::SockAddr;

use super::batch::{Batch, MAX_DATAGRAMS};
use super::message::{self, Control, NO_CONTROL};

/// Datagrams that one message may be (`UDP_MAX_SEGMENTS` of older kernels), and their bytes.
const MAX_JOINED: u32 = 64;
const MAX_JOINED_BYTES: usize = 65_507;

/// Times that datagrams are sent until it is tried again what was refused. A narrow path to one client is no reason to send to all others
/// one by one for ever; and where a device cannot cut, one call in so many more is not felt.
pub(super) const WARY: u32 = 256;

/// A datagram of a batch, or several, on the way to somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    /// Its place in the batch.
    pub place: usize,
    /// Where to; absent: where the socket is connected to.
    pub to: Option<SocketAddr>,
    /// The address that it leaves from; absent: the socket's.
    pub local: Option<IpAddr>,
}

/// What became of parcels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Parcels that were done with, in their order; fewer than there were only when `refused`.
    pub parcels: usize,
    /// Datagrams that the system took.
    pub datagrams: u32,
    /// Those that it did not, of parcels that were done with.
    pub lost: u32,
    /// Whether a host said, of an earlier datagram, that nobody listens there. No parcel went lost by that.
    pub refused: bool,
}

/// The memory of a call, and what the way out was found to be able to.
pub struct Outbox {
    headers: Box<[libc::mmsghdr; MAX_DATAGRAMS]>,
    vectors: Box<[libc::iovec; MAX_DATAGRAMS]>,
    controls: Box<[Control; MAX_DATAGRAMS]>,
    names: Vec<SockAddr>,
    messages: Vec<Message>,
    /// Datagrams of the first parcel that are done with, while it goes in pieces.
    pieces: usize,
    /// Datagrams larger than this are not joined: somewhere on the way that was refused.
    joins_up_to: usize,
    /// The same where nothing was refused.
    joins_at_most: usize,
    /// How often datagrams are sent until that holds again.
    wary: u32,
}

/// A message of a call.
#[derive(Clone, Copy, Debug)]
struct Message {
    parcels: usize,
    datagrams: u32,
    segment: usize,
    bytes: usize,
}

impl Outbox {
    /// An outbox that joins datagrams where the system takes that, or one that never does.
    pub fn new(joins: bool) -> Self {
        // SAFETY: all zeros is a valid mmsghdr and a valid iovec: null pointers and lengths of 0.
        let (header, vector): (libc::mmsghdr, libc::iovec) = unsafe { std::mem::zeroed() };
        let joins_at_most = if joins { usize::MAX } else { 0 };
        Outbox {
            headers: Box::new([header; MAX_DATAGRAMS]),
            vectors: Box::new([vector; MAX_DATAGRAMS]),
            controls: Box::new([NO_CONTROL; MAX_DATAGRAMS]),
            names: Vec::with_capacity(MAX_DATAGRAMS),
            messages: Vec::with_capacity(MAX_DATAGRAMS),
            pieces: 0,
            joins_up_to: joins_at_most,
            joins_at_most,
            wary: 0,
        }
    }

    /// Sends parcels of the batch in their order, as far as the system takes them at once, with `prefix` before every datagram.
    pub fn send(
        &mut self,
        socket: &impl AsRawFd,
        batch: &Batch,
        parcels: &[Parcel],
        prefix: &[u8],
    ) -> Sent {
        let mut sent = Sent::default();
        self.pieces = 0;
        self.wary = self.wary.saturating_sub(1);
        if self.wary == 0 {
            self.joins_up_to = self.joins_at_most;
        }
        while let Some(rest) = (parcels.get(sent.parcels..)).filter(|rest| !rest.is_empty()) {
            self.compose(batch, rest, prefix);
            match self.transmit(socket) {
                Ok(count) => {
                    for place in 0..count {
                        sent.datagrams += self.messages[place].datagrams;
                        self.finish(place, &mut sent);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    sent.refused = true;
                    return sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let datagrams = |parcel: &Parcel| batch.received()[parcel.place].datagrams();
                    sent.lost += rest.iter().map(datagrams).sum::<u32>() - self.pieces as u32;
                    sent.parcels = parcels.len();
                }
                Err(error) => self.after_failure(&error, &mut sent),
            }
        }
        sent
    }

    /// A message is done with.
    fn finish(&mut self, place: usize, sent: &mut Sent) {
        let parcels = self.messages[place].parcels;
        sent.parcels += parcels;
        self.pieces = match parcels {
            0 => self.pieces + 1,
            _ => 0,
        };
    }

    /// The first message was refused: if because it is one that is to be cut, its kind is not tried again soon, and all goes on from there;
    /// else it is lost.
    fn after_failure(&mut self, error: &io::Error, sent: &mut Sent) {
        let Some(message) = self.messages.first() else {
            return;
        };
        let is_cut = message.datagrams > 1 && message.segment <= self.joins_up_to;
        let joins_up_to = match error.raw_os_error() {
            // The device cannot: no size would do.
            Some(libc::EIO) if is_cut => 0,
            // Older kernels and newer ones of a datagram that does not fit into a packet.
            Some(libc::EINVAL | libc::EMSGSIZE) if is_cut => message.segment - 1,
            _ => {
                sent.lost += message.datagrams;
                return self.finish(0, sent);
            }
        };
        (self.joins_up_to, self.wary) = (joins_up_to, WARY);
    }

    /// Makes messages of the first parcels, as many as one call takes.
    fn compose(&mut self, batch: &Batch, parcels: &[Parcel], prefix: &[u8]) {
        self.messages.clear();
        self.names.clear();
        let (mut vectors, mut first) = (0, 0);
        while let Some(parcel) = parcels.get(first) {
            let received = batch.received()[parcel.place];
            let is_cut = received.datagrams() > 1 && received.segment > self.joins_up_to;
            if is_cut || !prefix.is_empty() {
                match self.compose_pieces(batch, parcel, prefix, vectors) {
                    Some(used) => vectors = used,
                    None => return,
                }
                first += 1;
                continue;
            }
            if vectors == MAX_DATAGRAMS {
                return;
            }
            let message = self.join(batch, &parcels[first..], MAX_DATAGRAMS - vectors);
            let own = &parcels[first..first + message.parcels];
            for (parcel, vector) in own.iter().zip(&mut self.vectors[vectors..]) {
                *vector = piece(batch.bytes(parcel.place));
            }
            self.address(parcel, message, vectors..vectors + message.parcels);
            vectors += message.parcels;
            first += message.parcels;
        }
    }

    /// The message that begins with the first of the parcels, and takes in those after it that are like it.
    fn join(&self, batch: &Batch, parcels: &[Parcel], most: usize) -> Message {
        let (first, received) = (parcels[0], batch.received()[parcels[0].place]);
        let mut message = Message {
            parcels: 1,
            datagrams: received.datagrams(),
            segment: received.segment,
            bytes: received.length,
        };
        // Only whole ones may be followed by others.
        let mut is_open = received.length > 0
            && received.length.is_multiple_of(received.segment)
            && received.segment <= self.joins_up_to;
        for parcel in parcels.iter().take(most).skip(1) {
            let next = batch.received()[parcel.place];
            let fits = message.datagrams + next.datagrams() <= MAX_JOINED
                && message.bytes + next.length <= MAX_JOINED_BYTES;
            let is_alike = next.segment == message.segment
                || next.datagrams() == 1 && next.length < message.segment;
            let is_near = (parcel.to, parcel.local) == (first.to, first.local);
            if !(is_open && fits && is_alike && is_near) || next.length == 0 {
                break;
            }
            message.parcels += 1;
            message.datagrams += next.datagrams();
            message.bytes += next.length;
            is_open = next.length.is_multiple_of(message.segment);
        }
        message
    }

    /// Messages of the single datagrams of one parcel, the last of which counts for the parcel; how many vectors are used then, if they
    /// sufficed for all.
    fn compose_pieces(
        &mut self,
        batch: &Batch,
        parcel: &Parcel,
        prefix: &[u8],
        mut vectors: usize,
    ) -> Option<usize> {
        let received = batch.received()[parcel.place];
        let (bytes, segment) = (batch.bytes(parcel.place), received.segment);
        let count = received.datagrams() as usize;
        // Only the first one may be done with in part.
        let done = if self.messages.is_empty() {
            self.pieces
        } else {
            0
        };
        for number in done..count {
            let first = vectors;
            vectors += if prefix.is_empty() { 1 } else { 2 };
            if vectors > MAX_DATAGRAMS {
                return None;
            }
            let end = bytes.len().min((number + 1) * segment);
            self.vectors[first] = piece(prefix);
            self.vectors[vectors - 1] = piece(&bytes[number * segment..end]);
            let message = Message {
                parcels: usize::from(number + 1 == count),
                datagrams: 1,
                segment,
                bytes: end - number * segment,
            };
            self.address(parcel, message, first..vectors);
        }
        Some(vectors)
    }

    /// Adds a message of which the vectors are there.
    fn address(&mut self, parcel: &Parcel, message: Message, vectors: Range<usize>) {
        let place = self.messages.len();
        let header = &mut self.headers[place].msg_hdr;
        header.msg_iovlen = vectors.len() as _;
        header.msg_iov = self.vectors[vectors].as_mut_ptr();
        let segment = (message.datagrams > 1).then_some(message.segment as u16);
        message::write(header, &mut self.controls[place], parcel.local, segment);
        (header.msg_name, header.msg_namelen) = (std::ptr::null_mut(), 0);
        if let Some(to) = parcel.to {
            // Within its capacity, so that no name moves.
            self.names.push(to.into());
            if let Some(name) = self.names.last() {
                header.msg_name = name.as_ptr().cast_mut().cast();
                header.msg_namelen = name.len();
            }
        }
        self.messages.push(message);
    }

    /// Sends the messages; how many of them were taken, which is at least one.
    fn transmit(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        let count = self.messages.len();
        if let ([only], None) = (&*self.messages, self.names.first())
            && only.datagrams == 1
            && self.headers[0].msg_hdr.msg_iovlen == 1
            && self.headers[0].msg_hdr.msg_controllen == 0
        {
            return self.transmit_one(socket).map(|()| 1);
        }
        // SAFETY: the descriptor is borrowed and so open; the first `count` headers name vectors, names and control memory of this outbox
        // and bytes of the batch that `send` borrows, all live, and the call only reads what they name.
        let taken = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(taken).map_err(|_| io::Error::last_os_error())
    }

    /// The same for a single datagram on a connected socket, of which the kernel has less to look at.
    fn transmit_one(&self, socket: &impl AsRawFd) -> io::Result<()> {
        let piece = &self.vectors[0];
        // SAFETY: the descriptor is borrowed and so open; the piece is of the batch that `send` borrows, and the call only reads it.
        let taken = unsafe {
            libc::send(
                socket.as_raw_fd(),
                piece.iov_base,
                piece.iov_len,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        match taken {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn piece(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}
