//! Bytes toward one stream of an HTTP/2 connection, whichever end it is of: as many as the other end has room for, and no more.
//! It never queues what there is no room for, so that back-pressure reaches whoever sends.
//! The walk goes on in `l7/http2/stream.rs` and `upstream/http2.rs`.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::SendStream;

/// Writes `first` and then `second`, as far as the other end has room for them. Both must not be empty.
///
/// # Errors
/// The stream or its connection is gone.
pub fn write(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    first: &[u8],
    second: &[u8],
) -> Poll<io::Result<usize>> {
    let wanted = first.len() + second.len();
    stream.reserve_capacity(wanted);
    let mut room = stream.capacity();
    while room == 0 {
        room = match ready!(stream.poll_capacity(cx)) {
            Some(room) => room.map_err(error)?,
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
    }
    let count = room.min(wanted);
    let from_first = count.min(first.len());
    let mut data = BytesMut::with_capacity(count);
    data.extend_from_slice(&first[..from_first]);
    data.extend_from_slice(&second[..count - from_first]);
    stream.send_data(data.freeze(), false).map_err(error)?;
    Poll::Ready(Ok(count))
}

/// The codec's errors as those of a socket: whatever it is, the other end is gone.
pub fn error(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        false => io::ErrorKind::ConnectionReset.into(),
    }
}
