//! What the tests ask of the operating system: free addresses, resets, limits and a child that dies with its test.
//! The only unsafe code of the tests stands here.

use std::collections::HashSet;
use std::fs;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// A loopback address on which nothing listens, and which no other caller was given. The ports lie below those that the kernel
/// hands out on its own.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap();
    let given = given.get_or_insert_default();
    let first = 10_000 + (std::process::id() as usize * 397) % 22_000;
    (0..22_000)
        .map(|offset| 10_000 + (first - 10_000 + offset) % 22_000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port as u16)))
        .find(|address| !given.contains(&address.port()) && TcpListener::bind(address).is_ok())
        .inspect(|address| {
            given.insert(address.port());
        })
        .expect("a free port")
}

/// An address whose kernel answers no further connection request for as long as this lives: its backlog is full.
pub struct Deaf {
    pub address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

pub fn deaf() -> Deaf {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("its own address");
    // SAFETY: the descriptor is open as long as `listener`; the call takes no pointer.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
        assert!(queued.len() < 8, "no end of the backlog");
    }
    Deaf {
        address,
        _listener: listener,
        _queued: queued,
    }
}

/// Closing the socket sends RST.
pub fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `stream`, and the option's value lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        )
    };
    assert_eq!(result, 0, "SO_LINGER");
}

/// Ends a listener at once. Closing it is not enough: a process that another test is just starting may hold a copy until it runs its
/// program, and connections to that would be accepted and then reset.
pub fn stop_listening(listener: &TcpListener) {
    let _ = socket2::SockRef::from(listener).shutdown(Shutdown::Both);
}

/// The child dies when the thread that started it does, whatever happens to the test.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// The child may open at most this many descriptors.
pub fn limit_descriptors(command: &mut Command, most: u64) {
    // SAFETY: setrlimit is async-signal-safe and reads only its argument.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit {
                rlim_cur: most,
                rlim_max: most,
            };
            match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

/// This process may open as many descriptors as the system allows it.
pub fn raise_descriptors() {
    // SAFETY: a struct of integers may be all zeros, and both calls touch nothing but it.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

pub fn signal(process: u32, signal: i32) {
    // SAFETY: the process is a child that was not waited for yet, or was just found by its arguments, so that its id is still its own.
    let result = unsafe { libc::kill(process as libc::pid_t, signal) };
    assert!(result == 0 || signal == libc::SIGKILL, "kill");
}

/// Processes that were started with this argument.
pub fn running(argument: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut arguments = command.split(|byte| *byte == 0);
        *id != std::process::id() && arguments.any(|known| known == argument.as_bytes())
    })
    .collect()
}

/// Resident memory of a process, in KiB.
pub fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.unwrap().trim().trim_end_matches(" kB");
    figure.parse().unwrap()
}

/// Open descriptors of a process.
pub fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}
