//! The process's limit of open descriptors: every connection is two of them.
//! It never lowers the limit.
//! Nothing follows from here.

use std::io;

/// How many descriptors this process may have open; `u64::MAX` when the system does not say.
pub fn limit() -> u64 {
    read_limit().map_or(u64::MAX, |limit| limit.rlim_cur)
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
///
/// # Errors
/// The system's error; the limit is as it was.
pub fn raise_limit() -> io::Result<u64> {
    let mut limit = read_limit()?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is to a live `rlimit`, which the call only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

fn read_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live, writable `rlimit`.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}
