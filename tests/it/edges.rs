//! What happens only when things coincide: a listener that closes on a full queue, a backend that pauses, bytes that come too early.

use crate::support::weir::{get, plain};
use crate::support::{Client, Origin, Weir};

#[test]
fn whoever_is_queued_when_a_listener_closes_is_served() {
    let origin = Origin::named("fine");
    let limited = "[listeners.web]\nmax_connections = 1\n";
    let weir = Weir::start(&plain(&[&origin], "").replace("[listeners.web]\n", limited));
    let mut first = weir.client();
    assert_eq!(first.ask(get("/")).text(), "fine");
    // More than a task of the runtime accepts in one go.
    let mut queued: Vec<Client> = (0..300).map(|_| weir.client()).collect();
    for client in &mut queued {
        client.send(get("/"));
    }
    weir.signal(libc::SIGTERM);
    for (number, client) in queued.iter_mut().enumerate() {
        let answer = client.try_answer();
        let text = answer.map(|answer| answer.text());
        assert_eq!(text.as_deref(), Ok("fine"), "client {number}");
    }
    assert!(weir.await_exit().success());
}
