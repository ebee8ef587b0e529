//! Backends that speak HTTP/2: `Backend` is a well-behaved one (the `h2` crate) that runs a script for every request, and `frame` reads
//! what came to an `Origin` whose script writes frames itself. Neither knows weir.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::task::{LocalSet, spawn_local};

use super::http2::{Frame, PREFACE};
use super::message::Fault;
use super::origin::Visit;

/// A listening server.
pub struct Backend {
    pub address: SocketAddr,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    at_once: AtomicUsize,
    bytes: AtomicUsize,
}

/// A request as the script sees it.
pub struct Asked {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    /// Ordinal of the request at this backend, from 0.
    pub number: usize,
    leave: Rc<Notify>,
    counts: Arc<Counts>,
}

impl Asked {
    /// Answers with this head and body.
    pub async fn answer(&mut self, answer: Response<()>, body: impl Into<Bytes>) {
        let body = body.into();
        let sent = self.respond.send_response(answer, body.is_empty());
        if let Ok(mut stream) = sent
            && !body.is_empty()
        {
            let _ = super::http2::push(&mut stream, body.to_vec()).await;
            let _ = stream.send_data(Bytes::new(), true);
        }
    }

    /// The head of a 200 whose body follows.
    pub fn begin(&mut self) -> SendStream<Bytes> {
        let answer = self.respond.send_response(Response::new(()), false);
        answer.expect("a head can be sent")
    }

    /// Says GOAWAY on its connection; what is under way goes on.
    pub fn leave(&self) {
        self.leave.notify_one();
    }

    /// Notes how much was moved, for [`Backend::bytes`].
    pub fn moved(&self, bytes: usize) {
        self.counts.bytes.fetch_add(bytes, Ordering::SeqCst);
    }
}

impl Backend {
    /// Runs `script` for every request.
    pub fn start<F: Future<Output = ()> + 'static>(
        script: impl Fn(Asked) -> F + Send + 'static,
    ) -> Backend {
        Backend::start_with(&server::Builder::new(), script)
    }

    /// The same with these settings.
    pub fn start_with<F: Future<Output = ()> + 'static>(
        builder: &server::Builder,
        script: impl Fn(Asked) -> F + Send + 'static,
    ) -> Backend {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let (builder, shared) = (builder.clone(), counts.clone());
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let script = Rc::new(script);
            LocalSet::new().block_on(&runtime, async move {
                let listener = TcpListener::from_std(listener).unwrap();
                spawn_local(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let task = serve(stream, builder.clone(), script.clone(), shared.clone());
                        spawn_local(task);
                    }
                });
                let _ = stopped.await;
            });
        });
        Backend {
            address,
            counts,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Answers every request with this body.
    pub fn named(name: &'static str) -> Backend {
        Backend::start(move |mut asked| async move {
            asked.answer(Response::new(()), name).await;
        })
    }

    /// Connections that were ever accepted.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Connections that have not ended.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Requests that came.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// The most requests that were under way on one connection.
    pub fn at_once(&self) -> usize {
        self.counts.at_once.load(Ordering::SeqCst)
    }

    /// What the scripts moved.
    pub fn bytes(&self) -> usize {
        self.counts.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    /// Stops listening and cuts every connection.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve<F: Future<Output = ()> + 'static>(
    stream: TcpStream,
    builder: server::Builder,
    script: Rc<impl Fn(Asked) -> F + 'static>,
    counts: Arc<Counts>,
) {
    counts.connections.fetch_add(1, Ordering::SeqCst);
    counts.open.fetch_add(1, Ordering::SeqCst);
    if let Ok(connection) = builder.handshake(stream).await {
        requests(connection, script, &counts).await;
    }
    counts.open.fetch_sub(1, Ordering::SeqCst);
}

async fn requests<F: Future<Output = ()> + 'static>(
    mut connection: Connection<TcpStream, Bytes>,
    script: Rc<impl Fn(Asked) -> F + 'static>,
    counts: &Arc<Counts>,
) {
    let leave = Rc::new(Notify::new());
    let under_way = Rc::new(());
    loop {
        let (request, respond) = tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok(accepted)) => accepted,
                _ => return,
            },
            () = leave.notified() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let number = counts.requests.fetch_add(1, Ordering::SeqCst);
        let asked = Asked {
            request,
            respond,
            number,
            leave: leave.clone(),
            counts: counts.clone(),
        };
        let (one, script) = (under_way.clone(), script.clone());
        (counts.at_once).fetch_max(Rc::strong_count(&under_way) - 1, Ordering::SeqCst);
        spawn_local(async move {
            script(asked).await;
            drop(one);
        });
    }
}

/// Passes some time in a script: that of a server that works.
pub async fn work(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The preface and the first settings of whoever connected.
pub fn preface(visit: &mut Visit) -> Result<(), Fault> {
    let preface = visit.reader.exactly(PREFACE.len())?;
    assert_eq!(preface, PREFACE);
    frame(visit).map(drop)
}

/// The next frame that came.
pub fn frame(visit: &mut Visit) -> Result<Frame, Fault> {
    let head = visit.reader.exactly(9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    Ok(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes(head[5..9].try_into().unwrap()),
        payload: visit.reader.exactly(length)?,
    })
}
