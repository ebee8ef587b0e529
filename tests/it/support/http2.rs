//! Two clients for HTTP/2 by prior knowledge: `Multiplexer` is a well-behaved one (the `h2` crate), `Wire` sends any frame and reads what comes.
//! Neither knows weir. The connection of a `Multiplexer` is driven by a thread of its own, so that a test may block where it likes.

use std::future::Future;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::runtime::{Builder, Runtime};

use super::DEADLINE;
use super::message::{Fault, Reader};

/// A connection that carries many requests.
pub struct Multiplexer {
    pub requests: SendRequest<Bytes>,
    runtime: Runtime,
    ended: Receiver<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub head: Response<()>,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.head.headers().get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} stands more than once");
        value
    }
}

impl Multiplexer {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Multiplexer {
        Multiplexer::connect_with(address, &client::Builder::new())
    }

    #[track_caller]
    pub fn connect_with(address: SocketAddr, builder: &client::Builder) -> Multiplexer {
        let (tell, ended) = channel();
        let (give, taken) = channel();
        let builder = builder.clone();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let socket = tokio::net::TcpStream::connect(address).await.unwrap();
                socket.set_nodelay(true).unwrap();
                let (requests, connection) = builder.handshake(socket).await.unwrap();
                give.send(requests).unwrap();
                let _ = tell.send(connection.await);
            });
        });
        Multiplexer {
            requests: taken.recv_timeout(DEADLINE).expect("a connection"),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            ended,
        }
    }

    /// Waits for anything, within the usual time.
    #[track_caller]
    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        let result = (self.runtime).block_on(async { tokio::time::timeout(DEADLINE, what).await });
        result.expect("it came in time")
    }

    /// Sends a head, as soon as the other side allows another stream.
    #[track_caller]
    pub fn begin(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let ready = self.wait(self.requests.clone().ready());
        self.requests = ready.expect("room for a stream");
        (self.requests.send_request(request, ends)).expect("a request that may be sent")
    }

    /// Sends a request with a body, and reads its whole answer.
    pub fn try_send(&mut self, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
        let (answer, stream) = self.begin(request, body.is_empty());
        if body.is_empty() {
            return self.wait(read(answer));
        }
        let sending = send(stream, body.to_vec());
        self.wait(async {
            let (_, answer) = tokio::join!(sending, read(answer));
            answer
        })
    }

    #[track_caller]
    pub fn send(&mut self, request: Request<()>, body: &[u8]) -> Answer {
        match self.try_send(request, body) {
            Ok(answer) => answer,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(get(target), b"")
    }

    /// How the connection ended.
    #[track_caller]
    pub fn end(&self) -> Result<(), h2::Error> {
        self.ended
            .recv_timeout(DEADLINE)
            .expect("an end of the connection")
    }

    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        self.ended.try_recv().is_err()
    }
}

/// Reads a whole answer, and gives room for what was read.
pub async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, body) = answer.await?.into_parts();
    let (body, trailers) = read_body(body).await?;
    let head = Response::from_parts(head, ());
    Ok(Answer {
        head,
        body,
        trailers,
    })
}

pub async fn read_body(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        whole.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((whole, trailers))
}

/// Sends a body to its end, as the other side gives room.
pub async fn send(mut stream: SendStream<Bytes>, body: Vec<u8>) -> Result<(), h2::Error> {
    push(&mut stream, body).await?;
    stream.send_data(Bytes::new(), true)
}

/// Sends bytes as the other side gives room.
pub async fn push(stream: &mut SendStream<Bytes>, bytes: Vec<u8>) -> Result<(), h2::Error> {
    let mut left = Bytes::from(bytes);
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.ok_or(Reason::STREAM_CLOSED)??;
        stream.send_data(left.split_to(room.min(left.len())), false)?;
    }
    Ok(())
}

pub fn request(method: &str, target: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://shop.example.com{target}"))
}

pub fn get(target: &str) -> Request<()> {
    request("GET", target).body(()).unwrap()
}

pub fn post(target: &str) -> Request<()> {
    request("POST", target).body(()).unwrap()
}

/// The extended CONNECT that opens a WebSocket (RFC 8441 section 5).
pub fn websocket(target: &str) -> Request<()> {
    request("CONNECT", target)
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(())
        .unwrap()
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame as it goes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub fn rst(stream: u32, code: Reason) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, u32::from(code).to_be_bytes())
}

pub fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, more.to_be_bytes())
}

pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let pairs = values.iter();
    let payload: Vec<u8> = pairs
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, payload)
}

