//! Control messages of datagrams (cmsg(3)): which address one was sent to, which it leaves from, and how large its segments are.
//! It reads nothing that the kernel did not write, and writes within its own memory only.
//! Nothing follows from here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Memory for the control messages of one datagram, aligned as their headers must be. Every set of messages used here fits in.
pub(super) type Control = [u64; 16];

/// An empty one.
pub(super) const NO_CONTROL: Control = [0; 16];

/// What control messages say of a datagram that was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The address that it was sent to.
    pub(super) local: Option<IpAddr>,
    /// The size of each of its segments but the last, when it is several datagrams.
    pub(super) segment: Option<usize>,
}

/// Reads what the kernel wrote.
///
/// # Safety
/// `header` must be as recvmmsg(2) left it: its control memory is live and initialised as far as it says.
pub(super) unsafe fn read(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the caller vouches for the header; the macros stay within the memory that it names.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie whole within the control memory.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        // SAFETY: as above; the data follow the header.
        let data = unsafe { libc::CMSG_DATA(message) };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel writes a whole in_pktinfo under this type; it may be unaligned.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                // What an answer must come from: the address of the interface where a broadcast came in.
                let octets = info.ipi_spec_dst.s_addr.to_ne_bytes();
                told.local = Some(Ipv4Addr::from(octets).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel writes a whole in6_pktinfo under this type; it may be unaligned.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                told.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: the kernel writes an integer under this type; it may be unaligned.
                let size = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                told.segment = usize::try_from(size).ok().filter(|size| *size > 0);
            }
            _ => {}
        }
        // SAFETY: both pointers are of the same, live control memory.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    told
}

/// Makes `header` say where its datagram leaves from and how it is cut, in the memory `control`, which must outlive its use.
pub(super) fn write(
    header: &mut libc::msghdr,
    control: &mut Control,
    local: Option<IpAddr>,
    segment: Option<u16>,
) {
    header.msg_control = std::ptr::null_mut();
    header.msg_controllen = 0;
    let mut used = 0;
    match local {
        Some(IpAddr::V4(address)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used = append(control, used, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        Some(IpAddr::V6(address)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: 0,
            };
            used = append(
                control,
                used,
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
                info,
            );
        }
        None => {}
    }
    if let Some(size) = segment {
        used = append(control, used, (libc::SOL_UDP, libc::UDP_SEGMENT), size);
    }
    if used > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = used as _;
    }
}

/// Puts a message after `used` bytes; the bytes that are used then.
fn append<T: Copy>(
    control: &mut Control,
    used: usize,
    (level, kind): (libc::c_int, libc::c_int),
    data: T,
) -> usize {
    // SAFETY: these compute sizes and touch no memory.
    let (space, length) = unsafe {
        let size = size_of::<T>() as libc::c_uint;
        (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size))
    };
    assert!(used + space <= size_of::<Control>(), "it fits");
    // SAFETY: `used` is a sum of CMSG_SPACEs, so that the header is aligned, and all that is written lies below `used + space`, which
    // was checked to be within `control`. The data are written where CMSG_DATA says, whose alignment may be less than T's.
    unsafe {
        let message = control.as_mut_ptr().byte_add(used).cast::<libc::cmsghdr>();
        (*message).cmsg_len = length as _;
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(data);
    }
    used + space
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> libc::msghdr {
        // SAFETY: all zeros is a valid msghdr: null pointers and lengths of 0.
        unsafe { std::mem::zeroed() }
    }

    /// What is written is read, but for the type of the segment's size, which differs between the directions.
    #[test]
    fn an_address_is_read_as_it_was_written() {
        for local in ["192.0.2.7", "2001:db8::1"] {
            let local: IpAddr = local.parse().unwrap();
            let (mut header, mut control) = (header(), NO_CONTROL);
            write(&mut header, &mut control, Some(local), Some(1200));
            // SAFETY: the header names the live `control`, which was written above.
            let told = unsafe { read(&header) };
            assert_eq!(told.local, Some(local));
        }
        let (mut header, mut control) = (header(), NO_CONTROL);
        write(&mut header, &mut control, None, None);
        // SAFETY: the header names no memory.
        assert_eq!(unsafe { read(&header) }, Told::default());
    }
}
