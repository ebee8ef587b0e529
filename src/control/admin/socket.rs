//! The admin server's socket: TCP, or a Unix socket that only its owner and group may open.
//! It must never take a socket file away from a process that listens on it.
//! The walk goes back to `mod.rs`.

use std::fs::{File, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use socket2::{Domain, SockAddr, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::model::AdminBind;
use crate::control::bind_failure::explain;

/// Connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 128;
/// Owner and group may connect.
const MODE: u32 = 0o660;

/// A bound socket that listens.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removed when the socket is closed.
        file: SocketFile,
    },
}

/// One accepted connection.
#[derive(Debug)]
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket's file, removed when the socket is closed unless another one has taken the name.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Whether it is somebody else's to remove.
    is_foreign: Arc<AtomicBool>,
}

/// Another descriptor of the socket, for a process that takes over.
#[derive(Debug)]
pub(super) struct Spare {
    socket: OwnedFd,
    is_foreign: Option<Arc<AtomicBool>>,
}

impl Spare {
    /// One more descriptor.
    pub(super) fn another(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// From now on the file is the other process's.
    pub(super) fn give_away(&self) {
        if let Some(is_foreign) = &self.is_foreign {
            is_foreign.store(true, Relaxed);
        }
    }
}

impl Socket {
    pub(super) fn bind(bind: &AdminBind) -> io::Result<Socket> {
        match bind {
            AdminBind::Tcp(address) => {
                let bound = std::net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    TcpListener::from_std(listener)
                });
                bound.map(Socket::Tcp).map_err(|error| {
                    io::Error::new(error.kind(), explain("the admin server", *address, &error))
                })
            }
            AdminBind::Unix(path) => bind_unix(path).map_err(|error| {
                let text = format!("the admin server cannot bind {bind}: {error}");
                io::Error::new(error.kind(), text)
            }),
        }
    }

    /// A socket that was given to this process. Its file is this process's to remove only if it took another weir's place.
    pub(super) fn adopt(bind: &AdminBind, given: OwnedFd, owns_file: bool) -> io::Result<Socket> {
        match bind {
            AdminBind::Tcp(_) => TcpListener::from_std(given.into()).map(Socket::Tcp),
            AdminBind::Unix(path) => Ok(Socket::Unix {
                listener: UnixListener::from_std(given.into())?,
                file: SocketFile {
                    identity: identity(path)?,
                    path: path.clone(),
                    is_foreign: Arc::new(AtomicBool::new(!owns_file)),
                },
            }),
        }
    }

    /// Another descriptor of it.
    pub(super) fn spare(&self) -> io::Result<Spare> {
        Ok(match self {
            Socket::Tcp(listener) => Spare {
                socket: listener.as_fd().try_clone_to_owned()?,
                is_foreign: None,
            },
            Socket::Unix { listener, file } => Spare {
                socket: listener.as_fd().try_clone_to_owned()?,
                is_foreign: Some(file.is_foreign.clone()),
            },
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Socket::Tcp(listener) => Connection::Tcp(listener.accept().await?.0),
            Socket::Unix { listener, .. } => Connection::Unix(listener.accept().await?.0),
        })
    }
}

impl Connection {
    /// The client's address, unless it came over the Unix socket or has gone away.
    pub(super) fn remote(&self) -> Option<IpAddr> {
        match self {
            Connection::Tcp(stream) => {
                let address = stream.peer_addr().ok()?;
                Some(address.ip().to_canonical())
            }
            Connection::Unix(_) => None,
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = !self.is_foreign.load(Relaxed);
        if is_own && identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    // The file is made with the socket's own mode, less the umask: at no moment may others connect.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(MODE))?;
    let socket = socket2::Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile {
        identity: identity(path)?,
        path: path.to_owned(),
        is_foreign: Arc::default(),
    };
    std::fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    let listener = std::os::unix::net::UnixListener::from(OwnedFd::from(socket));
    Ok(Socket::Unix {
        listener: UnixListener::from_std(listener)?,
        file,
    })
}

/// Removes the file of a socket on which nobody listens any more. Any other file stays, and the bind says so.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_read(context, bytes),
            Connection::Unix(stream) => Pin::new(stream).poll_read(context, bytes),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Connection::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Connection::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("weir-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_and_goes_with_its_server() {
        let path = scratch("private");
        let socket = Socket::bind(&AdminBind::Unix(path.clone())).unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_socket_is_not_taken_and_a_stale_one_is() {
        let path = scratch("stale");
        let bind = AdminBind::Unix(path.clone());
        let socket = Socket::bind(&bind).unwrap();
        let error = Socket::bind(&bind).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("stale.sock"), "{error}");
        // Closed without its file being removed, as a killed process does.
        let Socket::Unix { listener, file } = socket else {
            unreachable!()
        };
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        drop(Socket::bind(&bind).unwrap());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let path = scratch("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(Socket::bind(&AdminBind::Unix(path.clone())).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }
}
