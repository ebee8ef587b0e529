//! A connected byte stream: reads and writes that touch the socket only when it is known to be ready.
//! It knows nothing of what the bytes mean and holds no buffer.
//! The walk goes on in `upstream/` and `l7/`, which poll it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

/// A connected socket of one worker.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl Stream {
    /// Wraps an accepted connection.
    pub fn accepted(stream: TcpStream) -> Self {
        Stream(stream)
    }

    /// Connects, with TCP_NODELAY.
    ///
    /// # Errors
    /// The system's error.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_nodelay(true)?;
        socket.connect(address).await.map(Stream)
    }

    /// Reads what is there; 0 is the end of the stream. A read that does not fill `buffer` costs no second system call to learn
    /// that nothing is left.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(&mut self.0)
            .poll_read(cx, &mut buffer)
            .map_ok(|()| buffer.filled().len())
    }

    /// Reads what is there to the end of `buffer`, within its capacity, which must not be used up; 0 is the end of the stream.
    #[inline]
    pub fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::uninit(buffer.spare_capacity_mut());
        match Pin::new(&mut self.0).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) => {
                let count = space.filled().len();
                let length = buffer.len() + count;
                // SAFETY: `ReadBuf` vouches that the first `count` bytes of the spare capacity are initialised.
                unsafe { buffer.set_len(length) };
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes `first` and then `second`, as far as the socket takes them, in one system call. Both must not be empty.
    #[inline]
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.0);
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
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        Some(&self.0)
    }

    /// Whether nothing has arrived, not even an end; of what did, a byte is lost. It costs a system call only when the last event came
    /// for bytes that were read before it. Polling would not do: a task that used up its budget is told that nothing is there
    /// whatever is.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        matches!(self.0.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends the end of the stream, so that the other side reads what it was sent before the connection goes away.
    pub fn shutdown_write(&self) {
        // It fails only when the connection is gone already.
        let _ = socket2::SockRef::from(&self.0).shutdown(std::net::Shutdown::Write);
    }

    /// Makes the coming close a reset: the other side must not take the end for a clean one.
    pub fn reset_on_close(&self) {
        // It fails only when the connection is gone already.
        let _ = socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }
}
