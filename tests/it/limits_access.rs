//! Who may come in: lists of networks, and connections by address.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::support::weir::{get, plain};
use crate::support::{Client, Origin, Weir, until};

/// One listener with these keys.
fn guarded(origin: &Origin, keys: &str) -> String {
    plain(&[origin], "").replace("bind = [\"$web\"]", &format!("bind = [\"$web\"]\n{keys}"))
}

/// A connection from this loopback address.
fn from(source: &str, to: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Client::of(socket.into())
}

#[test]
fn who_is_denied_is_closed_at_once() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&guarded(
        &origin,
        "deny = [\"127.0.0.2\", \"127.1.0.0/16\"]",
    ));
    let web = weir.address("web");
    assert_eq!(from("127.0.0.1", web).ask(get("/")).text(), "fine");
    assert_eq!(from("127.2.0.1", web).ask(get("/")).text(), "fine");
    for source in ["127.0.0.2", "127.1.2.3"] {
        from(source, web).expect_end();
    }
    let labels = [("listener", "web"), ("limit", "access")];
    weir.settles("weir_limited_total", &labels, 2.0);
    let log = until("a line of the log", || {
        Some(weir.stderr()).filter(|log| log.contains("may not connect"))
    });
    assert_eq!(log.matches("may not connect").count(), 1, "{log}");
    assert_eq!(origin.hits(), 2);
}

#[test]
fn where_somebody_is_allowed_nobody_else_is() {
    let origin = Origin::named("fine");
    let keys = "allow = [\"127.0.0.0/24\"]\ndeny = [\"127.0.0.9\"]";
    let weir = Weir::start(&guarded(&origin, keys));
    let web = weir.address("web");
    assert_eq!(from("127.0.0.7", web).ask(get("/")).text(), "fine");
    from("127.0.0.9", web).expect_end();
    from("127.0.1.1", web).expect_end();
}

#[test]
fn behind_a_trusted_proxy_the_client_is_judged() {
    let origin = Origin::named("fine");
    let config = guarded(&origin, "allow = [\"192.0.2.0/24\"]");
    let weir = Weir::start(&format!("trusted_proxies = [\"127.0.0.1\"]\n{config}"));
    let ask = |client: &str| {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-Forwarded-For: {client}\r\n\r\n"
        );
        weir.client().ask(request).status()
    };
    assert_eq!(ask("192.0.2.1"), 200);
    assert_eq!(ask("198.51.100.1"), 403);
    assert_eq!(
        ask("192.0.2.1, 198.51.100.1"),
        403,
        "only the last is believed"
    );
    assert_eq!(
        weir.get("/").status(),
        403,
        "the proxy itself is not allowed"
    );
    from("127.0.0.2", weir.address("web")).expect_end();
    weir.settles("weir_http_refused_total", &[("reason", "denied")], 3.0);
}

#[test]
fn a_reload_turns_away_who_is_connected() {
    let origin = Origin::named("fine");
    let config = guarded(&origin, "");
    let weir = Weir::start(&config);
    let mut client = from("127.0.0.2", weir.address("web"));
    assert_eq!(client.ask(get("/")).text(), "fine");
    let generation = weir.generation();
    weir.write(&guarded(&origin, "deny = [\"127.0.0.2\"]"));
    weir.await_generation_after(generation);
    assert_eq!(client.ask(get("/")).status(), 403);
}

#[test]
fn an_address_has_as_many_connections_as_it_may_over_all_workers() {
    let origin = Origin::named("fine");
    let config = guarded(&origin, "max_connections_per_source = 5");
    let weir = Weir::start(&format!("workers = 3\n{config}"));
    let web = weir.address("web");
    let mut open: Vec<Client> = (0..5).map(|_| from("127.0.0.2", web)).collect();
    for client in &mut open {
        assert_eq!(client.ask(get("/")).text(), "fine");
    }
    for _ in 0..10 {
        from("127.0.0.2", web).expect_end();
    }
    assert_eq!(from("127.0.0.3", web).ask(get("/")).text(), "fine");
    let labels = [("listener", "web"), ("limit", "connections")];
    weir.settles("weir_limited_total", &labels, 10.0);

    let generation = weir.generation();
    weir.write(&format!("workers = 3\n{}", config.replace("= 5", "= 6")));
    weir.await_generation_after(generation);
    let mut sixth = from("127.0.0.2", web);
    assert_eq!(
        sixth.ask(get("/")).text(),
        "fine",
        "the count outlives a reload"
    );
    from("127.0.0.2", web).expect_end();

    open.clear();
    drop(sixth);
    weir.settles("weir_listener_connections", &[("listener", "web")], 0.0);
    let again: Vec<Client> = (0..6).map(|_| from("127.0.0.2", web)).collect();
    for mut client in again {
        assert_eq!(client.ask(get("/")).text(), "fine", "nothing leaked");
    }
}

#[test]
fn connections_of_a_trusted_proxy_are_not_counted() {
    let origin = Origin::named("fine");
    let config = guarded(&origin, "max_connections_per_source = 1");
    let weir = Weir::start(&format!("trusted_proxies = [\"127.0.0.1\"]\n{config}"));
    let mut clients: Vec<Client> = (0..3).map(|_| weir.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(get("/")).text(), "fine");
    }
    until("nothing to be refused", || {
        let labels = [("limit", "connections")];
        (weir.metric("weir_limited_total", &labels) == 0.0).then_some(())
    });
}
