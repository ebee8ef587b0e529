//! Drives rustls without buffers of its own: records in, application data and records out.
//! It touches no socket. Whatever it is given is dealt with to the last complete record before it returns.
//! The walk goes back to `stream.rs`.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, Error};

use super::memory::BATCH;

/// Either side of a connection.
pub(super) enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What came of a piece of records.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Bytes at the front that are of no more use; what follows must be given again, with more behind it.
    pub(super) used: usize,
    /// Whether the other side said that it sends no more.
    pub(super) ended: bool,
    /// Why the connection is of no more use. What the other side is to be told of it is among the records out.
    pub(super) failure: Option<Error>,
}

/// What came of application data.
pub(super) struct Sealed {
    /// Bytes of it that were sealed.
    pub(super) taken: usize,
    /// Bytes of records that were written.
    pub(super) written: usize,
}

impl Session {
    /// What is known of the connection.
    pub(super) fn state(&self) -> &CommonState {
        match self {
            Session::Server(connection) => connection,
            Session::Client(connection) => connection,
        }
    }

    /// Deals with every complete record of `incoming`: application data goes to `deliver`, records that must be sent go to `out`.
    pub(super) fn open(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        deliver: impl FnMut(&[u8]),
    ) -> Opened {
        match self {
            Session::Server(connection) => open(connection, incoming, out, deliver),
            Session::Client(connection) => open(connection, incoming, out, deliver),
        }
    }

    /// Seals as much of `pieces` as a batch holds, at the front of `out`. `incoming` is what [`Session::open`] left.
    ///
    /// # Errors
    /// When the connection does not take application data, or its keys are used up.
    pub(super) fn seal(
        &mut self,
        incoming: &mut [u8],
        pieces: [&[u8]; 2],
        out: &mut [u8],
    ) -> Result<Sealed, Error> {
        match self {
            Session::Server(connection) => seal(connection, incoming, pieces, out),
            Session::Client(connection) => seal(connection, incoming, pieces, out),
        }
    }

    /// Writes the end of what is sent (close_notify) to the front of `out`; 0 when there is nothing to say.
    pub(super) fn close(&mut self, incoming: &mut [u8], out: &mut [u8]) -> usize {
        match self {
            Session::Server(connection) => close(connection, incoming, out),
            Session::Client(connection) => close(connection, incoming, out),
        }
    }
}

/// What both sides have in common.
trait Connection {
    type Data;

    fn state(&self) -> &CommonState;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn state(&self) -> &CommonState {
        self
    }

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn state(&self) -> &CommonState {
        self
    }

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

fn open<C: Connection>(
    connection: &mut C,
    incoming: &mut [u8],
    out: &mut Vec<u8>,
    mut deliver: impl FnMut(&[u8]),
) -> Opened {
    let mut opened = Opened::default();
    loop {
        let status = connection.process(&mut incoming[opened.used..]);
        let mut discard = status.discard;
        let waits = match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    discard += record.discard;
                    deliver(record.payload);
                }
                false
            }
            Ok(ConnectionState::EncodeTlsData(encoding)) => {
                encode(encoding, out);
                false
            }
            Ok(ConnectionState::TransmitTlsData(sending)) => {
                sending.done();
                false
            }
            Ok(ConnectionState::PeerClosed) => {
                opened.ended = true;
                false
            }
            Ok(_) => true,
            Err(error) => {
                opened.failure = Some(error);
                false
            }
        };
        opened.used += discard;
        // After a failure nothing more is read, but there may be an alert to send.
        if waits || opened.failure.is_some() && !connection.state().wants_write() {
            return opened;
        }
    }
}

fn encode<D>(mut encoding: EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let end = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        encoding.encode(&mut [])
    {
        out.resize(end + required_size, 0);
        // It cannot be too small now.
        let _ = encoding.encode(&mut out[end..]);
    }
}

fn seal<C: Connection>(
    connection: &mut C,
    incoming: &mut [u8],
    pieces: [&[u8]; 2],
    out: &mut [u8],
) -> Result<Sealed, Error> {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = connection.process(incoming).state else {
        return Err(Error::HandshakeNotComplete);
    };
    let mut sealed = Sealed {
        taken: 0,
        written: 0,
    };
    for piece in pieces {
        let piece = &piece[..piece.len().min(BATCH - sealed.taken)];
        if !piece.is_empty() {
            sealed.written += traffic
                .encrypt(piece, &mut out[sealed.written..])
                .map_err(|_| Error::EncryptError)?;
            sealed.taken += piece.len();
        }
    }
    Ok(sealed)
}

fn close<C: Connection>(connection: &mut C, incoming: &mut [u8], out: &mut [u8]) -> usize {
    match connection.process(incoming).state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.queue_close_notify(out).unwrap_or_default()
        }
        _ => 0,
    }
}
