//! A client connection as a thing: its socket, its deadline, who accepted it, and what comes after a request on it.
//! It does nothing by itself.
//! The walk goes on in `connection.rs`, which serves it.

use std::net::SocketAddr;
use std::rc::Rc;

use super::side::Side;
use crate::net::introduction::Introduction;
use crate::net::timer::Timer;
use crate::net::tls::handshake::Handshake;
use crate::policy::persist::{Remembered, Told};
use crate::upstream::local::{ListenerView, Local};

/// A client connection.
#[derive(Debug)]
pub struct Client {
    /// Its socket, or its stream of one.
    pub stream: Side,
    /// Its one deadline.
    pub timer: Timer,
    /// What its worker owns.
    pub local: Rc<Local>,
    /// The listener that accepted it.
    pub view: Rc<ListenerView>,
    /// Its other end, or the client that a trusted proxy there speaks for.
    pub remote: SocketAddr,
    /// What that proxy said of it.
    pub introduction: Option<Rc<Introduction>>,
    /// What its handshake came to, once there was one.
    pub tls: Option<Rc<Handshake>>,
    /// Bytes that arrived before their turn.
    pub early: Vec<u8>,
    /// Requests so far.
    pub requests: u32,
    /// The sticky token that was checked last.
    pub remembered: Option<Remembered>,
    /// What it was told last, for what had arrived by then.
    pub told: Option<Told>,
}

/// Where a client connection comes from: what the streams of one have in common.
#[derive(Clone, Debug)]
pub struct Origin {
    /// What its worker owns.
    pub local: Rc<Local>,
    /// The listener that accepted it.
    pub view: Rc<ListenerView>,
    /// Its other end, or the client that a trusted proxy there speaks for.
    pub remote: SocketAddr,
    /// What that proxy said of it; of an HTTP/2 connection its ends in any case.
    pub introduction: Option<Rc<Introduction>>,
    /// What its handshake came to, where TLS is spoken.
    pub tls: Option<Rc<Handshake>>,
}

/// What comes after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another request.
    Request,
    /// The end: everything was said, or nobody is there any more.
    Close,
    /// The end, while the client may still be sending.
    Linger,
    /// The end, in the middle of an answer that the client must not take for complete.
    Abort,
}

impl Client {
    /// A connection that was just accepted, or a stream of one.
    pub fn new(stream: Side, origin: Origin) -> Self {
        let Origin {
            local,
            view,
            remote,
            introduction,
            tls,
        } = origin;
        let timer = local.wheel.timer();
        Client {
            stream,
            timer,
            local,
            view,
            remote,
            introduction,
            tls,
            early: Vec::new(),
            requests: 0,
            remembered: None,
            told: None,
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        Origin {
            local: self.local.clone(),
            view: self.view.clone(),
            remote: self.remote,
            introduction: self.introduction.clone(),
            tls: self.tls.clone(),
        }
    }
}
