//! How many requests and connections a backend of HTTP/2 gets while it does not say, or says little, and what of its heads goes no further.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use h2::server;
use http::Response;

use super::{answer_frames, before, config};
use crate::support::backend::{self, work};
use crate::support::http2::{END_HEADERS, END_STREAM, HEADERS, block, frame, settings};
use crate::support::message::Fault;
use crate::support::weir::get;
use crate::support::{Backend, Client, Origin, Weir, until};

/// Requests at once, each on a connection of its own.
fn asked(weir: &Weir, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    clients
}

/// A burst would be refused by a backend that takes few at once, so that the first request goes alone.
#[test]
fn one_request_is_sent_until_the_backend_said_how_many_it_takes() {
    let origin = Origin::start(|visit| {
        if backend::preface(visit).is_err() {
            return;
        }
        let mut streams = Vec::new();
        let patience = std::mem::replace(&mut visit.reader.patience, Duration::from_millis(300));
        let quiet = loop {
            match backend::frame(visit) {
                Ok(frame) if frame.kind == HEADERS => streams.push(frame.stream),
                Ok(_) => {}
                Err(fault) => break fault,
            }
        };
        assert_eq!((quiet, streams.len()), (Fault::Timeout, 1));
        visit.record_end();
        visit.reader.patience = patience;
        visit.send(settings(&[(3, 100)]));
        while streams.len() < 5
            && let Ok(frame) = backend::frame(visit)
        {
            streams.extend((frame.kind == HEADERS).then_some(frame.stream));
        }
        for stream in streams {
            visit.send(answer_frames(stream, "all"));
        }
        visit.stall();
    });
    let weir = Weir::start(&config(&[origin.address], ""));
    for mut client in asked(&weir, 5) {
        assert_eq!(client.answer().text(), "all");
    }
    assert_eq!((origin.connections(), origin.hits()), (1, 1));
}

/// However many requests wait, a backend that takes one on each connection has 64 of these from a worker.
#[test]
fn a_worker_opens_so_many_connections_and_no_more() {
    let go = Arc::new(AtomicBool::new(false));
    let may = go.clone();
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(1);
    let backend = Backend::start_with(&builder, move |mut asked| {
        let may = may.clone();
        async move {
            while !may.load(Ordering::SeqCst) {
                work(Duration::from_millis(5)).await;
            }
            asked.answer(Response::new(()), "done").await;
        }
    });
    let weir = before(&[&backend]);
    let mut clients = asked(&weir, 90);
    until("every connection to be busy", || {
        (backend.requests() >= 64).then_some(())
    });
    assert!(clients[89].is_silent(Duration::from_millis(300)));
    assert_eq!((backend.requests(), backend.connections()), (64, 64));
    go.store(true, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(client.answer().text(), "done");
    }
    assert_eq!((backend.at_once(), backend.connections()), (1, 64));
}

/// What belongs to one connection has no place in an answer of HTTP/2 (RFC 9113 section 8.2.2), least of all another framing.
#[test]
fn an_answer_with_fields_of_a_connection_is_a_bad_one() {
    let origin = super::raw(|visit, stream| {
        let fields = [(":status", "200"), ("transfer-encoding", "chunked")];
        let flags = END_HEADERS | END_STREAM;
        visit.send(frame(HEADERS, flags, stream, block(&fields)))
    });
    let weir = Weir::start(&config(&[origin.address], ""));
    assert_eq!(weir.get("/").status(), 502);
}
