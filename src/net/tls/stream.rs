//! One TLS connection: a socket, the state of its keys, and whatever could not be passed on yet, which is nothing while it is idle.
//! It waits for nothing but its socket, and claims that application data was written only when its records have left.
//! The walk goes on in `records.rs`; above it stands `net/stream.rs`, which makes this one of two kinds of streams.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::certificates::{self, Chosen};
use super::handshake::{Refusal, UNRECOGNIZED_NAME};
use super::memory::{self, FRONT, Memory};
use super::records::{Opened, Session};

/// The largest record, with its header (RFC 8446 section 5.2).
const RECORD: usize = 5 + 16 * 1024 + 256;

/// Bytes of an incomplete record, or of a message of the handshake in several, that a connection keeps at most.
const MAX_KEPT: usize = 64 * 1024 + RECORD;

/// A connection that speaks TLS.
pub struct TlsStream {
    socket: TcpStream,
    session: Session,
    /// An incomplete record.
    incoming: Vec<u8>,
    /// What was read before the handshake, until it is opened.
    early: Vec<u8>,
    /// Application data for which the reader had no room.
    plain: Vec<u8>,
    /// How much of `plain` was read.
    read: usize,
    /// Records that the socket did not take yet.
    outgoing: Vec<u8>,
    /// How much of `outgoing` was sent.
    sent: usize,
    /// Application data within `outgoing`, which the writer still holds.
    owed: usize,
    /// What the client's name led to, on the server's side.
    chosen: Option<Box<Chosen>>,
    end: End,
    /// Whether the end is to be sent behind `outgoing`.
    closing: bool,
    /// Whether nothing may be sent any more.
    silent: bool,
}

/// What the other side may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Anything.
    Open,
    /// Nothing: it said so.
    Closed,
    /// Nothing that is of this connection.
    Failed,
    /// Plain bytes: it does not speak TLS.
    Plain,
}

impl TlsStream {
    /// The server's side of a connection, before its handshake. `early` is what was read of it.
    ///
    /// # Errors
    /// What rustls does not like about the configuration.
    pub fn server(
        socket: TcpStream,
        config: Arc<ServerConfig>,
        early: Vec<u8>,
    ) -> Result<Self, rustls::Error> {
        let session = UnbufferedServerConnection::new(config)?;
        let mut stream = Self::new(socket, Session::Server(session));
        stream.early = early;
        Ok(stream)
    }

    /// The client's side of a connection to a server that must prove to be `name`, before its handshake.
    ///
    /// # Errors
    /// What rustls does not like about the configuration.
    pub fn client(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        let session = UnbufferedClientConnection::new(config, name)?;
        let mut stream = Self::new(socket, Session::Client(session));
        // The client speaks first.
        stream
            .session
            .open(&mut [], &mut stream.outgoing, |_| {})
            .failure
            .map_or(Ok(stream), Err)
    }

    fn new(socket: TcpStream, session: Session) -> Self {
        TlsStream {
            socket,
            session,
            incoming: Vec::new(),
            early: Vec::new(),
            plain: Vec::new(),
            read: 0,
            outgoing: Vec::new(),
            sent: 0,
            owed: 0,
            chosen: None,
            end: End::Open,
            closing: false,
            silent: false,
        }
    }

