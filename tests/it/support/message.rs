//! HTTP/1 messages read from a socket, strictly: what a test sees is what was on the wire.
//! It never repairs anything; whatever is odd is a `Fault`.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A request or an answer as it came.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Everything up to and with the empty line.
    pub head: Vec<u8>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The body as it was on the wire, chunk lines and trailers and all.
    pub raw_body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
}

/// Why a message did not come, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other side closed before the first byte.
    Closed,
    /// The other side closed within the message.
    Truncated,
    /// The connection was reset.
    Reset,
    /// Nothing came in time.
    Timeout,
    /// The bytes are no HTTP/1 message.
    Malformed,
}

impl Message {
    /// The first line without its end.
    pub fn first_line(&self) -> String {
        let end = self.head.windows(2).position(|two| two == b"\r\n");
        latin1(&self.head[..end.unwrap_or(self.head.len())])
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.first_line()
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0)
    }

    pub fn method(&self) -> String {
        self.first_line().split(' ').next().unwrap_or("").to_owned()
    }

    pub fn target(&self) -> String {
        self.first_line().split(' ').nth(1).unwrap_or("").to_owned()
    }

    /// Names as they came, values trimmed.
    pub fn fields(&self) -> Vec<(String, String)> {
        fields(&self.head)
    }

    /// The values of a field, in order.
    pub fn values(&self, name: &str) -> Vec<String> {
        let fields = self.fields().into_iter();
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The value of a field that stands at most once.
    #[track_caller]
    pub fn value(&self, name: &str) -> Option<String> {
        let mut values = self.values(name);
        assert!(values.len() < 2, "{name} stands {} times", values.len());
        values.pop()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    pub fn text(&self) -> String {
        latin1(&self.body)
    }
}

pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn fields(head: &[u8]) -> Vec<(String, String)> {
    let text = latin1(head);
    text.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// How the end of an answer's body is known, beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Answer,
    /// An answer to HEAD.
    AnswerToHead,
}

/// A socket with what was read ahead.
#[derive(Debug)]
pub struct Reader {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
    pub patience: Duration,
    /// Everything that was ever read.
    pub seen: usize,
}

impl Reader {
    pub fn new(stream: TcpStream, patience: Duration) -> Reader {
        stream.set_nodelay(true).unwrap();
        Reader {
            stream,
            buffer: Vec::new(),
            patience,
            seen: 0,
        }
    }

    /// Reads more into the buffer; `Closed` at the end.
    pub fn fill(&mut self, end: Instant) -> Result<(), Fault> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Timeout);
        }
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Fault::Closed),
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                self.seen += length;
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(Fault::Timeout),
                ErrorKind::Interrupted => Ok(()),
                _ => Err(Fault::Reset),
            },
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }

    /// A head: everything up to and with the first empty line.
    pub fn head(&mut self) -> Result<Vec<u8>, Fault> {
        let end = Instant::now() + self.patience;
        let mut from = 0usize;
        loop {
            let searched = &self.buffer[from.saturating_sub(3)..];
            if let Some(at) = searched.windows(4).position(|four| four == b"\r\n\r\n") {
                let at = from.saturating_sub(3) + at;
                return Ok(self.take(at + 4));
            }
            from = self.buffer.len();
            self.fill(end).map_err(|fault| self.within(fault))?;
        }
    }

    fn within(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Closed if !self.buffer.is_empty() => Fault::Truncated,
            other => other,
        }
    }

    /// A whole message.
    pub fn message(&mut self, kind: Kind) -> Result<Message, Fault> {
        let head = self.head()?;
        let mut message = Message {
            head,
            ..Message::default()
        };
        self.body(kind, &mut message)?;
        Ok(message)
    }

    /// The body that belongs to the head of `message`.
    pub fn body(&mut self, kind: Kind, message: &mut Message) -> Result<(), Fault> {
        let status = message.status();
        let bodiless = kind == Kind::AnswerToHead
            || (kind == Kind::Answer && (status < 200 || status == 204 || status == 304));
        if bodiless {
            return Ok(());
        }
        if let Some(coding) = message.values("transfer-encoding").pop() {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(Fault::Malformed);
            }
            return self.chunks(message);
        }
        if let Some(length) = message.values("content-length").pop() {
            let length = length.parse().map_err(|_| Fault::Malformed)?;
            message.body = self.exactly(length)?;
            message.raw_body = message.body.clone();
        } else if kind == Kind::Answer {
            message.body = self.until_closed()?;
            message.raw_body = message.body.clone();
        }
        Ok(())
    }

    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        let end = Instant::now() + self.patience;
        while self.buffer.len() < length {
            self.fill(end).map_err(|fault| match fault {
                Fault::Closed => Fault::Truncated,
                other => other,
            })?;
        }
        Ok(self.take(length))
    }

    pub fn until_closed(&mut self) -> Result<Vec<u8>, Fault> {
        let end = Instant::now() + self.patience;
        loop {
            match self.fill(end) {
                Ok(()) => {}
                Err(Fault::Closed) => return Ok(std::mem::take(&mut self.buffer)),
                Err(fault) => return Err(fault),
            }
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, Fault> {
        let end = Instant::now() + self.patience;
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                return Ok(self.take(at + 2));
            }
            self.fill(end).map_err(|fault| match fault {
                Fault::Closed => Fault::Truncated,
                other => other,
            })?;
        }
    }

    fn chunks(&mut self, message: &mut Message) -> Result<(), Fault> {
        loop {
            let line = self.line()?;
            message.raw_body.extend_from_slice(&line);
            let text = latin1(&line);
            let digits = text.trim_end().split(';').next().unwrap_or("");
            let length = usize::from_str_radix(digits, 16).map_err(|_| Fault::Malformed)?;
            if length == 0 {
                break;
            }
            let data = self.exactly(length + 2)?;
            message.raw_body.extend_from_slice(&data);
            if &data[length..] != b"\r\n" {
                return Err(Fault::Malformed);
            }
            message.body.extend_from_slice(&data[..length]);
        }
        let mut section = b"\r\n".to_vec();
        loop {
            let line = self.line()?;
            message.raw_body.extend_from_slice(&line);
            if line == b"\r\n" {
                message.trailers = fields(&section);
                return Ok(());
            }
            section.extend_from_slice(&line);
        }
    }
}
