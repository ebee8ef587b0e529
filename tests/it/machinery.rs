//! The machinery held against itself: client and origin without a weir between them.

use crate::support::message::Fault;
use crate::support::origin::ok;
use crate::support::weir::{get, post};
use crate::support::{Client, Origin, until};

#[test]
fn client_and_origin_agree() {
    let origin = Origin::echo();
    let mut client = Client::connect(origin.address);
    let answer = client.ask(post("/a", "hello"));
    assert_eq!(answer.status(), 200);
    assert!(
        answer.text().ends_with("\r\n\r\nhello"),
        "{}",
        answer.text()
    );
    client.drip(post("/b", "again"));
    assert!(client.answer().text().starts_with("POST /b HTTP/1.1\r\n"));
    assert_eq!(origin.hits(), 2);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn chunks_and_trailers_are_read() {
    let origin = Origin::start(|visit| {
        visit.request().unwrap();
        visit.drip("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n");
    });
    let mut client = Client::connect(origin.address);
    let answer = client.ask(get("/"));
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.trailers, [("X-Sum".to_owned(), "7".to_owned())]);
    client.expect_close();
}

#[test]
fn faults_are_told_apart() {
    let origin = Origin::start(|visit| {
        let request = visit.request().unwrap();
        match request.target().as_str() {
            "/reset" => visit.reset(),
            "/short" => {
                visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
            }
            "/chunk" => {
                visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd");
            }
            "/half" => {
                visit.send("HTTP/1.1 200 OK\r\n");
            }
            _ => {}
        }
    });
    let fault = |target: &str| {
        let mut client = Client::connect(origin.address);
        client.send(get(target)).try_answer().unwrap_err()
    };
    assert_eq!(fault("/reset"), Fault::Reset);
    assert_eq!(fault("/short"), Fault::Truncated);
    assert_eq!(fault("/chunk"), Fault::Truncated);
    assert_eq!(fault("/half"), Fault::Truncated);
    assert_eq!(fault("/none"), Fault::Closed);
}

#[test]
fn an_origin_goes_and_comes_back() {
    let origin = Origin::answering(ok("first"));
    let address = origin.address;
    let mut client = Client::connect(address);
    assert_eq!(client.ask(get("/")).text(), "first");
    drop(origin);
    client.expect_end();
    assert!(Client::try_connect(address).is_err());
    let _second = Origin::at(address, |visit| {
        visit.request().unwrap();
        visit.send(ok("second"));
    });
    let text = until("the second origin", || {
        Client::try_connect(address)
            .ok()?
            .send(get("/"))
            .try_answer()
            .ok()
    });
    assert_eq!(text.text(), "second");
}