    /// Moves the handshake on to its end. What is left to be sent then leaves with the first application data, or with the next
    /// read that finds none.
    ///
    /// # Errors
    /// Why there is no connection; the other side was told as far as TLS has a word for it.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        while self.state().is_handshaking() {
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error.into()));
            }
            let mut early = std::mem::take(&mut self.early);
            let read = match early.is_empty() {
                true => ready!(self.poll_read_records(cx, &mut [])),
                false => self.open(&mut early, &mut []),
            };
            if let Err(error) = read {
                return Poll::Ready(Err(self.refuse(error)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What is known of the connection, all of it once the handshake is over.
    pub fn state(&self) -> &CommonState {
        self.session.state()
    }

    /// The address of this end.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What the client's name led to, on the server's side.
    pub fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_deref()
    }

    /// Reads application data; 0 is the end that the other side told of.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` when the connection ended without a word, which is how a cut looks; `InvalidData` for
    /// records that are not of this connection.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.read < self.plain.len() {
                return Poll::Ready(Ok(self.take_plain(buffer)));
            }
            match self.end {
                End::Open => {}
                End::Closed => return Poll::Ready(Ok(0)),
                End::Failed => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                End::Plain => return self.poll_read_plainly(cx, buffer),
            }
            if !self.outgoing.is_empty() {
                // That it cannot be sent does not mean that there is nothing to read.
                let _ = self.poll_flush(cx);
            }
            match ready!(self.poll_read_records(cx, buffer))? {
                0 => {}
                count => return Poll::Ready(Ok(count)),
            }
        }
    }

    /// Writes application data and counts what has left. What is not counted must be offered again, the same bytes: some may be
    /// sealed and on their way.
    ///
    /// # Errors
    /// The system's; `ConnectionAborted` when the connection takes no more.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.end {
            End::Plain if first.is_empty() => {
                return Pin::new(&mut self.socket).poll_write(cx, second);
            }
            End::Plain => return Pin::new(&mut self.socket).poll_write(cx, first),
            _ if self.closing || self.silent => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            _ => {}
        }
        if self.owed > 0 || self.outgoing.len() > FRONT {
            ready!(self.poll_flush(cx))?;
        }
        let whole = first.len() + second.len();
        let mut done = std::mem::take(&mut self.owed).min(whole);
        while done < whole {
            let left = [
                first.get(done..).unwrap_or_default(),
                &second[done.saturating_sub(first.len())..],
            ];
            let taken = memory::with(|memory| self.seal_and_send(cx, memory, left))?;
            if !self.outgoing.is_empty() {
                self.owed = taken;
                // A short write says nothing about the next one; asking again registers the wish to be woken.
                if self.poll_flush(cx)?.is_pending() {
                    break;
                }
                self.owed = 0;
            }
            done += taken;
        }
        match done {
            0 if whole > 0 => Poll::Pending,
            _ => Poll::Ready(Ok(done)),
        }
    }

    /// Sends the records that the socket did not take before.
    ///
    /// # Errors
    /// The system's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let left = &self.outgoing[self.sent..];
            match ready!(Pin::new(&mut self.socket).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.clear_outgoing();
        if self.closing {
            self.end_socket();
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing has arrived that a reader would want to know of, not even an end. What TLS says to itself, such as a ticket
    /// for the next connection, is dealt with here.
    pub fn is_quiet(&mut self) -> bool {
        while self.end == End::Open && self.read == self.plain.len() {
            let known = self.incoming.len();
            let opened =
                memory::with(
                    |memory| match self.socket.try_read(&mut memory.incoming[known..]) {
                        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(count) => {
                            memory.incoming[..known].copy_from_slice(&self.incoming);
                            self.open(&mut memory.incoming[..known + count], &mut [])
                        }
                        Err(error) => Err(error),
                    },
                );
            if let Err(error) = opened {
                return error.kind() == io::ErrorKind::WouldBlock && known == 0;
            }
        }
        false
    }

    /// Says that no more is coming, behind whatever is on its way. Reading goes on.
    pub fn shutdown_write(&mut self) {
        if self.silent {
            return self.end_socket();
        }
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        self.queue_notice();
        self.try_flush();
        if self.outgoing.is_empty() {
            self.end_socket();
        }
    }

    /// Ends what is sent without saying that no more is coming. Reading goes on.
    pub fn cut_write(&mut self) {
        self.silent = true;
        self.end_socket();
    }

    /// The socket behind it.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Waits until the socket may have something to read.
    #[cfg(test)]
    pub async fn readable(&self) {
        self.socket.readable().await.expect("an open socket");
    }

    /// Closes without a word, as a cut connection looks.
    #[cfg(test)]
    pub fn cut(mut self) {
        self.silent = true;
    }

    /// Makes the coming close a reset; nothing more is sent.
    pub fn reset_on_close(&mut self) {
        self.silent = true;
        // It fails only when the connection is gone already.
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let left = &self.plain[self.read..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.read += count;
        if self.read == self.plain.len() {
            (self.plain, self.read) = (Vec::new(), 0);
        }
        count
    }

    /// Reads what is there and opens it, into `buffer` as far as there is room; 0 when nothing of it was application data.
    fn poll_read_records(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let known = self.incoming.len();
        if known >= MAX_KEPT {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        memory::with(|memory| {
            // No more than fits into the buffer and one record besides, so that little has to be kept.
            let end = (known + buffer.len() + RECORD).min(memory.incoming.len());
            let mut space = ReadBuf::new(&mut memory.incoming[known..end]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
            let count = space.filled().len();
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            memory.incoming[..known].copy_from_slice(&self.incoming);
            Poll::Ready(self.open(&mut memory.incoming[..known + count], buffer))
        })
    }

    /// Opens records that lie in the thread's memory; how much application data went into `buffer`. An error is told after what
    /// came before it.
    fn open(&mut self, records: &mut [u8], buffer: &mut [u8]) -> io::Result<usize> {
        let (mut count, plain) = (0, &mut self.plain);
        let deliver = |data: &[u8]| {
            let fits = data.len().min(buffer.len() - count);
            buffer[count..count + fits].copy_from_slice(&data[..fits]);
            count += fits;
            plain.extend_from_slice(&data[fits..]);
        };
        let Opened {
            used,
            ended,
            failure,
        } = self.session.open(records, &mut self.outgoing, deliver);
        if let Some(chosen) = certificates::take_choice() {
            self.chosen = Some(Box::new(chosen));
        }
        if ended {
            self.end = End::Closed;
        }
        self.keep_incoming(&records[used..]);
        match failure {
            Some(error) => {
                self.fail();
                match count {
                    0 => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                    // The next read tells of it.
                    _ => Ok(count),
                }
            }
            None => Ok(count),
        }
    }

    /// Sends what the other side is to be told of a failure, as far as the socket takes it, and no more after it.
    fn fail(&mut self) {
        self.silent = true;
        self.end = End::Failed;
        let is_first = self.state().protocol_version().is_none();
        if is_first && self.incoming.first().is_some_and(u8::is_ascii_uppercase) {
            // No record begins with a letter, and every request does.
            self.end = End::Plain;
            return self.clear_outgoing();
        }
        if matches!(self.chosen(), Some(Chosen::Unknown)) {
            self.outgoing = UNRECOGNIZED_NAME.to_vec();
            self.sent = 0;
        }
        self.try_flush();
    }

    fn poll_read_plainly(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(buffer);
        Pin::new(&mut self.socket)
            .poll_read(cx, &mut space)
            .map_ok(|()| space.filled().len())
    }

    fn keep_incoming(&mut self, left: &[u8]) {
        if left.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(left);
        }
    }

    /// Seals a batch of `pieces` behind what is on its way already, and sends it in one system call; how much was taken. What
    /// the socket does not take is in `outgoing` then.
    fn seal_and_send(
        &mut self,
        cx: &mut Context<'_>,
        memory: &mut Memory,
        pieces: [&[u8]; 2],
    ) -> io::Result<usize> {
        let Memory {
            outgoing, joined, ..
        } = memory;
        let out = &mut outgoing[..];
        let pieces = join(pieces, joined);
        let front = self.outgoing.len() - self.sent;
        out[..front].copy_from_slice(&self.outgoing[self.sent..]);
        let sealed = self
            .session
            .seal(&mut self.incoming, pieces, &mut out[front..])
            .map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
        self.clear_outgoing();
        let out = &out[..front + sealed.written];
        let sent = match Pin::new(&mut self.socket).poll_write(cx, out) {
            Poll::Ready(result) => result?,
            Poll::Pending => 0,
        };
        self.outgoing.extend_from_slice(&out[sent..]);
        Ok(sealed.taken)
    }

    fn queue_notice(&mut self) {
        let mut notice = [0; 128];
        let length = self.session.close(&mut self.incoming, &mut notice);
        self.outgoing.extend_from_slice(&notice[..length]);
    }

    fn clear_outgoing(&mut self) {
        if !self.outgoing.is_empty() {
            (self.outgoing, self.sent) = (Vec::new(), 0);
        }
    }

    /// Sends what the socket takes at once.
    fn try_flush(&mut self) {
        while self.sent < self.outgoing.len() {
            match self.socket.try_write(&self.outgoing[self.sent..]) {
                Ok(count @ 1..) => self.sent += count,
                _ => return,
            }
        }
        self.clear_outgoing();
    }

    fn end_socket(&mut self) {
        self.silent = true;
        // It fails only when the connection is gone already.
        let _ = socket2::SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write);
    }

    /// Why the handshake failed. What did not speak TLS at all is left to whoever can answer it.
    fn refuse(&self, error: io::Error) -> Refusal {
        match (self.end, self.chosen()) {
            (End::Plain, _) => Refusal::PlainHttp,
            (_, Some(Chosen::Unknown)) => Refusal::UnknownName,
            _ => error.into(),
        }
    }
}

/// The same bytes cut elsewhere: a short first piece, such as a frame's head, goes into one record with what follows it.
fn join<'a>(pieces: [&'a [u8]; 2], joined: &'a mut [u8]) -> [&'a [u8]; 2] {
    let [first, second] = pieces;
    if first.is_empty() || second.is_empty() || first.len() >= joined.len() {
        return pieces;
    }
    let more = second.len().min(joined.len() - first.len());
    joined[..first.len()].copy_from_slice(first);
    joined[first.len()..first.len() + more].copy_from_slice(&second[..more]);
    [&joined[..first.len() + more], &second[more..]]
}

/// A close without a word would look like a cut to the other side.
impl Drop for TlsStream {
    fn drop(&mut self) {
        let is_able = !self.silent && !self.closing && self.outgoing.is_empty();
        if is_able && !self.state().is_handshaking() {
            self.queue_notice();
            self.try_flush();
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
