//! A client that sends exactly the bytes it is told to and reads with a deadline.
//! It never adds a field, retries or follows.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::message::{Fault, Kind, Message, Reader};
use super::{DEADLINE, shown};

/// One connection.
#[derive(Debug)]
pub struct Client {
    pub reader: Reader,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        match Client::try_connect(address) {
            Ok(client) => client,
            Err(error) => panic!("connecting to {address}: {error}"),
        }
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Client {
            reader: Reader::new(stream, DEADLINE),
        })
    }

    /// A connection that was made elsewhere.
    pub fn of(stream: TcpStream) -> Client {
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Client {
            reader: Reader::new(stream, DEADLINE),
        }
    }

    /// Waits this long for what is read, instead of the usual time.
    pub fn patient(mut self, patience: Duration) -> Client {
        self.reader.patience = patience;
        self
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        if let Err(error) = self.try_send(bytes.as_ref()) {
            panic!("sending {}: {error}", shown(bytes.as_ref()));
        }
        self
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.stream.write_all(bytes)
    }

    /// Sends byte after byte, each in a segment of its own.
    #[track_caller]
    pub fn drip(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            std::thread::yield_now();
        }
        self
    }

    /// The next answer, interim ones too.
    #[track_caller]
    pub fn answer(&mut self) -> Message {
        self.must(Kind::Answer)
    }

    #[track_caller]
    pub fn answer_to_head(&mut self) -> Message {
        self.must(Kind::AnswerToHead)
    }

    #[track_caller]
    fn must(&mut self, kind: Kind) -> Message {
        match self.reader.message(kind) {
            Ok(message) => message,
            Err(fault) => panic!("no answer: {fault:?}, after {}", shown(&self.reader.buffer)),
        }
    }

    pub fn try_answer(&mut self) -> Result<Message, Fault> {
        self.reader.message(Kind::Answer)
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request).answer()
    }

    /// Only the head of the next answer.
    #[track_caller]
    pub fn answer_head(&mut self) -> Message {
        let head = self.reader.head().expect("the head of an answer");
        Message {
            head,
            ..Message::default()
        }
    }

    /// Expects the end of the connection, with no byte before it; a reset counts.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let end = Instant::now() + self.reader.patience;
        let fault = self.reader.fill(end);
        let left = shown(&self.reader.buffer);
        assert!(
            matches!(fault, Err(Fault::Closed | Fault::Reset)) && left.is_empty(),
            "no end of the connection: {fault:?}, {left}"
        );
    }

    /// Expects an orderly end: FIN, not RST, and no byte before it.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let end = Instant::now() + self.reader.patience;
        let fault = self.reader.fill(end);
        let left = shown(&self.reader.buffer);
        assert!(
            fault == Err(Fault::Closed) && left.is_empty(),
            "no orderly end of the connection: {fault:?}, {left}"
        );
    }

    /// Everything until the connection ends, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, Fault) {
        let end = Instant::now() + self.reader.patience;
        loop {
            if let Err(fault) = self.reader.fill(end) {
                return (std::mem::take(&mut self.reader.buffer), fault);
            }
        }
    }

    /// Whether nothing at all comes for this long.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        self.reader.buffer.is_empty()
            && self.reader.fill(Instant::now() + time) == Err(Fault::Timeout)
    }

    /// Closes the sending half.
    pub fn finish(&mut self) -> &mut Client {
        self.reader.stream.shutdown(Shutdown::Write).unwrap();
        self
    }
}
