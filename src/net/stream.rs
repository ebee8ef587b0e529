//! A connected byte stream, plain or within TLS: reads and writes that touch the socket only when it is known to be ready.
//! It knows nothing of what the bytes mean; a plain one holds no buffer, and one of TLS none while it is idle.
//! The walk goes on in `tls/`, and in `upstream/` and `l7/`, which poll it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::tls::handshake::Refusal;
use super::tls::stream::TlsStream;
use super::transparent;

/// A connection of one worker.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Bytes in the records of TLS; boxed, so that a plain connection stays small.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Wraps an accepted connection.
    pub fn accepted(stream: TcpStream) -> Self {
        Stream::Plain(stream)
    }

    /// Begins TLS as the server of a client of which `early` was read. [`Stream::poll_handshake`] comes next.
    ///
    /// # Errors
    /// What rustls does not like about the configuration; the connection is lost.
    pub fn serve_tls(
        self,
        config: Arc<ServerConfig>,
        early: Vec<u8>,
    ) -> Result<Self, rustls::Error> {
        match self {
            Stream::Plain(socket) => TlsStream::server(socket, config, early).map(Box::new),
            Stream::Tls(_) => Err(rustls::Error::HandshakeNotComplete),
        }
        .map(Stream::Tls)
    }

    /// Begins TLS as the client of a server that must prove to be `name`. [`Stream::poll_handshake`] comes next.
    ///
    /// # Errors
    /// What rustls does not like about the configuration; the connection is lost.
    pub fn begin_tls(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        match self {
            Stream::Plain(socket) => TlsStream::client(socket, config, name).map(Box::new),
            Stream::Tls(_) => Err(rustls::Error::HandshakeNotComplete),
        }
        .map(Stream::Tls)
    }

    /// Moves the handshake of TLS on to its end; a plain connection has none.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        match self {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => stream.poll_handshake(cx),
        }
    }

    /// Sends what TLS itself has to say, such as the end of a handshake, without waiting for application data to go with it.
    ///
    /// # Errors
    /// The system's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// The connection as one of TLS.
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => Some(stream),
        }
    }

    /// The address of this end.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Stream::Plain(socket) => socket.local_addr(),
            Stream::Tls(stream) => stream.local_addr(),
        }
    }

    /// The protocol that both sides agreed on within TLS (ALPN, RFC 7301), such as `h2`.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls()?.state().alpn_protocol()
    }

    /// Connects, with TCP_NODELAY.
    ///
    /// # Errors
    /// The system's error.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_from(None, address).await
    }

    /// The same from an address that need not be of this machine, if there is one; see [`transparent`].
    ///
    /// # Errors
    /// The system's error.
    pub async fn connect_from(source: Option<IpAddr>, address: SocketAddr) -> io::Result<Self> {
        let socket = socket(address)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            transparent::bear(&socket, source, address)?;
        }
        connected(socket, address).await.map(Stream::Plain)
    }

    /// Reads what is there; 0 is the end of the stream. A read that does not fill `buffer` costs no second system call to learn
    /// that nothing is left.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(socket) => {
                let mut buffer = ReadBuf::new(buffer);
                Pin::new(socket)
                    .poll_read(cx, &mut buffer)
                    .map_ok(|()| buffer.filled().len())
            }
            Stream::Tls(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// Reads what is there into the room of `buffer`, which need not be initialised; nothing is the end of the stream.
    #[inline]
    pub fn poll_read_buf(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Tls(stream) => {
                let read = stream.poll_read(cx, buffer.initialize_unfilled());
                read.map_ok(|count| buffer.advance(count))
            }
        }
    }

    /// Reads what is there to the end of `buffer`, within its capacity, which must not be used up; 0 is the end of the stream.
    #[inline]
    pub fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::uninit(buffer.spare_capacity_mut());
        let read = match self {
            Stream::Plain(socket) => Pin::new(socket)
                .poll_read(cx, &mut space)
                .map_ok(|()| space.filled().len()),
            Stream::Tls(stream) => {
                let space = space.initialize_unfilled();
                stream.poll_read(cx, space)
            }
        };
        if let Poll::Ready(Ok(count)) = read {
            let length = buffer.len() + count;
            // SAFETY: both kinds say how much of the spare capacity they filled: `ReadBuf` vouches for the one, and the other was
            // given all of it initialised.
            unsafe { buffer.set_len(length) };
        }
        read
    }

    /// Writes `first` and then `second`, as far as the socket takes them, in one system call. Both must not be empty. What is not
    /// counted must be offered again before anything else, the same bytes: within TLS they may be sealed already.
    #[inline]
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = match self {
            Stream::Plain(socket) => Pin::new(socket),
            Stream::Tls(stream) => return stream.poll_write(cx, first, second),
        };
        match (first.is_empty(), second.is_empty()) {
            (false, true) => stream.poll_write(cx, first),
            (true, _) => stream.poll_write(cx, second),
            (false, false) => {
                stream.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)])
            }
        }
    }

    /// The socket, when bytes pass through it as they are.
    #[inline]
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Stream::Plain(socket) => Some(socket),
            Stream::Tls(_) => None,
        }
    }

    /// Whether nothing has arrived, not even an end; of what did, a byte is lost. It costs a system call only when the last event came
    /// for bytes that were read before it. Polling would not do: a task that used up its budget is told that nothing is there
    /// whatever is.
    #[inline]
    pub fn is_quiet(&mut self) -> bool {
        match self {
            Stream::Plain(socket) => {
                matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Stream::Tls(stream) => stream.is_quiet(),
        }
    }

    /// Sends the end of the stream, so that the other side reads what it was sent before the connection goes away.
    pub fn shutdown_write(&mut self) {
        match self {
            Stream::Plain(socket) => {
                // It fails only when the connection is gone already.
                let _ = socket2::SockRef::from(&*socket).shutdown(std::net::Shutdown::Write);
            }
            Stream::Tls(stream) => stream.shutdown_write(),
        }
    }

    /// The same without a word within TLS, as a connection that was cut ends.
    pub fn cut_write(&mut self) {
        match self {
            Stream::Plain(_) => self.shutdown_write(),
            Stream::Tls(stream) => stream.cut_write(),
        }
    }

    /// Makes the coming close a reset: the other side must not take the end for a clean one.
    pub fn reset_on_close(&mut self) {
        match self {
            Stream::Plain(socket) => {
                // It fails only when the connection is gone already.
                let _ = socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
            }
            Stream::Tls(stream) => stream.reset_on_close(),
        }
    }

    /// Has the system ask now and then whether the other end is still there; it counts as gone after about two minutes.
    pub fn keep_alive(&self) {
        let often = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(20))
            .with_retries(3);
        // It fails only when the connection is gone already.
        let _ = socket2::SockRef::from(self.socket()).set_tcp_keepalive(&often);
    }

    /// Whether the system knows that the connection failed, for when nobody reads from it or writes to it. It tells once.
    pub fn has_failed(&self) -> bool {
        !matches!(self.socket().take_error(), Ok(None))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.socket(),
        }
    }
}

/// A socket of TCP that never blocks, for connections toward an address.
///
/// # Errors
/// The system's error.
pub(super) fn socket(toward: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(toward);
    Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
}

/// Connects without blocking. The event that ends the wait tells a failure from success, so that only a failure costs the system call that
/// says what it was.
async fn connected(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    let ready = stream.ready(Interest::WRITABLE | Interest::ERROR).await?;
    let has_failed = ready.is_error() || ready.is_write_closed();
    match has_failed
        .then(|| stream.take_error())
        .transpose()?
        .flatten()
    {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// For libraries that read and write in tokio's way.
impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Stream::poll_read(self.get_mut(), cx, buffer.initialize_unfilled());
        read.map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write(self.get_mut(), cx, bytes, &[])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().shutdown_write();
        Poll::Ready(Ok(()))
    }
}
