//! Receiving many datagrams with one call (recvmmsg(2)), each maybe several of one sender and size that the kernel has put together (UDP_GRO).
//! Its memory is allocated once and bounded; a datagram never depends on the one that lay in its place before.
//! The walk goes on in `parcels.rs`, which sends them on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use super::message::{self, Control, NO_CONTROL};
use crate::net::proxy_protocol::Ends;

/// Datagrams of one call.
pub const MAX_DATAGRAMS: usize = 64;

/// Bytes of one: the most that UDP can carry, or the kernel puts together.
const LARGEST: usize = 64 * 1024;

/// From the beginning of one to that of the next; more than [`LARGEST`], so that small ones do not all lie in the same few lines of a cache.
const STRIDE: usize = LARGEST + 192;

/// Datagrams that were received and wait to be sent on.
#[derive(Debug)]
pub struct Batch {
    /// The system's until it is used: small datagrams use little of it.
    memory: Box<[u8]>,
    /// Places of the memory that are used.
    used: usize,
    received: Vec<Received>,
    /// What was received before it was taken apart; kept for its memory.
    whole: Vec<Received>,
    names: Box<[libc::sockaddr_storage; MAX_DATAGRAMS]>,
    controls: Box<[Control; MAX_DATAGRAMS]>,
    /// Written anew for each call, as far as it uses them.
    vectors: Box<[libc::iovec; MAX_DATAGRAMS]>,
    headers: Box<[libc::mmsghdr; MAX_DATAGRAMS]>,
}

/// A datagram, or several of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it; absent on a connected socket.
    pub from: Option<SocketAddr>,
    /// Where to, on a socket that takes those for several addresses.
    pub local: Option<IpAddr>,
    /// Whose it is and where it went, as far as the sender said; see [`Batch::part`].
    pub announced: Option<Ends>,
    /// Bytes that stood before its data and are no part of it.
    before: usize,
    /// Where its data begin in the memory of the batch.
    start: usize,
    /// Its bytes.
    pub length: usize,
    /// The size of each datagram but the last, which may be smaller; `length`, or 1 if that is 0, when it is one.
    pub segment: usize,
}

impl Received {
    /// How many datagrams it is.
    pub fn datagrams(&self) -> u32 {
        (self.length.div_ceil(self.segment) as u32).max(1)
    }
}

impl Default for Batch {
    fn default() -> Self {
        // SAFETY: all zeros is a valid sockaddr_storage: of no family.
        let no_name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        // SAFETY: all zeros is a valid iovec and a valid mmsghdr: null pointers and lengths of 0.
        let (vector, header): (libc::iovec, libc::mmsghdr) = unsafe { std::mem::zeroed() };
        Batch {
            vectors: Box::new([vector; MAX_DATAGRAMS]),
            headers: Box::new([header; MAX_DATAGRAMS]),
            memory: vec![0; MAX_DATAGRAMS * STRIDE].into(),
            used: 0,
            whole: Vec::new(),
            received: Vec::with_capacity(MAX_DATAGRAMS),
            names: Box::new([no_name; MAX_DATAGRAMS]),
            controls: Box::new([NO_CONTROL; MAX_DATAGRAMS]),
        }
    }
}

impl Batch {
    /// Forgets what was received.
    pub fn clear(&mut self) {
        self.received.clear();
        self.used = 0;
    }

    /// What was received since [`clear`](Self::clear), in its order.
    pub fn received(&self) -> &[Received] {
        &self.received
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.used == MAX_DATAGRAMS
    }

    /// The bytes of the datagram in this place of [`received`](Self::received).
    pub fn bytes(&self, place: usize) -> &[u8] {
        let one = self.received.get(place);
        one.map_or(b"", |one| &self.memory[one.start..][..one.length])
    }

    /// The bytes that stood before the data of that datagram; see [`part`](Self::part).
    pub fn header(&self, place: usize) -> &[u8] {
        let one = self.received.get(place);
        one.map_or(b"", |one| &self.memory[one.start - one.before..one.start])
    }

    /// Takes what was received apart into single datagrams, each of which `look` is shown with its sender. It says how many bytes stand
    /// before the data, and whose these are if not the sender's; or nothing, and the datagram is dropped.
    pub fn part(
        &mut self,
        mut look: impl FnMut(SocketAddr, &[u8]) -> Option<(usize, Option<Ends>)>,
    ) {
        let Batch {
            memory,
            received,
            whole,
            ..
        } = self;
        std::mem::swap(received, whole);
        for one in whole.drain(..) {
            let end = one.start + one.length;
            for number in 0..one.datagrams() as usize {
                let start = one.start + number * one.segment;
                let bytes = &memory[start..end.min(start + one.segment)];
                let looked = one.from.and_then(|from| look(from, bytes));
                let Some((before, announced)) = looked else {
                    continue;
                };
                let before = before.min(bytes.len());
                let length = bytes.len() - before;
                received.push(Received {
                    announced,
                    before,
                    start: start + before,
                    length,
                    segment: length.max(1),
                    ..one
                });
            }
        }
    }

    /// Receives up to `most` more of what has arrived, as far as there is room. Fewer than that: no more had arrived.
    ///
    /// # Errors
    /// The system's error when nothing was received: `WouldBlock` when nothing has arrived, `ConnectionRefused` when a host said of an
    /// earlier datagram that nobody listens there.
    pub fn receive(&mut self, socket: &impl AsRawFd, most: usize) -> io::Result<usize> {
        let first = self.used;
        let count = most.min(MAX_DATAGRAMS - first);
        let places = self.memory.chunks_exact_mut(STRIDE).skip(first);
        let names = self.names[first..].iter_mut();
        let controls = self.controls[first..].iter_mut();
        let parts = places
            .zip(names)
            .zip(controls)
            .zip(self.vectors.iter_mut())
            .zip(self.headers.iter_mut());
        for ((((place, name), control), vector), header) in parts.take(count) {
            vector.iov_base = place.as_mut_ptr().cast();
            vector.iov_len = LARGEST;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of_val(name) as libc::socklen_t;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of_val(control) as _;
        }
        // SAFETY: the descriptor is borrowed and so open; the first `count` headers name memory of this batch that is
        // live, writable, as long as they say, and disjoint.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let places = (first..).zip(&self.names[first..]);
        for (header, (place, name)) in self.headers[..received].iter().zip(places) {
            // SAFETY: recvmmsg filled this header and what it names.
            let told = unsafe { message::read(&header.msg_hdr) };
            let length = (header.msg_len as usize).min(LARGEST);
            self.received.push(Received {
                from: address(name, header.msg_hdr.msg_namelen),
                local: told.local,
                announced: None,
                before: 0,
                start: place * STRIDE,
                length,
                segment: told.segment.unwrap_or(length).clamp(1, length.max(1)),
            });
        }
        self.used += received;
        Ok(received)
    }
}

/// The address that the kernel wrote; absent when it wrote none.
fn address(name: &libc::sockaddr_storage, length: libc::socklen_t) -> Option<SocketAddr> {
    if length == 0 {
        return None;
    }
    let pointer = &raw const *name;
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family tells what the kernel wrote, and the storage is large enough and aligned for it.
            let name = unsafe { &*pointer.cast::<libc::sockaddr_in>() };
            let address = std::net::Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some((address, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*pointer.cast::<libc::sockaddr_in6>() };
            let address = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(std::net::SocketAddrV6::new(address, port, 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}