/// Fields as HPACK literals without indexing or Huffman coding (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            put_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
pub fn put_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut left = length - 127;
    while left >= 128 {
        block.push((left % 128) as u8 | 128);
        left /= 128;
    }
    block.push(left as u8);
}

/// The pseudo-fields of a request, and more.
pub fn head(method: &str, target: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "shop.example.com"),
        (":path", target),
    ];
    block(&[&fields[..], more].concat())
}

/// A GET in one frame.
pub fn get_frame(stream: u32) -> Vec<u8> {
    let flags = END_HEADERS | END_STREAM;
    frame(HEADERS, flags, stream, head("GET", "/", &[]))
}

/// The head of a POST whose body follows.
pub fn post_frame(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, head("POST", "/", more))
}

/// A connection that sends what it is told to.
#[derive(Debug)]
pub struct Wire {
    pub reader: Reader,
}

impl Wire {
    /// Connects and sends nothing.
    #[track_caller]
    pub fn silent(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("a connection");
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Wire {
            reader: Reader::new(stream, DEADLINE),
        }
    }

    /// Connects, with preface and settings.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Wire {
        Wire::connect_with(address, &[])
    }

    #[track_caller]
    pub fn connect_with(address: SocketAddr, values: &[(u16, u32)]) -> Wire {
        let mut wire = Wire::silent(address);
        wire.send([PREFACE, &settings(values), &frame(SETTINGS, ACK, 0, b"")].concat());
        wire
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Wire {
        self.try_send(bytes).expect("bytes can be sent");
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())
    }

    /// The next frame.
    pub fn frame(&mut self) -> Result<Frame, Fault> {
        let head = self.fill(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let whole = self.fill(9 + length)?;
        self.reader.buffer.drain(..9 + length);
        Ok(Frame {
            kind: whole[3],
            flags: whole[4],
            stream: u32::from_be_bytes(whole[5..9].try_into().unwrap()),
            payload: whole[9..].to_vec(),
        })
    }

    fn fill(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        let end = Instant::now() + self.reader.patience;
        while self.reader.buffer.len() < length {
            self.reader.fill(end)?;
        }
        Ok(self.reader.buffer[..length].to_vec())
    }

    /// The next frame of this kind; others are passed over.
    #[track_caller]
    pub fn await_frame(&mut self, kind: u8) -> Frame {
        let mut goaway = None;
        loop {
            match self.frame() {
                Ok(frame) if frame.kind == kind => return frame,
                Ok(frame) if frame.kind == GOAWAY => goaway = Some(code_of(&frame)),
                Ok(_) => {}
                Err(fault) => panic!("no frame of kind {kind}: {fault:?}, {goaway:?}"),
            }
        }
    }

    /// The next frame of this kind on a stream.
    #[track_caller]
    pub fn await_on(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.await_frame(kind);
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// Expects the end of the connection: an orderly one, with this code in a GOAWAY before it. The frames that came before.
    #[track_caller]
    pub fn expect_goaway(&mut self, code: Reason) -> Vec<Frame> {
        let mut seen = Vec::new();
        let mut last = None;
        let fault = loop {
            match self.frame() {
                Ok(frame) if frame.kind == GOAWAY => last = Some(frame),
                Ok(frame) => seen.push(frame),
                Err(fault) => break fault,
            }
        };
        let told = last.map(|frame| code_of(&frame));
        assert_eq!(told, Some(code), "then {fault:?}");
        assert_eq!(fault, Fault::Closed, "not orderly");
        seen
    }

    /// Expects that the stream is reset with this code.
    #[track_caller]
    pub fn expect_reset(&mut self, stream: u32, code: Reason) {
        let reset = self.await_on(RST_STREAM, stream);
        assert_eq!(code_of(&reset), code);
    }

    /// Whether the connection still answers.
    #[track_caller]
    pub fn expect_pong(&mut self) {
        self.send(frame(PING, 0, 0, b"are you?"));
        assert_eq!(self.await_frame(PING).payload, b"are you?");
    }

    /// Waits this long for what is read.
    pub fn patient(mut self, patience: Duration) -> Wire {
        self.reader.patience = patience;
        self
    }
}

/// The code of a GOAWAY or an RST_STREAM.
pub fn code_of(frame: &Frame) -> Reason {
    let at = if frame.kind == GOAWAY { 4 } else { 0 };
    let code = frame.payload[at..at + 4].try_into().unwrap();
    u32::from_be_bytes(code).into()
}
